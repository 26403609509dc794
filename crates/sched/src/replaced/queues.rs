//! Whether the queues have to be rebuilt: emptied by the old code and filled again by the new one.
//!
//! Rebuilding runs the runtime's own functions and a few methods of the scheduling classes. If none of the functions that
//! these reach is replaced, the code that empties the queues is the code that fills them, and all is as it was. What is
//! replaced elsewhere finds the queues as that code keeps them.

use super::Member;
use crate::boundary::Boundary;
use object::elf;
use schedswap_kernel::objects::{Object, Place, Relocation, Section, SectionId, Symbol};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// The methods of a class that the runtime calls.
const METHODS: [&str; 5] = ["enqueue_task", "dequeue_task", "pick_task", "rq_online", "rq_offline"];
/// How the sections begin in which an author declares hooks and state.
const AUTHORS: &str = ".schedswap.";

/// Why the queues are rebuilt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rebuild {
    /// The configuration asks for it.
    Asked,
    /// Everything that can be replaced is.
    All,
    /// A replaced function runs while a queue is emptied or filled.
    Runs(String),
    /// A scheduling class has other methods.
    Classes,
    /// The author's hooks run while no thread is queued, and state is made for threads as they are queued.
    Author,
}

impl fmt::Display for Rebuild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rebuild::Asked => f.write_str("the configuration asks for it (rebuild: always)"),
            Rebuild::All => f.write_str("everything that can be replaced is"),
            Rebuild::Runs(function) => {
                write!(f, "{function} is replaced, which runs when threads are queued or taken off a queue")
            }
            Rebuild::Classes => f.write_str("a scheduling class has other methods"),
            Rebuild::Author => f.write_str("the scheduler declares hooks or state"),
        }
    }
}

/// What is asked.
pub(super) struct Question<'a> {
    pub boundary: &'a Boundary,
    /// The module builds of the pristine and of the edited source.
    pub builds: [&'a [(String, Object)]; 2],
    /// Offsets of the members of `struct sched_class`.
    pub methods: &'a BTreeMap<String, u64>,
    /// The compiled runtime.
    pub runtime: &'a Object,
    pub members: &'a [Member],
    pub classes_differ: bool,
}

impl Question<'_> {
    /// `None`: nothing that is replaced runs while queues are rebuilt.
    pub fn answer(&self) -> Option<Rebuild> {
        if self.classes_differ {
            return Some(Rebuild::Classes);
        }
        let [_, edited] = self.builds;
        let mut sections = edited.iter().flat_map(|(_, object)| &object.sections);
        if sections.any(|section| section.name.starts_with(AUTHORS)) {
            return Some(Rebuild::Author);
        }
        let reached =
            self.builds.map(|units| Build::new(units, self.boundary).reached(self.methods, self.runtime));
        let runs = |m: &&Member| reached.iter().any(|all| all.contains(&(m.unit.as_str(), m.name.as_str())));
        self.members.iter().find(runs).map(|member| Rebuild::Runs(member.name.clone()))
    }
}

/// One section of one unit. A function or variable has a section of its own; those that the source puts into one
/// section count as one, because the assembler resolves what is between them.
type Node = (usize, SectionId);

struct Build<'a> {
    units: &'a [(String, Object)],
    /// Global symbol → where it is.
    globals: HashMap<&'a str, Node>,
    /// The scheduling classes, each with its place in its section. Whoever refers to a class calls no method yet.
    classes: HashMap<Node, u64>,
}

impl<'a> Build<'a> {
    fn new(units: &'a [(String, Object)], boundary: &Boundary) -> Build<'a> {
        let is_class =
            |unit: &str, name: &str| boundary.classes.iter().any(|c| c.unit == unit && c.name == name);
        let (mut globals, mut classes) = (HashMap::new(), HashMap::new());
        for (index, (unit, object)) in units.iter().enumerate() {
            for symbol in &object.symbols {
                let Place::Section(section) = symbol.place else { continue };
                if symbol.binding != elf::STB_LOCAL.0 {
                    globals.insert(symbol.name.as_str(), (index, section));
                }
                if is_class(unit, &symbol.name) {
                    classes.insert((index, section), symbol.value);
                }
            }
        }
        Build { units, globals, classes }
    }

    fn section(&self, (unit, section): Node) -> &'a Section {
        self.units[unit].1.section(section)
    }

    /// Where a relocation of a unit leads, if that is in the scheduler.
    fn target(&self, unit: usize, relocation: &Relocation) -> Option<Node> {
        let symbol = self.units[unit].1.symbol(relocation.symbol);
        match symbol.place {
            Place::Section(section) => Some((unit, section)),
            _ => self.globals.get(symbol.name.as_str()).copied(),
        }
    }

    /// Where rebuilding begins: the methods, and what the runtime itself calls.
    fn roots(&self, methods: &BTreeMap<String, u64>, runtime: &Object) -> Vec<Node> {
        let mut roots = Vec::new();
        for (class, start) in &self.classes {
            let places = METHODS.iter().filter_map(|name| Some(start + methods.get(*name)?));
            let places: BTreeSet<u64> = places.collect();
            let fields =
                self.section(*class).relocations.iter().filter(|field| places.contains(&field.offset));
            roots.extend(fields.filter_map(|field| self.target(class.0, field)));
        }
        let called = runtime.symbols.iter().filter(|symbol| symbol.place == Place::Undefined);
        let called = called.filter_map(|symbol| self.globals.get(symbol.name.as_str()));
        roots.extend(called.filter(|node| !self.classes.contains_key(node)));
        roots
    }

    /// The functions, by unit and name, that rebuilding may run.
    fn reached(&self, methods: &BTreeMap<String, u64>, runtime: &Object) -> BTreeSet<(&'a str, &'a str)> {
        let mut next = self.roots(methods, runtime);
        let mut seen: BTreeSet<Node> = next.iter().copied().collect();
        while let Some(node) = next.pop() {
            for relocation in &self.section(node).relocations {
                let target = self.target(node.0, relocation).filter(|node| !self.classes.contains_key(node));
                next.extend(target.filter(|node| seen.insert(*node)));
            }
        }
        let functions = |(index, (unit, object)): (usize, &'a (String, Object))| {
            let is_seen =
                |s: &&Symbol| matches!(s.place, Place::Section(section) if seen.contains(&(index, section)));
            let functions = object.symbols.iter().filter(|s| s.kind == elf::STT_FUNC.0);
            functions.filter(is_seen).map(|s| (unit.as_str(), s.name.as_str())).collect::<Vec<_>>()
        };
        self.units.iter().enumerate().flat_map(functions).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{METHODS, Question, Rebuild};
    use crate::boundary::{Boundary, SchedClass};
    use crate::check::fixture::compile;
    use crate::replaced::{Member, Reason};
    use schedswap_kernel::address::Addr;
    use schedswap_kernel::objects::Object;
    use std::collections::BTreeMap;

    const CLASS_UNIT: &str = "kernel/sched/fair.c";
    const CORE_UNIT: &str = "kernel/sched/core.c";

    const CLASS: &str = r#"
#define noinline __attribute__((noinline))
struct sched_class { void (*enqueue_task)(int); void (*task_tick)(int); };
extern void account(int);
extern int queued;
static noinline void insert(int a) { queued += a; account(a); }
static void rotate(int a) { queued ^= a; }
struct callbacks { void (*rotate)(int); };
static const struct callbacks callbacks = { rotate };
extern void walk(const struct callbacks *with);
static void enqueue_task_fair(int a) { insert(a); walk(&callbacks); }
static noinline void steal(int a) { queued -= a; }
static void task_tick_fair(int a) { steal(a); }
const struct sched_class fair_sched_class __attribute__((section("__fair_sched_class"))) = {
	.enqueue_task = enqueue_task_fair,
	.task_tick = task_tick_fair,
};
"#;
    const CORE: &str = r#"
int queued;
struct sched_class;
extern const struct sched_class fair_sched_class;
void account(int a) { queued += a; }
void update_rq_clock(void) { queued++; }
const void *class_of(int a) { return a ? &fair_sched_class : 0; }
"#;
    const RUNTIME: &str = r#"
extern void update_rq_clock(void);
extern const int fair_sched_class;
const int *rebuild(void) { update_rq_clock(); return &fair_sched_class; }
"#;

    fn answer(members: &[(&str, &str)], classes_differ: bool, core: &str) -> Option<Rebuild> {
        let build = |core| [(CLASS_UNIT.to_owned(), compile(CLASS)), (CORE_UNIT.to_owned(), compile(core))];
        let class =
            SchedClass { name: "fair_sched_class".into(), unit: CLASS_UNIT.into(), addr: Addr(0), size: 16 };
        let (pristine, edited): ([(String, Object); 2], _) = (build(CORE), build(core));
        let member = |(unit, name): &(&str, &str)| Member {
            unit: (*unit).to_owned(),
            name: (*name).to_owned(),
            reason: Reason::Changed,
        };
        Question {
            boundary: &Boundary { classes: vec![class], ..Boundary::default() },
            builds: [&pristine, &edited],
            methods: &BTreeMap::from([("enqueue_task".to_owned(), 0), ("task_tick".to_owned(), 8)]),
            runtime: &compile(RUNTIME),
            members: &members.iter().map(member).collect::<Vec<_>>(),
            classes_differ,
        }
        .answer()
    }

    #[test]
    fn what_a_queueing_method_reaches_needs_a_rebuild() {
        let reached = [
            (CLASS_UNIT, "enqueue_task_fair"),
            (CLASS_UNIT, "insert"),
            // Through a table of functions.
            (CLASS_UNIT, "rotate"),
            // In another unit.
            (CORE_UNIT, "account"),
            // The runtime calls it.
            (CORE_UNIT, "update_rq_clock"),
        ];
        for (unit, name) in reached {
            let steal = (CLASS_UNIT, "steal");
            assert_eq!(answer(&[steal, (unit, name)], false, CORE), Some(Rebuild::Runs(name.into())));
        }
    }

    #[test]
    fn what_only_runs_at_other_times_needs_none() {
        for name in ["steal", "task_tick_fair"] {
            assert_eq!(answer(&[(CLASS_UNIT, name)], false, CORE), None);
        }
        assert_eq!(answer(&[(CORE_UNIT, "class_of")], false, CORE), None);
    }

    #[test]
    fn other_methods_and_what_an_author_declares_need_a_rebuild() {
        assert_eq!(answer(&[], true, CORE), Some(Rebuild::Classes));
        let hook = "static const int hook __attribute__((used, section(\".schedswap.hooks\"))) = 1;\n";
        assert_eq!(answer(&[], false, &format!("{CORE}{hook}")), Some(Rebuild::Author));
    }

    /// Otherwise the list would miss one.
    #[test]
    fn the_runtime_calls_no_other_method() {
        let mut called: Vec<String> = Vec::new();
        for (_, content) in crate::module::runtime::sources_in_c() {
            let text = String::from_utf8_lossy(content);
            for before in ["sched_class->", "class->", "_sched_class."] {
                let calls = text.split(before).skip(1).filter_map(|rest| rest.split_once('('));
                let is_name = |name: &&str| name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
                called.extend(calls.map(|(name, _)| name).filter(is_name).map(str::to_owned));
            }
        }
        called.sort();
        called.dedup();
        let mut listed = METHODS.to_vec();
        listed.sort_unstable();
        assert_eq!(called, listed);
    }
}

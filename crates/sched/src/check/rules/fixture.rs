//! A scheduler in small, compiled by a real compiler, for the rules' tests: each rule is tried with an edit that it finds
//! and with near misses.

use super::frozen::{Frozen, FrozenCopy, HeldBy};
use super::{Facts, run};
use crate::boundary::{Boundary, BoundaryFunction, Class, Fate, PatchSite, StayReason};
use crate::check::compare::{SourceTree, Sources, UnitBuilds, private_variables};
use crate::check::finding::{Code, Finding};
use schedswap_kernel::address::Addr;
use schedswap_kernel::objects::{self, Object};
use schedswap_kernel::types::{Types, of_object};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::Command;

pub const UNIT: &str = "kernel/sched/a.c";

/// A scheduler in small: `sleeper` and `waiter` stay, `boot` is `__init`, `arch_hook` is overridden,
/// `pick`, `tick` and `inner` are replaced.
pub const SOURCE: &str = r#"
#define __sched __attribute__((section(".sched.text")))
#define __init __attribute__((section(".init.text"), cold))
#define LIMIT 30

struct task { int nice; int prio; };
extern int clock_now;
void block(void);
void log_text(const char *text);

static int boosted;

static inline __attribute__((always_inline)) int weight(int nice)
{
	return nice * 5 + LIMIT;
}

static inline int __init boot_value(void)
{
	return clock_now + 7;
}

static __attribute__((noinline)) int inner(struct task *task)
{
	static int calls;

	calls++;
	boosted += task->prio;
	return task->nice + calls;
}

int __sched sleeper(struct task *task)
{
	static int once;

	if (!once) {
		once = 1;
		log_text("sleeper: first");
	}
	block();
	return weight(task->nice) + inner(task);
}

static __attribute__((noinline)) void __sched pick_slowly(struct task *task)
{
	block();
	task->prio = clock_now;
}

int __sched waiter(struct task *task)
{
	pick_slowly(task);
	block();
	return task->nice ? task->prio : 3;
}

int __init boot(void)
{
	return boot_value() * 2;
}

__attribute__((weak)) int arch_hook(int a)
{
	return a + 1;
}

int pick(struct task *task)
{
	log_text("picked");
	return inner(task) * 2 + arch_hook(task->prio);
}

void tick(struct task *task)
{
	task->prio = clock_now & 15;
}
"#;

pub fn compile(source: &str) -> Object {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("a.c"), dir.path().join("a.o"));
    std::fs::write(&input, source).unwrap();
    let status = Command::new("gcc")
        .args(["-O2", "-ffunction-sections", "-fdata-sections", "-fno-pic", "-mcmodel=kernel"])
        // As kernels are: profiling keeps gcc from relying on which registers a callee leaves alone.
        .args(["-pg", "-mfentry", "-fno-ipa-sra", "-fno-asynchronous-unwind-tables"])
        .args(["-fcf-protection=none", "-w", "-c", "-o"])
        .args([&output, &input])
        .status()
        .expect("gcc is needed, as for building any scheduler");
    assert!(status.success(), "does not compile:\n{source}");
    objects::read("a.o", &std::fs::read(&output).unwrap()).unwrap()
}

/// What a source declares.
pub fn declarations(source: &str) -> Types {
    let dir = tempfile::tempdir().unwrap();
    let (c, o) = (dir.path().join("a.c"), dir.path().join("a.o"));
    std::fs::write(&c, source).unwrap();
    let status = Command::new("gcc").args(["-gdwarf-4", "-w", "-c", "-o"]).args([&o, &c]).status().unwrap();
    assert!(status.success(), "does not compile:\n{source}");
    of_object(UNIT, &objects::read("a.o", &std::fs::read(&o).unwrap()).unwrap()).unwrap()
}

pub fn line_of(text: &str) -> u32 {
    let at = SOURCE.lines().position(|line| line.contains(text)).unwrap_or_else(|| panic!("no line {text}"));
    at as u32 + 1
}

pub fn function(name: &str, text: &str, fate: Fate) -> BoundaryFunction {
    let addr = Addr(0x1000 + u64::from(line_of(text)) * 0x10);
    BoundaryFunction {
        name: name.into(),
        unit: UNIT.into(),
        decl_file: UNIT.into(),
        decl_line: line_of(text),
        addr,
        ranges: Vec::from([addr..addr + 0x10]),
        local: text.starts_with("static"),
        class: Class::Insider,
        class_configured: None,
        fate,
        called_from: vec![],
        stored_in: vec![],
        exported: false,
    }
}

pub fn boundary() -> Boundary {
    let divert = || Fate::Divert(PatchSite { at: Addr(0), expect: vec![], mask: vec![], after_fentry: true });
    let sleeps = || Fate::Stay(StayReason::Sleeps { via: vec!["block".into()] });
    Boundary {
        functions: vec![
            function("inner", "static __attribute__((noinline)) int inner", divert()),
            function("sleeper", "int __sched sleeper", sleeps()),
            function("pick_slowly", "static __attribute__((noinline)) void __sched pick_slowly", sleeps()),
            function("waiter", "int __sched waiter", sleeps()),
            function("boot", "int __init boot(void)", Fate::Stay(StayReason::Init)),
            function("pick", "int pick(", divert()),
            function("tick", "void tick(", divert()),
        ],
        ..Boundary::default()
    }
}

pub fn copy(helper: &str, text: &str, holder: &str, held_by: HeldBy) -> FrozenCopy {
    FrozenCopy {
        helper: helper.into(),
        decl_file: UNIT.into(),
        decl_line: line_of(text),
        holder: holder.into(),
        held_by,
    }
}

/// What reading the kernel would say of [`SOURCE`].
pub fn frozen() -> Frozen {
    let held_by = HeldBy::Outsider { unit: UNIT.into() };
    let mut frozen = Frozen {
        copies: vec![
            copy("weight", "int weight(int nice)", "sleeper", held_by),
            copy("boot_value", "int __init boot_value", "boot", HeldBy::Init),
        ],
        ..Frozen::default()
    };
    let boundary = boundary();
    let addr = |name| boundary.function(UNIT, name).unwrap().addr;
    frozen.staying_callers.insert(addr("inner"), BTreeSet::from(["sleeper".to_owned()]));
    frozen.replaced_callees.insert(addr("sleeper"), BTreeSet::from(["inner".to_owned()]));
    frozen
}

pub fn check_with(frozen: &Frozen, boundary: &Boundary, edited: &str) -> Vec<Finding> {
    compare(frozen, boundary, SOURCE, edited)
}

pub fn compare(frozen: &Frozen, boundary: &Boundary, pristine: &str, edited: &str) -> Vec<Finding> {
    let tree = |text: &str| SourceTree::from_texts([("kernel/sched/a.c".to_owned(), text.to_owned())]);
    let (pristine_source, edited_source) = (tree(pristine), tree(edited));
    let [pristine, edited] = [pristine, edited].map(|source| [(UNIT.to_owned(), compile(source))]);
    let private = private_variables(boundary);
    let facts = Facts {
        frozen,
        boundary,
        builds: &UnitBuilds::pairs(&pristine, &edited, &BTreeMap::new(), &private).unwrap(),
        edited: &edited,
        arities: &HashMap::new(),
        sources: Sources { pristine: &pristine_source, edited: &edited_source },
    };
    run(&facts, Vec::new())
}

/// The source with each `(from, to)` replaced.
pub fn edited(edits: &[(&str, &str)]) -> String {
    edits.iter().fold(SOURCE.to_owned(), |source, (from, to)| {
        assert_eq!(source.matches(from).count(), 1, "{from:?} has to be there once");
        source.replace(from, to)
    })
}

/// Codes and symbols that an edit leads to.
pub fn check(edits: &[(&str, &str)]) -> Vec<(Code, String)> {
    let findings = check_with(&frozen(), &boundary(), &edited(edits));
    findings.into_iter().map(|finding| (finding.code, finding.symbol)).collect()
}

pub fn one(code: Code, symbol: &str) -> Vec<(Code, String)> {
    vec![(code, symbol.to_owned())]
}

pub const NONE: &[(Code, String)] = &[];

//! Which functions an edit replaces: those whose code it changes, and those that cannot do without them.
//!
//! A function that compiles to the same code, and uses the same data, does the same thing wherever it runs; so vmlinux's
//! own stays in force. Whatever the compiler assumed of the functions around it, it assumed anew in the edited build: a
//! caller whose code came out the same is a right caller of the new callee, and any other caller is in the set itself.
//!
//! | step | who joins | file |
//! |---|---|---|
//! | 1 | functions whose code differs in the two builds | `mod` |
//! | 2 | those that use data of which the module has its own | `own` says which that is |
//! | 3 | those that call a member that has no room for a jump | `mod` |
//! | 4 | those that use a static of a function together with a member, where it cannot be told which static is which | `mod` |
//! | 5 | those in which the runtime has to follow threads and groups | `mod` |
//!
//! From the set follows whether the queues have to be rebuilt (`queues`).

mod own;
mod queues;
#[cfg(test)]
mod tests;

use crate::boundary::{Boundary, BoundaryFunction, Fate, StayReason};
use crate::check::{FeatureKeys, Functions};
use crate::config::Divert;
use own::Own;
pub use queues::Rebuild;
use schedswap_kernel::objects::Object;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

/// What is compared.
pub struct Input<'a> {
    /// The kernel's boundary.
    pub boundary: &'a Boundary,
    /// Unit and its module build from the pristine source.
    pub pristine: &'a [(String, Object)],
    /// The same from the edited source.
    pub edited: &'a [(String, Object)],
    /// [`schedswap_kernel::vmlinux::Image::entry_sizes`]
    pub entry_sizes: &'a BTreeMap<String, u64>,
    /// Functions that have to be replaced because the runtime follows threads or groups there.
    pub followed: &'a [&'static str],
    /// [`schedswap_kernel::vmlinux::Image::class_members`]
    pub class_members: &'a BTreeMap<String, u64>,
    /// The compiled runtime, which calls the scheduler.
    pub runtime: &'a Object,
}

/// Why a function is replaced.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Its code differs from the released one's.
    Changed,
    /// It uses a variable of which the module has its own.
    Uses(String),
    /// It calls a replaced function whose entry in vmlinux has no room for a jump.
    Calls(String),
    /// It uses a static of that name, and so does the replaced function; there are several, and nothing tells which is
    /// which.
    Shares(String, String),
    /// The runtime follows the author's state there.
    Followed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Changed => f.write_str("its code differs from the released one's"),
            Reason::Uses(variable) => {
                write!(f, "it uses {variable}, of which the module has its own")
            }
            Reason::Calls(callee) => {
                write!(
                    f,
                    "it calls {callee}, which is replaced and whose entry in vmlinux has no room for a jump"
                )
            }
            Reason::Shares(variable, member) => {
                write!(
                    f,
                    "it uses a static {variable}, as does {member}, which is replaced, and it may be the same one"
                )
            }
            Reason::Followed => f.write_str("threads or groups with the author's state begin or end there"),
        }
    }
}

/// One replaced function.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// `kernel/sched/core.c`
    pub unit: String,
    /// Its symbol.
    pub name: String,
    /// Why.
    pub reason: Reason,
}

/// The set, as it is kept and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// Whether it was computed from the edit, or is all that can be replaced.
    pub divert: Divert,
    /// Why it is all, if that was not asked for.
    pub why_all: Option<String>,
    /// If it was computed: the functions of vmlinux that are replaced, each with its reason.
    pub members: Vec<Member>,
    /// If it was computed: functions that the edit adds, by unit and name.
    pub added: Vec<(String, String)>,
    /// Why every queue is emptied by the old code and filled again by the new one; `None`: none is touched.
    pub rebuild: Option<Rebuild>,
}

/// The set, and the boundary that follows from it.
#[derive(Clone, Debug)]
pub struct Replaced {
    /// The functions of vmlinux that are replaced, by unit and name.
    pub members: Vec<Member>,
    /// Functions that the edit adds, by unit and name.
    pub added: Vec<(String, String)>,
    /// The kernel's boundary, in which every other function stays in vmlinux, and so does all data that is the same.
    pub boundary: Boundary,
    /// Why the queues have to be rebuilt, if they have to be.
    pub rebuild: Option<Rebuild>,
    /// Whether the edit changes anything that runs.
    pub is_empty: bool,
}

/// Computes the set.
pub fn replaced(input: &Input) -> Replaced {
    let [pristine_keys, edited_keys] =
        [input.pristine, input.edited].map(|units| FeatureKeys::of(units.iter().map(|(_, object)| object)));
    let none = HashSet::new();
    let units: Vec<UnitPair> = input
        .pristine
        .iter()
        .filter_map(|(unit, pristine)| {
            let (_, edited) = input.edited.iter().find(|(name, _)| name == unit)?;
            let functions =
                |object, keys| Functions::new(object, input.entry_sizes, &none).with_features(keys);
            Some(UnitPair {
                unit,
                pristine: functions(pristine, pristine_keys.as_ref()),
                edited: functions(edited, edited_keys.as_ref()),
            })
        })
        .collect();
    let own = Own::of(input.boundary, &units);
    let mut set = Growing::new(input.boundary, &units, &own);
    let added = set.compare();
    set.add_users();
    set.add_followed(input.followed);
    set.add_the_dependent();
    let members: Vec<Member> = set
        .members
        .into_iter()
        .map(|((unit, name), reason)| Member { unit: unit.to_owned(), name: name.to_owned(), reason })
        .collect();
    let is_empty = members.is_empty() && added.is_empty() && !own.classes_differ;
    let question = queues::Question {
        boundary: input.boundary,
        builds: [input.pristine, input.edited],
        methods: input.class_members,
        runtime: input.runtime,
        members: &members,
        classes_differ: own.classes_differ,
    };
    let rebuild = question.answer();
    let boundary = narrowed(input.boundary, &members, &own);
    Replaced { members, added, boundary, rebuild, is_empty }
}

/// The two builds of one unit. References to data compare with their offsets, but those to features' keys by feature.
struct UnitPair<'a> {
    unit: &'a str,
    pristine: Functions<'a>,
    edited: Functions<'a>,
}

type Key<'a> = (&'a str, &'a str);

struct Growing<'s, 'a> {
    boundary: &'a Boundary,
    units: &'s [UnitPair<'a>],
    own: &'s Own,
    functions: HashMap<Key<'a>, &'a BoundaryFunction>,
    globals: HashMap<&'a str, &'a BoundaryFunction>,
    members: BTreeMap<Key<'a>, Reason>,
}

impl<'s, 'a> Growing<'s, 'a> {
    fn new(boundary: &'a Boundary, units: &'s [UnitPair<'a>], own: &'s Own) -> Growing<'s, 'a> {
        let all = || boundary.functions.iter();
        Growing {
            boundary,
            units,
            own,
            functions: all().map(|f| ((f.unit.as_str(), f.name.as_str()), f)).collect(),
            globals: all().filter(|f| !f.local).map(|f| (f.name.as_str(), f)).collect(),
            members: BTreeMap::new(),
        }
    }

    /// Step 1. Returns the functions that vmlinux does not have.
    fn compare(&mut self) -> Vec<(String, String)> {
        let mut added = Vec::new();
        for pair in self.units {
            let names: BTreeSet<&str> = [&pair.pristine, &pair.edited]
                .into_iter()
                .flat_map(|build| build.symbols())
                .map(|symbol| symbol.name.as_str())
                .collect();
            for name in names {
                if pair.pristine.code(name) == pair.edited.code(name) {
                    continue;
                }
                match self.functions.get(&(pair.unit, name)).copied() {
                    Some(function) => self.add(function, Reason::Changed),
                    None => added.push((pair.unit.to_owned(), name.to_owned())),
                }
            }
        }
        added
    }

    fn add(&mut self, function: &'a BoundaryFunction, reason: Reason) {
        if is_replaceable(&function.fate) {
            self.members.entry((&function.unit, &function.name)).or_insert(reason);
        }
    }

    /// Step 2.
    fn add_users(&mut self) {
        for pair in self.units {
            for function in self.boundary.functions.iter().filter(|f| f.unit == pair.unit) {
                let references = pair.edited.references(&function.name);
                let used = references.iter().find_map(|referred| self.own.variable_of(pair.unit, referred));
                if let Some(variable) = used {
                    self.add(function, Reason::Uses(variable.to_owned()));
                }
            }
        }
    }

    /// Steps 3 and 4, until nobody joins any more.
    fn add_the_dependent(&mut self) {
        // Who has to join if a function does, and who uses statics that stay together.
        let mut callers: HashMap<Key, Vec<Key>> = HashMap::new();
        let mut users: HashMap<(&str, &str), Vec<Key>> = HashMap::new();
        let mut uses: HashMap<Key, BTreeSet<&str>> = HashMap::new();
        for pair in self.units {
            for function in self.boundary.functions.iter().filter(|f| f.unit == pair.unit) {
                let key: Key = (&function.unit, &function.name);
                for referred in pair.edited.references(&function.name) {
                    let name = referred.symbol.name.as_str();
                    let callee = self.functions.get(&(pair.unit, name)).or_else(|| self.globals.get(name));
                    if let Some(callee) = callee.filter(|callee| !has_room(&callee.fate)) {
                        callers.entry((&callee.unit, &callee.name)).or_default().push(key);
                    }
                    if let Some(name) = self.own.together(pair.unit, &referred)
                        && uses.entry(key).or_default().insert(name)
                    {
                        users.entry((pair.unit, name)).or_default().push(key);
                    }
                }
            }
        }
        let mut work: Vec<Key> = self.members.keys().copied().collect();
        while let Some(member) = work.pop() {
            let of_callee = callers.get(&member).into_iter().flatten();
            let mut joining: Vec<(Key, Reason)> =
                of_callee.map(|caller| (*caller, Reason::Calls(member.1.to_owned()))).collect();
            for name in uses.get(&member).into_iter().flatten() {
                let with_it = users.get(&(member.0, *name)).into_iter().flatten();
                joining.extend(
                    with_it.map(|user| (*user, Reason::Shares((*name).to_owned(), member.1.to_owned()))),
                );
            }
            for (key, reason) in joining {
                let function = self.functions.get(&key).copied().filter(|f| is_replaceable(&f.fate));
                if let Some(function) = function.filter(|_| !self.members.contains_key(&key)) {
                    self.add(function, reason);
                    work.push((&function.unit, &function.name));
                }
            }
        }
    }

    /// Step 5.
    fn add_followed(&mut self, followed: &[&'static str]) {
        for function in self.boundary.functions.iter().filter(|f| followed.contains(&f.name.as_str())) {
            self.add(function, Reason::Followed);
        }
    }
}

/// Whether a module can have the function's code in force.
fn is_replaceable(fate: &Fate) -> bool {
    !matches!(fate, Fate::Stay(_))
}

/// Whether vmlinux's callers reach the module's.
fn has_room(fate: &Fate) -> bool {
    matches!(fate, Fate::Divert(_) | Fate::Springboard(_) | Fate::Stay(_))
}

fn narrowed(boundary: &Boundary, members: &[Member], own: &Own) -> Boundary {
    let kept: HashSet<Key> = members.iter().map(|m| (m.unit.as_str(), m.name.as_str())).collect();
    let mut narrowed = boundary.clone();
    for function in &mut narrowed.functions {
        let key = (function.unit.as_str(), function.name.as_str());
        if is_replaceable(&function.fate) && !kept.contains(&key) {
            function.fate = Fate::Stay(StayReason::Unchanged);
        }
    }
    own.share_the_rest(&mut narrowed);
    narrowed
}

//! SS112 and SS203: new functions that somebody may still call when the module is gone.
//!
//! The kernel calls a timer's, a work item's or a notifier's function through an address that it was given. An
//! address of vmlinux's function stays good for ever; that of a new one is the module's. [`follow`] says where
//! such addresses go in the compiled code: called and compared they do no harm, nor do they in the hands of the
//! module's own functions; stored, or handed to a function outside, they outlive the module unless it takes them
//! back before it goes.

use super::code::UnitBuilds;
use super::declared::is_shared;
use super::explain;
use super::finding::finding;
use super::finding::{Code, Finding};
use super::follow::{self, Fate, Target, Use};
use super::source::{self, Sources};
use crate::boundary::{Boundary, Fate as BoundaryFate};
use schedswap_kernel::objects::{Object, Place};
use std::collections::{BTreeSet, HashMap};

/// Sections in which an author declares something to the runtime, which forgets it with the module.
const DECLARED: &str = ".schedswap.";
/// How the symbols begin of functions that the runtime calls before and after unloading.
const CLEANUPS: [&str; 2] = ["ss_before_unload__", "ss_after_unload__"];

/// How many times an address may be put into a variable of the module whose own address goes on.
const HOPS_MAX: usize = 8;

/// New functions whose addresses get out.
pub fn escaping_functions(
    builds: &[UnitBuilds],
    objects: &[(String, Object)],
    boundary: &Boundary,
    arities: &HashMap<String, usize>,
    sources: &Sources,
) -> Vec<Finding> {
    let new = new_functions(builds, boundary);
    if new.is_empty() {
        return Vec::new();
    }
    let has_cleanup = objects.iter().any(|(_, object)| registers_cleanup(object));
    let code = if has_cleanup { Code::EscapesWithCleanUp } else { Code::Escapes };
    let inside = Inside { objects, boundary, arities };
    let mut findings = Vec::new();
    for function in new {
        let Some(way) = inside.escape(&function) else { continue };
        let place = sources.edited.place_of(&function.name, &function.unit);
        let place = place.unwrap_or(source::Place { file: function.unit.clone(), line: 0 });
        findings.push(finding(code, &function.name, place, explain::escapes(&way, has_cleanup)));
    }
    findings
}

fn registers_cleanup(object: &Object) -> bool {
    object.symbols.iter().any(|symbol| {
        let is_declared = |id| object.section(id).name.starts_with(DECLARED);
        let is_cleanup = CLEANUPS.iter().any(|cleanup| symbol.name.starts_with(cleanup));
        is_cleanup && matches!(symbol.place, Place::Section(id) if is_declared(id))
    })
}

/// Functions that only the module has, and carries.
fn new_functions(builds: &[UnitBuilds], boundary: &Boundary) -> Vec<Target> {
    let mut new = Vec::new();
    for unit in builds {
        for symbol in unit.edited.carried_symbols() {
            let source_name = symbol.name.split('.').next().unwrap_or_default();
            let was_there = builds.iter().any(|b| b.pristine.has_source_name(source_name));
            let is_vmlinuxs = boundary.function(unit.unit, &symbol.name).is_some();
            if !was_there && !is_vmlinuxs {
                new.push(Target { unit: unit.unit.to_owned(), name: symbol.name.clone() });
            }
        }
    }
    new
}

/// The code and data of the module-to-be.
struct Inside<'a> {
    objects: &'a [(String, Object)],
    boundary: &'a Boundary,
    arities: &'a HashMap<String, usize>,
}

/// Where the address is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    /// It is this one's; or this variable has it in it.
    By(Target),
    /// It is an argument of one of the module's functions.
    As { function: String, argument: usize },
}

impl Inside<'_> {
    /// How a function's address gets out, in words; `None` if it does not.
    fn escape(&self, function: &Target) -> Option<String> {
        let itself = Held::By(function.clone());
        let mut open = vec![(itself.clone(), String::new())];
        let mut seen = BTreeSet::from([itself.clone()]);
        for _ in 0..HOPS_MAX {
            let mut next = Vec::new();
            for (held, way) in open {
                let uses = match &held {
                    Held::By(target) => follow::uses(self.objects, target),
                    Held::As { function, argument } => {
                        follow::uses_of_argument(self.objects, function, *argument)
                    }
                };
                for Use { unit, by, fate } in uses {
                    let (to, step) = match fate {
                        Fate::Passed { to, argument } if !self.takes(&to, argument) => continue,
                        Fate::Passed { to, .. } if !self.is_the_modules(&to) => {
                            return Some(format!("{way}{}", explain::handed_to(&to, &by)));
                        }
                        Fate::Passed { to, argument } => {
                            let step = format!("{}; ", explain::handed_to(&to, &by));
                            (Held::As { function: to, argument }, step)
                        }
                        Fate::Stored => return Some(format!("{way}{}", explain::stored_by(&by))),
                        Fate::Unknown if held == itself => {
                            return Some(format!("{way}{}", explain::taken_by(&by)));
                        }
                        Fate::Unknown => continue,
                        Fate::Data { variable, section } => {
                            let holder = Target { unit, name: variable };
                            if self.is_harmless(&holder, &section) {
                                continue;
                            }
                            let step = explain::held_in(&holder.name);
                            (Held::By(holder), step)
                        }
                    };
                    if seen.insert(to.clone()) {
                        next.push((to, format!("{way}{step}")));
                    }
                }
            }
            open = next;
        }
        None
    }

    /// Whether what is in a variable stays in the module's hands, or never comes into force.
    fn is_harmless(&self, holder: &Target, section: &str) -> bool {
        section.ends_with("_sched_class")
            || section.starts_with(DECLARED)
            || is_shared(self.boundary, &holder.unit, &holder.name)
    }

    /// Whether a function has as many parameters; if that is not known, it may.
    fn takes(&self, function: &str, argument: usize) -> bool {
        self.arities.get(function).is_none_or(|arity| argument < *arity)
    }

    /// Whether a call of that name reaches code of the module.
    fn is_the_modules(&self, name: &str) -> bool {
        let defined = self.objects.iter().any(|(_, object)| follow::defines_function(object, name));
        let stays =
            self.boundary.functions.iter().any(|f| f.name == name && matches!(f.fate, BoundaryFate::Stay(_)));
        defined && !stays
    }
}

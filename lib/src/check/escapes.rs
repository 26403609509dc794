//! SS111 and SS203: new functions that somebody may still call when the module is gone.
//!
//! The kernel calls a timer's, a work item's or a notifier's function through an address that it was given. An
//! address of vmlinux's function stays good for ever; that of a new one is the module's. [`follow`] says where
//! such addresses go in the compiled code: called and compared they do no harm, nor do they in the hands of the
//! module's own functions; stored, or handed to a function outside, they outlive the module unless it takes them
//! back before it goes.

use super::declared::is_shared;
use super::explain;
use super::finding::{Code, Finding};
use super::follow::{self, Fate, Target};
use super::rules::{UnitBuilds, finding};
use super::source::{self, Sources};
use crate::boundary::{Boundary, Fate as BoundaryFate};
use crate::objects::{Object, Place};
use std::collections::BTreeSet;

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
    sources: &Sources,
) -> Vec<Finding> {
    let new = new_functions(builds, boundary);
    if new.is_empty() {
        return Vec::new();
    }
    let has_cleanup = objects.iter().any(|(_, object)| registers_cleanup(object));
    let code = if has_cleanup { Code::EscapesWithCleanUp } else { Code::Escapes };
    let inside = Inside { objects, boundary };
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
}

impl Inside<'_> {
    /// How a function's address gets out, in words; `None` if it does not.
    fn escape(&self, function: &Target) -> Option<String> {
        let mut open = vec![(function.clone(), String::new())];
        let mut seen: BTreeSet<Target> = BTreeSet::from([function.clone()]);
        for _ in 0..HOPS_MAX {
            let mut next = Vec::new();
            for (target, way) in open {
                for found in follow::uses(self.objects, &target) {
                    let is_function = target == *function;
                    match found.fate {
                        Fate::Passed { to } if !self.is_the_modules(&to) => {
                            return Some(format!("{way}{}", explain::handed_to(&to, &found.by)));
                        }
                        Fate::Stored => return Some(format!("{way}{}", explain::stored_by(&found.by))),
                        Fate::Unknown if is_function => {
                            return Some(format!("{way}{}", explain::taken_by(&found.by)));
                        }
                        Fate::Passed { .. } | Fate::Unknown => {}
                        Fate::Data { variable, section } => {
                            let holder = Target { unit: found.unit, name: variable };
                            let harmless = section.ends_with("_sched_class")
                                || section.starts_with(DECLARED)
                                || is_shared(self.boundary, &holder.unit, &holder.name);
                            if !harmless && seen.insert(holder.clone()) {
                                let way = format!("{way}{}", explain::held_in(&holder.name));
                                next.push((holder, way));
                            }
                        }
                    }
                }
            }
            open = next;
        }
        None
    }

    /// Whether a call of that name reaches code of the module.
    fn is_the_modules(&self, name: &str) -> bool {
        let defined = self.objects.iter().any(|(_, object)| follow::defines_function(object, name));
        let stays =
            self.boundary.functions.iter().any(|f| f.name == name && matches!(f.fate, BoundaryFate::Stay(_)));
        defined && !stays
    }
}

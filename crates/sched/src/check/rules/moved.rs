//! SS111 and SS204: variables of vmlinux that the edit has made the module's own, or the other way round.

use crate::boundary::Boundary;
use crate::check::compare::{Declared, Sources, UnitBuilds, is_shared, variable};
use crate::check::finding::{Code, Finding, finding};
use crate::check::words::explain::{self, Kind};
use schedswap_kernel::types::{Reach, Types};
use schedswap_kernel::vmlinux::Image;
use std::collections::BTreeSet;

/// Structures that are a lock, or of which every lock is made.
const LOCKS: [&str; 4] = ["raw_spinlock", "seqcount", "rw_semaphore", "rt_mutex_base"];
/// The structure that jump labels are toggled by.
const STATIC_KEY: &str = "static_key";

/// What moved.
pub fn moved_variables(
    builds: &[UnitBuilds],
    declared: &Declared,
    image: &Image,
    boundary: &Boundary,
    sources: &Sources,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let reach = Reach::of(&declared.pristine.units);
    for (before, after) in declared.pairs() {
        let Some(unit) = builds.iter().find(|builds| builds.unit == before.unit) else { continue };
        let known = boundary.variables.iter().filter(|v| v.unit == before.unit);
        for v in known.clone().filter(|v| v.in_function.is_none()) {
            let is_global_elsewhere = || builds.iter().any(|b| b.edited.has_global_variable(&v.name));
            let was_there = unit.pristine.variable(&v.name).is_some();
            if !was_there || !is_shared(boundary, &v.unit, &v.name) || is_global_elsewhere() {
                continue;
            }
            if unit.edited.variable(&v.name).is_some() {
                continue;
            }
            let Some(successor) = successor(unit, before, after, &v.name) else { continue };
            let kind = kind(unit, before, &reach, &v.name);
            let code = if kind == Kind::Plain { Code::LostValue } else { Code::MovedVariable };
            let place = sources.place_of_variable(&v.name, &v.decl_file, v.decl_line);
            findings.push(finding(code, &v.name, place, explain::moved_to_module(kind, &successor)));
        }
        for v in known.filter(|v| v.in_function.is_some()) {
            // It was the module's own; a global of that name is vmlinux's, if vmlinux has one.
            let is_now_global = unit.edited.has_global_variable(&v.name)
                && !unit.pristine.has_global_variable(&v.name)
                && image.symbols_named(&v.name).iter().any(|id| !image.symbol(*id).is_local());
            if is_now_global {
                let kind = kind(unit, before, &reach, &v.name);
                let place = sources.place_of_variable(&v.name, &v.decl_file, v.decl_line);
                let text = explain::moved_to_vmlinux(kind);
                findings.push(finding(Code::MovedVariable, &v.name, place, text));
            }
        }
    }
    findings
}

/// The new variable that has taken the place of one that is gone: of the same name, but local to a function;
/// else the only new one of the same type.
fn successor(unit: &UnitBuilds, before: &Types, after: &Types, name: &str) -> Option<String> {
    if unit.edited.has_local_static(name) && !unit.pristine.has_local_static(name) {
        return Some(explain::now_local(name));
    }
    let words = before.words(variable(before, name)?.of);
    let known: BTreeSet<&str> = before.variables.iter().map(|v| v.name.as_str()).collect();
    let mut new: BTreeSet<&str> = BTreeSet::new();
    for v in after.variables.iter().filter(|v| !v.is_automatic) {
        let is_defined = unit.edited.variable(&v.name).is_some() || unit.edited.has_local_static(&v.name);
        if !known.contains(v.name.as_str()) && is_defined && after.words(v.of) == words {
            new.insert(&v.name);
        }
    }
    match new.len() {
        1 => new.first().map(|name| explain::now_called(name)),
        _ => None,
    }
}

fn kind(unit: &UnitBuilds, types: &Types, reach: &Reach, name: &str) -> Kind {
    if unit.pristine.variable(name).is_some_and(|v| v.is_per_cpu) {
        return Kind::PerCpu;
    }
    let Some(v) = types.variables.iter().find(|v| v.name == name && !v.is_automatic) else {
        return Kind::Plain;
    };
    let structures = types.structures_in(v.of);
    let inside = reach.closure(structures.iter().map(String::as_str), false);
    if inside.contains(STATIC_KEY) {
        Kind::StaticKey
    } else if LOCKS.iter().any(|lock| inside.contains(*lock)) {
        Kind::Lock
    } else {
        Kind::Plain
    }
}

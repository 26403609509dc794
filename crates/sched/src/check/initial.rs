//! SS110: other initial contents for a variable that vmlinux keeps, with the value that it has by now.

use super::code::UnitBuilds;
use super::declared::is_shared;
use super::explain;
use super::finding::finding;
use super::finding::{Code, Finding};
use super::source::Sources;
use crate::boundary::{Boundary, BoundaryVariable};

/// Changed initial values in one unit. Constants are left out: the module gets its own.
pub fn changed_initial_values(builds: &UnitBuilds, boundary: &Boundary, sources: &Sources) -> Vec<Finding> {
    let UnitBuilds { unit, pristine, edited } = builds;
    let kept = |v: &&BoundaryVariable| {
        v.unit == *unit && v.in_function.is_none() && is_shared(boundary, unit, &v.name)
    };
    let mut findings = Vec::new();
    for variable in boundary.variables.iter().filter(kept) {
        let (Some(was), Some(is)) = (pristine.variable(&variable.name), edited.variable(&variable.name))
        else {
            continue;
        };
        if was.is_constant && is.is_constant {
            continue;
        }
        let place = sources.place_of_variable(&variable.name, &variable.decl_file, variable.decl_line);
        if was.bytes != is.bytes {
            let text = explain::changed_variable_size(was.bytes, is.bytes);
            findings.push(finding(Code::ChangedLayout, &variable.name, place, text));
        } else if was.content != is.content {
            let text = explain::changed_initial_value();
            findings.push(finding(Code::ChangedInitialValue, &variable.name, place, text));
        }
    }
    findings
}

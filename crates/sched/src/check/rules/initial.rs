//! SS110: other initial contents for a variable that stays in vmlinux with its present value.

use crate::boundary::{Boundary, BoundaryVariable};
use crate::check::compare::{Sources, UnitBuilds, is_shared};
use crate::check::finding::{Code, Finding, finding};
use crate::check::words::explain;

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

#[cfg(test)]
mod tests {
    use super::super::fixture::{NONE, UNIT, boundary, compare, edited, frozen, one};
    use super::*;
    use crate::boundary::Sharing;
    use schedswap_kernel::address::Addr;

    fn variable(name: &str, sharing: Sharing) -> BoundaryVariable {
        BoundaryVariable {
            name: name.into(),
            unit: UNIT.into(),
            in_function: None,
            decl_file: UNIT.into(),
            decl_line: 1,
            addr: Addr(0x9000),
            size: 4,
            sharing,
            carry: false,
            configured: None,
            used_from: vec![],
            held_by: vec![],
            not_private: vec![],
        }
    }

    /// Findings when `limit` has another initial value.
    fn other_value(declaration: &str, sharing: Sharing) -> Vec<(Code, String)> {
        let user = [("clock_now & 15", "clock_now & limit")];
        let source = |value: &str| {
            let declaration = declaration.replace("VALUE", value);
            edited(&user).replace("static int boosted;", &format!("static int boosted;\n\n{declaration}"))
        };
        let mut boundary = boundary();
        boundary.functions.iter_mut().for_each(|f| f.decl_line += 2);
        boundary.variables.push(variable("limit", sharing));
        let findings = compare(&frozen(), &boundary, &source("15"), &source("31"));
        for finding in &findings {
            assert_eq!((finding.file.as_str(), finding.line > 1), (UNIT, true), "{finding}");
        }
        findings.into_iter().map(|finding| (finding.code, finding.symbol)).collect()
    }

    #[test]
    fn another_initial_value_of_shared_data_has_no_effect() {
        let found = other_value("int limit = VALUE;", Sharing::Shared);
        assert_eq!(found, one(Code::ChangedInitialValue, "limit"));
    }

    #[test]
    fn another_initial_value_of_a_constant_or_of_private_data_has_one() {
        assert_eq!(other_value("extern const int limit;\nconst int limit = VALUE;", Sharing::Shared), NONE);
        assert_eq!(other_value("int limit = VALUE;", Sharing::Private("local".into())), NONE);
    }
}

//! SS114: addresses of functions that nothing may call by address, where the processor enforces indirect-branch
//! tracking.

use crate::binding::{self, Taken, addresses_taken};
use crate::check::compare::{Place, Sources};
use crate::check::finding::{Code, Finding, finding};
use crate::check::words::explain;
use schedswap_kernel::objects::Object;
use std::collections::BTreeSet;

/// Addresses of sealed functions that only the edited source takes. `is_sealed` is asked by unit and function.
///
/// # Errors
/// An object of the compiler's cannot be read.
pub fn newly_taken(
    pristine: &[(String, Object)],
    edited: &[(String, Object)],
    sources: &Sources,
    is_sealed: impl Fn(&str, &Taken) -> bool,
) -> Result<Vec<Finding>, binding::Error> {
    let mut before = BTreeSet::new();
    for (unit, object) in pristine {
        before.extend(addresses_taken(unit, object)?);
    }
    let mut findings = Vec::new();
    for (unit, object) in edited {
        for taken in addresses_taken(unit, object)? {
            if before.contains(&taken) || !is_sealed(unit, &taken) {
                continue;
            }
            let place = sources.edited.place_of(&taken.by, unit);
            let place = place.unwrap_or(Place { file: unit.clone(), line: 0 });
            findings.push(finding(
                Code::TakesSealed,
                &taken.function,
                place,
                explain::takes_sealed(&taken.by),
            ));
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{SOURCE, UNIT, compile, edited};
    use super::*;
    use crate::check::compare::SourceTree;

    /// What an edit takes the address of, where `tick` and the function `log_text` of another file are sealed.
    fn taken(edits: &[(&str, &str)]) -> Vec<(Code, String, u32)> {
        let text = edited(edits);
        let tree = |text: &str| SourceTree::from_texts([(UNIT.to_owned(), text.to_owned())]);
        let (pristine, source) = (tree(SOURCE), tree(&text));
        let objects = |text| [(UNIT.to_owned(), compile(text))];
        let is_sealed = |_: &str, taken: &Taken| ["tick", "log_text"].contains(&taken.function.as_str());
        let sources = Sources { pristine: &pristine, edited: &source };
        let found = newly_taken(&objects(SOURCE), &objects(&text), &sources, is_sealed).unwrap();
        found.into_iter().map(|finding| (finding.code, finding.symbol, finding.line)).collect()
    }

    const CALL: &str = "\tlog_text(\"picked\");";

    #[test]
    fn the_address_of_a_sealed_function_is_found_in_code_and_in_data() {
        let in_code = "\tvoid (*volatile account)(struct task *) = tick;\n\taccount(task);";
        let in_data = "\tstatic void (*volatile account)(const char *) = log_text;\n\taccount(\"picked\");";
        let declared =
            ("int pick(struct task *task)", "void tick(struct task *task);\nint pick(struct task *task)");
        for (function, edit) in [("tick", in_code), ("log_text", in_data)] {
            let found = taken(&[declared, (CALL, edit)]);
            assert_eq!(found.len(), 1, "{function}: {found:?}");
            assert_eq!((found[0].0, found[0].1.as_str()), (Code::TakesSealed, function));
        }
    }

    #[test]
    fn calls_of_a_sealed_function_are_fine() {
        let declared =
            ("int pick(struct task *task)", "void tick(struct task *task);\nint pick(struct task *task)");
        assert_eq!(taken(&[declared, (CALL, "\ttick(task);")]), []);
        let other = "\tint (*volatile inner_too)(struct task *) = inner;\n\tinner_too(task);";
        assert_eq!(taken(&[(CALL, other)]), [], "another function's address");
    }
}

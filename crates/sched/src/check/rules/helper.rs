//! SS104: a helper was changed, and old copies of it stay inlined in code that is not replaced. SS102 too, for a helper
//! of boot code.

use super::Facts;
use super::frozen::{FrozenCopy, HeldBy, keeps_running};
use crate::check::compare::Change;
use crate::check::finding::{Code, Finding, finding};
use crate::check::words::explain;
use std::collections::{BTreeMap, BTreeSet};

/// SS104: helpers with inlined copies in code that is not replaced. Also SS102, for a helper of boot code.
pub fn changed_helpers(facts: &Facts) -> Vec<Finding> {
    let mut helpers: BTreeMap<(&str, u32), Vec<&FrozenCopy>> = BTreeMap::new();
    for copy in &facts.frozen.copies {
        helpers.entry((&copy.decl_file, copy.decl_line)).or_default().push(copy);
    }
    let helpers = helpers.into_iter();
    helpers.filter_map(|((file, line), copies)| changed_helper(facts, file, line, &copies)).collect()
}

fn changed_helper(facts: &Facts, file: &str, line: u32, copies: &[&FrozenCopy]) -> Option<Finding> {
    let sources = &facts.sources;
    if sources.change(file, line) == Change::Unchanged || is_changed_outsider(facts, file, line) {
        return None;
    }
    let helper = copies[0].helper.as_str();
    let place = sources.place(file, line);
    let holders: BTreeSet<String> = copies.iter().filter_map(|copy| stale_holder(facts, copy)).collect();
    if !holders.is_empty() {
        return Some(finding(Code::FrozenInline, helper, place, explain::frozen_inline(&holders)));
    }
    let in_boot_code = copies.iter().any(|copy| copy.held_by == HeldBy::Init);
    let is_init = in_boot_code && sources.has_word(file, line, "__init");
    is_init.then(|| finding(Code::ChangedInit, helper, place, explain::changed_init()))
}

/// The function that holds an old copy, if the copy is now out of date.
fn stale_holder(facts: &Facts, copy: &FrozenCopy) -> Option<String> {
    match &copy.held_by {
        HeldBy::Init => None,
        // The same source under the holder's own configuration: it is stale only if it compiles differently.
        HeldBy::Outsider { unit } => facts.differs(unit, &copy.holder).then(|| copy.holder.clone()),
        HeldBy::Elsewhere { unit } => Some(format!("{} ({unit})", copy.holder)),
    }
}

/// Whether the definition there is a function that is reported itself, as one that stays.
fn is_changed_outsider(facts: &Facts, file: &str, line: u32) -> bool {
    let mut functions = facts.boundary.functions.iter();
    functions.any(|f| {
        (f.decl_file.as_str(), f.decl_line) == (file, line)
            && keeps_running(f)
            && facts.differs(&f.unit, &f.name)
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{NONE, SOURCE, boundary, check, check_with, copy, edited, frozen};
    use super::*;

    #[test]
    fn init_code_that_merely_uses_something_changed_is_fine() {
        let value = ("static inline int __init boot_value", "static inline int boot_value");
        let pristine_has_no_word = SOURCE.replace(value.0, value.1);
        assert_ne!(pristine_has_no_word, SOURCE);
        // A helper that is not __init itself may change: its copy in boot code has run.
        let mut frozen = frozen();
        frozen.copies = vec![copy("weight", "int weight(int nice)", "boot", HeldBy::Init)];
        let findings =
            check_with(&frozen, &boundary(), &edited(&[("nice * 5", "nice * 5 + 0"), ("& 15", "& 7")]));
        assert_eq!(findings, []);
    }

    #[test]
    fn a_changed_helper_is_refused_under_its_own_name_once() {
        let source = edited(&[("nice * 5", "nice * 6")]);
        let findings = check_with(&frozen(), &boundary(), &source);
        let [finding] = findings.as_slice() else { panic!("{findings:?}") };
        assert_eq!((finding.code, finding.symbol.as_str()), (Code::FrozenInline, "weight"));
        assert!(finding.reason.ends_with("not replaced: sleeper"), "{finding}");
    }

    #[test]
    fn a_changed_helper_with_a_copy_outside_the_scheduler_is_refused() {
        let mut frozen = frozen();
        let elsewhere = HeldBy::Elsewhere { unit: "kernel/fork.c".into() };
        frozen.copies.push(copy("tick", "void tick(", "copy_process", elsewhere));
        let findings = check_with(&frozen, &boundary(), &edited(&[("& 15", "& 7")]));
        let [finding] = findings.as_slice() else { panic!("{findings:?}") };
        assert_eq!((finding.code, finding.symbol.as_str()), (Code::FrozenInline, "tick"));
        assert!(finding.reason.contains("copy_process (kernel/fork.c)"), "{finding}");
    }

    #[test]
    fn a_helper_whose_copies_are_all_replaced_may_change() {
        let mut frozen = frozen();
        frozen.copies.retain(|copy| copy.helper != "weight");
        frozen.copies.push(copy("boot_value", "int __init boot_value", "boot", HeldBy::Init));
        assert_eq!(check_with(&frozen, &boundary(), &edited(&[("& 15", "& 7")])), []);
    }

    #[test]
    fn a_helper_that_compiles_to_the_same_may_change() {
        assert_eq!(check(&[("nice * 5 + LIMIT", "LIMIT + 5 * nice"), ("& 15", "& 7")]), NONE);
    }
}

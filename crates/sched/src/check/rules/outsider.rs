//! SS101: a function that stays in vmlinux was changed. SS106 and SS201: it compiles differently though its own source is
//! as it was. SS102 and SS103: `__init` and weak functions, which do not run.

use super::frozen::{FrozenCopy, HeldBy};
use super::{Facts, variants};
use crate::boundary::{BoundaryFunction, Fate, StayReason};
use crate::check::compare::{Change, UnitBuilds};
use crate::check::finding::{Code, Finding, finding};
use crate::check::words::explain;
use object::elf;

/// SS101, SS102, SS103, SS106, SS201: functions that stay in vmlinux.
pub fn changed_functions(facts: &Facts) -> Vec<Finding> {
    let functions = facts.boundary.functions.iter();
    let mut findings: Vec<Finding> = functions.filter_map(|f| changed_function(facts, f)).collect();
    for builds in facts.builds {
        findings.extend(changed_weak_functions(facts, builds));
    }
    findings
}

fn changed_function(facts: &Facts, function: &BoundaryFunction) -> Option<Finding> {
    let Fate::Stay(reason) = &function.fate else { return None };
    if !facts.differs(&function.unit, &function.name) {
        return None;
    }
    let sources = &facts.sources;
    let (file, line) = (function.decl_file.as_str(), function.decl_line);
    let is_edited = sources.change(file, line) != Change::Unchanged;
    let place = sources.place(file, line);
    let of = |code, text| Some(finding(code, &function.name, place.clone(), text));
    match reason {
        StayReason::Init => is_edited.then(|| of(Code::ChangedInit, explain::changed_init()))?,
        StayReason::OverriddenWeak => is_edited.then(|| of(Code::ChangedWeak, explain::changed_weak()))?,
        _ if is_edited => {
            let callees = facts.frozen.replaced_callees.get(&function.addr);
            of(Code::ChangedOutsider, explain::changed_outsider(reason, callees))
        }
        // Reported once, under the helper's name.
        _ if has_changed_helper(facts, function) => None,
        _ => match sources.changed_declaration() {
            Some(cause) => of(Code::ChangedUnderOutsider, explain::changed_under_outsider(reason, &cause)),
            None => match changed_variants_of(facts, function) {
                Some(callees) => of(Code::ChangedVariant, explain::changed_variant(&callees)),
                None if is_variant_for_the_module(facts, function) => {
                    of(Code::ChangedVariant, explain::changed_staying_variant(reason))
                }
                None => of(Code::CompiledDifferently, explain::compiled_differently(reason)),
            },
        },
    }
}

/// The variants of functions that a function that stays calls, and that are not what they were.
fn changed_variants_of(facts: &Facts, caller: &BoundaryFunction) -> Option<String> {
    let callees = facts.frozen.replaced_callees.get(&caller.addr)?;
    let is_changed = |name: &&String| variants::is_variant(name) && facts.differs(&caller.unit, name);
    explain::list(callees.iter().filter(is_changed))
}

/// Whether it is a variant of a function, called by code of the module.
fn is_variant_for_the_module(facts: &Facts, function: &BoundaryFunction) -> bool {
    let object = facts.edited.iter().find(|(unit, _)| *unit == function.unit);
    variants::is_variant(&function.name)
        && object.is_some_and(|(unit, object)| {
            variants::calls_from_the_module(object, unit, &function.name, facts.boundary)
        })
}

fn has_changed_helper(facts: &Facts, holder: &BoundaryFunction) -> bool {
    let in_holder = |copy: &&FrozenCopy| {
        copy.holder == holder.name && copy.held_by == HeldBy::Outsider { unit: holder.unit.clone() }
    };
    let mut copies = facts.frozen.copies.iter().filter(in_holder);
    copies.any(|copy| facts.sources.change(&copy.decl_file, copy.decl_line) != Change::Unchanged)
}

/// SS103 for weak functions that vmlinux does not have at all, so that the boundary does not list them.
fn changed_weak_functions(facts: &Facts, builds: &UnitBuilds) -> Vec<Finding> {
    let listed = |name: &str| facts.boundary.function(builds.unit, name).is_some();
    let weak = builds.pristine.symbols().filter(|s| s.binding == elf::STB_WEAK.0 && !listed(&s.name));
    weak.filter(|symbol| facts.differs(builds.unit, &symbol.name))
        .filter_map(|symbol| {
            let sources = &facts.sources;
            let before = sources.pristine.place_of(&symbol.name, builds.unit)?;
            let is_edited = sources.change(&before.file, before.line) != Change::Unchanged;
            let place = sources.place(&before.file, before.line);
            is_edited.then(|| finding(Code::ChangedWeak, &symbol.name, place, explain::changed_weak()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{
        NONE, UNIT, boundary, check, check_with, edited, frozen, function, line_of, one,
    };
    use super::*;
    use crate::check::finding::Severity;

    #[test]
    fn an_edit_of_what_is_replaced_is_fine() {
        // A new static in it, a new string, and code before it that moves everything.
        assert_eq!(check(&[("clock_now & 15", "({ static int n; log_text(\"tick\"); n++; }) + 4")]), NONE);
        assert_eq!(
            check(&[("\tboosted += task->prio;", "\tlog_text(\"inner\");\n\tboosted -= task->prio;")]),
            NONE
        );
    }

    #[test]
    fn a_new_function_between_those_that_stay_moves_them_without_changing_them() {
        let new = "int __sched novel(int a)\n{\n\tblock();\n\treturn a + 9;\n}\n\nint __sched waiter(";
        let loud = ("static int boosted;", "static int boosted, more;\nint novel(int a);");
        assert_eq!(check(&[("int __sched waiter(", new), loud, ("& 15", "& novel(3)")]), NONE);
    }

    #[test]
    fn a_far_jump_to_a_function_that_stays_is_the_same_jump() {
        // In .sched.text the assembler itself resolves the call from waiter to pick_slowly.
        let padding =
            "asm(\".pushsection .sched.text, \\\"ax\\\"; .skip 4096; .popsection\");\n\nint __sched waiter(";
        assert_eq!(check(&[("int __sched waiter(", padding), ("& 15", "& 7")]), NONE);
    }

    #[test]
    fn changed_outsider_is_refused_with_reason_and_advice() {
        let source = edited(&[("\tblock();\n\treturn weight", "\tblock();\n\tblock();\n\treturn weight")]);
        let findings = check_with(&frozen(), &boundary(), &source);
        let [finding] = findings.as_slice() else { panic!("{findings:?}") };
        assert_eq!((finding.code, finding.severity), (Code::ChangedOutsider, Severity::Refused));
        assert_eq!((finding.file.as_str(), finding.line), (UNIT, line_of("int __sched sleeper")));
        assert!(finding.reason.contains("threads sleep inside it (through block)"), "{finding}");
        assert!(finding.advice.contains("inner"), "{finding}");
    }

    #[test]
    fn an_outsider_with_another_string_is_changed() {
        assert_eq!(check(&[("sleeper: first", "sleeper: third")]), one(Code::ChangedOutsider, "sleeper"));
    }

    #[test]
    fn a_removed_outsider_is_changed() {
        let removed = edited(&[("int __sched waiter", "int __sched other_waiter")]);
        let findings = check_with(&frozen(), &boundary(), &removed);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!((findings[0].code, findings[0].symbol.as_str()), (Code::ChangedOutsider, "waiter"));
    }

    #[test]
    fn comments_and_blanks_in_an_outsider_are_no_change() {
        let comment = ("\tblock();\n\treturn weight", "\t/* wait */\n\tblock( );\n\n\treturn weight");
        assert_eq!(check(&[comment, ("& 15", "& 7")]), NONE);
    }

    #[test]
    fn what_ifdef_leaves_out_is_no_change() {
        let left_out =
            ("\tblock();\n\treturn weight", "#ifdef NEVER\n\tx();\n#endif\n\tblock();\n\treturn weight");
        assert_eq!(check(&[left_out, ("& 15", "& 7")]), NONE);
    }

    #[test]
    fn changed_init_is_refused() {
        assert_eq!(check(&[("boot_value() * 2", "boot_value() * 3")]), one(Code::ChangedInit, "boot"));
        assert_eq!(check(&[("clock_now + 7", "clock_now + 8")]), one(Code::ChangedInit, "boot_value"));
    }

    #[test]
    fn changed_weak_is_refused() {
        assert_eq!(check(&[("return a + 1;", "return a + 2;")]), one(Code::ChangedWeak, "arch_hook"));
        let mut listed = boundary();
        let stays = Fate::Stay(StayReason::OverriddenWeak);
        listed.functions.push(function("arch_hook", "__attribute__((weak)) int arch_hook", stays));
        let findings = check_with(&frozen(), &listed, &edited(&[("return a + 1;", "return a + 2;")]));
        assert_eq!(findings.iter().map(|f| f.code).collect::<Vec<_>>(), [Code::ChangedWeak]);
    }

    #[test]
    fn a_weak_function_that_is_the_one_that_runs_may_change() {
        let mut boundary = boundary();
        let fate = boundary.function(UNIT, "pick").unwrap().fate.clone();
        boundary.functions.push(function("arch_hook", "__attribute__((weak)) int arch_hook", fate));
        assert_eq!(check_with(&frozen(), &boundary, &edited(&[("return a + 1;", "return a + 2;")])), []);
    }

    #[test]
    fn a_macro_under_an_outsider_is_refused_and_named() {
        let findings = check_with(&frozen(), &boundary(), &edited(&[("LIMIT 30", "LIMIT 31")]));
        let [finding] = findings.as_slice() else { panic!("{findings:?}") };
        assert_eq!((finding.code, finding.symbol.as_str()), (Code::ChangedUnderOutsider, "sleeper"));
        assert!(finding.reason.contains(&format!("{UNIT}:{}", line_of("#define LIMIT"))), "{finding}");
    }

    #[test]
    fn a_changed_type_under_an_outsider_is_refused() {
        let codes = check(&[("int nice; int prio;", "int prio; int nice;")]);
        assert!(codes.contains(&(Code::ChangedUnderOutsider, "waiter".into())), "{codes:?}");
    }
}

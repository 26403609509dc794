//! SS105: a function that vmlinux still calls is gone.

use super::Facts;
use super::frozen::is_replaced;
use crate::boundary::{BoundaryFunction, Class, Fate};
use crate::check::compare::Change;
use crate::check::finding::{Code, Finding, finding};
use crate::check::words::explain;

/// Functions that vmlinux still calls and the module no longer has.
pub fn vanished_functions(facts: &Facts) -> Vec<Finding> {
    let replaced = facts.boundary.functions.iter().filter(|f| is_replaced(f));
    replaced.filter_map(|function| vanished_function(facts, function)).collect()
}

fn vanished_function(facts: &Facts, function: &BoundaryFunction) -> Option<Finding> {
    let builds = facts.builds_of(&function.unit)?;
    let was_there = builds.pristine.has(&function.name);
    // A global one may have moved to another unit.
    let is_there = match function.local {
        true => builds.edited.has(&function.name),
        false => facts.builds.iter().any(|builds| builds.edited.has(&function.name)),
    };
    if !was_there || is_there {
        return None;
    }
    let users = remaining_users(facts, function);
    if users.is_empty() && function.class == Class::Insider && !matches!(function.fate, Fate::Springboard(_))
    {
        return None;
    }
    let sources = &facts.sources;
    let place = sources.place(&function.decl_file, function.decl_line);
    let is_defined = sources.change(&function.decl_file, function.decl_line) != Change::Removed;
    Some(finding(
        Code::Vanished,
        &function.name,
        place,
        explain::vanished(&function.name, &users, function, is_defined),
    ))
}

/// What stays and still reaches vmlinux's function, in words.
fn remaining_users(facts: &Facts, function: &BoundaryFunction) -> Vec<String> {
    let mut users = Vec::new();
    let mut add = |what: &str, names: &mut dyn Iterator<Item = &String>| {
        if let Some(list) = explain::list(names) {
            users.push(format!("{what} {list}"));
        }
    };
    add("it is called from", &mut function.called_from.iter());
    add("it is used by", &mut facts.frozen.staying_callers.get(&function.addr).into_iter().flatten());
    add("its address is stored in", &mut function.stored_in.iter());
    if function.exported {
        users.push("it is exported to modules".to_owned());
    }
    users
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{NONE, SOURCE, boundary, check, check_with, compare, edited, frozen};
    use super::*;

    #[test]
    fn a_vanished_function_is_refused_while_vmlinux_calls_it() {
        // Renamed everywhere but for the frozen caller in vmlinux; sleeper is edited with it.
        let source = SOURCE.replace("inner", "deeper");
        let findings = check_with(&frozen(), &boundary(), &source);
        let vanished = findings.iter().find(|f| f.code == Code::Vanished).unwrap();
        assert_eq!(vanished.symbol, "inner");
        assert!(vanished.reason.contains("used by sleeper"), "{vanished}");
        assert!(vanished.advice.contains("keep a function inner"), "{vanished}");
    }

    #[test]
    fn every_way_of_reaching_a_vanished_function_counts() {
        type Reach = fn(&mut BoundaryFunction);
        let ways: [(Reach, &str); 4] = [
            (|f| f.called_from = vec!["do_fork".into()], "called from do_fork"),
            (|f| f.stored_in = vec!["some_ops".into()], "stored in some_ops"),
            (|f| f.exported = true, "exported"),
            (|f| f.class = Class::Callback, "stored addresses"),
        ];
        for (reach, words) in ways {
            let mut boundary = boundary();
            reach(boundary.functions.iter_mut().find(|f| f.name == "tick").unwrap());
            let findings = check_with(&frozen(), &boundary, &edited(&[("void tick(", "void tock(")]));
            let [finding] = findings.as_slice() else { panic!("{words}: {findings:?}") };
            assert_eq!((finding.code, finding.symbol.as_str()), (Code::Vanished, "tick"));
            assert!(finding.reason.contains(words), "{finding}");
        }
    }

    #[test]
    fn a_function_that_only_the_module_called_may_vanish() {
        assert_eq!(check(&[("void tick(", "void tock(")]), NONE);
    }

    #[test]
    fn a_vanished_clone_is_named_with_its_suffix() {
        // As if the compiler had made the clone for another set of callers.
        let declared =
            "static int inner(struct task *task) __asm__(\"inner.constprop.0\");\n\nstatic inline int __init";
        let pristine = edited(&[("static inline int __init", declared)]);
        let mut boundary = boundary();
        let inner = boundary.functions.iter_mut().find(|f| f.name == "inner").unwrap();
        inner.name = "inner.constprop.0".into();
        inner.decl_line += 2;
        let other = pristine.replace("inner.constprop.0", "inner.isra.0").replace("& 15", "& 7");
        let findings = compare(&frozen(), &boundary, &pristine, &other);
        // sleeper compiles differently with it.
        let finding = findings.iter().find(|f| f.code == Code::Vanished).unwrap();
        assert_eq!(finding.symbol, "inner.constprop.0");
        assert!(finding.advice.contains("no longer makes this variant of inner"), "{finding}");
    }
}

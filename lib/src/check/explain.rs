//! The words of each finding: the reason, and what to do.

use super::source::Place;
use crate::boundary::{BoundaryFunction, Class, StayReason};
use std::collections::BTreeSet;

/// Reason and advice.
pub type Text = (String, String);

/// Names that are listed before the rest is counted.
const LISTED: usize = 6;

/// `a, b, c and 4 more`; `None` for no name.
pub fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> Option<String> {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    let shown = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => None,
        n if n > LISTED => Some(format!("{shown} and {} more", n - LISTED)),
        _ => Some(shown),
    }
}

/// Why a function stays in vmlinux, as a clause.
fn why_it_stays(reason: &StayReason) -> String {
    let through = |via: &[String]| list(via).map_or(String::new(), |via| format!(" (through {via})"));
    match reason {
        StayReason::Sleeps { via } => {
            format!("threads sleep inside it{}, so it is always on some stack", through(via))
        }
        StayReason::Nmi { via } => {
            format!("NMIs run it{}, so it can never be patched safely", through(via))
        }
        StayReason::NoInstr => "it is code that must not be diverted (noinstr)".to_owned(),
        StayReason::NoRoom { obstacle } => format!("there is no room for a jump at its entry ({obstacle})"),
        StayReason::Configured { by } => format!("the configuration keeps it: {by}"),
        StayReason::NotNamed => {
            "only the functions that the configuration names are replaced of its unit: name it there as well"
                .to_owned()
        }
        StayReason::Init => "it ran at boot and its memory is gone".to_owned(),
        StayReason::OverriddenWeak => "the kernel runs another definition of it".to_owned(),
    }
}

/// SS101
pub fn changed_outsider(reason: &StayReason, replaced_callees: Option<&BTreeSet<String>>) -> Text {
    let advice = match replaced_callees.and_then(list) {
        Some(callees) => format!("undo the change, or make it in what it calls and is replaced: {callees}"),
        None => "undo the change: nothing that it calls is replaced".to_owned(),
    };
    (format!("was changed, but it stays in vmlinux: {}", why_it_stays(reason)), advice)
}

/// SS102
pub fn changed_init() -> Text {
    (
        "was changed, but it is __init code: it ran at boot and does not run again".to_owned(),
        "undo the change; give what it sets up its new value in a function that runs later".to_owned(),
    )
}

/// SS103
pub fn changed_weak() -> Text {
    (
        "was changed, but it is weak and the architecture has its own definition, which is the one that runs"
            .to_owned(),
        "undo the change: this definition is not in the kernel".to_owned(),
    )
}

/// SS104
pub fn frozen_inline(holders: &BTreeSet<String>) -> Text {
    let holders = list(holders).unwrap_or_default();
    (
        format!("was changed, but copies of it stay inlined in code that is not replaced: {holders}"),
        "undo the change, or leave this function as it is and call a new one under another name from the \
         functions that are replaced; both must agree on the data they share"
            .to_owned(),
    )
}

/// SS105
pub fn vanished(name: &str, users: &[String], function: &BoundaryFunction, is_defined: bool) -> Text {
    let users = match (users, function.class) {
        ([], Class::Callback) => "it is reached through stored addresses".to_owned(),
        ([], _) => "it is where the module takes over".to_owned(),
        (users, _) => users.join("; "),
    };
    let source_name = name.split('.').next().unwrap_or(name);
    let advice = if !is_defined {
        format!("keep a function {source_name} with its parameters, even if it only calls the new one")
    } else if name.contains('.') {
        format!(
            "the compiler no longer makes this variant of {source_name}: keep its parameters and how it is \
             called, or keep the old function as it is beside a new one under another name"
        )
    } else {
        format!("the compiler inlined {source_name} everywhere or dropped it: mark it noinline __used")
    };
    (format!("the module no longer has it, but vmlinux still needs it: {users}"), advice)
}

/// SS106
pub fn changed_under_outsider(reason: &StayReason, cause: &Place) -> Text {
    (
        format!(
            "compiles differently, though neither it nor what is inlined into it was edited: a macro, type or \
             constant that it uses was (the first such change is at {}:{}). It stays in vmlinux: {}",
            cause.file,
            cause.line,
            why_it_stays(reason)
        ),
        "undo that change, or make it under a new name that only replaced functions use".to_owned(),
    )
}

/// SS201
pub fn compiled_differently(reason: &StayReason) -> Text {
    (
        format!(
            "compiles differently, though nothing in its source was edited: the compiler took something from a \
             function that it calls. It stays in vmlinux as it was: {}",
            why_it_stays(reason)
        ),
        "look whether the functions that it calls still keep what it relies on".to_owned(),
    )
}

/// SS202
pub fn nothing_changed() -> Text {
    (
        "nothing was changed: the edited source compiles to what the kernel has".to_owned(),
        "edit the files in the work dir; what #ifdef leaves out for this configuration does not count"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_counted() {
        let names: Vec<String> = (0..8).map(|n| format!("f{n}")).collect();
        assert_eq!(list(&names[..0]), None);
        assert_eq!(list(&names[..2]).unwrap(), "f0, f1");
        assert_eq!(list(&names).unwrap(), "f0, f1, f2, f3, f4, f5 and 2 more");
    }
}

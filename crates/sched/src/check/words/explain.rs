//! The words of each finding: what was found and why it cannot work, and what to do.

use crate::boundary::{BoundaryFunction, Class, StayReason};
use crate::check::compare::Place;
use schedswap_kernel::types::RecordLayout;
use std::collections::BTreeSet;

/// Reason and advice.
pub type Text = (String, String);

/// What a variable is, as far as having two copies of it does harm.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Two copies exclude nothing.
    Lock,
    /// vmlinux's code keeps using its own.
    PerCpu,
    /// Toggling one patches only the code that asks that one.
    StaticKey,
    /// Only its value is lost.
    Plain,
}

/// Names that are listed; the rest is counted.
const LISTED: usize = 6;

/// `a, b, c and 4 more`; `None` if there is no name.
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
            format!("threads sleep inside it{}, so it is always on some thread's stack", through(via))
        }
        StayReason::Nmi { via } => {
            format!("NMI handlers run it{}, so it can never be patched safely", through(via))
        }
        StayReason::NoInstr => "it is noinstr code, which must not be diverted".to_owned(),
        StayReason::NoRoom { obstacle } => format!("its entry has no room for a jump ({obstacle})"),
        StayReason::Configured { by } => format!("the configuration keeps it: {by}"),
        StayReason::NotNamed => {
            "the configuration replaces only the functions of this unit that it names: name it there as well"
                .to_owned()
        }
        StayReason::Init => "it ran at boot, and its memory has been freed".to_owned(),
        StayReason::OverriddenWeak => "the kernel runs another definition of it".to_owned(),
        StayReason::NoSpringboard => "its frame cannot be rebuilt on this kernel".to_owned(),
        StayReason::Unchanged => "the edit does not change it".to_owned(),
    }
}

/// SS101
pub fn changed_outsider(reason: &StayReason, replaced_callees: Option<&BTreeSet<String>>) -> Text {
    let advice = match replaced_callees.and_then(list) {
        Some(callees) => {
            format!(
                "undo the change, or make it in a function that this one calls and that is replaced: {callees}"
            )
        }
        None => {
            "undo the change; this function calls none that is replaced, so look for a place in its callers"
                .to_owned()
        }
    };
    (format!("was changed, but stays in vmlinux as it was: {}", why_it_stays(reason)), advice)
}

/// SS102
pub fn changed_init() -> Text {
    (
        "was changed, but it is __init code, which ran at boot and does not run again".to_owned(),
        "undo the change, and set what it initialises in a hook or in a function that runs later".to_owned(),
    )
}

/// SS103
pub fn changed_weak() -> Text {
    (
        "was changed, but it is a weak definition and the kernel runs the architecture's own".to_owned(),
        "undo the change: the definition that runs lies outside kernel/sched; as a sidecar, its file can be part of the \
         module"
            .to_owned(),
    )
}

/// SS104
pub fn frozen_inline(holders: &BTreeSet<String>) -> Text {
    let holders = list(holders).unwrap_or_default();
    (
        format!("was changed, but old copies of it stay inlined in code that is not replaced: {holders}"),
        "undo the change, or keep this function and call a new one, under another name, from the functions that \
         are replaced; the two must agree on the data that they share"
            .to_owned(),
    )
}

/// SS105
pub fn vanished(name: &str, users: &[String], function: &BoundaryFunction, is_defined: bool) -> Text {
    let users = match (users, function.class) {
        ([], Class::Callback) => "it is called through stored addresses".to_owned(),
        ([], _) => "it is where the module takes over".to_owned(),
        (users, _) => users.join("; "),
    };
    let source_name = name.split('.').next().unwrap_or(name);
    let advice = if !is_defined {
        format!("keep a function {source_name} with the same parameters, even if it only calls the new one")
    } else if name.contains('.') {
        format!(
            "the compiler no longer makes this variant of {source_name}: keep its parameters and the way it is \
             called, or keep the old function and add a new one under another name"
        )
    } else {
        format!("the compiler inlined {source_name} everywhere, or dropped it: mark it noinline __used")
    };
    (format!("is gone from the module, but vmlinux still needs it: {users}"), advice)
}

/// SS106
pub fn changed_under_outsider(reason: &StayReason, cause: &Place) -> Text {
    (
        format!(
            "compiles differently, although neither it nor anything inlined into it was edited: a macro, type or \
             constant that it uses was (the first such change is at {}:{}). It stays in vmlinux as it was: {}",
            cause.file,
            cause.line,
            why_it_stays(reason)
        ),
        "undo that change, or make it under a new name that only functions that are replaced use".to_owned(),
    )
}

/// SS107
pub fn changed_layout(differences: &[String], why: &str, before: Option<&RecordLayout>) -> Text {
    let advice = match before {
        None => {
            "leave the constants that are there as they are, and give new ones values that are not in use"
                .to_owned()
        }
        Some(before) => format!(
            "leave every member where it is; {}; or keep the new state outside the structure, in a struct \
             extension",
            free_bytes(before)
        ),
    };
    (format!("has another layout: {}. {why}", list(differences).unwrap_or_default()), advice)
}

/// Where a new member fits.
fn free_bytes(layout: &RecordLayout) -> String {
    let mut own: Vec<_> = layout.holes.iter().filter(|hole| hole.path.is_empty()).collect();
    own.sort_by_key(|hole| std::cmp::Reverse(hole.bytes));
    let holes: Vec<String> = own
        .iter()
        .map(|hole| {
            let place = match (&hole.after, &hole.before) {
                (Some(after), _) => format!("after {after}"),
                (None, Some(before)) => format!("before {before}"),
                (None, None) => "all of it".to_owned(),
            };
            format!("{} at {} ({place})", hole.bytes, hole.offset)
        })
        .collect();
    match list(&holes) {
        Some(holes) => format!("a new member fits into its free bytes, which are {holes}"),
        None => format!("{} has no free bytes for a new member", layout.title),
    }
}

/// Code outside the scheduler that knows a type.
pub fn known_elsewhere(units: &BTreeSet<String>) -> String {
    format!("Code that is not replaced was compiled for the old layout: {}", list(units).unwrap_or_default())
}

/// Memory that exists before the module loads.
pub fn reached_from(path: &str) -> String {
    format!("Objects with the old layout are in the kernel's memory already: {path}")
}

/// As [`reached_from`], where no way is known.
pub fn allocated() -> String {
    "No function has one on its stack, so such objects are allocated, and those from before the swap stay in use"
        .to_owned()
}

/// SS107, of a variable.
pub fn changed_variable_type(was: &str, is: &str) -> Text {
    (
        format!("is of type {is} instead of {was}, but the variable stays in vmlinux as it was"),
        "undo the change, and add a new variable under another name".to_owned(),
    )
}

/// SS107, of a variable's size.
pub fn changed_variable_size(was: u64, is: u64) -> Text {
    (
        format!("takes {is} bytes instead of {was}, but the variable stays in vmlinux as it was"),
        "undo the change, and add a new variable under another name".to_owned(),
    )
}

/// SS108
pub fn changed_signature(was: &str, is: &str, users: &str) -> Text {
    (
        format!(
            "has the prototype {is} instead of {was}, but code that is not replaced keeps to the old one: {users}"
        ),
        "keep the function with its old parameters and result, and let it call a new one under another name"
            .to_owned(),
    )
}

/// SS109, of a caller that stays.
pub fn changed_variant(callees: &str) -> Text {
    (
        format!(
            "compiles differently, although nothing in its source was edited, and it calls variants that the \
             compiler makes of functions for their callers ({callees}). It stays in vmlinux, and would call the \
             module's variant the way it calls vmlinux's"
        ),
        "keep the parameters of those functions and the way they use them, or leave them as they are and call a new \
         function under another name; noinline __noclone keeps the compiler from making variants of that one"
            .to_owned(),
    )
}

/// SS109, of a variant that stays.
pub fn changed_staying_variant(reason: &StayReason) -> Text {
    (
        format!(
            "is a variant that the compiler now makes in another way, but vmlinux's stays as it was ({}), and the \
             module's callers would call it in the new way",
            why_it_stays(reason)
        ),
        "keep the function's parameters, and what its callers pass for them".to_owned(),
    )
}

/// SS109, of a variant that vmlinux does not have.
pub fn new_variant(source_name: &str, reason: &StayReason) -> Text {
    (
        format!(
            "is a new variant that the compiler makes of {source_name}, which stays in vmlinux ({}); the module \
             would run a copy of its own",
            why_it_stays(reason)
        ),
        format!(
            "keep what its callers pass to {source_name}, so that the compiler makes the same variants of it"
        ),
    )
}

/// SS109, of what is passed in which register.
pub fn changed_convention(was: &str, is: &str, users: &str) -> Text {
    (
        format!(
            "is a variant that now takes its parameters in another way: {is} instead of {was}. Code that stays in \
             vmlinux calls it in the old way: {users}"
        ),
        "keep its parameters and the way it uses them, or leave it as it is and call a new one under another name"
            .to_owned(),
    )
}

/// SS110
pub fn changed_initial_value() -> Text {
    (
        "has another initial value, but the variable stays in vmlinux with the value that it has there, so the new \
         one would have no effect"
            .to_owned(),
        "undo the change, and set the value at run time or in a hook after the swap; or add a new variable under \
         another name, which begins with the value in the source"
            .to_owned(),
    )
}

/// SS112, SS203
pub fn escapes(way: &str, has_cleanup: bool) -> Text {
    let reason = format!("is new, and its address leaves the module: {way}");
    if has_cleanup {
        let advice = "make sure that the hook before unloading takes the address back, and waits for calls under \
                      way; then allow this warning";
        (reason, advice.to_owned())
    } else {
        let reason = format!(
            "{reason}. A call of it after the scheduler is uninstalled would run code that should have stopped"
        );
        let advice = "register a hook before unloading that takes the address back (stops the timer, flushes the \
                      work, waits for RCU, unregisters), or use a function that vmlinux has: its address stays valid";
        (reason, advice.to_owned())
    }
}

/// Ways out for an address.
pub fn handed_to(callee: &str, by: &str) -> String {
    format!("{by} hands it to {callee}")
}

/// Ways out for an address.
pub fn stored_by(by: &str) -> String {
    format!("{by} stores it")
}

/// Ways out for an address.
pub fn taken_by(by: &str) -> String {
    format!("{by} takes it")
}

/// One step on the way out.
pub fn held_in(variable: &str) -> String {
    format!("{variable} holds it, and ")
}

/// SS111, SS204
pub fn moved_to_module(kind: Kind, successor: &str) -> Text {
    let harm = match kind {
        Kind::Lock => "holding one of the two locks does not exclude a holder of the other",
        Kind::PerCpu => "code that stays in vmlinux keeps using vmlinux's, with the values there",
        Kind::StaticKey => "branches in vmlinux follow the old key, branches in the module the new one",
        Kind::Plain => "the new one begins with the value in the source, not with the present one",
    };
    (
        format!("is a variable of vmlinux, but {successor}, which is the module's own: {harm}"),
        "leave the variable as it was, and add what is new under another name".to_owned(),
    )
}

/// A variable's new name.
pub fn now_called(name: &str) -> String {
    format!("{name} has taken its place")
}

/// A variable that became local.
pub fn now_local(name: &str) -> String {
    format!("{name} is now local to a function")
}

/// SS111, the other way.
pub fn moved_to_vmlinux(kind: Kind) -> Text {
    let what = match kind {
        Kind::Lock => "lock",
        Kind::PerCpu => "per-CPU variable",
        Kind::StaticKey => "static key",
        Kind::Plain => "variable",
    };
    (
        format!(
            "was local to a function; as a global variable it is vmlinux's {what} of that name, which is another one"
        ),
        "give it a name that vmlinux does not use".to_owned(),
    )
}

/// SS113
pub fn changed_system_call(was: &str, is: &str) -> Text {
    (
        format!(
            "takes ({is}) instead of ({was}), but programs, and the tables that describe system calls, keep to the \
             old parameters"
        ),
        "keep the parameters; a file in debugfs or a sysctl can take what is new".to_owned(),
    )
}

/// SS114
pub fn takes_sealed(by: &str) -> Text {
    (
        format!(
            "{by} takes its address, but nothing in vmlinux does, so the kernel sealed it at boot: where the \
             processor enforces indirect-branch tracking, a call by the address is a control-protection fault"
        ),
        "write a new function that calls it, and take that one's address".to_owned(),
    )
}

/// SS201
pub fn compiled_differently(reason: &StayReason) -> Text {
    (
        format!(
            "compiles differently, although nothing in its source was edited: the compiler relied on something about \
             a function that it calls. It stays in vmlinux as it was: {}",
            why_it_stays(reason)
        ),
        "check that the functions it calls still do what the code in vmlinux relies on; then allow this warning"
            .to_owned(),
    )
}

/// SS202
pub fn nothing_changed() -> Text {
    (
        "nothing was changed: the edited source compiles to what the kernel already runs".to_owned(),
        "edit the files in the work dir, in code that #ifdef does not leave out in this kernel's configuration"
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

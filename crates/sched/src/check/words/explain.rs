//! The words of each finding: the reason, and what to do.

use crate::boundary::{BoundaryFunction, Class, StayReason};
use crate::check::compare::Place;
use schedswap_kernel::types::RecordLayout;
use std::collections::BTreeSet;

/// Reason and advice.
pub type Text = (String, String);

/// What a variable is, as far as two copies of it do harm.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Two copies lock nothing out.
    Lock,
    /// vmlinux's code goes on with its own.
    PerCpu,
    /// Code is patched for one of them only.
    StaticKey,
    /// Its value is lost, no more.
    Plain,
}

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

/// SS107
pub fn changed_layout(differences: &[String], why: &str, before: Option<&RecordLayout>) -> Text {
    let advice = match before {
        None => "give new constants values of their own and leave the others as they are".to_owned(),
        Some(before) => format!(
            "leave every member where it is; {}; or keep the new state outside of the structure, as a struct \
             extension",
            free_bytes(before)
        ),
    };
    (format!("its layout was changed: {}. {why}", list(differences).unwrap_or_default()), advice)
}

/// What a new member may take.
fn free_bytes(layout: &RecordLayout) -> String {
    let mut own: Vec<_> = layout.holes.iter().filter(|hole| hole.path.is_empty()).collect();
    own.sort_by_key(|hole| std::cmp::Reverse(hole.bytes));
    let holes: Vec<String> = own
        .iter()
        .map(|hole| {
            let place = match (&hole.after, &hole.before) {
                (Some(after), _) => format!("behind {after}"),
                (None, Some(before)) => format!("before {before}"),
                (None, None) => "alone".to_owned(),
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
    format!("Code that is not replaced was compiled for the old one: {}", list(units).unwrap_or_default())
}

/// Memory that is there when the module comes.
pub fn reached_from(path: &str) -> String {
    format!("Objects of it are in the kernel's memory already: {path}")
}

/// As [`reached_from`], where no way is known.
pub fn allocated() -> String {
    "No function has one on its stack, so objects of it are allocated, and those of before the swap stay in use"
        .to_owned()
}

/// SS107, of a variable.
pub fn changed_variable_type(was: &str, is: &str) -> Text {
    (
        format!("its type was changed from {was} to {is}, but the variable stays in vmlinux as it is"),
        "undo the change, and add a new variable under another name".to_owned(),
    )
}

/// SS107, of a variable's size.
pub fn changed_variable_size(was: u64, is: u64) -> Text {
    (
        format!("it takes {is} bytes instead of {was}, but the variable stays in vmlinux as it is"),
        "undo the change, and add a new variable under another name".to_owned(),
    )
}

/// SS108
pub fn changed_signature(was: &str, is: &str, users: &str) -> Text {
    (
        format!(
            "its prototype was changed from {was} to {is}, but callers that stay keep to the old one: {users}"
        ),
        "keep the function with its old parameters and result, and let it call a new one under another name"
            .to_owned(),
    )
}

/// SS109, of a caller that stays.
pub fn changed_variant(callees: &str) -> Text {
    (
        format!(
            "compiles differently, though nothing in its source was edited, and it calls variants of functions \
             that the compiler made for their callers ({callees}): vmlinux's code, which stays, would call the \
             module's variant as it calls its own"
        ),
        "keep those functions' parameters and how they use them, or leave them as they are and call a new one \
         under another name; noinline __noclone on the new one keeps the compiler from making variants of it"
            .to_owned(),
    )
}

/// SS109, of a variant that stays.
pub fn changed_staying_variant(reason: &StayReason) -> Text {
    (
        format!(
            "the compiler's variant of it is another one now, but vmlinux's stays ({}), and the module's callers \
             would call it in the new way",
            why_it_stays(reason)
        ),
        "keep its parameters, and what its callers pass".to_owned(),
    )
}

/// SS109, of a variant that vmlinux has not.
pub fn new_variant(source_name: &str, reason: &StayReason) -> Text {
    (
        format!(
            "it is a new variant, made by the compiler, of {source_name}, which stays in vmlinux ({}); the module \
             would run a copy of its own",
            why_it_stays(reason)
        ),
        format!(
            "keep what callers pass to {source_name}, so that the compiler makes the same variants of it"
        ),
    )
}

/// SS109, of what is passed in which register.
pub fn changed_convention(was: &str, is: &str, users: &str) -> Text {
    (
        format!(
            "the compiler's variant takes its parameters in another way: {is} instead of {was}. vmlinux's code \
             calls it in the old way: {users}"
        ),
        "keep its parameters and how it uses them, or leave it as it is and call a new one under another name"
            .to_owned(),
    )
}

/// SS110
pub fn changed_initial_value() -> Text {
    (
        "its initial value was changed, but the variable stays in vmlinux with the value that it has there: the \
         new one would never be in force"
            .to_owned(),
        "undo the change, and set the value in a hook after the swap, or at run time; a new variable under \
         another name begins as the source says"
            .to_owned(),
    )
}

/// SS112, SS203
pub fn escapes(way: &str, has_cleanup: bool) -> Text {
    let reason = format!("is new, and its address leaves the module: {way}");
    if has_cleanup {
        let advice = "see that the clean-up before unloading takes it back and waits for calls under way";
        (reason, advice.to_owned())
    } else {
        let reason = format!("{reason}. Who calls it after the module has gone runs into freed memory");
        let advice = "register a hook before unloading that takes it back (stops the timer, flushes the work, waits \
                      for RCU, unregisters), or make the change in a function that vmlinux has, whose address stays";
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
        Kind::Lock => "whoever holds the one does not lock out who takes the other",
        Kind::PerCpu => "code that stays goes on with vmlinux's, with the values there",
        Kind::StaticKey => "vmlinux's branches follow the old one, the module's the new one",
        Kind::Plain => "it begins with the value in the source, not with the one it has by now",
    };
    (
        format!("vmlinux has it, but {successor}, which is the module's own: {harm}"),
        "leave it as it was; add what is new under another name".to_owned(),
    )
}

/// A variable's new name.
pub fn now_called(name: &str) -> String {
    format!("{name} has taken its place")
}

/// A variable that became local.
pub fn now_local(name: &str) -> String {
    format!("{name} is local to a function now")
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
            "it was local to a function; made global, it is vmlinux's {what} of that name, which is another"
        ),
        "give it a name that vmlinux does not have".to_owned(),
    )
}

/// SS113
pub fn changed_system_call(was: &str, is: &str) -> Text {
    (
        format!(
            "its parameters were changed from ({was}) to ({is}); programs, and the tables that describe system \
             calls, keep to the old ones"
        ),
        "keep the parameters".to_owned(),
    )
}

/// SS201
pub fn takes_sealed(by: &str) -> Text {
    (
        format!(
            "{by} takes its address, but nothing in vmlinux does, so boot code has sealed it: a call by the address \
             is a control-protection fault where the processor enforces indirect-branch tracking"
        ),
        "take the address of a new function that calls it".to_owned(),
    )
}

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

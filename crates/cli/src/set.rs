//! The set of replaced functions in words.

use schedswap_sched::config::Divert;
use schedswap_sched::replaced::{Member, Reason, Set};
use std::collections::BTreeSet;
use std::path::Path;

/// Names shown before the rest is only counted.
const LISTED: usize = 8;

/// What `build` says of it, a line each.
pub fn lines(set: &Set, work: &Path) -> Vec<String> {
    if set.divert == Divert::All {
        let why = set.why_all.as_ref().map_or(String::new(), |why| format!(": {why}"));
        return vec![format!("everything that can be diverted is{why}"), queues(set)];
    }
    let is_changed = |member: &&Member| member.reason == Reason::Changed;
    let changed: Vec<&Member> = set.members.iter().filter(is_changed).collect();
    let others: Vec<&Member> = set.members.iter().filter(|member| !is_changed(member)).collect();
    let mut lines = vec![format!("{} changed{}", functions(changed.len()), listed(&changed))];
    if !set.added.is_empty() {
        let names: Vec<&str> = set.added.iter().map(|(_, name)| name.as_str()).collect();
        lines.push(format!("{} new: {}", functions(names.len()), some(&names)));
    }
    let more = match others.as_slice() {
        [] => String::new(),
        [only] => format!(": 1 more, {}, because {}", only.name, only.reason),
        [first, ..] => format!(
            ": {} more, such as {}, because {} (`schedswap explain {} NAME` for each)",
            others.len(),
            first.name,
            first.reason,
            work.display()
        ),
    };
    lines.push(format!("{} replaced{more}", functions(set.members.len())));
    lines.push(queues(set));
    lines
}

/// Whether a swap rebuilds the queues, and why.
fn queues(set: &Set) -> String {
    match &set.rebuild {
        Some(why) => format!("queues are rebuilt, because {why}"),
        None => {
            "queues are not rebuilt: nothing that is replaced runs when threads are queued or taken off a queue".to_owned()
        }
    }
}

/// What `explain` says of one function of the kernel.
pub fn of_function(set: &Set, unit: &str, name: &str) -> String {
    if set.divert == Divert::All {
        return "The last build replaces all that can be replaced.".to_owned();
    }
    match set.members.iter().find(|member| member.unit == unit && member.name == name) {
        Some(member) => format!("The last build replaces it: {}.", member.reason),
        None => "The last build leaves it to vmlinux: its code and its data are as released.".to_owned(),
    }
}

/// A number of functions, in words.
pub fn functions(count: usize) -> String {
    counted(count, "function")
}

/// A number of things whose plural ends in s.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The members' names, and the files that they are in.
fn listed(members: &[&Member]) -> String {
    if members.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let units: BTreeSet<&str> = members.iter().map(|member| member.unit.as_str()).collect();
    let units: Vec<&str> = units.into_iter().collect();
    format!(": {} ({})", some(&names), units.join(", "))
}

fn some(names: &[&str]) -> String {
    let shown = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

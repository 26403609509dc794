//! Reads the whole console and finds the kernel's complaints.

use regex_lite::{Regex, RegexBuilder};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::OnceLock;

/// Lines shown before and after a complaint.
const CONTEXT_BEFORE: usize = 2;
const CONTEXT_AFTER: usize = 24;
/// A stack trace within this many lines after a complaint belongs to it.
const REPORT_LINES: usize = 120;
/// The same for an expected line. Fewer, because such a line may have no stack trace.
const EXPECTED_LINES: usize = 12;

/// The kinds of complaints on a console.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `Kernel panic - not syncing`
    Panic,
    /// `BUG: …`, `kernel BUG at …`
    Bug,
    /// `WARNING: …`
    Warning,
    /// `Oops: …`, faults and exceptions in kernel mode.
    Oops,
    /// `BUG: scheduling while atomic`, `sleeping function called from invalid context`.
    Atomic,
    /// RCU CPU stall, or a starved RCU thread.
    RcuStall,
    /// Soft or hard lockup.
    Lockup,
    /// A task blocked for longer than the hung task limit.
    HungTask,
    /// A list, reference count, page or stack found corrupted.
    Corruption,
    /// A stack trace that belongs to no other complaint.
    CallTrace,
    /// The kernel dropped messages: others may be among them.
    DroppedMessages,
    /// A module or an event tainted the kernel in another way than by being unsigned or out of tree.
    Taint,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Panic => "panic",
            Kind::Bug => "BUG",
            Kind::Warning => "WARNING",
            Kind::Oops => "oops",
            Kind::Atomic => "sleep or schedule in atomic context",
            Kind::RcuStall => "RCU stall",
            Kind::Lockup => "lockup",
            Kind::HungTask => "hung task",
            Kind::Corruption => "corruption",
            Kind::CallTrace => "unexpected stack trace",
            Kind::DroppedMessages => "dropped messages",
            Kind::Taint => "taint",
        })
    }
}

/// A complaint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// Its kind.
    pub kind: Kind,
    /// The line of the console, from 1.
    pub line: usize,
    /// That line, without its time stamp.
    pub text: String,
    /// The lines around it.
    pub context: String,
}

/// In order: the first pattern that matches a line gives its kind.
const PATTERNS: &[(Kind, &str)] = &[
    (Kind::Panic, r"kernel panic - not syncing"),
    (
        Kind::Atomic,
        r"scheduling while atomic|sleeping function called from invalid context|scheduling from the idle thread",
    ),
    (Kind::Lockup, r"soft lockup - CPU#|hard lockup on cpu|detected hard lockup|BUG: workqueue lockup"),
    (
        Kind::RcuStall,
        r"rcu: .*(detected|self-detected) .*stall|rcu_\w+ (self-)?detected (expedited )?stalls?|rcu_\w+ kthread (starved|timer wakeup didn't happen)|rcu_tasks_wait_gp|INFO: rcu_tasks detected stalls",
    ),
    (
        Kind::HungTask,
        r"INFO: task \S+ blocked (in I/O wait )?for more than|INFO: task \S+ .*blocked on (a )?",
    ),
    (
        Kind::Oops,
        r"unable to handle|^oops(:|\[| -)|internal error: |^general protection fault|^traps: PANIC|double fault:|stack segment:|^(invalid opcode|divide error|int3|bounds|invalid TSS|stack guard page|exc_\w+): |recursive fault|bad RIP|stack-protector:|VMAP'?d? stack overflow|stack guard page was hit|kernel stack overflow",
    ),
    (Kind::Bug, r"^(watchdog: )?BUG[: ]|kernel BUG at "),
    (Kind::Warning, r"^WARNING: "),
    (
        Kind::Corruption,
        r"list_(add|del) corruption|list_(add|del)[^ ]* .*corrupt|refcount_t: |bad page (state|map)|corrupted (stack|page|list)|stack is corrupted|unwind stack type|slab corruption|corrupted preempt_count|ODEBUG:|UBSAN: |KASAN: |KCSAN: |KFENCE: |ftrace bug|jump_label: Fatal|static_call.*Fatal|unexpected (static_call|op at)|Fatal kernel bug",
    ),
    (Kind::Taint, r"disabling lock debugging due to kernel taint"),
    (Kind::DroppedMessages, r"\*\* \d+ printk messages dropped \*\*"),
    (Kind::CallTrace, r"^Call Trace:"),
];

/// Every complaint on a console. Lines that contain one of `expected` do not count, nor does the stack trace after
/// such a line.
pub fn complaints(console: &str, expected: &[String]) -> Vec<Complaint> {
    static COMPILED: OnceLock<Vec<(Kind, Regex)>> = OnceLock::new();
    let patterns = COMPILED.get_or_init(|| {
        let compile = |(kind, pattern): &(Kind, &str)| {
            let regex = RegexBuilder::new(pattern).case_insensitive(true).build();
            (*kind, regex.expect("the patterns are constant and tested"))
        };
        PATTERNS.iter().map(compile).collect()
    });
    let lines: Vec<&str> = console.lines().map(message).collect();
    let mut found: Vec<Complaint> = Vec::new();
    let mut expected_at = None;
    for (index, line) in lines.iter().enumerate() {
        if expected.iter().any(|text| line.contains(text.as_str())) {
            expected_at = Some(index);
            continue;
        }
        let Some((kind, _)) = patterns.iter().find(|(_, pattern)| pattern.is_match(line)) else { continue };
        if is_echo(line) {
            continue;
        }
        if *kind == Kind::CallTrace && expected_at.is_some_and(|at| index - at <= EXPECTED_LINES) {
            expected_at = None;
            continue;
        }
        if let Some(last) = found.last()
            && continues_report(*kind, last, index, &lines)
        {
            continue;
        }
        let context = &lines[index.saturating_sub(CONTEXT_BEFORE)..lines.len().min(index + CONTEXT_AFTER)];
        found.push(Complaint {
            kind: *kind,
            line: index + 1,
            text: line.to_string(),
            context: context.join("\n"),
        });
    }
    found
}

/// A stack trace or an oops code after a complaint is part of its report, until the kernel ends the report.
fn continues_report(kind: Kind, last: &Complaint, index: usize, lines: &[&str]) -> bool {
    let between = last.line..index;
    let ended = lines[between].iter().any(|line| line.contains("---[ end trace"));
    match kind {
        Kind::CallTrace => !ended && index - last.line < REPORT_LINES,
        Kind::Oops => {
            !ended && matches!(last.kind, Kind::Oops | Kind::Bug) && index - last.line < REPORT_LINES
        }
        _ => false,
    }
}

/// The command line is echoed at boot and may contain one of the patterns; traps of programs are not the kernel's
/// fault.
fn is_echo(line: &str) -> bool {
    static ECHO: OnceLock<Regex> = OnceLock::new();
    ECHO.get_or_init(|| Regex::new(r"^(Kernel )?[Cc]ommand line: |^traps: \S+\[\d+\] ").expect("a constant"))
        .is_match(line)
}

/// A console line without its time stamp `[   12.345678]`, without the caller `[    T123]` that CONFIG_PRINTK_CALLER
/// adds, and without a carriage return.
fn message(line: &str) -> &str {
    static STAMP: OnceLock<Regex> = OnceLock::new();
    let stamp =
        STAMP.get_or_init(|| Regex::new(r"^(<\d+>)?\[ *\d+\.\d+\](\[ *[TC]\d+\])? ?").expect("a constant"));
    let line = line.trim_end_matches('\r');
    stamp.find(line).map_or(line, |found| &line[found.end()..])
}

/// The last `count` lines.
pub fn tail(console: &str, count: usize) -> String {
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Letters and meanings of taint flags, by bit: Documentation/admin-guide/tainted-kernels.rst.
const TAINTS: [(char, &str); 20] = [
    ('P', "proprietary module"),
    ('F', "forced module load"),
    ('S', "out of specification system"),
    ('R', "forced module unload"),
    ('M', "machine check"),
    ('B', "bad page"),
    ('U', "requested by a program"),
    ('D', "the kernel died: oops or BUG"),
    ('A', "ACPI table overridden"),
    ('W', "warning"),
    ('C', "staging driver"),
    ('I', "firmware bug worked around"),
    ('O', "out-of-tree module"),
    ('E', "unsigned module"),
    ('L', "soft lockup"),
    ('K', "live patch"),
    ('X', "distribution's own"),
    ('T', "randomised structures"),
    ('N', "test"),
    ('J', "fwctl"),
];

/// The flags of a taint value that are not among `allowed` (letters), as words; `None` if there are none.
pub fn unexpected_taints(value: u64, allowed: &str) -> Option<String> {
    let allowed: BTreeSet<char> = allowed.chars().collect();
    let flags: Vec<String> = (0..64)
        .filter(|bit| value >> bit & 1 == 1)
        .filter_map(|bit| match TAINTS.get(bit) {
            Some((letter, _)) if allowed.contains(letter) => None,
            Some((letter, meaning)) => Some(format!("{letter} ({meaning})")),
            None => Some(format!("bit {bit}")),
        })
        .collect();
    if flags.is_empty() { None } else { Some(flags.join(", ")) }
}

#[cfg(test)]
#[path = "console_tests.rs"]
mod tests;

//! What a loaded scheduler module says below `/sys/kernel/schedswap` (written by `runtime/`).
//!
//! | file | content |
//! |---|---|
//! | `enable` | `1` while vmlinux's functions lead into the module, else `0`; writing changes it |
//! | `state` | one word, see [`State`] |
//! | `version` | name and version of the scheduler |
//! | `build_id` | of the kernel the module was built for |
//! | `functions` | how many functions are redirected |
//! | `blocker` | after EBUSY: the threads in the way, `comm pid function`, one a line |
//! | `timing` | of the last switch, `key=value` lines |

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::str::FromStr;

/// The directory.
pub const DIR: &str = "/sys/kernel/schedswap";

/// A file of the module that does not hold what its contract says.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SysfsError {
    /// A line without its parts.
    #[error(
        "{DIR}/{file}: line \"{line}\", expected {expected}: loader and module are of different versions"
    )]
    Line {
        /// File name.
        file: &'static str,
        /// The line.
        line: String,
        /// What it should look like.
        expected: &'static str,
    },
    /// A key is not there.
    #[error("{DIR}/timing has no \"{key}\": loader and module are of different versions")]
    MissingKey {
        /// The key.
        key: &'static str,
    },
}

/// Where a loaded module stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// vmlinux's own scheduler runs; the module may be unloaded.
    Disabled,
    /// On the way to the module's; vmlinux's own still runs.
    Enabling,
    /// The module's scheduler runs.
    Enabled,
    /// On the way back; the module's still runs.
    Disabling,
    /// A word that this version does not know.
    #[serde(untagged)]
    Other(String),
}

impl From<&str> for State {
    fn from(text: &str) -> State {
        match text.trim() {
            "disabled" => State::Disabled,
            "enabling" => State::Enabling,
            "enabled" => State::Enabled,
            "disabling" => State::Disabling,
            other => State::Other(other.to_owned()),
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Disabled => "disabled",
            State::Enabling => "enabling",
            State::Enabled => "enabled",
            State::Disabling => "disabling",
            State::Other(word) => word,
        })
    }
}

/// A thread that was inside a function to be replaced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Blocker {
    /// The thread's name. May hold blanks.
    pub comm: String,
    /// Its thread id.
    pub pid: u32,
    /// The function it was in, `name [module]` in a module; a remark in parentheses if that is unknown.
    pub function: String,
}

impl std::fmt::Display for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (thread {}) in {}", self.comm, self.pid, self.function)
    }
}

/// Reads `blocker`. Empty lines are skipped: an empty file means that nothing was in the way.
pub fn parse_blockers(text: &str) -> Result<Vec<Blocker>, SysfsError> {
    text.lines().filter(|line| !line.trim().is_empty()).map(parse_blocker).collect()
}

fn parse_blocker(line: &str) -> Result<Blocker, SysfsError> {
    // The last number that something follows is the thread's: names of threads may hold blanks and numbers,
    // and functions are followed by their module.
    let words = line.trim().match_indices(' ').map(|(at, _)| at).collect::<Vec<_>>();
    let mut pairs = words.windows(2).rev();
    let found = pairs.find_map(|pair| Some((pair, line.trim()[pair[0] + 1..pair[1]].parse().ok()?)));
    let Some((pair, pid)) = found else {
        return Err(SysfsError::Line {
            file: "blocker",
            line: line.to_owned(),
            expected: "`comm pid function`",
        });
    };
    let (comm, function) = (line.trim()[..pair[0]].to_owned(), line.trim()[pair[1] + 1..].to_owned());
    Ok(Blocker { comm, pid, function })
}

/// How long the parts of one switch between schedulers took.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Timing {
    /// Which way: `load` or `unload`.
    pub op: String,
    /// Threads in the system.
    pub threads: u64,
    /// CPUs online.
    pub cpus: u64,
    /// Threads that ran between the check outside the stop and the stop.
    pub logged: u64,
    /// Threads whose stacks were checked inside the stop.
    pub checked: u64,
    /// From asking for the stop until all CPUs ran again.
    pub stop_ns: u64,
    /// All the work inside the stop.
    pub handler_ns: u64,
    /// Of that, checking stacks.
    pub stack_check_ns: u64,
    /// Of that, taking the queued threads off the run queues.
    pub dequeue_ns: u64,
    /// Of that, writing text and classes.
    pub patch_ns: u64,
    /// Of that, putting the threads back on the run queues.
    pub enqueue_ns: u64,
    /// The stack check outside the stop, while everything runs.
    pub check_outside_ns: u64,
    /// The whole switch, from the write to `enable` until it returned.
    pub total_ns: u64,
    /// Values that this version does not know.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, String>,
}

impl FromStr for Timing {
    type Err = SysfsError;

    fn from_str(text: &str) -> Result<Timing, SysfsError> {
        let bad_line =
            |line: &str, expected| SysfsError::Line { file: "timing", line: line.to_owned(), expected };
        let mut values = BTreeMap::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (key, value) = line.split_once('=').ok_or_else(|| bad_line(line, "`key=value`"))?;
            values.insert(key.trim().to_owned(), value.trim().to_owned());
        }
        let mut number = |key: &'static str| {
            let value = values.remove(key).ok_or(SysfsError::MissingKey { key })?;
            value.parse().map_err(|_| bad_line(&format!("{key}={value}"), "a whole number of 0 or more"))
        };
        let mut timing = Timing {
            op: String::new(),
            threads: number("threads")?,
            cpus: number("cpus")?,
            logged: number("logged")?,
            checked: number("checked")?,
            stop_ns: number("stop_ns")?,
            handler_ns: number("handler_ns")?,
            stack_check_ns: number("stack_check_ns")?,
            dequeue_ns: number("dequeue_ns")?,
            patch_ns: number("patch_ns")?,
            enqueue_ns: number("enqueue_ns")?,
            check_outside_ns: number("check_outside_ns")?,
            total_ns: number("total_ns")?,
            other: BTreeMap::new(),
        };
        timing.op = values.remove("op").ok_or(SysfsError::MissingKey { key: "op" })?;
        timing.other = values;
        Ok(timing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: &str = "op=load\nthreads=512\ncpus=4\nlogged=17\nchecked=21\nstop_ns=310000\n\
        handler_ns=150000\nstack_check_ns=21000\ndequeue_ns=4000\npatch_ns=90000\nenqueue_ns=5000\n\
        check_outside_ns=2000000\ntotal_ns=9000000\n";

    #[test]
    fn timing_is_read_key_by_key() {
        let timing: Timing = TIMING.parse().unwrap();
        assert_eq!(timing.op, "load");
        assert_eq!((timing.threads, timing.cpus, timing.logged, timing.checked), (512, 4, 17, 21));
        assert_eq!((timing.stop_ns, timing.handler_ns, timing.stack_check_ns), (310_000, 150_000, 21_000));
        assert_eq!((timing.dequeue_ns, timing.patch_ns, timing.enqueue_ns), (4_000, 90_000, 5_000));
        assert_eq!((timing.check_outside_ns, timing.total_ns), (2_000_000, 9_000_000));
        assert!(timing.other.is_empty());
    }

    #[test]
    fn a_value_of_a_later_module_is_kept() {
        let timing: Timing = format!("{TIMING}drain_ns=7\n").parse().unwrap();
        assert_eq!(timing.other["drain_ns"], "7");
    }

    #[test]
    fn a_missing_or_broken_value_is_named() {
        let missing = TIMING.replace("patch_ns=90000\n", "").parse::<Timing>().unwrap_err();
        assert_eq!(missing, SysfsError::MissingKey { key: "patch_ns" });
        let broken = TIMING.replace("90000", "-1").parse::<Timing>().unwrap_err();
        assert!(broken.to_string().contains("patch_ns=-1"), "{broken}");
        assert!("what".parse::<Timing>().unwrap_err().to_string().contains("`key=value`"));
    }

    #[test]
    fn a_thread_may_have_blanks_in_its_name() {
        let text = "kworker/0:1 9 process_one_work\n\nWeb 12 Content 77 do_sys_poll\n\
            a 5 novel_timer [scheduler]\nb 6 (unreadable stack)\n";
        let blockers = parse_blockers(text).unwrap();
        assert_eq!(blockers.len(), 4);
        assert_eq!((blockers[2].pid, blockers[2].function.as_str()), (5, "novel_timer [scheduler]"));
        assert_eq!((blockers[3].pid, blockers[3].function.as_str()), (6, "(unreadable stack)"));
        assert_eq!(blockers[1].comm, "Web 12 Content");
        assert_eq!((blockers[1].pid, blockers[1].function.as_str()), (77, "do_sys_poll"));
        assert_eq!(blockers[0].to_string(), "kworker/0:1 (thread 9) in process_one_work");
    }

    #[test]
    fn a_blocker_without_its_parts_is_an_error() {
        assert!(parse_blockers("comm function").is_err());
        assert!(parse_blockers("comm x function").is_err());
    }

    #[test]
    fn states_both_ways() {
        for word in ["disabled", "enabling", "enabled", "disabling", "molten"] {
            let state = State::from(&*format!("{word}\n"));
            assert_eq!(state.to_string(), word);
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(json, format!("\"{word}\""));
            assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
        }
    }
}

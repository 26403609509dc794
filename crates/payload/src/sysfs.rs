//! What a loaded scheduler module reports below `/sys/kernel/schedswap` (written by `runtime/`).
//!
//! That directory belongs to the module that is in charge, or will be. A module that is loaded beside it has its own
//! directory, see [`DIR_BESIDE`].
//!
//! | file | content |
//! |---|---|
//! | `enable` | `1` while vmlinux's functions lead into the module, else `0`; writing changes it |
//! | `state` | one word, see [`State`] |
//! | `version` | name and version of the scheduler |
//! | `build_id` | that of the kernel for which the module was built |
//! | `functions` | how many functions are diverted |
//! | `blocker` | after EBUSY: the threads in the way, `comm pid function`, one per line |
//! | `timing` | for the last switch, `key=value` lines, see [`Timing`] |
//! | `module` | name of the kernel module |
//! | `since` | when it was enabled, in seconds since 1970; empty while it is not |
//! | `kept` | `1` if the module holds itself, because it was enabled |
//! | `unproved` | why its memory must not be freed, one reason per line; empty if it may be |
//! | `retire` | writing `1`: the module is out of use, and its memory stays; its name becomes `<module>_r<number>` |
//! | `release` | writing `1`: the module may be removed. It refuses if that is not shown to be safe |
//! | `plan` | reading it checks stacks and windows with the machine running, see [`Plan`] |

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::str::FromStr;

/// The directory.
pub const DIR: &str = "/sys/kernel/schedswap";

/// The directory of a module that is loaded beside another is called this followed by the module's name. It is a
/// module that has not taken over yet, or from which another one took over, or that has retired.
pub const DIR_BESIDE: &str = "/sys/kernel/schedswap-";

/// A file of the module does not hold what its contract says.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SysfsError {
    /// A line does not have the expected form.
    #[error(
        "{DIR}/{file}: line \"{line}\", expected {expected}: loader and module are of different versions, \
         use those of one package"
    )]
    Line {
        /// File name.
        file: &'static str,
        /// The line.
        line: String,
        /// What it should look like.
        expected: &'static str,
    },
    /// A key is missing.
    #[error(
        "{DIR}/{file} has no \"{key}\": loader and module are of different versions, use those of one package"
    )]
    MissingKey {
        /// File name.
        file: &'static str,
        /// The key.
        key: &'static str,
    },
}

/// The state of a loaded module.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// vmlinux's own scheduler runs.
    Disabled,
    /// On the way to the module's scheduler; vmlinux's own still runs.
    Enabling,
    /// The module's scheduler runs.
    Enabled,
    /// On the way back; the module's scheduler still runs.
    Disabling,
    /// Another scheduler took over from it.
    Superseded,
    /// It is out of use until the next boot, and keeps its memory.
    Retired,
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
            "superseded" => State::Superseded,
            "retired" => State::Retired,
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
            State::Superseded => "superseded",
            State::Retired => "retired",
            State::Other(word) => word,
        })
    }
}

/// A thread that was inside a function to be replaced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Blocker {
    /// The thread's name. It may contain blanks.
    pub comm: String,
    /// Its thread id.
    pub pid: u32,
    /// The function, or `name [module]` if it is in a module; a remark in parentheses if the function is unknown.
    pub function: String,
}

impl std::fmt::Display for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (thread {}) in {}", self.comm, self.pid, self.function)
    }
}

/// Reads `blocker`. Empty lines are skipped: an empty file means that no thread was in the way.
///
/// # Errors
/// [`SysfsError::Line`] with the first line that does not have the expected form.
pub fn parse_blockers(text: &str) -> Result<Vec<Blocker>, SysfsError> {
    text.lines().filter(|line| !line.trim().is_empty()).map(parse_blocker).collect()
}

fn parse_blocker(line: &str) -> Result<Blocker, SysfsError> {
    // The last number that is followed by something is the thread's id: names of threads may contain blanks and
    // numbers, and functions may be followed by their module.
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
    /// The direction: `load`, `unload`, or `switch` from one module to another.
    pub op: String,
    /// Threads in the system.
    pub threads: u64,
    /// CPUs online.
    pub cpus: u64,
    /// Threads that ran between the stack check outside the stop and the stop.
    pub logged: u64,
    /// Threads whose stacks were checked inside the stop.
    pub checked: u64,
    /// From the request for the stop until all CPUs ran again.
    pub stop_ns: u64,
    /// The whole work inside the stop.
    pub handler_ns: u64,
    /// Of that: checking stacks.
    pub stack_check_ns: u64,
    /// Of that: taking the queued threads off the run queues.
    pub dequeue_ns: u64,
    /// Of that: writing text and classes.
    pub patch_ns: u64,
    /// Of that: putting the threads back on the run queues.
    pub enqueue_ns: u64,
    /// The stack check outside the stop, while the machine runs.
    pub check_outside_ns: u64,
    /// The whole switch, from the write to `enable` until the write returned.
    pub total_ns: u64,
    /// Values that this version does not know.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, String>,
}

impl Timing {
    /// Threads that were taken off their queue and put back; `None` if the module does not say.
    pub fn requeued(&self) -> Option<u64> {
        self.other.get("requeued")?.parse().ok()
    }

    /// How many functions the module diverts; `None` if it does not say.
    pub fn functions(&self) -> Option<u64> {
        self.other.get("functions")?.parse().ok()
    }

    /// Whether the queues were emptied and filled again. A module that does not say so always does it.
    pub fn rebuilt(&self) -> bool {
        self.other.get("rebuild").is_none_or(|rebuild| rebuild != "0")
    }
}

impl FromStr for Timing {
    type Err = SysfsError;

    fn from_str(text: &str) -> Result<Timing, SysfsError> {
        let mut values = Values::parse("timing", text)?;
        Ok(Timing {
            op: values.take("op")?,
            threads: values.number("threads")?,
            cpus: values.number("cpus")?,
            logged: values.number("logged")?,
            checked: values.number("checked")?,
            stop_ns: values.number("stop_ns")?,
            handler_ns: values.number("handler_ns")?,
            stack_check_ns: values.number("stack_check_ns")?,
            dequeue_ns: values.number("dequeue_ns")?,
            patch_ns: values.number("patch_ns")?,
            enqueue_ns: values.number("enqueue_ns")?,
            check_outside_ns: values.number("check_outside_ns")?,
            total_ns: values.number("total_ns")?,
            other: values.values,
        })
    }
}

/// What a swap would meet, determined while the machine runs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Threads in the system.
    pub threads: u64,
    /// Of these, those that are in the way; `blocker` names them.
    pub busy: u64,
    /// Threads that ran while the stacks were walked.
    pub logged: u64,
    /// How long it took to walk all stacks.
    pub walk_ns: u64,
    /// Threads on a queue.
    pub queued: u64,
    /// CPUs online.
    pub cpus: u64,
    /// Values that this version does not know.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, String>,
}

impl Plan {
    /// How many functions the module diverts; `None` if it does not say.
    pub fn functions(&self) -> Option<u64> {
        self.other.get("functions")?.parse().ok()
    }

    /// Whether the queues would be emptied and filled again. A module that does not say so always does it.
    pub fn rebuilds(&self) -> bool {
        self.other.get("rebuild").is_none_or(|rebuild| rebuild != "0")
    }
}

impl FromStr for Plan {
    type Err = SysfsError;

    fn from_str(text: &str) -> Result<Plan, SysfsError> {
        let mut values = Values::parse("plan", text)?;
        Ok(Plan {
            threads: values.number("threads")?,
            busy: values.number("busy")?,
            logged: values.number("logged")?,
            walk_ns: values.number("walk_ns")?,
            queued: values.number("queued")?,
            cpus: values.number("cpus")?,
            other: values.values,
        })
    }
}

/// The `key=value` lines of one file.
struct Values {
    file: &'static str,
    values: BTreeMap<String, String>,
}

impl Values {
    fn parse(file: &'static str, text: &str) -> Result<Values, SysfsError> {
        let mut values = BTreeMap::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let bad = || SysfsError::Line { file, line: line.to_owned(), expected: "`key=value`" };
            let (key, value) = line.split_once('=').ok_or_else(bad)?;
            values.insert(key.trim().to_owned(), value.trim().to_owned());
        }
        Ok(Values { file, values })
    }

    fn take(&mut self, key: &'static str) -> Result<String, SysfsError> {
        self.values.remove(key).ok_or(SysfsError::MissingKey { file: self.file, key })
    }

    fn number(&mut self, key: &'static str) -> Result<u64, SysfsError> {
        let value = self.take(key)?;
        value.parse().map_err(|_| SysfsError::Line {
            file: self.file,
            line: format!("{key}={value}"),
            expected: "a whole number of 0 or more",
        })
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
    fn a_plan_is_read_key_by_key() {
        let text = "threads=140\nbusy=1\nlogged=9\nwalk_ns=2100000\nqueued=3\ncpus=4\nlater=1\n";
        let plan: Plan = text.parse().unwrap();
        assert_eq!((plan.threads, plan.busy, plan.logged), (140, 1, 9));
        assert_eq!((plan.walk_ns, plan.queued, plan.cpus), (2_100_000, 3, 4));
        assert_eq!(plan.other["later"], "1");
        let error = text.replace("busy=1\n", "").parse::<Plan>().unwrap_err();
        assert_eq!(error.to_string(), SysfsError::MissingKey { file: "plan", key: "busy" }.to_string());
    }

    #[test]
    fn a_missing_or_broken_value_is_named() {
        let missing = TIMING.replace("patch_ns=90000\n", "").parse::<Timing>().unwrap_err();
        assert_eq!(missing, SysfsError::MissingKey { file: "timing", key: "patch_ns" });
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
        for word in ["disabled", "enabling", "enabled", "disabling", "superseded", "retired", "molten"] {
            let state = State::from(&*format!("{word}\n"));
            assert_eq!(state.to_string(), word);
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(json, format!("\"{word}\""));
            assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
        }
    }
}

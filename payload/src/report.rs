//! What the loader prints with `--json`: one object, on one line.

use crate::BuildId;
use crate::sysfs::{Blocker, State, Timing};
use serde::{Deserialize, Serialize};

/// How a command of the loader ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Done as asked (exit code 0).
    Ok,
    /// Failed (exit code 1).
    Failed,
    /// Refused by a safety check; nothing was changed (exit code 3).
    Refused,
}

/// What came of `install` or `uninstall`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// `install` or `uninstall`.
    pub command: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Name and version of the scheduler in question, where known.
    pub version: Option<String>,
    /// Every attempt to switch, in order.
    pub attempts: Vec<Attempt>,
    /// What went wrong, from the outermost cause to the innermost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// After a failure: what the module and the kernel's module loader logged meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel_log: Vec<String>,
}

/// One write to `enable`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Attempt {
    /// It switched.
    Switched {
        /// How long it took; `None` when the module did not say.
        timing: Option<Timing>,
    },
    /// Threads were in the way, nothing was changed.
    Busy {
        /// Who.
        blockers: Vec<Blocker>,
    },
}

/// What `status` prints.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// `uname -r`.
    pub kernel_release: String,
    /// Of the running kernel.
    pub build_id: Option<BuildId>,
    /// The loaded scheduler; `None` when vmlinux's own runs and no module is there.
    pub scheduler: Option<LoadedScheduler>,
}

/// A scheduler module that is loaded.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LoadedScheduler {
    /// Name and version of the scheduler.
    pub version: String,
    /// Where it stands.
    pub state: State,
    /// How many functions it redirects.
    pub functions: u32,
    /// Of the last switch.
    pub timing: Option<Timing>,
    /// Threads that were in the way of the last switch.
    pub blockers: Vec<Blocker>,
}

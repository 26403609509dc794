//! What the loader prints with `--json`: one object, on one line.

use crate::BuildId;
use crate::sysfs::{Blocker, Plan, State, Timing};
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

/// What came of a command that may change something.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// `install`, `uninstall` and so on.
    pub command: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Name and version of the scheduler in question, where known.
    pub version: Option<String>,
    /// Every attempt to switch, in order.
    pub attempts: Vec<Attempt>,
    /// What is worth knowing besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
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
    /// The scheduler in charge; `None` when vmlinux's own runs and no module is there.
    pub scheduler: Option<LoadedScheduler>,
    /// Modules that are loaded beside it, left over from a switch that was cut short.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<LoadedScheduler>,
    /// The payload that shall run on this kernel; `None` for the kernel's own scheduler.
    #[serde(default)]
    pub active: Option<String>,
    /// Every payload that is installed, of whatever kernel.
    #[serde(default)]
    pub payloads: Vec<InstalledPayload>,
    /// Why the active payload is not loaded at boot.
    #[serde(default)]
    pub blocked: Option<Blocked>,
    /// Whether the kernel command line says `schedswap.enable=0`.
    #[serde(default)]
    pub disabled_on_the_command_line: bool,
    /// Who else is at the functions of the scheduler in charge, or of the active payload.
    #[serde(default)]
    pub conflicts: Vec<Conflict>,
    /// What taints the kernel; `None` if it does not say.
    #[serde(default)]
    pub taint: Option<Taint>,
}

/// A scheduler module that is loaded.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LoadedScheduler {
    /// Name and version of the scheduler.
    pub version: String,
    /// Name of the kernel module.
    #[serde(default)]
    pub module: String,
    /// Where it stands.
    pub state: State,
    /// When it was enabled, in seconds since 1970.
    #[serde(default)]
    pub since: Option<u64>,
    /// How many functions it diverts.
    pub functions: u32,
    /// Of the last switch.
    pub timing: Option<Timing>,
    /// Threads that were in the way of the last switch.
    pub blockers: Vec<Blocker>,
}

/// A payload that lies on this machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InstalledPayload {
    /// `uname -r` of the kernel that it is for.
    pub kernel_release: String,
    /// `<name>-<release>`.
    pub payload: String,
    /// Whether it shall run on that kernel.
    pub active: bool,
    /// What it is for.
    pub summary: String,
    /// Warnings of `schedswap check` that its author has allowed, by code and symbol.
    #[serde(default)]
    pub findings_allowed: Vec<String>,
    /// Other warnings of `schedswap check`.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A boot at which a payload was loaded and that did not come up well.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Blocked {
    /// `<name>-<release>`.
    pub payload: String,
    /// That boot's id.
    pub boot_id: String,
    /// When it was loaded, in seconds since 1970.
    pub at: u64,
}

/// Somebody else who is at the scheduler's functions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Conflict {
    /// What kind of patcher or tracer it is.
    pub holder: Holder,
    /// Its own name, where it has one.
    pub name: String,
    /// The functions in question; empty if it is the scheduler as a whole.
    pub functions: Vec<String>,
    /// Whether it stops an install; otherwise both work side by side.
    pub refuses: bool,
}

/// Kinds of patchers and tracers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// The kernel's own live patching.
    Livepatch,
    /// kpatch's own core module.
    Kpatch,
    /// plugsched's scheduler.
    Plugsched,
    /// A hot fix that lists its functions in `/sys/kernel/manual_*`.
    ManualFix,
    /// A policy loaded through sched_ext.
    SchedExt,
    /// A kprobe.
    Kprobe,
    /// An ftrace user that may change where the function goes.
    Ipmodify,
    /// A BPF trampoline, or another that ftrace calls directly.
    Trampoline,
    /// A tracer that only looks.
    Tracer,
}

/// What taints the kernel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Taint {
    /// `/proc/sys/kernel/tainted`.
    pub bits: u64,
    /// What these bits mean.
    pub reasons: Vec<String>,
}

/// What `check` prints.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CheckReport {
    /// Whether an install would be made.
    pub outcome: Outcome,
    /// What was looked at.
    pub path: String,
    /// Name and version of the scheduler, where known.
    pub version: Option<String>,
    /// Everything that would stop an install.
    pub problems: Vec<String>,
    /// Who else is at these functions, in the way or not.
    pub conflicts: Vec<Conflict>,
    /// What is worth knowing besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What `plan` prints.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PlanReport {
    /// Whether an install would be made now.
    pub outcome: Outcome,
    /// Name and version of the scheduler.
    pub version: Option<String>,
    /// What the module found; `None` when it could not be asked.
    pub plan: Option<Plan>,
    /// Threads that are in the way.
    pub blockers: Vec<Blocker>,
    /// How long the machine would stand still.
    pub prediction: Option<Prediction>,
    /// Why it would not be made.
    pub errors: Vec<String>,
    /// What the module logged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel_log: Vec<String>,
    /// What is worth knowing besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How long the machine would stand still.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Prediction {
    /// From the median cost of every step.
    pub stop_ns: u64,
    /// From the highest cost of every step that was seen.
    pub worst_ns: u64,
    /// How many swaps of this machine that rests on; 0: on those of the machine schedswap was measured on.
    pub swaps: usize,
    /// Stacks that would be checked inside the stop.
    pub checked: u64,
    /// Threads that would be requeued.
    pub requeued: u64,
}

//! What the loader prints with `--json`: one object, on one line.

use crate::BuildId;
use crate::sysfs::{Blocker, Plan, State, Timing};
use serde::{Deserialize, Serialize};

/// How a command of the loader ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Done (exit code 0).
    Ok,
    /// Failed (exit code 1).
    Failed,
    /// A safety check refused; nothing was changed (exit code 3).
    Refused,
}

/// The result of a command that may change something.
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
    /// Remarks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What went wrong, from the outermost cause to the innermost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// After a failure: what the module and the kernel's module loader logged during the command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel_log: Vec<String>,
}

/// One write to `enable`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Attempt {
    /// It switched.
    Switched {
        /// How long it took; `None` if the module did not say.
        timing: Option<Timing>,
    },
    /// Threads were in the way, nothing was changed.
    Busy {
        /// The threads.
        blockers: Vec<Blocker>,
    },
}

/// What `status` prints.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// `uname -r`.
    pub kernel_release: String,
    /// The build-id of the running kernel.
    pub build_id: Option<BuildId>,
    /// The scheduler in charge; `None` if vmlinux's own runs and no module is loaded.
    pub scheduler: Option<LoadedScheduler>,
    /// Modules that are loaded beside it, left over from an interrupted switch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<LoadedScheduler>,
    /// Modules that are out of use and keep their memory until the next boot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<RetiredScheduler>,
    /// The payload that is to run on this kernel; `None` for the kernel's own scheduler.
    #[serde(default)]
    pub active: Option<String>,
    /// Every installed payload, for all kernels.
    #[serde(default)]
    pub payloads: Vec<InstalledPayload>,
    /// Why the active payload is not loaded at boot.
    #[serde(default)]
    pub blocked: Option<Blocked>,
    /// Whether the kernel command line says `schedswap.enable=0`.
    #[serde(default)]
    pub disabled_on_the_command_line: bool,
    /// Which patchers and tracers use the functions of the scheduler in charge, or of the active payload.
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
    /// Its state.
    pub state: State,
    /// When it was enabled, in seconds since 1970.
    #[serde(default)]
    pub since: Option<u64>,
    /// How many functions it diverts.
    pub functions: u32,
    /// The times of the last switch.
    pub timing: Option<Timing>,
    /// Threads that were in the way of the last switch.
    pub blockers: Vec<Blocker>,
}

/// A scheduler module that is out of use and keeps its memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RetiredScheduler {
    /// Name and version of the scheduler.
    pub version: String,
    /// Name of the kernel module, as `lsmod` shows it.
    pub module: String,
    /// How much memory it keeps.
    pub bytes: u64,
    /// Why its memory must not be freed; empty if `uninstall --free` can free it.
    #[serde(default)]
    pub unproved: Vec<String>,
}

/// A payload on this machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InstalledPayload {
    /// `uname -r` of the kernel for which it was built.
    pub kernel_release: String,
    /// `<name>-<release>`.
    pub payload: String,
    /// Whether it is to run on that kernel.
    pub active: bool,
    /// Its purpose.
    pub summary: String,
    /// Warnings of `schedswap check` that its author has allowed, by code and symbol.
    #[serde(default)]
    pub findings_allowed: Vec<String>,
    /// Other warnings of `schedswap check`.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A boot that loaded a payload and did not come up healthy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Blocked {
    /// `<name>-<release>`.
    pub payload: String,
    /// The id of that boot.
    pub boot_id: String,
    /// When it was loaded, in seconds since 1970.
    pub at: u64,
}

/// A patcher or tracer that uses functions of the scheduler.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Conflict {
    /// The kind of patcher or tracer.
    pub holder: Holder,
    /// Its own name, if it has one.
    pub name: String,
    /// The functions in question; empty if it concerns the scheduler as a whole.
    pub functions: Vec<String>,
    /// Whether it prevents an install; if not, both work side by side.
    pub refuses: bool,
}

/// Kinds of patchers and tracers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// The kernel's own live patching.
    Livepatch,
    /// The core module of kpatch.
    Kpatch,
    /// A scheduler of plugsched.
    Plugsched,
    /// A hot fix that lists its functions in `/sys/kernel/manual_*`.
    ManualFix,
    /// A policy loaded through sched_ext.
    SchedExt,
    /// A kprobe.
    Kprobe,
    /// An ftrace user that may change where a function continues.
    Ipmodify,
    /// A BPF trampoline, or another function that ftrace calls directly.
    Trampoline,
    /// A tracer that only observes.
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
    /// Whether an install would succeed.
    pub outcome: Outcome,
    /// What was checked.
    pub path: String,
    /// Name and version of the scheduler, where known.
    pub version: Option<String>,
    /// Everything that would prevent an install.
    pub problems: Vec<String>,
    /// Which patchers and tracers use these functions, in the way or not.
    pub conflicts: Vec<Conflict>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What `plan` prints.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PlanReport {
    /// Whether an install would succeed now.
    pub outcome: Outcome,
    /// Name and version of the scheduler.
    pub version: Option<String>,
    /// What the module found; `None` if it could not be asked.
    pub plan: Option<Plan>,
    /// Threads that are in the way.
    pub blockers: Vec<Blocker>,
    /// How long the machine would stand still.
    pub prediction: Option<Prediction>,
    /// Why an install would not succeed.
    pub errors: Vec<String>,
    /// What the module logged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel_log: Vec<String>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How long the machine would stand still.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Prediction {
    /// Computed from the median cost of every step.
    pub stop_ns: u64,
    /// Computed from the highest observed cost of every step.
    pub worst_ns: u64,
    /// On how many swaps of this machine that is based; if 0, on those of the machine on which schedswap was
    /// measured.
    pub swaps: usize,
    /// Stacks that would be checked inside the stop.
    pub checked: u64,
    /// Threads that would be requeued.
    pub requeued: u64,
}

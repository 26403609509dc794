//! The values that computing the boundary yields.

use schedswap_kernel::address::Addr;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The boundary of one kernel's scheduler. Written to the work dir as JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Boundary {
    /// `uname -r` of the kernel.
    pub release: String,
    /// GNU build-id, lower-case hex.
    pub build_id: String,
    /// Functions with code in vmlinux, sorted by unit, then address.
    pub functions: Vec<BoundaryFunction>,
    /// Variables with static storage, sorted by unit, then address.
    pub variables: Vec<BoundaryVariable>,
    /// The `sched_class` objects.
    pub classes: Vec<SchedClass>,
    /// What the author of the configuration should know.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One function of the scheduler.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BoundaryFunction {
    /// ELF symbol name in vmlinux, with a clone's suffix (`finish_task_switch.isra.0`).
    pub name: String,
    /// Unit, `kernel/sched/core.c`.
    pub unit: String,
    /// Source file and line.
    pub decl_file: String,
    /// Line of the definition.
    pub decl_line: u32,
    /// Entry.
    pub addr: Addr,
    /// All its code, `.cold` parts included.
    pub ranges: Vec<Range<Addr>>,
    /// STB_LOCAL.
    pub local: bool,
    /// How it is reached.
    pub class: Class,
    /// Which word of the configuration made it an interface; `None` where that was computed.
    #[serde(default)]
    pub class_configured: Option<String>,
    /// What becomes of it.
    pub fate: Fate,
    /// Names of functions outside the scheduler's units that call it directly.
    pub called_from: Vec<String>,
    /// Objects (or functions, where code takes the address) outside that hold its address.
    pub stored_in: Vec<String>,
    /// Exported to modules.
    pub exported: bool,
}

/// How a scheduler function is reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Called from outside the scheduler, or exported.
    Interface,
    /// Reached through a stored address.
    Callback,
    /// Reached only from inside.
    Insider,
}

/// What becomes of a scheduler function.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// vmlinux's entry jumps to the module's function.
    #[serde(alias = "redirect")]
    Divert(PatchSite),
    /// The module's copy serves the module; nothing outside reaches the function, and vmlinux's entry has no
    /// room for a jump, so vmlinux's copy is left as it is.
    InsideOnly(String),
    /// Defined in a header outside `kernel/sched/`, which the work dir cannot change (trace events, list and
    /// bitmap helpers): the module has its copy, vmlinux goes on running its own.
    Duplicate(String),
    /// Vmlinux's stays in force, for this reason; calls to it bind to vmlinux.
    Stay(StayReason),
    /// `__schedule`: its entry jumps to the stub.
    Springboard(PatchSite),
}

/// Why a function stays in vmlinux.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum StayReason {
    /// Some thread always sleeps inside: it calls `__schedule`, through these functions.
    Sleeps {
        /// The call path, from the function's callee down to `__schedule`, or the waiting primitive whose
        /// address is handed to it.
        via: Vec<String>,
    },
    /// `__init`: its memory is gone.
    Init,
    /// Weak; vmlinux runs another definition of the name.
    OverriddenWeak,
    /// Run from NMI context, so it can never be patched while others run it.
    Nmi {
        /// How an NMI reaches it.
        via: Vec<String>,
    },
    /// `.noinstr.text`, or code that must not be diverted.
    NoInstr,
    /// No room for a jump after the entry: a jump label, a static call or another function is in the way.
    NoRoom {
        /// What is in the way.
        obstacle: String,
    },
    /// Kept by the configuration.
    Configured {
        /// Which of its words, and where.
        by: String,
    },
    /// In a sidecar's unit, and not among the functions that are to be replaced.
    NotNamed,
    /// It is entered through the springboard, and on this kernel its frame cannot be rebuilt.
    NoSpringboard,
    /// The edit leaves it as it is, so vmlinux's own does the same.
    Unchanged,
}

/// Where the jump is written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PatchSite {
    /// Address of the first byte written.
    pub at: Addr,
    /// The bytes that vmlinux's file holds there: as many as the jump has.
    pub expect: Vec<u8>,
    /// 0xff for a byte that must match, 0 for one that boot code may have rewritten.
    pub mask: Vec<u8>,
    /// Whether ftrace's nop lies before it, so that tracers stay attachable.
    #[serde(alias = "behind_fentry")]
    pub after_fentry: bool,
}

/// One variable of the scheduler.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BoundaryVariable {
    /// Name, without a `.N` suffix.
    pub name: String,
    /// Unit.
    pub unit: String,
    /// The function it is local to.
    pub in_function: Option<String>,
    /// Source file.
    pub decl_file: String,
    /// Source line.
    pub decl_line: u32,
    /// Address.
    pub addr: Addr,
    /// Bytes; 0 when unknown.
    pub size: u64,
    /// Shared with vmlinux, or private to the module.
    pub sharing: Sharing,
    /// Private, and its value comes from vmlinux at load and goes back at unload.
    #[serde(default)]
    pub carry: bool,
    /// Which word of the configuration decided; `None` where it was computed.
    #[serde(default)]
    pub configured: Option<String>,
    /// Functions outside the scheduler's units that refer to it.
    pub used_from: Vec<String>,
    /// Objects of vmlinux that hold its address.
    #[serde(default)]
    pub held_by: Vec<String>,
    /// Why it cannot be the module's own, should the configuration want that.
    #[serde(default)]
    pub not_private: Vec<String>,
}

/// Where the module's references to a variable go.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// To vmlinux's.
    Shared,
    /// To a copy in the module, for this reason.
    Private(String),
}

/// One `sched_class` object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SchedClass {
    /// Symbol: `fair_sched_class`.
    pub name: String,
    /// Unit that defines it.
    pub unit: String,
    /// Address in vmlinux.
    pub addr: Addr,
    /// Bytes.
    pub size: u64,
}

impl BoundaryFunction {
    /// Its name with its unit, as messages have it.
    pub fn symbol(&self) -> String {
        format!("{} ({})", self.name, self.unit)
    }
}

impl Boundary {
    /// The function of that symbol name in that unit.
    pub fn function(&self, unit: &str, name: &str) -> Option<&BoundaryFunction> {
        self.functions.iter().find(|f| f.unit == unit && f.name == name)
    }
}

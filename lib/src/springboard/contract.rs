//! The frame that vmlinux's `__schedule` leaves on the stack of a sleeping thread.

use crate::address::Addr;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the code behind the springboard expects of the stack, and what it does with it.
///
/// Offsets are from the CFA, the caller's stack pointer before it called `__schedule`: the return address is
/// at −8. All of it is derived from the code behind the springboard; nothing assumes what the compiler's
/// prologue looks like.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Contract {
    /// Symbol of the function that holds the springboard.
    pub function: String,
    /// Its entry.
    pub entry: Addr,
    /// The springboard: the address of the `call __switch_to_asm`.
    pub springboard: Addr,
    /// The stack pointer at the springboard, in bytes from the CFA (negative).
    pub stack_pointer: i64,
    /// How the frame is addressed.
    pub base: Base,
    /// The callee-saved registers that the tail loads from the frame, and from where. Sorted by register.
    pub slots: Vec<Slot>,
    /// The callee-saved registers that the tail leaves alone: they must hold the caller's values already at
    /// the springboard. Sorted by register.
    pub kept: Vec<CalleeSaved>,
    /// Where the tail looks for the stack guard; `None` on a kernel without stack protector.
    pub canary: Option<Canary>,
    /// What the tail calls, by name, sorted.
    pub calls: Vec<String>,
    /// Instructions of the tail, all paths together.
    pub instructions: usize,
    /// Whether the kernel's own unwind table (ORC) was there to confirm the frame.
    pub unwind_confirmed: bool,
}

/// The register that holds the frame together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// Only the stack pointer; rbp is a register like any other.
    Rsp,
    /// rbp is CFA−16, where the caller's rbp is saved.
    Rbp,
}

/// A register that the callee hands back as it got it (System V ABI).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are their own names")]
pub enum CalleeSaved {
    Rbx,
    Rbp,
    R12,
    R13,
    R14,
    R15,
}

impl CalleeSaved {
    /// All of them, in order.
    pub const ALL: [CalleeSaved; 6] = [Self::Rbx, Self::Rbp, Self::R12, Self::R13, Self::R14, Self::R15];

    /// The assembler's name, without `%`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rbx => "rbx",
            Self::Rbp => "rbp",
            Self::R12 => "r12",
            Self::R13 => "r13",
            Self::R14 => "r14",
            Self::R15 => "r15",
        }
    }

    /// The number that instructions encode.
    pub(super) fn number(self) -> usize {
        match self {
            Self::Rbx => 3,
            Self::Rbp => 5,
            Self::R12 => 12,
            Self::R13 => 13,
            Self::R14 => 14,
            Self::R15 => 15,
        }
    }
}

impl fmt::Display for CalleeSaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the caller's value of a register is kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Slot {
    /// Whose value.
    pub register: CalleeSaved,
    /// Bytes from the CFA (negative).
    pub offset: i64,
}

/// Where the frame keeps its copy of the stack guard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Canary {
    /// Bytes from the CFA (negative).
    pub offset: i64,
    /// What it is compared with.
    pub guard: Guard,
}

/// The kernel's stack guard: a per-CPU variable, addressed through `gs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// At this offset from the base of `gs`, on whatever address the kernel runs.
    Offset(u64),
    /// At the address of a symbol, which moves with the kernel (per-CPU data that is linked like other data).
    Address(Addr),
}

impl Guard {
    /// The guard at effective address `addr` (before the base of `gs` is added).
    ///
    /// Kernels whose per-CPU section is linked at 0 use offsets below 2 GB; all others use addresses in the
    /// kernel's own range.
    pub(super) fn at(addr: u64) -> Guard {
        if (addr as i64) < 0 { Guard::Address(Addr(addr)) } else { Guard::Offset(addr) }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Guard::Offset(offset) => write!(f, "%gs:{offset:#x}"),
            Guard::Address(addr) => write!(f, "%gs:{addr}(%rip)"),
        }
    }
}

impl Contract {
    /// Bytes between the return address and the stack pointer at the springboard.
    pub fn frame_size(&self) -> u64 {
        (-8 - self.stack_pointer) as u64
    }

    /// Bytes that the stub keeps below the frame for registers that the tail leaves alone.
    pub fn kept_size(&self) -> u64 {
        8 * self.kept.len() as u64
    }

    /// An offset from the CFA as one from the stack pointer at the springboard.
    pub fn from_stack_pointer(&self, offset: i64) -> i64 {
        offset - self.stack_pointer
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Contract { function, entry, springboard, stack_pointer, .. } = self;
        writeln!(f, "springboard   {springboard} ({function}+{:#x})", *springboard - *entry)?;
        writeln!(f, "stack pointer CFA{stack_pointer:+} (frame of {} bytes)", self.frame_size())?;
        match self.base {
            Base::Rbp => writeln!(f, "frame base    rbp = CFA-16")?,
            Base::Rsp => writeln!(f, "frame base    rsp")?,
        }
        for Slot { register, offset } in &self.slots {
            writeln!(f, "{register:<13} restored from CFA{offset:+}", register = register.name())?;
        }
        for register in &self.kept {
            writeln!(f, "{:<13} left alone", register.name())?;
        }
        match &self.canary {
            Some(Canary { offset, guard }) => {
                writeln!(f, "canary        CFA{offset:+}, compared with {guard}")?
            }
            None => writeln!(f, "canary        none")?,
        }
        writeln!(f, "calls         {}", self.calls.join(", "))?;
        let confirmed =
            if self.unwind_confirmed { "confirmed by the kernel's ORC" } else { "no ORC to confirm it" };
        write!(f, "tail          {} instructions; {confirmed}", self.instructions)
    }
}

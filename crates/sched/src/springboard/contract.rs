//! The frame that vmlinux's `__schedule` leaves on the stack of a sleeping thread.

use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::step::Register;
use schedswap_kernel::vmlinux::Machine;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the code after the springboard expects of the stack, and what it does with it.
///
/// Offsets are from the CFA, the caller's stack pointer before it called `__schedule`: on x86-64 the return address
/// is at −8, on arm64 it is in x30 and has a slot like other registers. All of it is derived from the code after the
/// springboard; nothing assumes what the compiler's prologue looks like.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Contract {
    /// Symbol of the function that holds the springboard.
    pub function: String,
    /// Its entry.
    pub entry: Addr,
    /// The springboard: the address of the call of the function that switches stacks.
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
    /// Registers that the tail reads before it restores them, and the number that each holds at the springboard in
    /// every case. Sorted by register.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constants: Vec<Constant>,
    /// Whether the return address in its slot is signed (arm64), the modifier being the CFA.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signed: bool,
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
    /// x29 is this many bytes from the CFA, where the caller's x29 is saved, and the return address after it.
    X29(i64),
}

/// A register that the callee hands back as it got it (System V ABI, AAPCS64); on arm64 also x30, from which it
/// returns.
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
    X19,
    X20,
    X21,
    X22,
    X23,
    X24,
    X25,
    X26,
    X27,
    X28,
    X29,
    X30,
}

/// Of each machine: the register, its name, and the number that instructions encode.
type Names = [(CalleeSaved, &'static str, Register)];

const X86_64: &Names = {
    use CalleeSaved::*;
    &[
        (Rbx, "rbx", 3),
        (Rbp, "rbp", 5),
        (R12, "r12", 12),
        (R13, "r13", 13),
        (R14, "r14", 14),
        (R15, "r15", 15),
    ]
};

const AARCH64: &Names = {
    use CalleeSaved::*;
    &[
        (X19, "x19", 19),
        (X20, "x20", 20),
        (X21, "x21", 21),
        (X22, "x22", 22),
        (X23, "x23", 23),
        (X24, "x24", 24),
        (X25, "x25", 25),
        (X26, "x26", 26),
        (X27, "x27", 27),
        (X28, "x28", 28),
        (X29, "x29", 29),
        (X30, "x30", 30),
    ]
};

impl CalleeSaved {
    /// All of a machine's, in order.
    pub fn of(machine: Machine) -> impl Iterator<Item = CalleeSaved> {
        let names = match machine {
            Machine::X86_64 => X86_64,
            Machine::Aarch64 => AARCH64,
        };
        names.iter().map(|(register, ..)| *register)
    }

    /// The assembler's name, without `%`.
    pub fn name(self) -> &'static str {
        self.named().1
    }

    /// The number that instructions encode.
    pub(super) fn number(self) -> Register {
        self.named().2
    }

    fn named(self) -> &'static (CalleeSaved, &'static str, Register) {
        let mut all = X86_64.iter().chain(AARCH64);
        all.find(|(register, ..)| *register == self).expect("each register is in one of the tables")
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

/// A register that is a number at the springboard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Constant {
    /// Which.
    pub register: CalleeSaved,
    /// All of its bits.
    pub value: u64,
}

/// Where the frame keeps its copy of the stack guard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Canary {
    /// Bytes from the CFA (negative).
    pub offset: i64,
    /// What it is compared with.
    pub guard: Guard,
}

/// The kernel's stack guard: on x86-64 a per-CPU variable, addressed through `gs`; on arm64 one of each thread's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// At this offset from the base of `gs`, on whatever address the kernel runs.
    Offset(u64),
    /// At the address of a symbol, which moves with the kernel (per-CPU data that is linked like other data).
    Address(Addr),
    /// At this offset in the running thread's `task_struct`, whose address is in `sp_el0`.
    Thread(u64),
}

impl Guard {
    /// The guard at effective address `addr` (before the base of `gs` is added).
    ///
    /// Kernels whose per-CPU section is linked at 0 use offsets below 2 GB; all others use addresses in the
    /// kernel's own range.
    pub(super) fn at(addr: u64) -> Guard {
        if (addr as i64) < 0 { Guard::Address(Addr(addr)) } else { Guard::Offset(addr) }
    }

    /// Whether it is at this offset in the running thread.
    pub(super) fn is_of_thread(self, offset: i64) -> bool {
        matches!(self, Guard::Thread(at) if i64::try_from(at) == Ok(offset))
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Guard::Offset(offset) => write!(f, "%gs:{offset:#x}"),
            Guard::Address(addr) => write!(f, "%gs:{addr}(%rip)"),
            Guard::Thread(offset) => write!(f, "current+{offset:#x}"),
        }
    }
}

impl Contract {
    /// Bytes between the stack pointer at the entry and at the springboard.
    pub fn frame_size(&self) -> u64 {
        let return_address = match self.base {
            Base::Rsp | Base::Rbp => 8,
            Base::X29(_) => 0,
        };
        (-return_address - self.stack_pointer) as u64
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
            Base::X29(at) => writeln!(f, "frame base    x29 = CFA{at:+}")?,
        }
        for Slot { register, offset } in &self.slots {
            writeln!(f, "{register:<13} restored from CFA{offset:+}", register = register.name())?;
        }
        for register in &self.kept {
            writeln!(f, "{:<13} left alone", register.name())?;
        }
        for Constant { register, value } in &self.constants {
            writeln!(f, "{register:<13} is {value}", register = register.name())?;
        }
        if self.signed {
            writeln!(f, "return        signed")?;
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

//! Why a kernel's `__schedule` is refused.

use super::contract::{CalleeSaved, Guard};
use schedswap_kernel::address::Addr;
use std::fmt;

/// What to say when the code is not what a springboard needs: nothing the user did is wrong.
const REFUSED: &str = "so the frame of a sleeping thread cannot be rebuilt on this kernel";

/// An instruction, for messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// Where it is.
    pub at: Addr,
    /// The decoder's name for its form, e.g. `Mov_r64_rm64`.
    pub form: String,
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.at, self.form)
    }
}

/// Why no contract can be derived, or the stub does not keep it.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the messages say what each field is")]
pub enum Error {
    #[error("vmlinux has no symbol `{name}`: expected the debug vmlinux of a whole kernel")]
    MissingSymbol { name: String },
    #[error("no call of {callee} in a function named __schedule; calls to it are in {found}, {REFUSED}")]
    NoSpringboard { callee: String, found: String },
    #[error(
        "`{function}` calls `{callee}` {} times, at {}, where exactly one call was expected, {REFUSED}",
        at.len(), list(at)
    )]
    SeveralSpringboards { function: String, callee: String, at: Vec<Addr> },
    #[error("vmlinux has no bytes for the code at {at}: expected the debug vmlinux, not a stripped one")]
    NoCode { at: Addr },
    #[error("the code at {at} does not decode, {REFUSED}")]
    Undecodable { at: Addr },
    #[error("vmlinux's table `{table}` cannot be read: {why}")]
    Table { table: String, why: String },
    #[error(
        "the stack pointer at the springboard {at} is not the same on all paths from the entry, or none \
         leads there, {REFUSED}"
    )]
    StackPointerUnknown { at: Addr },
    #[error("{register} is CFA{offset:+} at the springboard, expected {expected}, {REFUSED}")]
    FrameBase { register: &'static str, offset: i64, expected: &'static str },
    #[error(
        "{instruction} after the springboard reads {register}, which the new __schedule cannot have set, \
         {REFUSED}"
    )]
    LiveRegister { register: String, instruction: Instruction },
    #[error(
        "{instruction} after the springboard reads the frame at CFA{offset:+}, which is neither a saved \
         register nor the canary, {REFUSED}"
    )]
    LiveSlot { offset: i64, instruction: Instruction },
    #[error("{instruction} after the springboard reaches CFA{offset:+}, outside the frame, {REFUSED}")]
    OutsideFrame { offset: i64, instruction: Instruction },
    #[error(
        "{instruction} after the springboard uses the address CFA{offset:+} of the frame as a value, \
         {REFUSED}"
    )]
    FrameEscapes { offset: i64, instruction: Instruction },
    #[error("{instruction} after the springboard does something unknown to the stack pointer, {REFUSED}")]
    StackPointerLost { instruction: Instruction },
    #[error(
        "{instruction} after the springboard calls {callee}, which is not part of the scheduler, {REFUSED}"
    )]
    UnknownCall { callee: String, instruction: Instruction },
    #[error("{instruction} after the springboard branches to a computed address, {REFUSED}")]
    IndirectBranch { instruction: Instruction },
    #[error("{instruction} after the springboard is of an unknown kind, {REFUSED}")]
    Unforeseen { instruction: Instruction },
    #[error("{instruction} after the springboard leads back to the springboard, {REFUSED}")]
    Loops { instruction: Instruction },
    #[error("the code after the springboard runs past {at}, the end of the function, {REFUSED}")]
    FallsOff { at: Addr },
    #[error("no path after the springboard returns, {REFUSED}")]
    NeverReturns,
    #[error(
        "{instruction} returns with {register} holding {found}, where the caller's value was expected, {REFUSED}"
    )]
    NotRestored { register: CalleeSaved, found: String, instruction: Instruction },
    #[error(
        "{instruction} returns with the stack pointer at {found}, where CFA{expected:+} was expected, {REFUSED}"
    )]
    Unbalanced { found: String, expected: i64, instruction: Instruction },
    #[error("{register} is restored from different places on different paths, {REFUSED}")]
    RestoredDifferently { register: CalleeSaved },
    #[error("the slot CFA{offset:+} is used for both {first} and {second}, {REFUSED}")]
    SlotShared { offset: i64, first: String, second: String },
    #[error(
        "{instruction} compares CFA{offset:+} with {guard}, after CFA{earlier_offset:+} was compared with \
         {earlier_guard}, {REFUSED}"
    )]
    SeveralCanaries {
        offset: i64,
        guard: Guard,
        earlier_offset: i64,
        earlier_guard: Guard,
        instruction: Instruction,
    },
    #[error("at {at} the kernel's ORC says {orc}, but the code says {derived}, {REFUSED}")]
    Unwind { at: Addr, orc: String, derived: String },
    #[error("stub object: {why}; rebuild it from the stub.S of its architecture below runtime/arch")]
    StubObject { why: String },
    #[error("the assembled stub breaks the springboard's contract: {why}; it was not linked into a module")]
    Broken { why: String },
}

impl Error {
    /// Whether the file was read and understood, and `__schedule` is not as the stub needs it.
    pub fn is_about_the_code(&self) -> bool {
        !matches!(
            self,
            Error::MissingSymbol { .. }
                | Error::NoCode { .. }
                | Error::Table { .. }
                | Error::StubObject { .. }
                | Error::Broken { .. }
        )
    }
}

fn list(addresses: &[Addr]) -> String {
    addresses.iter().map(Addr::to_string).collect::<Vec<_>>().join(", ")
}

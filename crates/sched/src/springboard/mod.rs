//! The springboard: the place in vmlinux's `__schedule` where every sleeping thread's stack ends.
//!
//! A thread that sleeps has its stack end in the frame of vmlinux's `__schedule`, at the call of the function that
//! switches stacks (`__switch_to_asm` on x86-64, `__switch_to` on arm64).
//! The new `__schedule` must leave the very same frame, because vmlinux's code after that call runs
//! when the thread wakes. What this code expects of the frame is the [`Contract`], derived from the code itself:
//! a kernel whose code expects more than can be provided is refused. `runtime/arch/*/stub.S` keeps the
//! contract at run time, told by [`header`] what it is.
//!
//! | file | does |
//! |---|---|
//! | `contract` | the value |
//! | `read` | finds the code and the tables about it in an image |
//! | `paths` | instructions as a graph, with all that may be patched |
//! | `height` | stack pointer and frame base at the springboard |
//! | `constants` | registers that are always one number at the springboard |
//! | `tail` | what the code after the springboard reads, restores and calls |
//! | `orc` | the kernel's unwind table as a second opinion |
//! | `header` | the contract for the assembler |
//! | `prove` | runs the assembled stub and vmlinux's tail together |

mod constants;
mod contract;
mod derive;
mod error;
mod header;
mod height;
mod orc;
mod paths;
mod prove;
mod read;
mod tail;
#[cfg(test)]
mod tests;

pub use contract::{Base, CalleeSaved, Canary, Constant, Contract, Guard, Slot};
pub use error::{Error, Instruction};
pub use header::{Anchor, header};
pub use prove::{Proof, prove};
pub use read::derive;

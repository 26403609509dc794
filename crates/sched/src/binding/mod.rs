//! The scheduler's objects bound to vmlinux.
//!
//! [`rewrite()`] turns the scheduler's units, compiled as built-in code, into one object that a module can carry.
//! Each folder answers one question:
//!
//! | folder | question | files, in the order of the work |
//! |---|---|---|
//! | `place` | what goes where? | `special` (what becomes of each section), `slice` (an object cut into functions, objects and strings), `normalise` (relocations as references between those), `tables` (tables' entries, sorted by the code that they describe), `destination` (in vmlinux, in the module, or both), `resolve` (where a reference goes then), `initial` (initial contents that an edit changed), `live` (what the module has to carry), `rename` (names in the module) |
//! | `write` | what is in the object? | `rewrite` (all of it), `emit` (the kept pieces as one object), `runtime` (the runtime's own objects) |
//! | `verify` | is it what the compiler wrote? | `relocations` (each by itself), `compare` (with the compiler's) |
//! | `prove` | is it what vmlinux has? | `overlay`, `instructions`, `tables`, `content`, `pair` |
//!
//! `verify` and `prove` use none of the reasoning of the other two: [`verify()`] compares the written bytes with what
//! the compiler wrote, and [`prove_identity`] lays an unmodified scheduler over vmlinux.
//!
//! Beside them: `boot_pointers` (instructions that boot code completes, made to read the variable), `anchor`,
//! `symbols` (names that the module's parts share), `vmlinux_symbols` (what vmlinux has by a name),
//! `addresses_taken`, which tells the checks of an edit which functions' addresses a unit takes, and `handed_out`, which
//! of the module's own addresses can get out.

mod addresses_taken;
mod anchor;
mod boot_pointers;
mod error;
#[cfg(test)]
mod fixture;
mod handed_out;
mod place;
mod prove;
mod symbols;
#[cfg(test)]
mod tests;
mod verify;
mod vmlinux_symbols;
mod write;

pub use addresses_taken::{Taken, addresses_taken};
pub use anchor::anchor;
pub use error::Error;
pub use handed_out::{HandedOut, handed_out};
pub use place::index::Binding;
pub use place::special::is_carried;
pub(crate) use place::special::{carries_code, carries_data, holds_once_marks};
pub use prove::{Difference, Proof, prove_identity};
pub use verify::{Fault, VerifyReport, verify};
pub(crate) use vmlinux_symbols::local_static;
pub use write::rewrite::{Carried, Rewritten, UnitObject, rewrite};
pub use write::runtime::bind_runtime;

//! The scheduler's objects bound to vmlinux.
//!
//! [`rewrite()`] turns the scheduler's units, compiled as built-in code, into one object that a module can carry.
//! Inside it goes, each step in a file of its own:
//!
//! | step | file |
//! |---|---|
//! | instructions that boot code completes, made to read the variable | `boot_pointers` |
//! | what becomes of each section | `special` |
//! | an object cut into functions, objects and strings | `slice` |
//! | relocations as references between those | `normalise` |
//! | tables' entries sorted by the code they describe | `tables` |
//! | where each piece is to be found: vmlinux, module, both | `homes`, `initial` |
//! | what the module needs to carry | `live` |
//! | names in the module | `rename` |
//! | one object of it all | `layout` |
//!
//! Two later looks use none of that reasoning: [`verify()`] compares the written bytes with what the compiler
//! wrote (`verify`, `compare`), and [`prove_identity`] lays an unmodified scheduler over vmlinux (`prove`).
//! [`addresses_taken`] tells the checks of an edit which functions' addresses a unit takes (`taken`).

mod anchor;
mod boot_pointers;
mod compare;
mod error;
#[cfg(test)]
mod fixture;
mod homes;
mod initial;
mod layout;
mod live;
mod normalise;
mod prove;
mod rename;
mod rewrite;
mod runtime;
mod slice;
mod special;
mod tables;
mod taken;
#[cfg(test)]
mod tests;
mod verify;

pub use anchor::anchor;
pub use error::{Error, Fault};
pub use homes::Binding;
pub(crate) use homes::local_static;
pub use prove::{Difference, Proof, prove_identity};
pub use rewrite::{Carried, Rewritten, UnitObject, rewrite};
pub use runtime::bind_runtime;
pub use special::is_carried;
pub(crate) use special::{carries_code, carries_data};
pub use taken::{Taken, addresses_taken};
pub use verify::{VerifyReport, verify};

//! The written object beside vmlinux: an unmodified scheduler, rewritten, must be vmlinux again.

mod content;
mod overlay;
mod pair;

pub use overlay::{Difference, Proof, prove_identity};

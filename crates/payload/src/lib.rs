//! What the SDK writes and the loader reads.
//!
//! - [`manifest`]: `manifest.json`, which lies beside a scheduler module and says for which kernel it is.
//! - [`sysfs`]: what a loaded module says of itself below `/sys/kernel/schedswap`.
//! - [`report`]: what the loader prints with `--json`, for programs that drive it.
//! - [`BuildId`]: the identity of a kernel, which all three carry.
//! - [`Sha256`]: the identity of a file.
//!
//! Parsing only: nothing here opens a file.

mod build_id;
mod digest;
pub mod manifest;
pub mod report;
pub mod sysfs;

pub use build_id::{BuildId, BuildIdError};
pub use digest::{Sha256, Sha256Error};
pub use manifest::Manifest;

/// How the name of every scheduler module begins, in `/sys/module` and for `rmmod`; `_` and a hash of its content
/// follow, so that the kernel can hold two while one takes over from the other.
pub const MODULE_NAME: &str = "scheduler";

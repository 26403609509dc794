//! What the SDK writes and the loader reads.
//!
//! - [`manifest`]: `manifest.json`, which is beside a scheduler module and says for which kernel it was built.
//! - [`sysfs`]: what a loaded module reports below `/sys/kernel/schedswap`.
//! - [`report`]: what the loader prints with `--json`, for programs that drive it.
//! - [`BuildId`]: the identity of a kernel, which all three carry.
//! - [`Sha256`]: the identity of a file.
//!
//! This crate only parses and formats: it opens no file.

mod build_id;
mod digest;
pub mod manifest;
pub mod report;
pub mod sysfs;

pub use build_id::{BuildId, BuildIdError};
pub use digest::{Sha256, Sha256Error};
pub use manifest::Manifest;

/// The prefix of the name of every scheduler module, in `/sys/module` and for `rmmod`. An `_` and a hash of the
/// module's content follow, so that the kernel can hold two modules while one takes over from the other.
pub const MODULE_NAME: &str = "scheduler";

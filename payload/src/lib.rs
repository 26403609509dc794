//! What the SDK writes and the loader reads.
//!
//! - [`manifest`]: `manifest.json`, which lies beside a scheduler module and says for which kernel it is.
//! - [`sysfs`]: what a loaded module says of itself below `/sys/kernel/schedswap`.
//! - [`report`]: what the loader prints with `--json`, for programs that drive it.
//! - [`BuildId`]: the identity of a kernel, which all three carry.
//!
//! Parsing only: nothing here opens a file.

mod build_id;
pub mod manifest;
pub mod report;
pub mod sysfs;

pub use build_id::{BuildId, BuildIdError};
pub use manifest::Manifest;

/// What the name of every scheduler's kernel module begins with, in `/sys/module` and for `rmmod`. An underscore and 8
/// hex digits follow, by which versions differ, so that one can take over from another. Modules of one name, as those
/// without digits all are, the kernel never holds two of.
pub const MODULE_NAME: &str = "scheduler";

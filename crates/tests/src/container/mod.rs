//! The SDK's container without a container engine: the `Containerfile` read, and its steps done in a chroot.

mod chroot;
mod file;
mod steps;

pub use chroot::Chroot;
pub use file::{Copied, Stage, Step, parse};
pub use steps::{Context, make};

use std::path::PathBuf;

/// Where chroots and what they are made of lie while tests run.
pub fn dir() -> std::io::Result<PathBuf> {
    let dir = crate::kept::out().join("container");
    std::fs::create_dir_all(&dir)?;
    dir.canonicalize()
}

//! Where a kernel's files are: found below the host's root, below a sysroot of unpacked packages, or fetched
//! from the Debian archive into a cache.
//!
//! [`locate`] finds the debug vmlinux, headers, configuration, boot image and modules of one release;
//! [`shadow_headers`] makes headers that were unpacked, not installed, usable for `make -C`;
//! [`plan`] and [`fetch`] fill the [`Cache`] with a suite's newest kernel or an exact release.

mod apt;
mod archive;
mod cache;
mod error;
mod fetch;
mod headers;
mod kernel;
mod plan;
mod sysroot;
mod unpack;

pub use cache::{Cache, CachedKernel};
pub use error::SourceError;
pub use fetch::{Fetched, fetch};
pub use headers::shadow_headers;
pub use kernel::{Kernel, Overrides, Search, locate};
pub use plan::{Plan, PlannedPackage, Request, plan};

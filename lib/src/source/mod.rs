//! Where a kernel's files are: found below the host's root, below a sysroot of unpacked packages, or fetched
//! from the Debian archive into a cache.
//!
//! [`locate`] finds the debug vmlinux, headers, configuration, boot image and modules of one release;
//! [`shadow_headers`] makes headers that were unpacked, not installed, usable for `make -C`;
//! the [`Cache`] holds fetched kernels.

mod cache;
mod error;
mod headers;
mod kernel;
mod sysroot;

pub use cache::{Cache, CachedKernel};
pub use error::SourceError;
pub use headers::shadow_headers;
pub use kernel::{Kernel, Overrides, Search, locate};

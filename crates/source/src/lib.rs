//! Where a kernel's files are: found below the host's root, below a sysroot of unpacked packages, or fetched
//! from the Debian archive into a cache.
//!
//! [`locate`] finds the debug vmlinux, headers, configuration, boot image and modules of one release;
//! [`built`] takes them from the tree in which a kernel was just built;
//! [`shadow_headers`] makes headers that were unpacked, not installed, usable for `make -C`;
//! [`fetch_image`] gets only what boots, and [`suite_sources`] is what another apt needs;
//! [`extract`] prepares the source that a distribution publishes as a package;
//! [`plan`] and [`fetch`] fill the [`Cache`] with a suite's newest kernel or an exact release.

mod apt;
mod architecture;
mod archive;
mod built;
mod cache;
mod error;
mod extract;
mod fetch;
mod headers;
mod kernel;
mod plan;
mod sysroot;
pub mod toolchain;
mod unpack;
mod usage;

pub use archive::suite_sources;
pub use built::built;
pub use cache::{Cache, CachedKernel};
pub use error::SourceError;
pub use extract::{Packed, extract};
pub use fetch::{Fetched, fetch, fetch_image};
pub use headers::shadow_headers;
pub use kernel::{Bootable, Kernel, Overrides, Search, locate};
pub use plan::{Plan, PlannedPackage, Request, plan};
pub use toolchain::{Toolchain, WantedCompiler};
pub use usage::{Entry as CacheEntry, over, remove, usage};

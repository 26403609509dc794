//! Finds or fetches the files of one kernel release: debug vmlinux, configuration, headers, boot image, modules,
//! source, and the compiler that built it. They may be on the host, below a sysroot of unpacked packages, or come
//! from the Debian archive into a cache. The machine's own apt state is not touched, and nothing is installed.
//!
//! ```no_run
//! use schedswap_host::progress::Silent;
//! use schedswap_source::{Cache, Request, Search, WantedCompiler, fetch, locate, plan};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The newest cloud kernel of Debian 12, with its debug symbols, headers and source.
//! let cache = Cache::from_environment()?;
//! let request: Request = "bookworm/cloud-amd64".parse()?;
//! let fetched = fetch(&plan(&request, &cache, &Silent)?, &cache, &Silent)?;
//!
//! // The same files, found again by the kernel's release.
//! let search = Search { cache: Some(cache.clone()), ..Search::default() };
//! let kernel = locate(&fetched.release, &search)?;
//! println!("{} was built by {:?}", kernel.vmlinux.display(), WantedCompiler::of(&kernel)?);
//! # Ok(())
//! # }
//! ```
//!
//! * [`plan`] and [`fetch`] fill the [`Cache`] with a suite's newest kernel or an exact release; [`fetch_image`] fetches
//!   only what boots.
//! * [`locate`] finds the files of one release; [`built`] takes them from the tree in which a kernel was just built.
//! * [`shadow_headers`] makes headers that were unpacked, not installed, usable for `make -C`.
//! * [`extract`] prepares the source from a distribution's source package.
//! * [`toolchain`] gets the compiler that built a kernel.
//! * [`suite_sources`] returns what another apt needs to use the same archives.
//! * [`usage()`] and [`remove`] show what the cache takes on the disk, and remove things from it.

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
mod release;
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
pub use plan::{Plan, PlannedPackage, plan};
pub use release::Request;
pub use toolchain::{Toolchain, WantedCompiler};
pub use usage::{CacheEntry, over, remove, usage};

//! The work dir in which a developer edits a kernel's scheduler, and the pipeline from there to a module that swaps it
//! in: [`init`], [`check`] and [`build`].
//!
//! Each call takes what it needs, tells a [`Progress`](schedswap_host::progress::Progress) how far it is, and returns a
//! value. Nothing here prints, reads the command line or ends the process; the command `schedswap` is these calls and
//! the text around them.
//!
//! ```no_run
//! use schedswap_host::progress::Silent;
//! use schedswap_sdk::{BuildOptions, InitOptions, build, check, init};
//! use schedswap_source::{Cache, Search, locate};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Where `schedswap fetch bookworm/cloud-amd64` has put the kernel's files.
//! let search = Search { cache: Some(Cache::from_environment()?), ..Search::default() };
//! let kernel = locate("6.1.0-56-cloud-amd64", &search)?;
//!
//! // Reads vmlinux, computes the boundary, and proves that the source and the compiler are the kernel's.
//! let options = InitOptions::new(kernel, "linux-source-6.1.tar.xz", "work");
//! let (work, summary) = init(&options, &Silent)?;
//! println!("{} functions can be replaced", summary.replaced);
//!
//! // The tree to edit is kernel/sched/ below the work dir.
//! let file = work.root().join("kernel/sched/rt.c");
//! let text = std::fs::read_to_string(&file)?;
//! std::fs::write(&file, text.replace("100 * HZ / 1000", "50 * HZ / 1000"))?;
//!
//! // Whether that can work. `build` checks too, and refuses what `check` refuses.
//! let checked = check(&work, &[], &Silent)?;
//! for finding in &checked.findings {
//!     println!("{finding}");
//! }
//! if !checked.is_refused() {
//!     let built = build(&work, &BuildOptions::named("short-slices", "1"), &Silent)?;
//!     println!("{} diverts {} functions", built.module.display(), built.functions.len());
//! }
//! # Ok(())
//! # }
//! ```

pub mod git;
pub mod pipeline;
pub mod workdir;

pub use pipeline::{BuildOptions, Built, Checked, Key, Order, build, check};
pub use workdir::{InitOptions, Summary, Workdir, init};

//! The scheduler of one kernel: who is replaced, how it is compiled, the proof that its source is the kernel's, and
//! the module.
//!
//! | module | input | value |
//! |---|---|---|
//! | [`config`] | YAML | what a person wants otherwise than the computed boundary |
//! | [`boundary`] | vmlinux, `Config` | who is replaced, who stays, and why |
//! | [`springboard`] | vmlinux | the frame contract of `__schedule` |
//! | [`compile`] | sources, Kbuild's own commands | objects, compiled as the distribution did |
//! | [`identity`] | vmlinux, objects | the proof that both are the same code, and every symbol's address |
//! | [`binding`] | objects, addresses | objects bound to vmlinux, verified |
//! | [`check`] | pristine and edited objects | findings |
//! | [`replaced`] | pristine and edited objects | which functions the edit replaces |
//! | [`module`] | bound objects | `scheduler.ko` |
//!
//! Each module uses only those above it.
//!
//! # Example
//! Which functions of a kernel's scheduler would a module replace, and what becomes of `try_to_wake_up()`?
//!
//! ```no_run
//! use schedswap_kernel::vmlinux;
//! use schedswap_sched::boundary::{self, Fate};
//! use schedswap_sched::config::Config;
//! use std::path::Path;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let image = vmlinux::open(Path::new("/usr/lib/debug/boot/vmlinux-6.1.0-57-cloud-amd64"))?;
//! let boundary = boundary::compute(&image, &Config::default())?;
//! for function in &boundary.functions {
//!     if let Fate::Divert(site) = &function.fate {
//!         println!("{} is diverted at {}", function.name, site.at);
//!     }
//! }
//! for explanation in boundary::explain(&boundary, "try_to_wake_up") {
//!     println!("{explanation}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `examples/boundary.rs` prints the whole boundary.

pub mod author;
pub mod binding;
pub mod boundary;
pub mod check;
pub mod compile;
pub mod config;
pub mod identity;
pub mod module;
pub mod replaced;
pub mod springboard;

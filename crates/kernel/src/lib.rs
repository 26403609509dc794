//! Reads a Linux kernel and its relocatable objects: bytes go in, values come out. It starts no process, prints
//! nothing, and depends on nothing of its environment but the file that it is told to read.
//!
//! | module | value |
//! |---|---|
//! | [`address`] | [`address::Addr`], an address in the kernel |
//! | [`elf`] | [`elf::Elf`], the sections and symbols of a file |
//! | [`arch`] | what depends on the instruction set, with one interface for all |
//! | [`objects`] | [`objects::Object`], a relocatable object, read and written |
//! | [`types`] | [`types::Types`]: structures and signatures, as debug information declares them |
//! | [`vmlinux`] | [`vmlinux::Image`]: functions, calls, addresses that are stored |
//!
//! Each module uses only those above it.
//!
//! # Example
//! Which functions of the kernel call `schedule_timeout()` directly, and which structures hold the address of
//! `pick_next_task_fair()`?
//!
//! ```no_run
//! use schedswap_kernel::vmlinux;
//! use std::path::Path;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let image = vmlinux::open(Path::new("/usr/lib/debug/boot/vmlinux-6.1.0-57-cloud-amd64"))?;
//! println!("{}, compiled by {}", image.release, image.compiler);
//!
//! let sleeps = image.unique_symbol("schedule_timeout").ok_or("it has no schedule_timeout")?;
//! for branch in image.uses.branches.iter().filter(|branch| branch.callee == sleeps.addr) {
//!     println!("{} at {}", image.symbol(branch.caller).name, branch.at);
//! }
//!
//! let picks = image.unique_symbol("pick_next_task_fair").ok_or("it has no pick_next_task_fair")?;
//! for stored in image.uses.stored.iter().filter(|stored| stored.target == picks.addr) {
//!     if let Some(object) = stored.object {
//!         println!("{} holds it at {}", image.symbol(object).name, stored.at);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `examples/analyse.rs` prints more of what an image holds, and how long each stage of reading it takes.

pub mod address;
pub mod arch;
pub mod elf;
pub mod objects;
pub mod types;
pub mod vmlinux;

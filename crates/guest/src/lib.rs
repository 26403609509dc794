//! Boots a kernel in QEMU and works in the guest: to try a scheduler module, or anything else that needs a real
//! kernel.
//!
//! A test reads as a few lines:
//!
//! ```no_run
//! use schedswap_guest::{Config, Guest, Initramfs, Tools};
//!
//! # fn main() -> schedswap_guest::Result<()> {
//! let initramfs = Initramfs::new(&Tools::find()?)?;
//! let mut guest = Guest::launch(Config::new("boot/vmlinuz".as_ref(), initramfs))?;
//! assert_eq!(guest.sh("uname -s")?, "Linux");
//! guest.shutdown()?;
//! # Ok(())
//! # }
//! ```
//!
//! * [`Config`]: what to boot, and with which command line; each parameter has its reason.
//! * [`Initramfs`]: the files the guest sees; [`Tools`]: where the programs for it are.
//! * [`Guest`]: the running machine. Commands go over the second serial port to an agent
//!   (`guest-load agent`); the first one is the kernel's console, which is kept completely.
//! * [`console`]: the kernel's complaints. [`Guest::shutdown`] fails if there were any.
//! * [`Disk`]: a disk of a guest, besides the initramfs; [`debian`]: a machine that boots from one.
//! * [`Firmware`]: UEFI, where it is not enough that QEMU itself starts the kernel.
//! * [`memory`]: which kernel memory must be as before once a scheduler is unloaded.
//! * [`scenario`]: load and unload a scheduler again and again under load.

mod channel;
mod config;
pub mod console;
pub mod debian;
mod disk;
mod error;
mod firmware;
mod host;
mod initramfs;
mod machine;
pub mod memory;
mod monitor;
mod platform;
mod process;
mod programs;
pub mod scenario;
#[cfg(test)]
mod stock_kernel_tests;
mod tools;

pub use config::Config;
pub use disk::{Disk, Format};
pub use error::{Error, Result};
pub use firmware::Firmware;
pub use initramfs::Initramfs;
pub use machine::{Guest, Output, Running, Stream, Usage};
pub use platform::machine as machine_of_image;
pub use tools::Tools;

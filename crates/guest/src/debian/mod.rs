//! A machine with a disk of its own: a Debian with systemd that is switched off, cut off and booted again.
//!
//! ```no_run
//! use schedswap_guest::{Tools, debian::{Machine, RootImage}};
//! use schedswap_host::progress::Silent;
//! use schedswap_source::{Bootable, Cache};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (kernel, other): (Bootable, Bootable) = todo();
//! let cache = Cache::from_environment()?;
//! let image = RootImage::of_suite("bookworm", &cache, &Silent)?;
//! let mut machine = Machine::new(&image, kernel, &Tools::find()?, &cache)?;
//! machine.boot()?;
//! machine.dpkg_install("scheduler.deb".as_ref())?;
//! machine.kernel = other;
//! machine.reboot()?;
//! machine.power_cut()?;
//! machine.boot()?;
//! machine.power_off()?;
//! # Ok(())
//! # }
//! # fn todo() -> (Bootable, Bootable) { unreachable!() }
//! ```
//!
//! * [`RootImage`]: the file system with which every machine begins.
//! * [`Machine`]: its disk, and the guest that uses it while the machine is on.
//!
//! Whatever a test needs in the guest (agent, kernel modules, masks of units) comes with each boot and is not on the
//! disk.

mod cached;
mod early;
mod machine;
mod modules;
mod root_image;
mod transfer_disk;

pub use machine::{Machine, Until};
pub use root_image::RootImage;

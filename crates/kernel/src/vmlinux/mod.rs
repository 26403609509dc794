//! Reading the kernel: the distribution's debug vmlinux goes in, one immutable [`Image`] comes out.
//!
//! Everything that later phases know of the running kernel comes from here: symbols with their FILE groups, the
//! scheduler's translation units (DWARF), which function calls or stores the address of which, and the places
//! in the text that the kernel itself rewrites. The image is made in stages: [`Identified`], [`Described`], [`Sited`],
//! [`Image`].
//!
//! [`open`] goes through all of them. A caller that wants to say how far it is, or needs only the first, calls them
//! itself:
//!
//! ```no_run
//! use schedswap_kernel::vmlinux::{Identified, Sidecars};
//! use std::path::Path;
//!
//! # fn main() -> Result<(), schedswap_kernel::vmlinux::Error> {
//! let identified = Identified::open(Path::new("vmlinux"))?;
//! println!("{} has {} symbols", identified.release(), identified.elf().symbols.len());
//! let described = identified.describe(&Sidecars::new())?;
//! println!("{} units of the scheduler", described.units().len());
//! let image = described.find_sites()?.find_uses();
//! # Ok(())
//! # }
//! ```
//!
//! A stage cannot be left out. Code cannot be gone through before the places are known that the kernel rewrites:
//!
//! ```compile_fail,E0599
//! use schedswap_kernel::vmlinux::{Identified, Sidecars};
//! # fn main() -> Result<(), schedswap_kernel::vmlinux::Error> {
//! let described = Identified::open("vmlinux".as_ref())?.describe(&Sidecars::new())?;
//! let image = described.find_uses();
//! # Ok(())
//! # }
//! ```
//!
//! | file | reads |
//! |---|---|
//! | `elf` | sections, symbols |
//! | `relocate` | addresses that boot code writes into a kernel that can be moved |
//! | `provenance` | release, build-id, compiler |
//! | `exports` | what modules may link to |
//! | `dwarf` | the scheduler's units, inlined copies, layouts of special sections' entries |
//! | `sites`, `keys` | places that the kernel rewrites, and the keys of static branches |
//! | `stored` | addresses of functions and variables in data |
//! | `uses` | the same in data and in code: branches, addresses taken, passed and stored |
//! | `stages` | calls these in their order |
//!
//! The file is mapped, and only what is needed is touched: of a 590 MB vmlinux about a quarter.

mod calls;
pub(crate) mod debug;
mod dwarf;
mod elf;
mod error;
mod exports;
mod image;
mod keys;
mod provenance;
mod relocate;
mod sealed;
mod sites;
mod stages;
mod stored;
#[cfg(test)]
mod tests;
mod uses;

pub use calls::Calls;
pub use debug::{ParametersError, defined_elsewhere, parameters_of_kernel};
pub use error::Error;
pub use image::*;
pub use stages::{Described, Identified, Sited};
pub use uses::{Stored, Uses};

use std::path::Path;

/// Reads the debug vmlinux at `path`: all stages, without sidecars.
///
/// # Errors
/// Those of [`Identified::open`], [`Identified::describe`] and [`Described::find_sites`].
pub fn open(path: &Path) -> Result<Image, Error> {
    open_with_sidecars(path, &Sidecars::new())
}

/// As [`open`], with units outside the scheduler that are to be replaced with it.
///
/// # Errors
/// As [`open`], and [`Error::NoSidecar`] if the kernel has no such unit.
pub fn open_with_sidecars(path: &Path, sidecars: &Sidecars) -> Result<Image, Error> {
    Ok(Identified::open(path)?.describe(sidecars)?.find_sites()?.find_uses())
}

/// Reads a vmlinux from memory. `name` stands for the path in messages.
///
/// # Errors
/// As [`open`], without [`Error::Read`].
pub fn parse(name: &Path, bytes: Vec<u8>) -> Result<Image, Error> {
    Ok(Identified::parse(name, bytes)?.describe(&Sidecars::new())?.find_sites()?.find_uses())
}

/// The structures of the scheduler's own files and headers, and which other units know them. Goes through the debug
/// information of the whole kernel, so it is not part of [`open`].
///
/// # Errors
/// [`Error::Malformed`] if the debug information of any unit contradicts itself.
pub fn structures(image: &Image) -> Result<Vec<Structure>, Error> {
    dwarf::structures(image)
}

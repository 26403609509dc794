//! Reading the kernel: the distribution's debug vmlinux, in, one immutable [`Image`], out.
//!
//! Everything later phases know of the running kernel comes from here: symbols with their FILE groups, the
//! scheduler's translation units (DWARF), who calls or stores the address of which function, and the places
//! in the text that the kernel rewrites by itself.
//!
//! | file | reads |
//! |---|---|
//! | `elf` | sections, symbols |
//! | `relocate` | addresses that boot code writes into a kernel that can be moved |
//! | `provenance` | release, build-id, compiler |
//! | `exports` | what modules may link to |
//! | `dwarf` | the scheduler's units, inlined copies, layouts of special sections' entries |
//! | `sites`, `keys` | places that the kernel rewrites, and the keys of static branches |
//! | `entries`, `places`, `stored` | addresses of functions and variables in data |
//! | [`arch`](crate::arch) | code: branches, addresses taken and passed |
//!
//! The file is mapped, and only what is needed is touched: of a 590 MB vmlinux about a quarter.

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
mod stored;
#[cfg(test)]
mod tests;

pub use debug::{ParametersError, defined_elsewhere, parameters_of_kernel};
pub use error::Error;
pub use image::*;

use crate::arch::{self, Entries, Known, VariablePlaces};
use memmap2::MmapOptions;
use schedswap_host::progress::{Progress, Silent};
use std::fs::File;
use std::path::Path;

/// Reads the debug vmlinux at `path`.
pub fn open(path: &Path) -> Result<Image, Error> {
    open_with(path, &Sidecars::new(), &Silent)
}

/// As [`open`], with units outside the scheduler, and saying how far it is.
pub fn open_with(path: &Path, sidecars: &Sidecars, progress: &dyn Progress) -> Result<Image, Error> {
    parse_bytes(path, map_file(path)?, sidecars, progress)
}

/// The structures of the scheduler's own files and headers, and which other units know them. Goes through the debug
/// information of the whole kernel, so it is not part of [`open`].
pub fn structures(image: &Image) -> Result<Vec<Structure>, Error> {
    dwarf::structures(image)
}

/// Reads a vmlinux from memory. `name` stands for the path in messages.
pub fn parse(name: &Path, bytes: Vec<u8>) -> Result<Image, Error> {
    parse_bytes(name, FileBytes::Owned(bytes), &Sidecars::new(), &Silent)
}

#[allow(unsafe_code)]
fn map_file(path: &Path) -> Result<FileBytes, Error> {
    let read_error = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read_error)?;
    if !file.metadata().map_err(read_error)?.is_file() {
        return Err(read_error(std::io::Error::other("it is not a regular file")));
    }
    // SAFETY: the mapping is private and only ever read as bytes, for which any value is valid. Somebody who
    // truncates the file meanwhile makes this process fault; packages replace such files, they do not edit them.
    let map = unsafe { MmapOptions::new().map_copy_read_only(&file) }.map_err(read_error)?;
    Ok(FileBytes::Mapped(map))
}

fn parse_bytes(
    path: &Path,
    map: FileBytes,
    sidecars: &Sidecars,
    progress: &dyn Progress,
) -> Result<Image, Error> {
    progress.begin("symbols", None);
    let elf = elf::read(path, map)?;
    let release = provenance::release(&elf)?;
    let build_id = provenance::build_id(&elf)?;
    let compiler = provenance::compiler(&elf);
    let exports = exports::read(&elf);
    progress.end(&format!("{} symbols, {} exports", elf.symbols.len(), exports.len()));

    progress.begin("debug information", None);
    let debug = dwarf::read(&elf, sidecars)?;
    let producer = debug.units.iter().find(|unit| unit.sidecar.is_none()).map(|unit| unit.producer.clone());
    progress.end(&format!("{} units", debug.units.len()));

    progress.begin("rewritten places", None);
    let sites = sites::read(&elf, &debug.layouts)?;
    progress.end(&format!("{} sites", sites.len()));

    progress.begin("code", None);
    let uses = uses(&elf, &debug, &sites);
    progress.end(&format!("{} branches between functions", uses.branches.len()));
    Ok(Image {
        release,
        build_id,
        producer: producer.unwrap_or_default(),
        compiler,
        exports,
        entry_sizes: debug.layouts.iter().map(|(name, layout)| (name.clone(), layout.size)).collect(),
        alternative_lengths: sites::alternative_lengths(elf.machine, &debug.layouts),
        units: debug.units,
        inlined_outside: debug.inlined_outside,
        uses,
        sites,
        elf,
    })
}

/// Who refers to what, in code and in data.
fn uses(elf: &Elf, debug: &dwarf::DebugInfo, sites: &[Site]) -> Uses {
    let entries = Entries::of(elf);
    let variables = debug.units.iter().flat_map(|unit| &unit.variables);
    let places = VariablePlaces::of(variables.map(|variable| (variable.addr, variable.size)));
    let mut uses = arch::of(elf.machine).uses(elf, &Known { entries: &entries, places: &places, sites });
    uses.stored = stored::functions(elf, &entries);
    uses.held = stored::variables(elf, &places);
    uses.data.extend(keys::branches_on_keys(elf, &places, &debug.layouts));
    uses.data.sort_unstable_by_key(|used| (used.target, used.at));
    uses
}

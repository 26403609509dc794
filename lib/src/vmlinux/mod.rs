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
mod entries;
mod error;
mod exports;
mod image;
mod keys;
mod places;
mod provenance;
mod relocate;
mod sealed;
mod sites;
mod stored;
#[cfg(test)]
mod tests;

pub(crate) use entries::Entries;
pub use error::Error;
pub use image::*;
pub(crate) use places::VariablePlaces;

use crate::arch;
use crate::progress::{Progress, Silent};
use memmap2::MmapOptions;
use std::collections::{BTreeMap, HashMap};
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
    let elf = elf::read(path, &map)?;
    let map = match elf.machine {
        Machine::X86_64 => map,
        Machine::Aarch64 => relocate::relocated(path, map, &elf.sections)?,
    };
    let mut image = Image {
        path: path.to_owned(),
        map,
        machine: elf.machine,
        release: String::new(),
        build_id: Vec::new(),
        producer: String::new(),
        compiler: String::new(),
        sections: elf.sections,
        symbols: elf.symbols,
        by_name: elf.by_name,
        functions_by_addr: elf.functions_by_addr,
        exports: HashMap::new(),
        units: Vec::new(),
        inlined_outside: Vec::new(),
        uses: Uses::default(),
        sites: Vec::new(),
        entry_sizes: BTreeMap::new(),
        alternative_lengths: None,
    };
    image.release = provenance::release(&image)?;
    image.build_id = provenance::build_id(&image)?;
    image.compiler = provenance::compiler(&image);
    image.exports = exports::read(&image);
    progress.end(&format!("{} symbols, {} exports", image.symbols.len(), image.exports.len()));

    progress.begin("debug information", None);
    let debug = dwarf::read(&image, sidecars)?;
    let mut scheduler = debug.units.iter().filter(|unit| unit.sidecar.is_none());
    image.producer = scheduler.next().map(|unit| unit.producer.clone()).unwrap_or_default();
    image.units = debug.units;
    image.inlined_outside = debug.inlined_outside;
    progress.end(&format!("{} units", image.units.len()));

    progress.begin("rewritten places", None);
    image.entry_sizes = debug.layouts.iter().map(|(name, layout)| (name.clone(), layout.size)).collect();
    image.sites = sites::read(&image, &debug.layouts)?;
    image.alternative_lengths = sites::alternative_lengths(image.machine, &debug.layouts);
    progress.end(&format!("{} sites", image.sites.len()));

    progress.begin("code", None);
    let entries = Entries::of(&image);
    image.uses = arch::of(image.machine).uses(&image, &entries);
    image.uses.stored = stored::functions(&image, &entries);
    image.uses.held = stored::variables(&image);
    image.uses.data.extend(keys::branches_on_keys(&image, &debug.layouts));
    image.uses.data.sort_unstable_by_key(|used| (used.target, used.at));
    progress.end(&format!("{} branches between functions", image.uses.branches.len()));
    Ok(image)
}

//! The steps from a file to an [`Image`]. Each step's value is a type of its own, and is made from the value before
//! it, so a reader can only be given what it needs.
//!
//! | value | holds | made by |
//! |---|---|---|
//! | [`Identified`] | sections, symbols, release, build-id, compiler, exports | [`Identified::open`], [`Identified::parse`] |
//! | [`Described`] | and the debug information of the units that matter | [`Identified::describe`] |
//! | [`Sited`] | and the places that the kernel rewrites | [`Described::find_sites`] |
//! | [`Image`] | and who refers to what | [`Sited::find_uses`] |

use super::dwarf::{self, DebugInfo};
use super::error::Error;
use super::image::{Image, Sidecars, Unit};
use super::uses::Uses;
use super::{elf, exports, provenance, sites};
use crate::arch::Site;
use crate::elf::{Elf, FileBytes};
use memmap2::MmapOptions;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

/// A file that is a Linux kernel: its symbols, and what tells which kernel it is.
pub struct Identified {
    elf: Elf,
    release: String,
    build_id: Vec<u8>,
    compiler: String,
    exports: HashMap<String, bool>,
}

impl Identified {
    /// Maps the file at `path` and reads its symbols.
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be opened or mapped; [`Error::NotElf`], [`Error::Foreign`],
    /// [`Error::Truncated`] or [`Error::Malformed`] if it is not a whole ELF file of a supported machine;
    /// [`Error::NoSymbols`] if it is stripped; [`Error::NotAKernel`] if it lacks the release or the build-id.
    pub fn open(path: &Path) -> Result<Identified, Error> {
        Identified::read(path, map_file(path)?)
    }

    /// Reads the symbols of a vmlinux that is in memory. `name` stands for the path in messages.
    ///
    /// # Errors
    /// As [`Identified::open`], without [`Error::Read`].
    pub fn parse(name: &Path, bytes: Vec<u8>) -> Result<Identified, Error> {
        Identified::read(name, FileBytes::Owned(bytes))
    }

    fn read(path: &Path, bytes: FileBytes) -> Result<Identified, Error> {
        let elf = elf::read(path, bytes)?;
        Ok(Identified {
            release: provenance::release(&elf)?,
            build_id: provenance::build_id(&elf)?,
            compiler: provenance::compiler(&elf),
            exports: exports::read(&elf),
            elf,
        })
    }

    /// The file: its bytes, sections and symbols.
    pub fn elf(&self) -> &Elf {
        &self.elf
    }

    /// `uname -r`.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Exported symbols: name → GPL only?
    pub fn exports(&self) -> &HashMap<String, bool> {
        &self.exports
    }

    /// Reads the debug information of the scheduler's units, and of the sidecars'.
    ///
    /// # Errors
    /// [`Error::NoDwarf`] or [`Error::CompressedDwarf`] if there is none that can be read as it is;
    /// [`Error::Malformed`] if it contradicts itself; [`Error::NoScheduler`] if it does not describe
    /// `kernel/sched/core.c`; [`Error::NoSidecar`] if it does not describe a unit of `sidecars`.
    pub fn describe(self, sidecars: &Sidecars) -> Result<Described, Error> {
        let debug = dwarf::read(&self.elf, sidecars)?;
        Ok(Described { kernel: self, debug })
    }
}

/// A kernel with its debug information.
pub struct Described {
    kernel: Identified,
    debug: DebugInfo,
}

impl Described {
    /// The scheduler's translation units and the sidecars', sorted by name.
    pub fn units(&self) -> &[Unit] {
        &self.debug.units
    }

    /// Reads the tables of places that the kernel itself rewrites.
    ///
    /// # Errors
    /// [`Error::Malformed`] if a table lies outside the file's sections, or the debug information does not describe
    /// its entries.
    pub fn find_sites(self) -> Result<Sited, Error> {
        let sites = sites::read(&self.kernel.elf, &self.debug.layouts)?;
        Ok(Sited { described: self, sites })
    }
}

/// A kernel with its debug information and the places that it rewrites.
pub struct Sited {
    described: Described,
    sites: Vec<Site>,
}

impl Sited {
    /// Places in the text that the kernel itself rewrites, sorted by address.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// Goes through the code and data of the whole kernel for calls, and for addresses that are taken or stored.
    pub fn find_uses(self) -> Image {
        let Sited { described: Described { kernel, debug }, sites } = self;
        let uses = Uses::find(&kernel.elf, &debug.units, &debug.layouts, &sites);
        let producer =
            debug.units.iter().find(|unit| unit.sidecar.is_none()).map(|unit| unit.producer.clone());
        let class = debug.layouts.get(dwarf::CLASS);
        let entries = debug.layouts.iter().filter(|(name, _)| *name != dwarf::CLASS);
        Image {
            release: kernel.release,
            build_id: kernel.build_id,
            producer: producer.unwrap_or_default(),
            compiler: kernel.compiler,
            exports: kernel.exports,
            entry_sizes: entries.map(|(name, layout)| (name.clone(), layout.size)).collect(),
            class_members: class.map(|class| class.members.clone()).unwrap_or_default(),
            alternative_lengths: sites::alternative_lengths(kernel.elf.machine, &debug.layouts),
            units: debug.units,
            inlined_outside: debug.inlined_outside,
            uses,
            sites,
            elf: kernel.elf,
        }
    }
}

#[allow(unsafe_code)]
fn map_file(path: &Path) -> Result<FileBytes, Error> {
    let read_error = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read_error)?;
    if !file.metadata().map_err(read_error)?.is_file() {
        return Err(read_error(std::io::Error::other("it is not a regular file")));
    }
    // SAFETY: the mapping is private and only ever read as bytes, for which any value is valid. If another process
    // truncates the file meanwhile, this process faults; packages replace such files, they do not edit them.
    let map = unsafe { MmapOptions::new().map_copy_read_only(&file) }.map_err(read_error)?;
    Ok(FileBytes::Mapped(map))
}

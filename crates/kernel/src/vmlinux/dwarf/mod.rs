//! The debug information of the scheduler's units, of what was inlined from them elsewhere, and of the structures of
//! special sections. Code is read here; types and variables by [`types`](crate::types).
//!
//! Units are told apart by name and line table alone; only the few that matter are walked.

mod code;
mod die;
mod special_entries;
mod structures;
mod tables;
mod variables;

pub(super) use special_entries::{CLASS, Layouts};
pub(super) use structures::structures;

use super::error::Error;
use super::image::{InlinedCopy, Sidecars, Unit};
use crate::elf::Elf;
use crate::types::debug_info::{DebugSections, Dwarf, Slice};
use crate::types::index::{IndexedUnit, UnitIndex};
use crate::types::paths::{self, SCHEDULER_DIR};
use gimli::{EndianSlice, LittleEndian, Section, SectionId};
use object::elf;
use rayon::prelude::*;
use tables::Tables;

/// What the debug information says.
pub(super) struct DebugInfo {
    pub units: Vec<Unit>,
    pub inlined_outside: Vec<InlinedCopy>,
    pub layouts: Layouts,
}

/// Reads the debug information of the scheduler and of sidecars' units.
pub(super) fn read(elf: &Elf, sidecars: &Sidecars) -> Result<DebugInfo, Error> {
    let info = index_with(elf, sidecars)?;
    let malformed = |error| malformed(elf, error);

    let wanted: Vec<_> = info.index.units.iter().filter(|u| u.is_concerned).collect();
    let read: Vec<Read> = wanted
        .par_iter()
        .map(|unit| read_unit(elf, &info, unit, sidecars))
        .collect::<gimli::Result<_>>()
        .map_err(malformed)?;
    let mut units = Vec::new();
    let mut inlined_outside = Vec::new();
    for unit in read {
        match unit {
            Read::Replaced(unit) => units.push(*unit),
            Read::Other(copies) => inlined_outside.extend(copies),
        }
    }
    units.sort_by(|a: &Unit, b| a.name.cmp(&b.name));
    if let Some(unit) = sidecars.keys().find(|name| !units.iter().any(|unit| unit.name == **name)) {
        return Err(no_sidecar(elf, &info, unit));
    }
    inlined_outside.sort_by_key(|copy| copy.addr);
    let layouts = special_entries::read(elf, &info).map_err(malformed)?;
    Ok(DebugInfo { units, inlined_outside, layouts })
}

/// The sections, and all units with their names.
pub(super) fn index(elf: &Elf) -> Result<DebugSections<'_>, Error> {
    index_with(elf, &Sidecars::new())
}

/// The same; concerned are units that mention the scheduler's files, or those beside a sidecar.
fn index_with<'a>(elf: &'a Elf, sidecars: &Sidecars) -> Result<DebugSections<'a>, Error> {
    let dwarf = load(elf)?;
    let mut directories = vec![paths::directory(SCHEDULER_DIR)];
    directories.extend(sidecars.keys().map(|unit| paths::directory(unit)));
    let index = UnitIndex::build(&dwarf, &directories).map_err(|error| malformed(elf, error))?;
    let root = index
        .source_root()
        .ok_or_else(|| Error::NoScheduler { path: elf.path.clone(), units: index.units.len() })?;
    Ok(DebugSections { dwarf, index, root })
}

pub(super) fn malformed(elf: &Elf, error: gimli::Error) -> Error {
    Error::Malformed {
        path: elf.path.clone(),
        what: "the debug information".to_owned(),
        detail: error.to_string(),
    }
}

fn no_sidecar(elf: &Elf, info: &DebugSections<'_>, unit: &str) -> Error {
    let names = info.index.units.iter().map(|other| info.name_of(other));
    let near = names.filter(|name| paths::directory(name) == paths::directory(unit)).map(str::to_owned);
    Error::NoSidecar { path: elf.path.clone(), unit: unit.to_owned(), near: near.collect() }
}

/// What one unit yields that mentions a file of the scheduler's, or one beside a sidecar.
enum Read {
    Replaced(Box<Unit>),
    /// Copies of their functions inlined elsewhere.
    Other(Vec<InlinedCopy>),
}

fn read_unit<'a>(
    elf: &Elf,
    info: &DebugSections<'a>,
    indexed: &IndexedUnit<'a>,
    sidecars: &Sidecars,
) -> gimli::Result<Read> {
    let tables = Tables::read(info, indexed)?;
    let own = &tables.own;
    let mut inlined = code::inlined_copies(&tables);
    let sidecar = sidecars.get(&own.name);
    if sidecar.is_none() && !paths::is_below_scheduler(&own.name) {
        let beside_sidecar =
            |file: &str| sidecars.keys().any(|unit| paths::directory(unit) == paths::directory(file));
        inlined.retain(|copy| {
            paths::is_below_scheduler(&copy.decl_file)
                // No sidecar replaces a unit's own functions.
                || copy.decl_file != own.name && beside_sidecar(&copy.decl_file)
        });
        return Ok(Read::Other(inlined));
    }
    let (functions, overridden) = code::functions(elf, &tables);
    Ok(Read::Replaced(Box::new(Unit {
        name: own.name.clone(),
        sidecar: sidecar.cloned(),
        comp_dir: own.comp_dir.clone(),
        producer: own.producer.clone(),
        functions,
        variables: variables::read(elf, &info.types(indexed)?),
        inlined,
        overridden,
    })))
}

fn load<'a>(elf: &'a Elf) -> Result<Dwarf<'a>, Error> {
    let section = |id: SectionId| -> Result<Slice<'a>, Error> {
        let section = elf.section_named(id.name());
        if let Some(section) = section.filter(|s| s.flags & elf::SHF_COMPRESSED.0 != 0) {
            return Err(Error::CompressedDwarf { path: elf.path.clone(), section: section.name.clone() });
        }
        let bytes = section.map_or(&[][..], |s| elf.section_bytes(s));
        Ok(EndianSlice::new(bytes, LittleEndian))
    };
    let dwarf = Dwarf::load(section)?;
    let needed = [
        (".debug_info", dwarf.debug_info.reader().is_empty()),
        (".debug_abbrev", dwarf.debug_abbrev.reader().is_empty()),
        (".debug_line", dwarf.debug_line.reader().is_empty()),
    ];
    match needed.iter().find(|(_, empty)| *empty) {
        Some((section, _)) => Err(Error::NoDwarf { path: elf.path.clone(), section }),
        None => Ok(dwarf),
    }
}

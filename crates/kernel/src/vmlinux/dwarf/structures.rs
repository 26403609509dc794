//! The scheduler's structures with all their members, and the units outside that know them.

use super::super::error::Error;
use super::super::image::{Member, Structure};
use super::index::IndexedUnit;
use super::tables::{Die, Table, Tables};
use super::{Dwarf, index, malformed, paths};
use crate::elf::Elf;
use gimli::constants as dw;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Headers that the scheduler's own structures are declared in, beside those in its directory: what the rest of the
/// kernel sees of it.
const HEADERS: &[&str] = &["include/linux/sched.h", "include/linux/sched/"];

/// Structures without a name within structures, followed so deep.
const DEPTH_MAX: usize = 8;

/// Reads them, sorted by name.
pub(in super::super) fn structures(elf: &Elf) -> Result<Vec<Structure>, Error> {
    let (dwarf, index, root) = index(elf)?;
    let malformed = |error| malformed(elf, error);
    let is_own = |unit: &&IndexedUnit<'_>| paths::is_below_scheduler(paths::below_root(&root, &unit.path));
    let own: Vec<&IndexedUnit<'_>> = index.units.iter().filter(is_own).collect();
    let read = own.par_iter().map(|unit| Ok(own_structures(&Tables::read(&dwarf, &index, unit, &root)?)));
    let read: Vec<Vec<Structure>> = read.collect::<gimli::Result<_>>().map_err(malformed)?;
    let mut found: BTreeMap<(String, String), Structure> = BTreeMap::new();
    for structure in read.into_iter().flatten() {
        found.entry((structure.name.clone(), structure.decl_file.clone())).or_insert(structure);
    }
    let mut found: Vec<Structure> = found.into_values().collect();

    let mut wanted: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (i, structure) in found.iter().enumerate() {
        wanted.entry(structure.name.as_bytes()).or_default().push(i);
    }
    let others: Vec<&IndexedUnit<'_>> = index.units.iter().filter(|unit| !is_own(unit)).collect();
    let known = others.par_iter().map(|unit| Ok((*unit, known_in(&dwarf, unit, &wanted, &found)?)));
    let known: Vec<(&IndexedUnit<'_>, BTreeSet<usize>)> =
        known.collect::<gimli::Result<_>>().map_err(malformed)?;
    for (unit, structures) in known {
        for structure in structures {
            found[structure].known_to.push(paths::below_root(&root, &unit.path).to_owned());
        }
    }
    found.iter_mut().for_each(|structure| structure.known_to.sort());
    Ok(found)
}

fn is_of_scheduler(file: &str) -> bool {
    paths::is_below_scheduler(file)
        || HEADERS.iter().any(|header| file == *header || header.ends_with('/') && file.starts_with(header))
}

/// The scheduler's structures that one of its units knows.
fn own_structures(tables: &Tables<'_>) -> Vec<Structure> {
    let is_whole = |die: &&Die<'_>| {
        matches!(die.tag, dw::DW_TAG_structure_type | dw::DW_TAG_union_type) && !die.declaration
    };
    let structure = |die: &Die<'_>| {
        let (decl_file, decl_line) = tables.declared_at(die);
        if !is_of_scheduler(&decl_file) {
            return None;
        }
        let mut members = Vec::new();
        add_members(tables, &tables.own, die, 0, 0, &mut members);
        Some(Structure {
            name: die.name?.to_string_lossy().into_owned(),
            size: die.size?,
            decl_file,
            decl_line,
            members,
            known_to: Vec::new(),
        })
    };
    tables.own.dies.iter().filter(is_whole).filter_map(structure).collect()
}

fn add_members<'a>(
    tables: &Tables<'a>,
    table: &Table<'a>,
    die: &Die<'a>,
    base: u64,
    depth: usize,
    found: &mut Vec<Member>,
) {
    for member in table.members(die) {
        // The members of a union have none.
        let bit_offset = base + member.bit_offset.unwrap_or(0);
        let Some(name) = member.name else {
            let inner = member.type_.and_then(|offset| tables.unqualified(offset));
            if let Some((table, inner)) = inner.filter(|_| depth < DEPTH_MAX) {
                add_members(tables, table, inner, bit_offset, depth + 1, found);
            }
            continue;
        };
        found.push(Member {
            name: name.to_string_lossy().into_owned(),
            type_name: tables.type_text(member.type_),
            bit_offset,
            bits: member.bit_size.or_else(|| Some(tables.size_of_type(member)? * 8)).unwrap_or(0),
        });
    }
}

/// Which of the structures a unit outside knows: one of the same name, size and line.
fn known_in(
    dwarf: &Dwarf<'_>,
    indexed: &IndexedUnit<'_>,
    wanted: &HashMap<&[u8], Vec<usize>>,
    structures: &[Structure],
) -> gimli::Result<BTreeSet<usize>> {
    let unit = dwarf.unit(indexed.header)?;
    let mut known = BTreeSet::new();
    let mut entries = unit.entries_raw(None)?;
    let mut entry = gimli::DebuggingInformationEntry::null();
    while !entries.is_empty() {
        let depth = entries.next_depth();
        let mut here = entries.clone();
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        let is_structure =
            matches!(abbreviation.tag(), dw::DW_TAG_structure_type | dw::DW_TAG_union_type) && depth == 1;
        entries.skip_attributes(abbreviation.attributes())?;
        if !is_structure || !here.read_entry(&mut entry)? {
            continue;
        }
        let Some(name) = entry.attr_value(dw::DW_AT_name) else { continue };
        let Some(candidates) = wanted.get(dwarf.attr_string(&unit, name)?.slice()) else { continue };
        let number = |attribute| entry.attr_value(attribute).and_then(|v| v.udata_value());
        let (size, line) = (number(dw::DW_AT_byte_size), number(dw::DW_AT_decl_line));
        known.extend(candidates.iter().copied().filter(|i| {
            size == Some(structures[*i].size) && line == Some(u64::from(structures[*i].decl_line))
        }));
    }
    Ok(known)
}

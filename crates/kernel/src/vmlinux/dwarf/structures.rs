//! The scheduler's structures with all their members, and the units outside that know them.

use super::super::error::Error;
use super::super::image::{Member, Structure};
use super::{DebugSections, index, malformed};
use crate::elf::Elf;
use crate::types::index::IndexedUnit;
use crate::types::{self, Record, Types, paths};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Headers that the scheduler's own structures are declared in, beside those in its directory: what the rest of the
/// kernel sees of it.
const HEADERS: &[&str] = &["include/linux/sched.h", "include/linux/sched/"];

/// Structures without a name within structures, followed so deep.
const DEPTH_MAX: usize = 8;

/// Reads them, sorted by name.
pub(in super::super) fn structures(elf: &Elf) -> Result<Vec<Structure>, Error> {
    let info = index(elf)?;
    let malformed = |error| malformed(elf, error);
    let is_own = |unit: &&IndexedUnit<'_>| paths::is_below_scheduler(info.name_of(unit));
    let own: Vec<&IndexedUnit<'_>> = info.index.units.iter().filter(is_own).collect();
    let read = own.par_iter().map(|unit| Ok(own_structures(&info.types(unit)?)));
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
    let others: Vec<&IndexedUnit<'_>> = info.index.units.iter().filter(|unit| !is_own(unit)).collect();
    let known = others.par_iter().map(|unit| Ok((*unit, known_in(&info, unit, &wanted, &found)?)));
    let known: Vec<(&IndexedUnit<'_>, BTreeSet<usize>)> =
        known.collect::<gimli::Result<_>>().map_err(malformed)?;
    for (unit, structures) in known {
        for structure in structures {
            found[structure].known_to.push(info.name_of(unit).to_owned());
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
fn own_structures(types: &Types) -> Vec<Structure> {
    let own = types.all_records().filter(|record| is_of_scheduler(&record.place.file));
    let structure = |record: &Record| {
        let mut members = Vec::new();
        add_members(types, record, 0, 0, &mut members);
        Some(Structure {
            name: record.tag()?.to_owned(),
            size: record.bytes,
            decl_file: record.place.file.clone(),
            decl_line: record.place.line,
            members,
            known_to: Vec::new(),
        })
    };
    own.filter_map(structure).collect()
}

fn add_members(types: &Types, record: &Record, base: u64, depth: usize, found: &mut Vec<Member>) {
    for member in &record.members {
        let bit_offset = base + bit_offset(member);
        let Some(name) = &member.name else {
            if let Some(inner) = types.record(member.of).filter(|_| depth < DEPTH_MAX) {
                add_members(types, inner, bit_offset, depth + 1, found);
            }
            continue;
        };
        let whole = || types.known_bytes(member.of).map(|bytes| bytes * 8);
        found.push(Member {
            name: name.clone(),
            type_name: types.source_words(member.of),
            bit_offset,
            bits: member.bits.map(|bits| bits.width).or_else(whole).unwrap_or(0),
        });
    }
}

fn bit_offset(member: &types::Member) -> u64 {
    member.bits.map_or(member.offset * 8, |bits| bits.start)
}

/// Which of the structures a unit outside knows: one of the same name, size and line.
fn known_in<'a>(
    info: &DebugSections<'a>,
    unit: &IndexedUnit<'a>,
    wanted: &HashMap<&[u8], Vec<usize>>,
    structures: &[Structure],
) -> gimli::Result<BTreeSet<usize>> {
    let mut known = BTreeSet::new();
    info.outline(unit, |named| {
        let candidates = wanted.get(named.name.slice()).filter(|_| named.is_record());
        let is_same = |i: &usize| {
            named.bytes == Some(structures[*i].size)
                && named.line == Some(u64::from(structures[*i].decl_line))
        };
        known.extend(candidates.into_iter().flatten().copied().filter(is_same));
    })?;
    Ok(known)
}

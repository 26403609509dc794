//! Tables whose entries each describe a place in code: which entries belong to which function.

use super::normalise::{Referent, Unit};
use super::slice::PieceId;
use super::special::{EntrySize, Policy, policy};
use crate::binding::Error;
use schedswap_kernel::arch;
use schedswap_kernel::objects::{Object, Section, SectionId};
use std::collections::{BTreeMap, HashMap};

/// One entry of a table section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableEntry {
    pub section: SectionId,
    pub start: u64,
    pub end: u64,
}

/// One entry of the ORC pair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrcEntry {
    /// Offset from the piece's origin at which it begins to hold.
    pub offset: i64,
    /// The entry of `.orc_unwind`.
    pub orc: Vec<u8>,
}

/// What describes each piece of a unit's code.
#[derive(Default)]
pub struct Tables {
    pub entries: HashMap<PieceId, Vec<TableEntry>>,
    pub orc: HashMap<PieceId, Vec<OrcEntry>>,
}

impl Tables {
    /// Sorts a unit's table entries by what they describe.
    ///
    /// # Errors
    /// When an entry describes no code, or a table is not a whole number of entries.
    pub fn new(unit: &Unit, entry_sizes: &BTreeMap<String, u64>) -> Result<Tables, Error> {
        let mut tables = Tables::default();
        for (i, section) in unit.object.sections.iter().enumerate() {
            let id = SectionId(i as u32);
            match unit.policies[i].0 {
                Policy::Table(entry) => {
                    let size = entry_size(unit.name, section, entry, entry_sizes)?;
                    for start in (0..section.data.len() as u64).step_by(size as usize) {
                        let (piece, _) = described(unit, id, start)?;
                        tables.entries.entry(piece).or_default().push(TableEntry {
                            section: id,
                            start,
                            end: start + size,
                        });
                    }
                }
                Policy::OrcIp => tables.add_orc(unit, id)?,
                _ => {}
            }
        }
        tables.complete_orc(unit);
        Ok(tables)
    }

    fn add_orc(&mut self, unit: &Unit, ip: SectionId) -> Result<(), Error> {
        let count = unit.object.section(ip).data.len() as u64 / 4;
        let orc = unit.object.sections.iter().find(|s| s.name == ".orc_unwind").map_or(&[][..], |s| &s.data);
        let size = orc.len() as u64 / count.max(1);
        if size == 0 && count > 0 || size * count != orc.len() as u64 {
            return Err(Error::OddTable {
                unit: unit.name.into(),
                section: ".orc_unwind".into(),
                size: orc.len() as u64,
                entry: size,
            });
        }
        for n in 0..count {
            let (piece, offset) = described(unit, ip, n * 4)?;
            let bytes = orc[(n * size) as usize..((n + 1) * size) as usize].to_vec();
            self.orc.entry(piece).or_default().push(OrcEntry { offset, orc: bytes });
        }
        Ok(())
    }

    /// objtool leaves an entry out where the one before it holds on. Once functions of one section are cut
    /// apart, each needs one at its start, and a terminator at its end.
    fn complete_orc(&mut self, unit: &Unit) {
        for list in self.orc.values_mut() {
            list.sort_by_key(|e| e.offset);
        }
        let Some(size) = self.orc.values().flatten().next().map(|e| e.orc.len()) else { return };
        let mut last: Option<(SectionId, Vec<u8>)> = None;
        let mut pieces: Vec<PieceId> =
            unit.slices.ids().filter(|p| unit.slices.piece(*p).is_code()).collect();
        pieces.sort_by_key(|p| (unit.slices.piece(*p).section, unit.slices.piece(*p).start));
        for id in pieces {
            let piece = unit.slices.piece(id);
            let (start, end) = (piece.start as i64 - piece.origin as i64, (piece.end - piece.origin) as i64);
            let before = last.take().filter(|(section, _)| *section == piece.section).map(|(_, orc)| orc);
            let list = self.orc.entry(id).or_default();
            if list.first().is_none_or(|e| e.offset > start)
                && let Some(before) = before
            {
                list.insert(0, OrcEntry { offset: start, orc: before });
            }
            if let Some(e) = list.last() {
                last = Some((piece.section, e.orc.clone()));
                if e.offset < end {
                    list.push(OrcEntry { offset: end, orc: vec![0; size] });
                }
            } else {
                self.orc.remove(&id);
            }
        }
    }
}

/// The code that the entry at `start` describes: what its first field refers to.
fn described(unit: &Unit, section: SectionId, start: u64) -> Result<(PieceId, i64), Error> {
    let first = unit.references_in(section, start, start + 1).first();
    if let Some(reference) = first
        && let Referent::Piece(piece) = reference.referent
        && unit.slices.piece(piece).is_code()
    {
        return Ok((piece, reference.offset));
    }
    Err(Error::Damaged {
        name: unit.object.name.clone(),
        what: format!(
            "the entry at {start:#x} of {} describes no code (its structure may be another one in this kernel)",
            unit.object.section(section).name
        ),
    })
}

/// Fills each table up to its alignment. A macro that aligns what it writes leaves the last entry without the padding
/// that the others have (`.parainstructions` of 5.10); the linker puts it there as soon as something follows.
pub fn fill_up(object: &mut Object) {
    let Some(arch) = arch::of_elf(object.machine) else { return };
    for section in &mut object.sections {
        if matches!(policy(arch, &section.name, section.flags), Some((Policy::Table(_), _))) {
            section.size = section.size.next_multiple_of(section.align.max(1));
            section.data.resize(section.size as usize, 0);
        }
    }
}

/// Bytes of a table's entries.
///
/// # Errors
/// When the section is not a whole number of them.
pub fn entry_size(
    unit: &str,
    section: &Section,
    entry: EntrySize,
    known: &BTreeMap<String, u64>,
) -> Result<u64, Error> {
    let size = match entry {
        EntrySize::Field(size) => size,
        EntrySize::Struct { name, fallback } => match known.get(name).copied().unwrap_or(fallback) {
            0 => spacing(section).unwrap_or(0),
            size => size,
        },
    };
    let total = section.data.len() as u64;
    if size == 0 && total > 0 || size > 0 && !total.is_multiple_of(size) {
        return Err(Error::OddTable {
            unit: unit.into(),
            section: section.name.clone(),
            size: total,
            entry: size,
        });
    }
    Ok(size.max(1))
}

/// The smallest entry size with which every entry has its relocations at the same places, one of them first.
fn spacing(section: &Section) -> Option<u64> {
    let total = section.data.len() as u64;
    let pattern = |start: u64, size: u64| {
        let from = section.relocations.partition_point(|r| r.offset < start);
        section.relocations[from..]
            .iter()
            .take_while(move |r| r.offset < start + size)
            .map(move |r| r.offset - start)
    };
    (4..=total.min(64)).filter(|size| total.is_multiple_of(*size)).find(|size| {
        pattern(0, *size).next() == Some(0)
            && (0..total).step_by(*size as usize).all(|start| pattern(start, *size).eq(pattern(0, *size)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedswap_kernel::objects::{Relocation, SymbolId};

    #[test]
    fn entry_size_follows_from_where_relocations_are() {
        let relocation = |offset| Relocation { offset, kind: 2, symbol: SymbolId(0), addend: 0 };
        let relocations = (0..5).flat_map(|n| [relocation(n * 12), relocation(n * 12 + 4)]).collect();
        let section = Section { data: vec![0; 60], relocations, ..Section::default() };
        assert_eq!(spacing(&section), Some(12));
    }

    #[test]
    fn the_last_entry_gets_the_padding_that_the_others_have() {
        let table = |name: &str, align| Section {
            name: name.into(),
            flags: 2,
            align,
            size: 28,
            data: vec![1; 28],
            ..Section::default()
        };
        let sections = vec![table(".parainstructions", 8), table("__bug_table", 1), table(".rodata", 8)];
        let mut object = Object { sections, machine: object::elf::EM_X86_64.0, ..Object::default() };
        fill_up(&mut object);
        let sizes: Vec<u64> = object.sections.iter().map(|s| s.size).collect();
        assert_eq!(sizes, [32, 28, 28]);
        assert_eq!(object.sections[0].data[27..], [1, 0, 0, 0, 0]);
    }

    #[test]
    fn no_entry_size_without_relocations() {
        assert_eq!(spacing(&Section { data: vec![0; 60], ..Section::default() }), None);
    }
}

//! A unit's functions and inlined copies as a flat table: the attributes that matter, references resolved to offsets
//! in `.debug_info`. Questions are then plain look-ups.

use super::DebugSections;
use super::die::{Die, is_tabled};
use crate::types::debug_info::{Dwarf, Unit, comp_dir, files};
use crate::types::index::{IndexedUnit, UnitIndex};
use gimli::constants as dw;
use std::collections::BTreeSet;

/// Longest chain of references (concrete instance → abstract instance → declaration) that is followed. Real chains are shorter; a damaged file may hold a circle.
const CHAIN_MAX: usize = 32;

/// One unit's entries.
pub(super) struct Table<'a> {
    start: usize,
    end: usize,
    /// Relative to the kernel source where it lies there.
    pub name: String,
    pub comp_dir: String,
    pub producer: String,
    /// Files of the line table, relative to the kernel source; by the index that DW_AT_decl_file uses.
    files: Vec<String>,
    pub dies: Vec<Die<'a>>,
}

/// A unit with those units that it refers to (with link-time optimisation, or after `dwz`).
pub(super) struct Tables<'a> {
    pub own: Table<'a>,
    foreign: Vec<Table<'a>>,
}

impl<'a> Tables<'a> {
    pub(super) fn read(info: &DebugSections<'a>, unit: &IndexedUnit<'a>) -> gimli::Result<Tables<'a>> {
        let index = &info.index;
        let own = Table::read(info, unit)?;
        let mut tables = Tables { own, foreign: Vec::new() };
        let mut seen: BTreeSet<usize> = BTreeSet::from([unit.start]);
        let mut wanted = tables.own.refers_to(index);
        while let Some(start) = wanted.pop_first() {
            if seen.insert(start)
                && let Some(unit) = index.unit_at(start)
            {
                let table = Table::read(info, unit)?;
                wanted.extend(table.refers_to(index));
                tables.foreign.push(table);
            }
        }
        Ok(tables)
    }

    pub(super) fn find(&self, offset: usize) -> Option<(&Table<'a>, &Die<'a>)> {
        let mut tables = std::iter::once(&self.own).chain(&self.foreign);
        let table = tables.find(|t| (t.start..t.end).contains(&offset))?;
        let index = table.dies.binary_search_by_key(&offset, |d| d.offset).ok()?;
        Some((table, &table.dies[index]))
    }

    /// The first value found in an entry of this unit or, in turn, in those that it completes.
    fn resolve<T>(&self, die: &Die<'a>, mut get: impl FnMut(&Table<'a>, &Die<'a>) -> Option<T>) -> Option<T> {
        let mut at = Some((&self.own, die));
        for _ in 0..CHAIN_MAX {
            let (table, die) = at?;
            if let Some(value) = get(table, die) {
                return Some(value);
            }
            at = die.origin.and_then(|offset| self.find(offset));
        }
        None
    }

    /// DW_AT_name.
    pub(super) fn name(&self, die: &Die<'a>) -> Option<String> {
        self.resolve(die, |_, d| d.name).map(|name| name.to_string_lossy().into_owned())
    }

    /// Where it is declared: file relative to the kernel source, and line.
    pub(super) fn declared_at(&self, die: &Die<'a>) -> (String, u32) {
        let file = self.resolve(die, |table, d| {
            table.files.get(usize::try_from(d.decl_file?).ok()?).map(String::to_owned)
        });
        let line = self.resolve(die, |_, d| d.decl_line).and_then(|line| u32::try_from(line).ok());
        (file.unwrap_or_default(), line.unwrap_or(0))
    }

    pub(super) fn is_external(&self, die: &Die<'a>) -> bool {
        self.resolve(die, |_, d| d.external.then_some(())).is_some()
    }

    /// Declared `inline`, whether it was inlined or not.
    pub(super) fn is_declared_inline(&self, die: &Die<'a>) -> bool {
        let declared = [dw::DW_INL_declared_inlined, dw::DW_INL_declared_not_inlined].map(|c| u64::from(c.0));
        self.resolve(die, |_, d| d.inline).is_some_and(|inline| declared.contains(&inline))
    }

    /// The enclosing entries, innermost first.
    pub(super) fn ancestors<'t>(&'t self, die: &'t Die<'a>) -> impl Iterator<Item = &'t Die<'a>> {
        let up = |die: &'t Die<'a>| self.own.dies.get(die.parent? as usize);
        std::iter::successors(up(die), move |d| up(d))
    }
}

impl<'a> Table<'a> {
    fn read(info: &DebugSections<'a>, indexed: &IndexedUnit<'a>) -> gimli::Result<Table<'a>> {
        let unit = info.dwarf.unit(indexed.header)?;
        let mut table = Table {
            start: indexed.start,
            end: indexed.end,
            name: info.name_of(indexed).to_owned(),
            comp_dir: comp_dir(&unit),
            producer: String::new(),
            files: files(&info.dwarf, &unit, &info.root),
            dies: Vec::new(),
        };
        table.read_dies(&info.dwarf, &unit)?;
        Ok(table)
    }

    /// Starts of the units that references lead to.
    fn refers_to(&self, index: &UnitIndex<'a>) -> BTreeSet<usize> {
        let references = self.dies.iter().filter_map(|d| d.origin);
        let outside = references.filter(|offset| !(self.start..self.end).contains(offset));
        outside.filter_map(|offset| index.unit_at(offset)).map(|u| u.start).collect()
    }

    fn read_dies(&mut self, dwarf: &Dwarf<'a>, unit: &Unit<'a>) -> gimli::Result<()> {
        let mut entries = unit.entries_raw(None)?;
        // For each depth, the table entry that encloses what is met there.
        let mut enclosing: Vec<Option<u32>> = vec![None];
        while !entries.is_empty() {
            let depth = usize::try_from(entries.next_depth()).unwrap_or(0);
            let offset = self.start.saturating_add(entries.next_offset().0);
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            let parent = enclosing.get(depth).copied().flatten();
            let mut this = parent;
            if is_tabled(abbreviation.tag()) {
                let mut die = Die::new(offset, abbreviation.tag(), parent);
                for spec in abbreviation.attributes() {
                    let attribute = entries.read_attribute_inline(*spec)?;
                    if attribute.name() == dw::DW_AT_producer {
                        let producer = dwarf.attr_string(unit, attribute.value())?;
                        self.producer = producer.to_string_lossy().into_owned();
                    } else {
                        die.set(dwarf, unit, self.start, attribute.name(), attribute.value())?;
                    }
                }
                die.settle_code();
                this = Some(self.dies.len() as u32);
                self.dies.push(die);
            } else {
                entries.skip_attributes(abbreviation.attributes())?;
            }
            if abbreviation.has_children() {
                enclosing.truncate(depth + 1);
                enclosing.resize(depth + 1, None);
                enclosing.push(this);
            }
        }
        Ok(())
    }
}

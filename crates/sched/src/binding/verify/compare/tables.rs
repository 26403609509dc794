//! Tables: each entry that the compiler wrote for kept code is there, and no other.

use super::{Comparison, Stretch, relocations};
use crate::binding::Fault;
use crate::binding::place::special::{Policy, policy};
use crate::binding::place::tables::entry_size;
use object::elf;
use schedswap_kernel::objects::{Object, Place, Section, SectionId};
use std::collections::HashMap;

impl<'a> Comparison<'a> {
    /// Each entry that describes kept code is there, in order, and says the same.
    pub fn compare_tables(&mut self, unit: usize) {
        let owner = &self.units[unit];
        for (i, section) in owner.object.sections.iter().enumerate() {
            let Some((Policy::Table(entry), _)) = policy(self.arch, &section.name, section.flags) else {
                continue;
            };
            let Ok(size) = entry_size(&owner.unit, section, entry, &self.binding.image.entry_sizes) else {
                continue;
            };
            let Some(out) = self.object.sections.iter().position(|s| s.name == section.name) else {
                let mut starts = (0..section.size).step_by(size as usize);
                let carried = starts.any(|n| self.is_to_be_there(unit, section, n));
                if carried {
                    self.faults.push(Fault { place: section.name.clone(), what: "is lost".into() });
                }
                continue;
            };
            let mut theirs: HashMap<(&str, i64), Vec<u64>> = HashMap::new();
            let target = self.object.section(SectionId(out as u32));
            for start in (0..target.size).step_by(size as usize) {
                if let Some(key) = self.describes(target, start) {
                    theirs.entry(key).or_default().push(start);
                }
            }
            for start in (0..section.size).step_by(size as usize) {
                let Some((symbol, offset)) = self.described(unit, section, start) else { continue };
                self.entries += 1;
                if !self.is_to_be_there(unit, section, start) {
                    if theirs.contains_key(&(symbol, offset)) {
                        let place = format!("{} of {symbol}", section.name);
                        let what = "ftrace would list it beside vmlinux's, through which it is called".into();
                        self.faults.push(Fault { place, what });
                    }
                    continue;
                }
                let from = Stretch { section: SectionId(i as u32), start, length: size };
                let outcome = theirs
                    .get(&(symbol, offset))
                    .into_iter()
                    .flatten()
                    .map(|start| Stretch { section: SectionId(out as u32), start: *start, length: size })
                    .map(|to| {
                        self.stretches_agree(unit, from, to)?;
                        self.padding_agrees((&owner.object, section, start), (target, to.start), offset)
                    })
                    .min_by_key(Result::is_err)
                    .unwrap_or_else(|| Err("its entry is lost".into()));
                if let Err(what) = outcome {
                    let place = format!("{} of {symbol}+{offset:#x}", section.name);
                    self.faults.push(Fault { place, what });
                }
            }
        }
    }

    /// What an entry describes that is `offset` from a function's entry, thus before it, is the same.
    pub fn padding_agrees(
        &self,
        theirs: (&Object, &Section, u64),
        ours: (&Section, u64),
        offset: i64,
    ) -> Result<(), String> {
        let length = usize::try_from(-offset).unwrap_or(0);
        let [theirs, ours] = [theirs, (self.object, ours.0, ours.1)].map(|(object, table, start)| {
            let relocation =
                relocations(table, Stretch { section: SectionId(0), start, length: 1 }).first()?;
            let symbol = object.symbol(relocation.symbol);
            let Place::Section(code) = symbol.place else { return None };
            let at = usize::try_from(symbol.value.checked_add_signed(relocation.addend)?).ok()?;
            object.section(code).data.get(at..at + length)
        });
        if theirs.is_some() && theirs == ours {
            return Ok(());
        }
        Err("the padding that it describes is not what the compiler wrote".into())
    }

    /// Wherever the compiler says how to unwind kept code, the module says the same.
    pub fn compare_orc(&mut self, unit: usize) {
        let theirs = orc_entries(&self.units[unit].object);
        let mut ours: HashMap<(&str, i64), &[u8]> = HashMap::new();
        for (section, start, orc) in orc_entries(self.object) {
            if let Some(key) = self.describes(section, start) {
                ours.insert(key, orc);
            }
        }
        for (section, start, orc) in theirs {
            let Some(key) = self.described(unit, section, start) else { continue };
            self.entries += 1;
            if ours.get(&key) != Some(&orc) {
                let place = format!("{} of {}+{:#x}", section.name, key.0, key.1);
                self.faults
                    .push(Fault { place, what: "does not say how to unwind as the compiler does".into() });
            }
        }
    }

    /// Whether the module has to have an entry that the compiler wrote: it describes kept code, and is not ftrace's of a
    /// function that is called, and so traced, through vmlinux's entry.
    fn is_to_be_there(&self, unit: usize, section: &Section, start: u64) -> bool {
        let is_of_ftrace = section.name == self.arch.ftrace_table();
        self.described(unit, section, start)
            .is_some_and(|(symbol, _)| !(is_of_ftrace && self.entered.is_copy(symbol)))
    }

    /// The module's function that a compiler's entry describes.
    pub fn described(&self, unit: usize, section: &Section, start: u64) -> Option<(&'a str, i64)> {
        let first = section.relocations.partition_point(|r| r.offset < start);
        let relocation = section.relocations.get(first).filter(|r| r.offset == start)?;
        let object = &self.units[unit].object;
        let meant = object.symbol(relocation.symbol);
        let Place::Section(code) = meant.place else { return None };
        let at = meant.value as i64 + relocation.addend;
        let functions = || {
            let functions = object.symbols.iter().filter(|s| s.place == Place::Section(code));
            functions.filter(|s| s.kind == elf::STT_FUNC.0 && !s.is_padding())
        };
        let after = || functions().filter(|s| s.value as i64 > at).min_by_key(|s| s.value);
        let function = functions()
            .find(|s| (s.value as i64..(s.value + s.size) as i64).contains(&at))
            .or_else(|| after().filter(|_| section.name == self.arch.ftrace_table()))?;
        let module = self.in_module(unit, &function.name)?;
        Some((&module.name, at - function.value as i64))
    }

    /// The module's function that a written entry describes.
    pub fn describes(&self, section: &Section, start: u64) -> Option<(&'a str, i64)> {
        let first = section.relocations.partition_point(|r| r.offset < start);
        let relocation = section.relocations.get(first).filter(|r| r.offset == start)?;
        let symbol = self.object.symbol(relocation.symbol);
        (!symbol.name.is_empty()).then_some((symbol.name.as_str(), relocation.addend))
    }

    /// A table has no more entries than the compiler wrote for kept code.
    pub fn compare_counts(&mut self) {
        for section in &self.object.sections {
            let Some((Policy::Table(entry), _)) = policy(self.arch, &section.name, section.flags) else {
                continue;
            };
            let sizes = &self.binding.image.entry_sizes;
            let Ok(size) = entry_size("the module", section, entry, sizes) else { continue };
            let named = (0..section.size)
                .step_by(size as usize)
                .filter(|n| self.describes(section, *n).is_some())
                .count();
            let mut written = 0;
            for (u, unit) in self.units.iter().enumerate() {
                for source in unit.object.sections.iter().filter(|s| s.name == section.name) {
                    let starts = (0..source.size).step_by(size as usize);
                    written += starts.filter(|n| self.is_to_be_there(u, source, *n)).count();
                }
            }
            if named != written {
                let what = format!("{named} entries, the compiler wrote {written} for what is kept");
                self.faults.push(Fault { place: section.name.clone(), what });
            }
        }
    }
}

/// Entries of the ORC pair: the section with the addresses, the offset in it, and what holds from there on.
fn orc_entries(object: &Object) -> Vec<(&Section, u64, &[u8])> {
    let named = |name: &str| object.sections.iter().find(|s| s.name == name);
    let (Some(ip), Some(orc)) = (named(".orc_unwind_ip"), named(".orc_unwind")) else { return Vec::new() };
    let count = ip.data.len() / 4;
    if count == 0 || orc.data.len() < count {
        return Vec::new();
    }
    orc.data
        .chunks(orc.data.len() / count)
        .take(count)
        .enumerate()
        .map(|(n, orc)| (ip, n as u64 * 4, orc))
        .collect()
}

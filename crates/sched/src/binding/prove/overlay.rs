//! Functions and objects, byte for byte.

use super::{Difference, Prover, relocations};
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::relocation::{Field, Filled};
use schedswap_kernel::objects::{Place, Relocation, SectionId, SymbolId};
use std::collections::HashSet;
use std::ops::Range;

impl Prover<'_> {
    /// One function, byte for byte, or instruction by instruction where it is relaid.
    pub fn compare_function(&mut self, id: SymbolId, range: &Range<Addr>) {
        self.proof.functions += 1;
        let symbol = self.object.symbol(id);
        let Place::Section(section) = symbol.place else { return };
        let outcome = if self.counterparts[id.0 as usize].relaid.is_some() {
            self.compare_instructions(section, id, range)
        } else if symbol.size != range.end - range.start {
            Err(format!("{} bytes here, {} in vmlinux", symbol.size, range.end - range.start))
        } else {
            self.compare_bytes(section, symbol.value, symbol.size, range.start)
        };
        match outcome {
            Ok(()) if self.counterparts[id.0 as usize].relaid.is_some() => {
                self.proof.relaid.push(symbol.name.clone());
            }
            Ok(()) => self.proof.identical += 1,
            Err(what) => self.proof.different.push(Difference { symbol: symbol.name.clone(), what }),
        }
    }

    /// Classes, and private data that vmlinux has as well.
    pub fn compare_objects(&mut self) {
        let mut different = Vec::new();
        for (i, symbol) in self.object.symbols.iter().enumerate() {
            let Place::Section(section) = symbol.place else { continue };
            if symbol.kind != elf::STT_OBJECT.0
                || self.object.section(section).data.is_empty()
                || symbol.size == 0
            {
                continue;
            }
            let addrs = self.counterparts[i].addrs.clone();
            if addrs.is_empty() {
                continue;
            }
            self.proof.objects += 1;
            let outcomes: Vec<_> =
                addrs.iter().map(|a| self.compare_bytes(section, symbol.value, symbol.size, *a)).collect();
            if !outcomes.iter().any(Result::is_ok)
                && let Some(Err(what)) = outcomes.into_iter().next()
            {
                let place = (section, symbol.value);
                different.push((place, Difference { symbol: symbol.name.clone(), what }));
            }
        }
        // By now everything that refers to them was looked at.
        let met: HashSet<_> =
            self.met.borrow().iter().map(|(section, start, _)| (*section, *start)).collect();
        different.retain(|(place, _)| !met.contains(place));
        self.proof.different.extend(different.into_iter().map(|(_, difference)| difference));
    }

    /// Compares a stretch of a section with vmlinux, relocations applied.
    pub fn compare_bytes(&self, section: SectionId, start: u64, length: u64, at: Addr) -> Result<(), String> {
        let source = self.object.section(section);
        let mut ours = source.data[start as usize..(start + length) as usize].to_vec();
        let theirs = self.image.bytes(at, length).ok_or_else(|| format!("vmlinux has no bytes at {at}"))?;
        for relocation in relocations(source, start, start + length) {
            let offset = (relocation.offset - start) as usize;
            self.fill(section, relocation, &mut ours, theirs, offset, at + offset as u64)?;
        }
        self.boot_pointers.put_back(&mut ours, theirs, at);
        let nop = self.arch.fentry_nop().unwrap_or_default().len();
        for offset in (0..ours.len()).filter(|n| self.untraced.contains(&(section, start + *n as u64))) {
            let field = offset..(offset + nop).min(ours.len());
            ours[field.clone()].copy_from_slice(&theirs[field]);
        }
        match ours.iter().zip(theirs).position(|(a, b)| a != b) {
            None => Ok(()),
            Some(first) => {
                let name = relocations(source, start, start + length)
                    .iter()
                    .find(|r| (r.offset..r.offset + 8).contains(&(start + first as u64)))
                    .map_or(String::new(), |r| format!(", referring to {}", self.name(r.symbol)));
                Err(format!("differs from vmlinux at +{first:#x} ({}){name}", at + first as u64))
            }
        }
    }

    /// Puts into a field what it would hold in vmlinux. What has no name there is compared by content.
    pub fn fill(
        &self,
        section: SectionId,
        relocation: &Relocation,
        ours: &mut [u8],
        theirs: &[u8],
        offset: usize,
        place: Addr,
    ) -> Result<(), String> {
        let rule = self.arch.field(relocation.kind).filter(Field::is_known);
        let rule = rule.ok_or("a relocation of unknown type")?;
        let field = offset..offset + rule.len;
        let in_theirs = theirs.get(field.clone()).ok_or("a field that reaches past the end")?;
        let to_end = self.fields[section.0 as usize].to_end(&rule, relocation.offset);
        let symbol = self.object.symbol(relocation.symbol);
        let counterpart = &self.counterparts[relocation.symbol.0 as usize];
        if symbol.kind == elf::STT_SECTION.0 {
            self.same_unnamed(section, relocation, rule.filled(in_theirs, place), to_end, place)?;
            ours[field].copy_from_slice(in_theirs);
            return Ok(());
        }
        let addend = self.addend_in_vmlinux(relocation, to_end)?;
        for addr in &counterpart.addrs {
            let value = addr.offset(addend).0;
            rule.fill(ours, offset, place, value).map_err(|e| e.to_string())?;
            if ours[field.clone()] == *in_theirs {
                return Ok(());
            }
        }
        // A constant of the module's own, for which vmlinux's symbols have no name, or another one: a compiler numbers
        // them as it goes.
        if let Filled::Target(held) = rule.filled(in_theirs, place)
            && self.is_constant(symbol, held.offset(-relocation.addend))
        {
            ours[field].copy_from_slice(in_theirs);
        } else if counterpart.addrs.is_empty() {
            return Err(format!("refers to {}, which vmlinux does not have", symbol.name));
        }
        Ok(())
    }

    /// Whether what a relocation against a section refers to is what `filled` says that vmlinux's field refers to.
    fn same_unnamed(
        &self,
        section: SectionId,
        relocation: &Relocation,
        filled: Filled,
        to_end: i64,
        place: Addr,
    ) -> Result<(), String> {
        if self.is_nothing(section, relocation.offset) {
            return Ok(());
        }
        let held = match filled {
            Filled::Target(held) => held,
            part => self.pair(section, relocation, part, place)?,
        };
        let Place::Section(target) = self.object.symbol(relocation.symbol).place else {
            return Err("a section symbol without section".into());
        };
        self.compare_unnamed(target, relocation.addend.wrapping_add(to_end), held.offset(to_end))
    }

    /// A relocation's addend, where its target is a function whose instructions lie elsewhere in vmlinux.
    fn addend_in_vmlinux(&self, relocation: &Relocation, to_end: i64) -> Result<i64, String> {
        let Some(map) = &self.counterparts[relocation.symbol.0 as usize].relaid else {
            return Ok(relocation.addend);
        };
        let pointed = relocation.addend.wrapping_add(to_end);
        let there = map.get(&(pointed as u64)).ok_or_else(|| {
            let name = self.name(relocation.symbol);
            format!("refers to {name}+{pointed:#x}, which is not the start of an instruction")
        })?;
        Ok(*there as i64 - to_end)
    }
}

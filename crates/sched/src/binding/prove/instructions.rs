//! Functions whose instructions lie elsewhere than vmlinux's.
//!
//! The module build differs from the kernel's in what follows from every function having a section of its own: a jump to
//! a function in the same file needs room for 32 bits, and the padding that aligns loops (gcc 14 aligns them to more than
//! a function) begins elsewhere. Branches between functions of the module are evaluated at their vmlinux addresses.

use super::{Prover, code, relocations};
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::step::Outline;
use schedswap_kernel::objects::{Place, Relocation, SectionId, SymbolId};
use std::collections::BTreeMap;
use std::ops::Range;

impl Prover<'_> {
    /// For a function whose instructions lie elsewhere than vmlinux's: which of ours is which of vmlinux's.
    pub fn relay(&mut self, id: SymbolId, range: &Range<Addr>) {
        let symbol = self.object.symbol(id);
        let Some(pairs) = self.pairs(id, range) else { return };
        let offset = |theirs: u64| theirs - range.start.0;
        let length = range.end - range.start;
        if symbol.size == length && pairs.iter().all(|(a, b)| a.at == offset(b.at)) {
            return;
        }
        let mut map: BTreeMap<u64, u64> = pairs.iter().map(|(a, b)| (a.at, offset(b.at))).collect();
        map.insert(symbol.size, length);
        self.counterparts[id.0 as usize].relaid = Some(map);
    }

    /// The instructions of a function, ours and vmlinux's, without the padding that aligns loops: it depends on
    /// where the function begins in its section. `None` if they are not the same instructions.
    fn pairs(&self, id: SymbolId, range: &Range<Addr>) -> Option<Vec<(Outline, Outline)>> {
        let symbol = self.object.symbol(id);
        let Place::Section(section) = symbol.place else { return None };
        let theirs = self.image.bytes(range.start, range.end - range.start)?;
        let mut ours = self.arch.outlines(code(self.object.section(section), symbol), 0);
        let mut theirs = self.arch.outlines(theirs, range.start.0);
        let is_untraced = |o: &Outline| self.untraced.contains(&(section, symbol.value + o.at));
        ours.retain(|o| !o.nop || is_untraced(o) || self.described.contains(&(section, symbol.value + o.at)));
        theirs.retain(|o| !o.nop || self.image.sites.binary_search_by_key(&o.at, |s| s.addr.0).is_ok());
        let same = ours.len() == theirs.len()
            && ours.iter().zip(&theirs).all(|(a, b)| a.mnemonic == b.mnemonic || is_untraced(a));
        same.then(|| ours.into_iter().zip(theirs).collect())
    }

    /// Compares instruction by instruction: branches by where they go, all else by bytes.
    pub fn compare_instructions(
        &self,
        section: SectionId,
        id: SymbolId,
        range: &Range<Addr>,
    ) -> Result<(), String> {
        let (Some(theirs), Some(pairs)) =
            (self.image.bytes(range.start, range.end - range.start), self.pairs(id, range))
        else {
            return Err("vmlinux has no bytes of it".into());
        };
        for (x, y) in &pairs {
            let outcome = if let (Some(target), Some(their_target)) = (x.target, y.target) {
                self.same_branch(section, id, range, (x, target), their_target)
            } else if x.nop {
                // A jump label that is off, as long as its jump would be; the tables are compared. Or ftrace's nop.
                Ok(())
            } else if x.len != y.len {
                Err("an instruction of another length".into())
            } else {
                let start = (y.at - range.start.0) as usize;
                self.same_instruction(section, id, x, &theirs[start..start + y.len as usize], Addr(y.at))
            };
            outcome.map_err(|what| format!("{what} at +{:#x} ({:#x} in vmlinux)", x.at, y.at))?;
        }
        Ok(())
    }

    /// Whether a branch, which goes to `target` in the function unless a relocation says otherwise, goes where
    /// vmlinux's does.
    fn same_branch(
        &self,
        section: SectionId,
        id: SymbolId,
        range: &Range<Addr>,
        (branch, target): (&Outline, u64),
        their_target: u64,
    ) -> Result<(), String> {
        let start = self.object.symbol(id).value + branch.at;
        let list = relocations(self.object.section(section), start, start + branch.len);
        let goes_to = match list.first() {
            Some(relocation) => self.goes_to(section, relocation)?,
            None => {
                let map = self.counterparts[id.0 as usize].relaid.as_ref();
                map.and_then(|map| map.get(&target)).map_or(0, |offset| range.start.0 + offset)
            }
        };
        if goes_to == their_target { Ok(()) } else { Err("a branch goes elsewhere".into()) }
    }

    /// Where a branch with a relocation would go in vmlinux.
    fn goes_to(&self, section: SectionId, relocation: &Relocation) -> Result<u64, String> {
        // As if the field were zero, so that it ends up holding where the branch goes from place 0.
        let (mut field, their_field) = ([0; 8], [0; 8]);
        let known = self.fields[section.0 as usize].by_offset.get(&relocation.offset);
        let to_end = known.map_or(0, |field| field.to_end);
        let absolute = Relocation {
            kind: self.arch.address_relocation(),
            addend: relocation.addend + to_end,
            ..*relocation
        };
        self.fill(section, &absolute, &mut field, &their_field, 0, Addr(0))?;
        Ok(u64::from_le_bytes(field))
    }

    /// Whether an instruction that is not a branch has vmlinux's bytes, once its fields are filled.
    fn same_instruction(
        &self,
        section: SectionId,
        id: SymbolId,
        instruction: &Outline,
        theirs: &[u8],
        at: Addr,
    ) -> Result<(), String> {
        let (source, symbol) = (self.object.section(section), self.object.symbol(id));
        let start = symbol.value + instruction.at;
        let code = code(source, symbol);
        let mut bytes = code[instruction.at as usize..(instruction.at + instruction.len) as usize].to_vec();
        for relocation in relocations(source, start, start + instruction.len) {
            let offset = relocation.offset - start;
            self.fill(section, relocation, &mut bytes, theirs, offset as usize, at + offset)?;
        }
        if bytes == theirs { Ok(()) } else { Err("an instruction differs".into()) }
    }
}

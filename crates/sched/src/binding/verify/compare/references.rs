//! References: each amounts to what the compiler's amounts to.
//!
//! That is the address of its symbol or section in vmlinux plus its addend. A section's address follows from any of its
//! symbols, so no cutting, no decoding and no renaming is needed.

use super::{Comparison, Stretch};
use crate::binding::place::special::{Policy, policy};
use crate::binding::symbols;
use crate::binding::vmlinux_symbols::{global, is_per_cpu, local_static};
use crate::boundary::Fate;
use crate::identity::{is_there, literal};
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::objects::{Place, Relocation, Section, SectionId, Symbol};
use std::collections::BTreeSet;

impl<'a> Comparison<'a> {
    /// Whether a relocation that the module has amounts to the same as one that the compiler wrote.
    pub fn amount_to_the_same(
        &self,
        unit: usize,
        original: &Relocation,
        section: SectionId,
        relocation: &Relocation,
    ) -> Result<(), String> {
        if original.kind != relocation.kind {
            return Err(format!("relocation type {}, the compiler wrote {}", relocation.kind, original.kind));
        }
        let named = self.units[unit].object.symbol(original.symbol);
        let (unit, meant) = match named.place {
            Place::Undefined => match self.globals.get(named.name.as_str()) {
                Some((unit, symbol)) => (*unit, *symbol),
                None => return self.extern_agrees(named, original, relocation),
            },
            Place::Absolute => {
                let to = self.object.symbol(relocation.symbol);
                let agrees =
                    to.name == symbols::ZERO && relocation.addend == original.addend + named.value as i64;
                return if agrees {
                    Ok(())
                } else {
                    Err("refers to another absolute value than the compiler wrote".into())
                };
            }
            Place::Section(_) => (unit, named),
        };
        let Place::Section(source) = meant.place else { return Err("refers to no section".into()) };
        let at = (meant.value as i64).wrapping_add(original.addend);
        let new = self.object.symbol(relocation.symbol);
        match new.place {
            Place::Undefined | Place::Absolute => {
                let base = if new.place == Place::Absolute { Addr(0) } else { self.anchor };
                let amounts_to = Addr(base.0.wrapping_add(relocation.addend as u64));
                if new.place == Place::Undefined && meant.kind == elf::STT_SECTION.0 {
                    let to_end = self.to_end(section, relocation);
                    let from = self.units[unit].object.section(source);
                    let text = literal(from, (at + to_end) as u64);
                    if let Some(text) = text {
                        return self.string_agrees(text, amounts_to.offset(to_end));
                    }
                }
                self.vmlinux_agrees(unit, source, meant, at, amounts_to)
            }
            Place::Section(destination) if new.kind == elf::STT_SECTION.0 => {
                self.contents_agree(unit, source, at, destination, section, relocation)
            }
            Place::Section(_) => self.symbols_agree(unit, source, at, section, relocation),
        }
    }

    /// A string literal: vmlinux has the same text there, and it is a constant.
    fn string_agrees(&self, text: &str, there: Addr) -> Result<(), String> {
        match is_there(self.binding.image, there, text) {
            true => Ok(()),
            false => Err(format!("refers to {there}, where vmlinux does not have the string {text:?}")),
        }
    }

    /// A reference to vmlinux: `amounts_to` is where vmlinux has what the compiler meant.
    fn vmlinux_agrees(
        &self,
        unit: usize,
        source: SectionId,
        meant: &Symbol,
        at: i64,
        amounts_to: Addr,
    ) -> Result<(), String> {
        let candidates = self.addresses_of(unit, source, meant, at);
        if candidates.contains(&amounts_to) {
            return Ok(());
        }
        Err(format!(
            "amounts to {amounts_to} in vmlinux, expected {} for {}{at:+#x}",
            candidates.iter().next().map_or("nothing".into(), Addr::to_string),
            self.units[unit].object.section(source).name
        ))
    }

    /// A reference to a symbol of the module: it is one that the compiler may have meant.
    fn symbols_agree(
        &self,
        unit: usize,
        source: SectionId,
        at: i64,
        section: SectionId,
        relocation: &Relocation,
    ) -> Result<(), String> {
        let new = self.object.symbol(relocation.symbol);
        let meant = self.units[unit].object.symbols.iter().find(|s| {
            s.place == Place::Section(source)
                && s.kind != elf::STT_SECTION.0
                && at - s.value as i64 == relocation.addend
                && self.in_module(unit, &s.name).is_some_and(|m| m.name == new.name)
        });
        match meant {
            Some(symbol) => self.may_be_own(unit, symbol, section, relocation),
            None => Err(format!(
                "refers to {}{:+#x}, which the compiler did not mean",
                new.name, relocation.addend
            )),
        }
    }

    /// The module's copy of a function that vmlinux has too is for branches only: an address of it that got out
    /// would dangle after unload. It is not even for branches if it is `__schedule`, or if tracers are attached to
    /// vmlinux's entry. Tables that describe code mean the copy.
    fn may_be_own(
        &self,
        unit: usize,
        symbol: &Symbol,
        holder: SectionId,
        relocation: &Relocation,
    ) -> Result<(), String> {
        let field = self.fields.get(holder.0 as usize).and_then(|f| f.by_offset.get(&relocation.offset));
        let is_branch = field.is_some_and(|f| f.is_branch);
        let to_end = self.to_end(holder, relocation);
        let section = self.object.section(holder);
        let describes = matches!(
            policy(self.arch, &section.name, section.flags),
            Some((Policy::Table(_) | Policy::OrcIp, _))
        );
        if describes || relocation.addend.wrapping_add(to_end) != 0 {
            return Ok(());
        }
        if is_branch && self.entered.is_copy(&self.object.symbol(relocation.symbol).name) {
            return Err(format!(
                "calls the module's {} past vmlinux's entry, where tracers are attached",
                symbol.name
            ));
        }
        let Some(function) = self.binding.boundary.function(&self.units[unit].unit, &symbol.name) else {
            return Ok(());
        };
        match function.fate {
            Fate::Springboard(_) => Err(format!("calls the body of {}, past its stub", symbol.name)),
            _ if is_branch => Ok(()),
            _ => Err(format!("takes the address of the module's {}, expected vmlinux's", symbol.name)),
        }
    }

    /// Everything that an offset of a unit's section can be in vmlinux: one address, where the section lies
    /// there as a whole.
    fn addresses_of(&self, unit: usize, section: SectionId, meant: &Symbol, at: i64) -> BTreeSet<Addr> {
        let owner = &self.units[unit];
        let image = self.binding.image;
        let mut found = BTreeSet::new();
        for symbol in
            owner.object.symbols.iter().filter(|s| s.place == Place::Section(section) && !s.name.is_empty())
        {
            // A named target is that symbol; only a section's is looked for among all of them.
            if meant.kind != elf::STT_SECTION.0 && symbol.value != meant.value {
                continue;
            }
            if self.arch.is_marker(&symbol.name) {
                continue;
            }
            let distance = at - symbol.value as i64;
            let mut add = |addr: Addr| found.insert(addr.offset(distance));
            if let Some(function) = self.binding.boundary.function(&owner.unit, &symbol.name) {
                let overridden = symbol.binding == elf::STB_WEAK.0;
                match global(image, &symbol.name, "") {
                    Ok(Some(found)) if overridden => add(found.addr),
                    _ => add(function.addr),
                };
                continue;
            }
            if let Some(placed) = self
                .binding
                .addresses
                .get(&owner.unit, &symbol.name)
                .filter(|_| local_static(&symbol.name).is_none())
            {
                add(placed.addr);
                continue;
            }
            if symbol.binding != elf::STB_LOCAL.0
                && let Ok(Some(found)) = global(image, &symbol.name, "")
            {
                add(found.addr);
                continue;
            }
            let base = local_static(&symbol.name).unwrap_or(&symbol.name);
            let variables =
                self.binding.boundary.variables.iter().filter(|v| v.unit == owner.unit && v.name == base);
            for variable in variables {
                add(variable.addr);
            }
        }
        found
    }

    fn extern_agrees(
        &self,
        named: &Symbol,
        original: &Relocation,
        relocation: &Relocation,
    ) -> Result<(), String> {
        let new = self.object.symbol(relocation.symbol);
        if named.name == self.arch.stack_switch() {
            let agrees = new.name == symbols::SWITCH_TO && original.addend == relocation.addend;
            return if agrees {
                Ok(())
            } else {
                Err(format!("calls {}, expected {}", new.name, symbols::SWITCH_TO))
            };
        }
        let Ok(Some(symbol)) = global(self.binding.image, &named.name, "") else {
            return Err(format!("refers to {}, which vmlinux does not have", named.name));
        };
        let section = symbol.section.map(|s| &self.binding.image.sections[s]);
        let is_offset = section.is_none_or(|s| is_per_cpu(&s.name) && s.addr.0 == 0);
        let base = if is_offset { Addr(0) } else { self.anchor };
        let expected = symbol.addr.offset(original.addend).distance_from(base);
        let expected_symbol = if is_offset { symbols::ZERO } else { self.binding.anchor };
        if new.name == expected_symbol && relocation.addend == expected {
            return Ok(());
        }
        Err(format!(
            "refers to {}{:+#x}, expected {expected_symbol}{expected:+#x} for {}",
            new.name, relocation.addend, named.name
        ))
    }

    /// What the addend of a relocation lacks to be the offset referred to.
    fn to_end(&self, holder: SectionId, relocation: &Relocation) -> i64 {
        let rule = self.arch.field(relocation.kind);
        rule.zip(self.fields.get(holder.0 as usize)).map_or(0, |(r, f)| f.to_end(&r, relocation.offset))
    }

    /// Strings and code without a name: the bytes referred to are the same.
    fn contents_agree(
        &self,
        unit: usize,
        source: SectionId,
        at: i64,
        destination: SectionId,
        holder: SectionId,
        relocation: &Relocation,
    ) -> Result<(), String> {
        let to_end = self.to_end(holder, relocation);
        let tail = |section: &'a Section, offset: i64| {
            usize::try_from(offset).ok().and_then(|offset| section.data.get(offset..))
        };
        let from = self.units[unit].object.section(source);
        let to = self.object.section(destination);
        match policy(self.arch, &from.name, from.flags) {
            Some((Policy::Table(_), _)) => {
                return self.entries_agree(unit, from, at + to_end, to, relocation.addend + to_end);
            }
            // An object without a symbol, alone in its section (what UBSAN says of a place).
            Some((Policy::Data(_), _))
                if from.flags & elf::SHF_WRITE.0 != 0 && !from.relocations.is_empty() =>
            {
                let start = (relocation.addend - at)
                    .try_into()
                    .map_err(|_| "refers to what is before a section's start")?;
                let [whole, copy] = [(source, 0), (destination, start)].map(|(section, start)| Stretch {
                    section,
                    start,
                    length: from.size,
                });
                return self.stretches_agree(unit, whole, copy);
            }
            _ => {}
        }
        let (Some(theirs), Some(ours)) = (tail(from, at + to_end), tail(to, relocation.addend + to_end))
        else {
            return Err("refers past a section's end".into());
        };
        let is_code = to.flags & elf::SHF_EXECINSTR.0 != 0;
        if is_code != (from.flags & elf::SHF_EXECINSTR.0 != 0) {
            return Err(format!("refers to {}, the compiler to {}", to.name, from.name));
        }
        let length = if is_code {
            theirs.len().min(self.arch.instruction_bytes().unwrap_or(1) as usize)
        } else {
            theirs.iter().position(|b| *b == 0).map_or(theirs.len(), |n| n + 1)
        };
        if ours.get(..length) == theirs.get(..length) {
            return Ok(());
        }
        Err(format!("refers to other bytes of {} than the compiler's {}", to.name, from.name))
    }

    /// Code that hands over an entry of a table: the entry describes the same code; what it says is compared with
    /// the table.
    fn entries_agree(
        &self,
        unit: usize,
        from: &Section,
        at: i64,
        to: &Section,
        copy: i64,
    ) -> Result<(), String> {
        let [theirs, ours] = [at, copy].map(u64::try_from);
        let theirs = theirs.ok().and_then(|at| self.described(unit, from, at));
        let ours = ours.ok().and_then(|at| self.describes(to, at));
        if from.name == to.name && theirs.is_some() && theirs == ours {
            return Ok(());
        }
        Err(format!("refers to an entry of {} for {ours:?}, the compiler for {theirs:?}", to.name))
    }
}

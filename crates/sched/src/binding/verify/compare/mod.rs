//! The written object beside the compiler's: the same bytes, references that amount to the same (`references`), and
//! tables that say the same (`tables`).

mod references;
mod tables;

use super::entered::Entered;
use crate::binding::Fault;
use crate::binding::place::rename::stem;
use crate::binding::vmlinux_symbols::local_static;
use crate::binding::{Binding, UnitObject};
use crate::boundary::{Boundary, Fate};
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::relocation::{Field, Fields, Filled};
use schedswap_kernel::arch::{self, Arch};
use schedswap_kernel::objects::{Object, Place, Relocation, Section, SectionId, Symbol};
use std::collections::HashMap;
use std::ops::Range;

/// A stretch of a section.
#[derive(Clone, Copy)]
struct Stretch {
    section: SectionId,
    start: u64,
    length: u64,
}

/// Compares all that the module carries with what the compiler wrote.
pub struct Comparison<'a> {
    object: &'a Object,
    units: &'a [UnitObject],
    binding: &'a Binding<'a>,
    anchor: Addr,
    fields: &'a [Fields],
    arch: &'static dyn Arch,
    entered: &'a Entered<'a>,
    by_name: HashMap<&'a str, &'a Symbol>,
    /// Globals that units define: unit and symbol.
    globals: HashMap<&'a str, (usize, &'a Symbol)>,
    pub compared: usize,
    pub entries: usize,
    pub faults: Vec<Fault>,
}

impl<'a> Comparison<'a> {
    pub fn new(
        object: &'a Object,
        units: &'a [UnitObject],
        binding: &'a Binding<'a>,
        anchor: Addr,
        fields: &'a [Fields],
        entered: &'a Entered<'a>,
    ) -> Comparison<'a> {
        let by_name =
            object.symbols.iter().filter(|s| !s.name.is_empty()).map(|s| (s.name.as_str(), s)).collect();
        let mut globals = HashMap::new();
        let boundary = binding.boundary;
        for (u, unit) in units.iter().enumerate() {
            for symbol in &unit.object.symbols {
                let is_in_force = match symbol.binding {
                    binding if binding == elf::STB_WEAK.0 => is_replaced(boundary, &unit.unit, &symbol.name),
                    binding => binding == elf::STB_GLOBAL.0,
                };
                if is_in_force && matches!(symbol.place, Place::Section(_)) {
                    globals.insert(symbol.name.as_str(), (u, symbol));
                }
            }
        }
        Comparison {
            object,
            units,
            binding,
            anchor,
            fields,
            arch: arch::of(binding.image.machine),
            entered,
            by_name,
            globals,
            compared: 0,
            entries: 0,
            faults: Vec::new(),
        }
    }

    pub fn run(&mut self) {
        let units = self.units;
        for (u, unit) in units.iter().enumerate() {
            for symbol in &unit.object.symbols {
                let Place::Section(section) = symbol.place else { continue };
                let is_kept = symbol.kind == elf::STT_FUNC.0 || symbol.kind == elf::STT_OBJECT.0;
                let Some(module) = self.in_module(u, &symbol.name).filter(|_| is_kept) else { continue };
                let Place::Section(destination) = module.place else { continue };
                let from = Stretch { section, start: symbol.value, length: symbol.size };
                let to = Stretch { section: destination, start: module.value, length: module.size };
                self.compared += 1;
                let untraced = self.untraced(u, &symbol.name);
                self.compare(u, &module.name, (from, to), untraced);
            }
            self.compare_tables(u);
            self.compare_orc(u);
        }
        self.compare_counts();
    }

    /// The module's symbol for a unit's.
    fn in_module(&self, unit: usize, name: &str) -> Option<&'a Symbol> {
        if name.is_empty() {
            return None;
        }
        self.by_name
            .get(format!("{name}.{}.ss", stem(&self.units[unit].unit)).as_str())
            .or_else(|| {
                self.by_name.get(format!("{name}.ss").as_str()).filter(|_| self.is_only_in(unit, name))
            })
            .copied()
    }

    /// Whether the plain module name of a symbol is this unit's: another unit may have kept its own.
    fn is_only_in(&self, unit: usize, name: &str) -> bool {
        let has = |u: &UnitObject| {
            u.object.symbols.iter().any(|s| s.name == name && matches!(s.place, Place::Section(_)))
        };
        if !self.units.iter().enumerate().any(|(u, other)| u != unit && has(other)) {
            return true;
        }
        // Both have one, and only one is carried: the one whose size and section kind fit.
        let Some(module) = self.by_name.get(format!("{name}.ss").as_str()) else { return false };
        let mine = self.units[unit].object.symbols.iter().find(|s| s.name == name);
        mine.is_some_and(|s| s.size == module.size && s.kind == module.kind && self.is_carried(unit, name))
    }

    fn is_carried(&self, unit: usize, name: &str) -> bool {
        let function = self.binding.boundary.function(&self.units[unit].unit, name);
        match function.map(|f| &f.fate) {
            Some(Fate::Stay(_)) => false,
            Some(_) => true,
            None => {
                local_static(name).is_some()
                    || self.binding.addresses.get(&self.units[unit].unit, name).is_none()
            }
        }
    }

    /// The call for ftrace in a function that is called through vmlinux's entry, counted from its first byte: its copy has
    /// a nop there.
    fn untraced(&self, unit: usize, name: &str) -> Option<Range<u64>> {
        let start = u64::try_from(self.entered.room(&self.units[unit].unit, name)?).ok()?;
        Some(start..start + self.arch.fentry_nop()?.len() as u64)
    }

    fn compare(
        &mut self,
        unit: usize,
        name: &str,
        (from, to): (Stretch, Stretch),
        untraced: Option<Range<u64>>,
    ) {
        if let Err(what) = self.all_but_agrees(unit, from, to, untraced) {
            self.faults.push(Fault { place: name.into(), what });
        }
    }

    fn stretches_agree(&self, unit: usize, from: Stretch, to: Stretch) -> Result<(), String> {
        self.all_but_agrees(unit, from, to, None)
    }

    /// Whether two stretches agree, where the written one has a nop of ftrace's in place of the compiler's call.
    fn all_but_agrees(
        &self,
        unit: usize,
        from: Stretch,
        to: Stretch,
        untraced: Option<Range<u64>>,
    ) -> Result<(), String> {
        let source = self.units[unit].object.section(from.section);
        let target = self.object.section(to.section);
        if from.length != to.length {
            return Err(format!("has {} bytes, the compiler wrote {}", to.length, from.length));
        }
        let slice = |section: &Section, s: Stretch| {
            if section.kind == elf::SHT_NOBITS.0 || section.data.is_empty() {
                return Ok(vec![0; s.length as usize]);
            }
            let range = s.start as usize..(s.start.saturating_add(s.length)) as usize;
            section
                .data
                .get(range)
                .map(<[u8]>::to_vec)
                .ok_or_else(|| "reaches past its section's end".to_owned())
        };
        let (mut ours, mut theirs) = (slice(target, to)?, slice(source, from)?);
        let (new, old) = (relocations(target, to), relocations(source, from));
        let is_untraced = |at: u64| untraced.as_ref().is_some_and(|untraced| untraced.contains(&at));
        if let (Some(untraced), Some(nop)) = (&untraced, self.arch.fentry_nop()) {
            let field = theirs.get_mut(untraced.start as usize..untraced.end as usize);
            field.ok_or("its call for ftrace reaches past its end")?.copy_from_slice(nop);
        }
        let mut old = old.iter().filter(|r| !is_untraced(r.offset - from.start)).peekable();
        for relocation in new {
            let offset = relocation.offset - to.start;
            let rule = self.arch.field(relocation.kind).unwrap_or(Field::opaque(0));
            let field = offset as usize..((offset + rule.width()) as usize).min(ours.len());
            let here = |what: &str| format!("+{offset:#x}: {what}");
            if is_untraced(offset) {
                return Err(here("still calls ftrace, though tracers are attached to vmlinux's entry"));
            }
            match old.next_if(|r| r.offset - from.start == offset) {
                Some(original) => {
                    self.amount_to_the_same(unit, original, to.section, relocation).map_err(|e| here(&e))?;
                }
                None => {
                    let bytes = theirs.get(field.clone()).filter(|bytes| bytes.len() == rule.len);
                    self.resolved_by_assembler(unit, from, offset, bytes, to.section, relocation)
                        .map_err(|e| here(&e))?;
                }
            }
            if field.len() == rule.len {
                rule.clear(&mut ours[field.clone()]);
                rule.clear(&mut theirs[field]);
            }
        }
        if let Some(lost) = old.next() {
            return Err(format!(
                "+{:#x}: the relocation that the compiler wrote is lost",
                lost.offset - from.start
            ));
        }
        match ours.iter().zip(&theirs).position(|(a, b)| a != b) {
            Some(n) => Err(format!("+{n:#x}: is {:#04x}, the compiler wrote {:#04x}", ours[n], theirs[n])),
            None => Ok(()),
        }
    }

    /// A branch to a function of the same section, for which the compiler needed no relocation.
    fn resolved_by_assembler(
        &self,
        unit: usize,
        from: Stretch,
        offset: u64,
        bytes: Option<&[u8]>,
        holder: SectionId,
        relocation: &Relocation,
    ) -> Result<(), String> {
        let at = from.start + offset;
        let held =
            bytes.zip(self.arch.field(relocation.kind)).map(|(bytes, rule)| rule.filled(bytes, Addr(at)));
        let (Some(Filled::Target(addend)), Some(symbol)) = (held, self.section_symbol(unit, from.section))
        else {
            return Err("a relocation that the compiler did not write".into());
        };
        let stands_for = Relocation { offset: at, kind: relocation.kind, symbol, addend: addend.0 as i64 };
        self.amount_to_the_same(unit, &stands_for, holder, relocation)
    }

    /// Any symbol at a section's start stands for the section.
    fn section_symbol(&self, unit: usize, section: SectionId) -> Option<schedswap_kernel::objects::SymbolId> {
        let symbols = &self.units[unit].object.symbols;
        let at = symbols
            .iter()
            .position(|s| s.place == Place::Section(section) && s.kind == elf::STT_SECTION.0)?;
        Some(schedswap_kernel::objects::SymbolId(at as u32))
    }
}

/// Whether a weak function is vmlinux's own, and the module has its own as well.
fn is_replaced(boundary: &Boundary, unit: &str, name: &str) -> bool {
    boundary.function(unit, name).is_some_and(|function| !matches!(function.fate, Fate::Stay(_)))
}

/// The relocations whose fields begin in a stretch.
fn relocations(section: &Section, stretch: Stretch) -> &[Relocation] {
    let first = section.relocations.partition_point(|r| r.offset < stretch.start);
    let last =
        section.relocations.partition_point(|r| r.offset < stretch.start.saturating_add(stretch.length));
    &section.relocations[first..last.max(first)]
}

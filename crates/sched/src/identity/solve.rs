//! Where every symbol of the scheduler is: our relocations, laid over vmlinux's bytes.
//!
//! Identical code refers to identical things, so the address that the linker filled in is the address of what
//! our relocation names. That gives the place of a section (when the relocation goes through its section
//! symbol) or of a global. Data placed this way is compared in turn, and where it is the same, its
//! relocations are laid over too. What no chain of references reaches is looked up in the symbol table.

use super::gate::{Gate, State};
use super::matching::{Found, only_one_in_file, pair_functions};
use super::overlay::{Overlay, is_merged};
use super::strings::Strings;
use super::{Addresses, Error, KnownBy, Placed, Result, Unplaced};
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::relocation::Filled;
use schedswap_kernel::objects::{Object, Place, Section, SectionId, Symbol, SymbolId};
use schedswap_kernel::vmlinux::{Image, Unit};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

/// Finds the address of every symbol that the scheduler's units define, and of what they refer to outside.
/// `objects` are those that `gate` was computed from.
///
/// # Errors
/// When two references disagree about where a thing is.
pub fn addresses(image: &Image, objects: &[(String, Object)], gate: &Gate) -> Result<Addresses> {
    let mut result = Addresses::default();
    let mut externs = BTreeMap::new();
    let mut strings = Strings::default();
    for unit in &image.units {
        let (Some((_, object)), Some(same)) =
            (objects.iter().find(|(name, _)| *name == unit.name), gate.unit(&unit.name))
        else {
            return Err(Error::NoObject { unit: unit.name.clone() });
        };
        let mut solver = Solver {
            image,
            unit,
            object,
            clean: same.different().next().is_none(),
            sections: HashMap::new(),
            unsettled: BTreeSet::new(),
            symbols: HashMap::new(),
            pages: HashMap::new(),
            low12: HashMap::new(),
            todo: Vec::new(),
            relocations: 0,
            different_data: BTreeSet::new(),
            strings: &mut strings,
        };
        for pair in pair_functions(image, unit, object) {
            if let Found::At(theirs) = pair.found
                && same.functions.get(&pair.symbol.name) == Some(&State::Identical)
            {
                let base = theirs.addr.offset(-(pair.symbol.value as i64));
                solver.learn_section(pair.section, base, KnownBy::Relocation, &pair.symbol.name)?;
                let own =
                    Known { addr: theirs.addr, by: KnownBy::Relocation, source: pair.symbol.name.clone() };
                solver.symbols.insert(pair.id, own);
                let range = pair.symbol.value..pair.symbol.value + pair.symbol.size;
                solver.todo.push((pair.section, range, theirs.addr));
            }
        }
        solver.follow()?;
        solver.look_up_the_rest()?;
        solver.finish(&mut result, &mut externs)?;
    }
    result.strings = strings.settled();
    result.externs = externs.into_iter().map(|(name, known)| (name, known.addr)).collect();
    Ok(result)
}

/// An address and what says so.
#[derive(Clone)]
struct Known {
    addr: Addr,
    by: KnownBy,
    /// Symbol whose relocation, or whose entry in the symbol table, says so.
    source: String,
}

/// What a relocation's field speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Reference {
    symbol: SymbolId,
    addend: i64,
}

struct Solver<'a> {
    image: &'a Image,
    unit: &'a Unit,
    object: &'a Object,
    /// The unit has no function that differs. Else (`--allow-different`) sections of the two may be laid out
    /// otherwise, and references may disagree about one.
    clean: bool,
    sections: HashMap<SectionId, Known>,
    /// Sections about which references disagree in a unit that is not clean.
    unsettled: BTreeSet<SectionId>,
    /// Globals, and functions.
    symbols: HashMap<SymbolId, Known>,
    /// A64: the page of a reference, until its low bits are seen, and the other way round.
    pages: HashMap<Reference, (Addr, String)>,
    low12: HashMap<Reference, u64>,
    /// Stretches that are the same in both and whose relocations are yet to be laid over.
    todo: Vec<(SectionId, Range<u64>, Addr)>,
    relocations: usize,
    different_data: BTreeSet<String>,
    strings: &'a mut Strings,
}

impl<'a> Solver<'a> {
    fn follow(&mut self) -> Result<()> {
        while let Some((id, range, addr)) = self.todo.pop() {
            let section = self.object.section(id);
            let by = self.name_of(id, range.start);
            let overlay = Overlay { image: self.image, object: self.object, section, range, addr };
            for (r, field, filled) in overlay.filled()? {
                let reference = Reference { symbol: r.symbol, addend: r.addend };
                let target = match filled {
                    Filled::Target(target) => Some(target),
                    Filled::Unknown => None,
                    Filled::Page(page) => {
                        self.pages.insert(reference, (page, by.clone()));
                        self.low12.get(&reference).map(|low| page + *low)
                    }
                    Filled::Low12(low) => {
                        self.low12.insert(reference, low);
                        self.pages.get(&reference).map(|(page, _)| *page + low)
                    }
                };
                if let Some(target) = target {
                    self.relocations += 1;
                    self.strings.learn(self.image, self.object, (r, &field), target);
                    self.learn_symbol(r.symbol, target.offset(-r.addend), &by)?;
                }
            }
        }
        Ok(())
    }

    /// The symbol that covers an offset of a section, for messages.
    fn name_of(&self, section: SectionId, offset: u64) -> String {
        let covers = |s: &&Symbol| {
            s.place == Place::Section(section) && !s.name.is_empty() && s.value == offset && s.size > 0
        };
        let name = self.object.symbols.iter().find(covers).map(|s| s.name.clone());
        name.unwrap_or_else(|| format!("{}+{offset:#x}", self.object.section(section).name))
    }

    fn learn_symbol(&mut self, id: SymbolId, addr: Addr, by: &str) -> Result<()> {
        let symbol = self.object.symbol(id);
        if symbol.binding != elf::STB_LOCAL.0 {
            self.learn_global(id, addr, KnownBy::Relocation, by)?;
            // A weak symbol may be another object's definition.
            if symbol.binding == elf::STB_WEAK.0 {
                return Ok(());
            }
        }
        match symbol.place {
            Place::Section(section) if !is_merged(self.object.section(section)) => {
                self.learn_section(section, addr.offset(-(symbol.value as i64)), KnownBy::Relocation, by)
            }
            _ => Ok(()),
        }
    }

    fn learn_global(&mut self, id: SymbolId, addr: Addr, by: KnownBy, source: &str) -> Result<()> {
        if let Some(known) = self.symbols.get(&id) {
            return self.agree(known, addr, &self.object.symbol(id).name, source);
        }
        self.symbols.insert(id, Known { addr, by, source: source.to_owned() });
        Ok(())
    }

    fn learn_section(&mut self, id: SectionId, base: Addr, by: KnownBy, source: &str) -> Result<()> {
        let section = self.object.section(id);
        if self.unsettled.contains(&id) {
            return Ok(());
        }
        if let Some(known) = self.sections.get(&id) {
            if known.addr != base && !self.clean {
                self.sections.remove(&id);
                self.unsettled.insert(id);
                return Ok(());
            }
            return self.agree(known, base, &section.name, source);
        }
        self.sections.insert(id, Known { addr: base, by, source: source.to_owned() });
        // Functions were compared one by one already.
        if !self.has_functions(id) {
            self.compare_data(id, base)?;
        }
        Ok(())
    }

    fn agree(&self, known: &Known, addr: Addr, what: &str, source: &str) -> Result<()> {
        if known.addr == addr || !self.clean {
            return Ok(());
        }
        Err(Error::Disagreement {
            unit: self.unit.name.clone(),
            what: what.to_owned(),
            one: known.addr,
            one_by: known.source.clone(),
            other: addr,
            other_by: source.to_owned(),
        })
    }

    fn has_functions(&self, id: SectionId) -> bool {
        self.object.symbols.iter().any(|s| s.kind == elf::STT_FUNC.0 && s.place == Place::Section(id))
    }

    /// Queues what is the same of a data section: all of it, or the objects in it that are.
    fn compare_data(&mut self, id: SectionId, base: Addr) -> Result<()> {
        let section = self.object.section(id);
        if section.kind == elf::SHT_NOBITS.0 {
            return Ok(());
        }
        let whole = 0..section.data.len() as u64;
        let overlay = |range: Range<u64>| Overlay {
            image: self.image,
            object: self.object,
            section,
            addr: base + range.start,
            range,
        };
        if overlay(whole.clone()).first_difference()?.is_none() {
            self.todo.push((id, whole, base));
            return Ok(());
        }
        let mut found_one = false;
        for symbol in self.object.symbols.iter().filter(|s| s.place == Place::Section(id) && s.size > 0) {
            let range = symbol.value..symbol.value.saturating_add(symbol.size);
            if range.end > section.data.len() as u64 {
                return Err(Error::BadSymbol {
                    object: self.object.name.clone(),
                    symbol: symbol.name.clone(),
                });
            }
            if overlay(range.clone()).first_difference()?.is_none() {
                self.todo.push((id, range.clone(), base + range.start));
            } else {
                found_one = true;
                self.different_data.insert(symbol.name.clone());
            }
        }
        if !found_one {
            self.different_data.insert(section.name.clone());
        }
        Ok(())
    }

    /// Sections that no reference reaches, by the symbol table; references from them are followed in turn.
    fn look_up_the_rest(&mut self) -> Result<()> {
        let object = self.object;
        for symbol in object.symbols.iter().filter(|s| is_wanted(object, s)) {
            let Place::Section(id) = symbol.place else { continue };
            if self.sections.contains_key(&id)
                || self.unsettled.contains(&id)
                || is_merged(object.section(id))
                || symbol.binding == elf::STB_WEAK.0
            {
                continue;
            }
            if let Some(theirs) = only_one_in_file(self.image, self.unit, symbol) {
                let base = theirs.addr.offset(-(symbol.value as i64));
                self.learn_section(id, base, KnownBy::SymbolTable, &symbol.name)?;
                self.follow()?;
            }
        }
        Ok(())
    }

    fn finish(self, result: &mut Addresses, externs: &mut BTreeMap<String, Known>) -> Result<()> {
        let mut symbols = BTreeMap::new();
        for (index, symbol) in self.object.symbols.iter().enumerate() {
            let id = SymbolId(index as u32);
            match symbol.place {
                Place::Undefined => self.finish_extern(id, symbol, externs)?,
                Place::Section(section) if is_wanted(self.object, symbol) => {
                    let section_name = &self.object.section(section).name;
                    match self.place(id, symbol, section) {
                        Some((addr, known_by)) => {
                            self.check_against_symbol_table(symbol, addr)?;
                            let section = section_name.clone();
                            let placed = Placed { addr, size: symbol.size, section, known_by };
                            symbols.insert(symbol.name.clone(), placed);
                        }
                        None => result.unplaced.push(Unplaced {
                            unit: self.unit.name.clone(),
                            name: symbol.name.clone(),
                            section: section_name.clone(),
                        }),
                    }
                }
                _ => {}
            }
        }
        result.units.insert(self.unit.name.clone(), symbols);
        result.relocations += self.relocations;
        let names = self.different_data.into_iter().map(|name| (self.unit.name.clone(), name));
        result.different_data.extend(names);
        Ok(())
    }

    /// All units must mean the same thing by the name of something outside.
    fn finish_extern(
        &self,
        id: SymbolId,
        symbol: &Symbol,
        externs: &mut BTreeMap<String, Known>,
    ) -> Result<()> {
        let Some(known) = self.symbols.get(&id) else { return Ok(()) };
        if let Some(other) = externs.get(&symbol.name) {
            return self.agree(other, known.addr, &symbol.name, &known.source);
        }
        externs.insert(symbol.name.clone(), known.clone());
        Ok(())
    }

    fn place(&self, id: SymbolId, symbol: &Symbol, section: SectionId) -> Option<(Addr, KnownBy)> {
        if let Some(known) = self.symbols.get(&id) {
            return Some((known.addr, known.by));
        }
        let by_table =
            || only_one_in_file(self.image, self.unit, symbol).map(|s| (s.addr, KnownBy::SymbolTable));
        if symbol.binding == elf::STB_WEAK.0 {
            // Where its own section is says nothing: another definition may be in force.
            return match self.image.by_name.get(&symbol.name)?.as_slice() {
                [one] => Some((self.image.symbol(*one).addr, KnownBy::SymbolTable)),
                _ => by_table(),
            };
        }
        match self.sections.get(&section) {
            Some(known) if !is_merged(self.object.section(section)) => {
                Some((known.addr + symbol.value, known.by))
            }
            _ => by_table(),
        }
    }

    /// Where the symbol table has the name in this unit's FILE group, it must have it at that address.
    fn check_against_symbol_table(&self, symbol: &Symbol, addr: Addr) -> Result<()> {
        let Some(theirs) = only_one_in_file(self.image, self.unit, symbol) else { return Ok(()) };
        let known = Known {
            addr: theirs.addr,
            by: KnownBy::SymbolTable,
            source: "vmlinux's symbol table".to_owned(),
        };
        self.agree(&known, addr, &symbol.name, "relocations")
    }
}

/// Symbols that code can refer to by name: not assembler labels, and not in what vmlinux does not keep.
fn is_wanted(object: &Object, symbol: &Symbol) -> bool {
    let Place::Section(id) = symbol.place else { return false };
    let section: &Section = object.section(id);
    let named = !symbol.name.is_empty()
        && !symbol.name.starts_with(".L")
        && symbol.kind != elf::STT_SECTION.0
        && symbol.kind != elf::STT_FILE.0;
    let kept = section.flags & elf::SHF_ALLOC.0 != 0
        && !section.name.starts_with(".discard")
        && ![".modinfo", ".export_symbol"].contains(&section.name.as_str());
    named && kept
}

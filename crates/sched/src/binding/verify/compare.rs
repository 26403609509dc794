//! The written object beside the compiler's: the same bytes, and references that amount to the same.
//!
//! What a compiler's relocation amounts to is the address of its symbol or section in vmlinux plus its addend.
//! A section's address follows from any of its symbols, so no cutting, no decoding and no renaming is needed.

use super::fault::Fault;
use crate::binding::place::destination::{global, is_per_cpu, local_static};
use crate::binding::place::rename::stem;
use crate::binding::place::special::{Policy, policy};
use crate::binding::place::tables::entry_size;
use crate::binding::{Binding, UnitObject, symbols};
use crate::boundary::{Boundary, Fate};
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::relocation::{Field, Fields, Filled};
use schedswap_kernel::arch::{self, Arch};
use schedswap_kernel::objects::{Object, Place, Relocation, Section, SectionId, Symbol};
use std::collections::{BTreeSet, HashMap};

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
                self.compare(u, &module.name, from, to);
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

    fn compare(&mut self, unit: usize, name: &str, from: Stretch, to: Stretch) {
        if let Err(what) = self.stretches_agree(unit, from, to) {
            self.faults.push(Fault { place: name.into(), what });
        }
    }

    fn stretches_agree(&self, unit: usize, from: Stretch, to: Stretch) -> Result<(), String> {
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
                .ok_or_else(|| "reaches behind its section's end".to_owned())
        };
        let (mut ours, mut theirs) = (slice(target, to)?, slice(source, from)?);
        let (new, old) = (relocations(target, to), relocations(source, from));
        let mut old = old.iter().peekable();
        for relocation in new {
            let offset = relocation.offset - to.start;
            let rule = self.arch.field(relocation.kind).unwrap_or(Field::opaque(0));
            let field = offset as usize..((offset + rule.width()) as usize).min(ours.len());
            let here = |what: &str| format!("+{offset:#x}: {what}");
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

    fn amount_to_the_same(
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
                return if agrees { Ok(()) } else { Err("an absolute value that is another".into()) };
            }
            Place::Section(_) => (unit, named),
        };
        let Place::Section(source) = meant.place else { return Err("refers to no section".into()) };
        let at = (meant.value as i64).wrapping_add(original.addend);
        let new = self.object.symbol(relocation.symbol);
        match new.place {
            Place::Undefined | Place::Absolute => {
                let base = if new.place == Place::Absolute { 0 } else { self.anchor.0 };
                let amounts_to = Addr(base.wrapping_add(relocation.addend as u64));
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
            Place::Section(destination) if new.kind == elf::STT_SECTION.0 => {
                self.contents_agree(unit, source, at, destination, section, relocation)
            }
            Place::Section(_) => {
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
        }
    }

    /// The module's copy of a function that vmlinux has too is for branches only: an address of it that got out
    /// would dangle after unload. `__schedule` is not even for branches. Tables that describe code mean the copy.
    fn may_be_own(
        &self,
        unit: usize,
        symbol: &Symbol,
        holder: SectionId,
        relocation: &Relocation,
    ) -> Result<(), String> {
        let Some(function) = self.binding.boundary.function(&self.units[unit].unit, &symbol.name) else {
            return Ok(());
        };
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
            return Err(format!("refers to {}, which vmlinux has not", named.name));
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
                let start =
                    (relocation.addend - at).try_into().map_err(|_| "refers behind a section's start")?;
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
            return Err("refers behind a section's end".into());
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

    /// Each entry that describes kept code is there, in order, and says the same.
    fn compare_tables(&mut self, unit: usize) {
        let owner = &self.units[unit];
        for (i, section) in owner.object.sections.iter().enumerate() {
            let Some((Policy::Table(entry), _)) = policy(self.arch, &section.name, section.flags) else {
                continue;
            };
            let Ok(size) = entry_size(&owner.unit, section, entry, &self.binding.image.entry_sizes) else {
                continue;
            };
            let Some(out) = self.object.sections.iter().position(|s| s.name == section.name) else {
                let carried = (0..section.size)
                    .step_by(size as usize)
                    .any(|n| self.described(unit, section, n).is_some());
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
    fn padding_agrees(
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
    fn compare_orc(&mut self, unit: usize) {
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

    /// The module's function that a compiler's entry describes.
    fn described(&self, unit: usize, section: &Section, start: u64) -> Option<(&'a str, i64)> {
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
        let behind = || functions().filter(|s| s.value as i64 > at).min_by_key(|s| s.value);
        let function = functions()
            .find(|s| (s.value as i64..(s.value + s.size) as i64).contains(&at))
            .or_else(|| behind().filter(|_| section.name == self.arch.ftrace_table()))?;
        let module = self.in_module(unit, &function.name)?;
        Some((&module.name, at - function.value as i64))
    }

    /// The module's function that a written entry describes.
    fn describes(&self, section: &Section, start: u64) -> Option<(&'a str, i64)> {
        let first = section.relocations.partition_point(|r| r.offset < start);
        let relocation = section.relocations.get(first).filter(|r| r.offset == start)?;
        let symbol = self.object.symbol(relocation.symbol);
        (!symbol.name.is_empty()).then_some((symbol.name.as_str(), relocation.addend))
    }

    /// A table has no more entries than the compiler wrote for kept code.
    fn compare_counts(&mut self) {
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
                    written += starts.filter(|n| self.described(u, source, *n).is_some()).count();
                }
            }
            if named != written {
                let what = format!("{named} entries, the compiler wrote {written} for what is kept");
                self.faults.push(Fault { place: section.name.clone(), what });
            }
        }
    }
}

/// Whether a weak function is vmlinux's own, and the module has its own as well.
fn is_replaced(boundary: &Boundary, unit: &str, name: &str) -> bool {
    boundary.function(unit, name).is_some_and(|function| !matches!(function.fate, Fate::Stay(_)))
}

fn relocations(section: &Section, stretch: Stretch) -> &[Relocation] {
    let first = section.relocations.partition_point(|r| r.offset < stretch.start);
    let last =
        section.relocations.partition_point(|r| r.offset < stretch.start.saturating_add(stretch.length));
    &section.relocations[first..last.max(first)]
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

//! The proof that every reference is bound as it should be: an unmodified scheduler, after rewriting, is laid
//! over vmlinux at vmlinux's own addresses and must be vmlinux, byte for byte.
//!
//! Branches between functions of the module are evaluated at their vmlinux addresses. The module build differs
//! from the kernel's in what follows from every function having a section of its own: a jump to a function in the
//! same file needs room for 32 bits, and the padding that aligns loops (gcc 14 aligns them to more than a function)
//! begins elsewhere. There, instructions are compared one by one.

use crate::binding::boot_pointers::BootPointers;
use crate::binding::place::rename::stem;
use crate::binding::place::special::{Policy, policy};
use crate::binding::place::tables::entry_size;
use crate::binding::write::emit::Anonymous;
use crate::binding::{Binding, Error, Rewritten, symbols};
use crate::boundary::Fate;
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::relocation::{Field, Fields, Filled};
use schedswap_kernel::arch::step::Outline;
use schedswap_kernel::arch::{self, Arch};
use schedswap_kernel::objects::{Object, Place, Relocation, Section, SectionId, Symbol, SymbolId};
use schedswap_kernel::vmlinux::Image;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

/// What was compared, and what differs.
#[derive(Clone, Default, Debug)]
pub struct Proof {
    /// Functions and cold parts compared.
    pub functions: usize,
    /// Of these, those whose bytes are vmlinux's.
    pub identical: usize,
    /// Of these, those whose instructions are vmlinux's, but for the length of jumps.
    pub relaid: Vec<String>,
    /// Objects compared: classes, and private data that vmlinux has too.
    pub objects: usize,
    /// Entries of tables (jump labels, static calls, …) compared.
    pub entries: usize,
    /// What differs: must be empty.
    pub different: Vec<Difference>,
}

/// Something that is not as in vmlinux.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The module's symbol or section.
    pub symbol: String,
    /// What differs, and where.
    pub what: String,
}

/// What a symbol of the module is in vmlinux.
#[derive(Clone, Default)]
pub(super) struct Counterpart {
    /// Where it may be: one address, or several for function-local statics of one name.
    addrs: Vec<Addr>,
    /// For a function whose jumps have other lengths: offset here → offset in vmlinux.
    relaid: Option<BTreeMap<u64, u64>>,
}

/// Lays an unmodified scheduler, rewritten, over vmlinux.
pub fn prove_identity(rewritten: &Rewritten, binding: &Binding) -> Result<Proof, Error> {
    let mut prover = Prover::new(rewritten, binding)?;
    let functions = prover.functions();
    for (symbol, range) in &functions {
        prover.relay(*symbol, range);
    }
    for (symbol, range) in &functions {
        prover.compare_function(*symbol, range);
    }
    prover.compare_objects();
    prover.compare_tables()?;
    Ok(prover.proof)
}

pub(super) struct Prover<'a> {
    pub(super) binding: &'a Binding<'a>,
    pub(super) image: &'a Image,
    pub(super) arch: &'static dyn Arch,
    pub(super) object: &'a Object,
    pub(super) fields: Vec<Fields>,
    /// By symbol.
    pub(super) counterparts: Vec<Counterpart>,
    pub(super) by_name: HashMap<&'a str, SymbolId>,
    pub(super) boot_pointers: BootPointers,
    /// Places in code that an entry of a table describes.
    pub(super) described: HashSet<(SectionId, u64)>,
    pub(super) anonymous: &'a Anonymous,
    /// Data that was found to be what vmlinux's code refers to in the same place.
    pub(super) met: RefCell<HashSet<(SectionId, u64, Addr)>>,
    pub(super) proof: Proof,
}

impl<'a> Prover<'a> {
    fn new(rewritten: &'a Rewritten, binding: &'a Binding<'a>) -> Result<Prover<'a>, Error> {
        let object = &rewritten.object;
        let image = binding.image;
        let arch = arch::of(image.machine);
        let by_name: HashMap<&str, SymbolId> = object
            .symbols
            .iter()
            .enumerate()
            .filter(|(_, s)| !s.name.is_empty())
            .map(|(i, s)| (s.name.as_str(), SymbolId(i as u32)))
            .collect();
        let fields = object
            .sections
            .iter()
            .map(|s| {
                let mut fields = Fields::default();
                if s.flags & elf::SHF_EXECINSTR.0 != 0
                    && (s.name != symbols::TEXT || arch.instruction_bytes().is_some())
                {
                    arch.fields(&s.data, 0, &mut fields);
                }
                fields
            })
            .collect();
        let mut prover = Prover {
            binding,
            image,
            arch,
            object,
            fields,
            counterparts: vec![Counterpart::default(); object.symbols.len()],
            by_name,
            boot_pointers: BootPointers::of(image),
            described: described(arch, object),
            anonymous: &rewritten.anonymous,
            met: RefCell::default(),
            proof: Proof::default(),
        };
        let no_anchor = || Error::NoAnchor(binding.anchor.into());
        prover.set(binding.anchor, image.unique_symbol(binding.anchor).ok_or_else(no_anchor)?.addr);
        prover.set(symbols::ZERO, Addr(0));
        if let Some(switch) = image.unique_symbol(arch.stack_switch()) {
            prover.set(symbols::SWITCH_TO, switch.addr);
        }
        for class in &binding.boundary.classes {
            if let Some(symbol) = rewritten.classes.get(&class.name) {
                prover.set(symbol, class.addr);
            }
        }
        for data in &rewritten.private_data {
            let base = crate::binding::place::destination::local_static(&data.name).unwrap_or(&data.name);
            let variables =
                binding.boundary.variables.iter().filter(|v| v.unit == data.unit && v.name == base);
            for variable in variables {
                prover.set(&data.symbol, variable.addr);
            }
            if base == data.name
                && let Some(placed) = binding.addresses.get(&data.unit, &data.name)
            {
                prover.set(&data.symbol, placed.addr);
            }
        }
        Ok(prover)
    }

    fn set(&mut self, name: &str, addr: Addr) {
        if let Some(id) = self.by_name.get(name) {
            let addrs = &mut self.counterparts[id.0 as usize].addrs;
            if !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
    }

    /// The module's functions and their code in vmlinux, cold parts too.
    fn functions(&mut self) -> Vec<(SymbolId, Range<Addr>)> {
        let mut found = Vec::new();
        for f in &self.binding.boundary.functions {
            if matches!(f.fate, Fate::Stay(_)) {
                continue;
            }
            for (part, range) in f.ranges.iter().enumerate().take(2) {
                let name = if part == 0 { f.name.clone() } else { format!("{}.cold", f.name) };
                let id = [format!("{name}.{}.ss", stem(&f.unit)), format!("{name}.ss")]
                    .iter()
                    .find_map(|n| self.by_name.get(n.as_str()).copied());
                let Some(id) = id else { continue };
                self.set(&self.object.symbol(id).name, range.start);
                found.push((id, range.clone()));
                let Place::Section(section) = self.object.symbol(id).place else { continue };
                let symbol = self.object.symbol(id);
                let code = code(self.object.section(section), symbol);
                self.arch.fields(code, symbol.value, &mut self.fields[section.0 as usize]);
            }
        }
        found
    }

    /// For a function whose instructions lie elsewhere than vmlinux's: which of ours is which of vmlinux's.
    fn relay(&mut self, id: SymbolId, range: &Range<Addr>) {
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
        ours.retain(|o| !o.nop || self.described.contains(&(section, symbol.value + o.at)));
        theirs.retain(|o| !o.nop || self.image.sites.binary_search_by_key(&o.at, |s| s.addr.0).is_ok());
        let same =
            ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(a, b)| a.mnemonic == b.mnemonic);
        same.then(|| ours.into_iter().zip(theirs).collect())
    }

    fn compare_function(&mut self, id: SymbolId, range: &Range<Addr>) {
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
    fn compare_objects(&mut self) {
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
    pub(super) fn compare_bytes(
        &self,
        section: SectionId,
        start: u64,
        length: u64,
        at: Addr,
    ) -> Result<(), String> {
        let source = self.object.section(section);
        let mut ours = source.data[start as usize..(start + length) as usize].to_vec();
        let theirs = self.image.bytes(at, length).ok_or_else(|| format!("vmlinux has no bytes at {at}"))?;
        for relocation in relocations(source, start, start + length) {
            let offset = (relocation.offset - start) as usize;
            self.fill(section, relocation, &mut ours, theirs, offset, at + offset as u64)?;
        }
        self.boot_pointers.put_back(&mut ours, theirs, at);
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
    fn fill(
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
        let in_theirs = theirs.get(field.clone()).ok_or("a field behind the end")?;
        let to_end = self.fields[section.0 as usize].to_end(&rule, relocation.offset);
        let symbol = self.object.symbol(relocation.symbol);
        let counterpart = &self.counterparts[relocation.symbol.0 as usize];
        if symbol.kind == elf::STT_SECTION.0 {
            if self.is_nothing(section, relocation.offset) {
                ours[field].copy_from_slice(in_theirs);
                return Ok(());
            }
            let held = match rule.filled(in_theirs, place) {
                Filled::Target(held) => held,
                part => self.pair(section, relocation, part, place)?,
            };
            let held = held.offset(to_end);
            let Place::Section(target) = symbol.place else {
                return Err("a section symbol without section".into());
            };
            self.compare_unnamed(target, relocation.addend.wrapping_add(to_end), held)?;
            ours[field.clone()].copy_from_slice(in_theirs);
            return Ok(());
        }
        let addend = match &counterpart.relaid {
            Some(map) => {
                let pointed = relocation.addend.wrapping_add(to_end);
                let there = map.get(&(pointed as u64)).ok_or_else(|| {
                    format!("refers to {}+{pointed:#x}, which is no instruction", symbol.name)
                })?;
                *there as i64 - to_end
            }
            None => relocation.addend,
        };
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
            return Err(format!("refers to {}, which vmlinux has not", symbol.name));
        }
        Ok(())
    }

    /// Compares instruction by instruction: branches by where they go, all else by bytes.
    fn compare_instructions(
        &self,
        section: SectionId,
        id: SymbolId,
        range: &Range<Addr>,
    ) -> Result<(), String> {
        let symbol = self.object.symbol(id);
        let source = self.object.section(section);
        let (Some(map), Some(theirs), Some(pairs)) = (
            &self.counterparts[id.0 as usize].relaid,
            self.image.bytes(range.start, range.end - range.start),
            self.pairs(id, range),
        ) else {
            return Err("vmlinux has no bytes of it".into());
        };
        let ours = code(source, symbol);
        for (x, y) in pairs {
            let here = |what: &str| format!("{what} at +{:#x} ({:#x} in vmlinux)", x.at, y.at);
            let list = relocations(source, symbol.value + x.at, symbol.value + x.at + x.len);
            if let (Some(target), Some(their_target)) = (x.target, y.target) {
                let goes_to = match list.first() {
                    Some(relocation) => {
                        let mut field = [0; 8];
                        let their_field = [0; 8];
                        // As if the field were zero, so that it ends up holding where the branch goes from place 0.
                        let known = self.fields[section.0 as usize].by_offset.get(&relocation.offset);
                        let to_end = known.map_or(0, |field| field.to_end);
                        let absolute = Relocation {
                            kind: self.arch.address_relocation(),
                            addend: relocation.addend + to_end,
                            ..*relocation
                        };
                        self.fill(section, &absolute, &mut field, &their_field, 0, Addr(0))
                            .map_err(|e| here(&e))?;
                        u64::from_le_bytes(field)
                    }
                    None => map.get(&target).map_or(0, |o| range.start.0 + o),
                };
                if goes_to != their_target {
                    return Err(here("a branch goes elsewhere"));
                }
                continue;
            }
            if x.nop {
                // A jump label that is off, as long as its jump would be; the tables are compared.
                continue;
            }
            if x.len != y.len {
                return Err(here("an instruction of another length"));
            }
            let mut bytes = ours[x.at as usize..(x.at + x.len) as usize].to_vec();
            let start = (y.at - range.start.0) as usize;
            let their_bytes = &theirs[start..start + y.len as usize];
            for relocation in list {
                let offset = (relocation.offset - symbol.value - x.at) as usize;
                let place = Addr(y.at + offset as u64);
                self.fill(section, relocation, &mut bytes, their_bytes, offset, place)
                    .map_err(|e| here(&e))?;
            }
            if bytes != their_bytes {
                return Err(here("an instruction differs"));
            }
        }
        Ok(())
    }

    /// Each entry of a table has its like in vmlinux's table, describing the same code.
    fn compare_tables(&mut self) -> Result<(), Error> {
        for (i, section) in self.object.sections.iter().enumerate() {
            let id = SectionId(i as u32);
            let entry = match policy(self.arch, &section.name, section.flags) {
                Some((Policy::Table(entry), _)) => entry,
                Some((Policy::OrcIp, _)) => {
                    self.compare_orc(id);
                    continue;
                }
                _ => continue,
            };
            let size = entry_size("the module", section, entry, &self.image.entry_sizes)?;
            let Some(theirs) = self.table_in_vmlinux(&section.name) else {
                let what = "vmlinux has no such table".into();
                self.proof.different.push(Difference { symbol: section.name.clone(), what });
                continue;
            };
            let mut by_code: HashMap<u64, Vec<u64>> = HashMap::new();
            let first = section.relocations.first().and_then(|r| self.arch.field(r.kind));
            let Some(first) = first else { continue };
            for at in (theirs.start.0..theirs.end.0).step_by(size as usize) {
                let bytes = self.image.bytes(Addr(at), first.width());
                if let Some(Filled::Target(code)) = bytes.map(|bytes| first.filled(bytes, Addr(at))) {
                    by_code.entry(code.0).or_default().push(at);
                }
            }
            for start in (0..section.size).step_by(size as usize) {
                self.proof.entries += 1;
                let outcome = match self.code_described(section, start) {
                    Ok(None) => continue,
                    Ok(Some(code)) => by_code
                        .get(&code.0)
                        .into_iter()
                        .flatten()
                        .map(|at| self.compare_bytes(id, start, size, Addr(*at)))
                        .min_by_key(Result::is_err)
                        .unwrap_or_else(|| Err(format!("vmlinux has no entry for {code}")))
                        .and_then(|()| self.compare_padding(section, start, code)),
                    Err(what) => Err(what),
                };
                if let Err(what) = outcome {
                    let symbol = format!("{}+{start:#x}", section.name);
                    self.proof.different.push(Difference { symbol, what });
                }
            }
        }
        Ok(())
    }

    /// Where the entry at `start` describes what is before a function: the same is there in vmlinux, at `code`.
    fn compare_padding(&self, table: &Section, start: u64, code: Addr) -> Result<(), String> {
        let Some(relocation) = relocations(table, start, start + 1).first().filter(|r| r.addend < 0) else {
            return Ok(());
        };
        let symbol = self.object.symbol(relocation.symbol);
        let (Place::Section(section), Some(first)) =
            (symbol.place, symbol.value.checked_add_signed(relocation.addend))
        else {
            return Err(format!("describes what is before {} and its section", symbol.name));
        };
        self.compare_bytes(section, first, relocation.addend.unsigned_abs(), code)
    }

    fn compare_orc(&mut self, ip: SectionId) {
        let section = self.object.section(ip);
        let Some(orc) = self.object.sections.iter().find(|s| s.name == ".orc_unwind") else { return };
        let (Some(ips), Some(orcs)) =
            (self.table_in_vmlinux(".orc_unwind_ip"), self.table_in_vmlinux(".orc_unwind"))
        else {
            return;
        };
        let count = (section.size / 4).max(1);
        let size = orc.size / count;
        let Some(their_ips) = self.image.bytes(ips.start, ips.end - ips.start) else { return };
        let starts: Vec<Addr> = their_ips
            .chunks_exact(4)
            .enumerate()
            .map(|(n, bytes)| held(bytes, ips.start + n as u64 * 4))
            .collect();
        for n in 0..section.size / 4 {
            let ours = &orc.data[(n * size) as usize..((n + 1) * size) as usize];
            // Terminators hold where a function ends here, but another may begin there.
            if ours.iter().all(|b| *b == 0) {
                continue;
            }
            let Some(code) = self.code_unwound(section, n) else { continue };
            self.proof.entries += 1;
            let after = starts.partition_point(|a| *a <= code) as u64;
            let theirs = after.checked_sub(1).and_then(|k| self.image.bytes(orcs.start + k * size, size));
            if theirs != Some(ours) {
                let symbol = format!("{}+{:#x}", section.name, n * 4);
                let what = format!("vmlinux unwinds otherwise at {code}");
                self.proof.different.push(Difference { symbol, what });
            }
        }
    }

    /// Where vmlinux's first instruction is for which the `n`-th entry of `.orc_unwind_ip` holds. An entry may begin
    /// in padding, which is elsewhere in vmlinux; of one that ends there as well, nothing is asked.
    fn code_unwound(&self, section: &Section, n: u64) -> Option<Addr> {
        let entry = |n: u64| relocations(section, n * 4, n * 4 + 1).first();
        let ours = entry(n)?;
        let Some(map) = &self.counterparts[ours.symbol.0 as usize].relaid else {
            return self.code_described(section, n * 4).ok()?;
        };
        let (first, theirs) = map.range(ours.addend as u64..).next()?;
        let next = entry(n + 1).filter(|next| next.symbol == ours.symbol);
        if next.is_some_and(|next| next.addend as u64 <= *first) {
            return None;
        }
        Some(*self.counterparts[ours.symbol.0 as usize].addrs.first()? + *theirs)
    }

    /// Where vmlinux's code is that the entry at `start` describes; nothing for code without a name.
    pub(super) fn code_described(&self, section: &Section, start: u64) -> Result<Option<Addr>, String> {
        let relocation =
            relocations(section, start, start + 1).first().ok_or("an entry that describes nothing")?;
        let symbol = self.object.symbol(relocation.symbol);
        if symbol.kind == elf::STT_SECTION.0 {
            return Ok(None);
        }
        let counterpart = &self.counterparts[relocation.symbol.0 as usize];
        let addr = counterpart
            .addrs
            .first()
            .ok_or_else(|| format!("describes {}, which vmlinux has not", symbol.name))?;
        let offset = match &counterpart.relaid {
            // Before the entry.
            _ if relocation.addend < 0 => relocation.addend,
            Some(map) => match map.get(&(relocation.addend as u64)) {
                Some(offset) => *offset as i64,
                // Inside an instruction: count from its start.
                None => {
                    let (from, to) = map
                        .range(..relocation.addend as u64)
                        .next_back()
                        .ok_or_else(|| format!("describes no instruction of {}", symbol.name))?;
                    *to as i64 + relocation.addend - *from as i64
                }
            },
            None => relocation.addend,
        };
        Ok(Some(addr.offset(offset)))
    }

    /// Where vmlinux has a table: a section of the name, or between the linker script's symbols.
    pub(super) fn table_in_vmlinux(&self, name: &str) -> Option<Range<Addr>> {
        let name = if name == self.arch.ftrace_table() { "__mcount_loc" } else { name };
        if let Some(section) = self.image.sections.iter().find(|s| s.name == name && s.addr.0 != 0) {
            return Some(section.addr..section.addr + section.size);
        }
        let short = name.trim_start_matches('.');
        [short, short.trim_start_matches('_')]
            .iter()
            .find_map(|n| {
                let start = self.image.unique_symbol(&format!("__start_{n}"))?;
                let stop = self.image.unique_symbol(&format!("__stop_{n}"))?;
                Some(start.addr..stop.addr)
            })
            .or_else(|| self.blacklist(name))
    }

    fn blacklist(&self, name: &str) -> Option<Range<Addr>> {
        let start = self.image.unique_symbol(&format!("__start{name}"))?;
        let stop = self.image.unique_symbol(&format!("__stop{name}"))?;
        Some(start.addr..stop.addr)
    }

    fn name(&self, id: SymbolId) -> &str {
        &self.object.symbol(id).name
    }
}

pub(super) fn relocations(section: &Section, start: u64, end: u64) -> &[Relocation] {
    let first = section.relocations.partition_point(|r| r.offset < start);
    let last = section.relocations.partition_point(|r| r.offset < end);
    &section.relocations[first..last.max(first)]
}

fn code<'o>(section: &'o Section, symbol: &Symbol) -> &'o [u8] {
    section.data.get(symbol.value as usize..(symbol.value + symbol.size) as usize).unwrap_or_default()
}

/// The address to which 32 bits of vmlinux hold the distance.
fn held(bytes: &[u8], place: Addr) -> Addr {
    place.offset(i64::from(i32::from_le_bytes(bytes.try_into().unwrap_or_default())))
}

/// What the entries of tables refer to.
fn described(arch: &dyn Arch, object: &Object) -> HashSet<(SectionId, u64)> {
    let tables = object
        .sections
        .iter()
        .filter(|s| matches!(policy(arch, &s.name, s.flags), Some((Policy::Table(_), _))));
    let places = tables.flat_map(|table| &table.relocations).filter_map(|relocation| {
        let symbol = object.symbol(relocation.symbol);
        let Place::Section(section) = symbol.place else { return None };
        Some((section, symbol.value.wrapping_add_signed(relocation.addend)))
    });
    places.collect()
}

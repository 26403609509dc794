//! The written object beside vmlinux. The proof that every reference is bound as it should be: an unmodified scheduler,
//! after rewriting, is laid over vmlinux at vmlinux's own addresses and must be vmlinux, byte for byte.
//!
//! | file | compares |
//! |---|---|
//! | `overlay` | functions and objects, byte for byte |
//! | `instructions` | functions whose instructions lie elsewhere than in vmlinux, one by one |
//! | `tables` | tables that describe code, entry by entry |
//! | `content` | what has no name in vmlinux, or another one |
//! | `pair` | addresses that two instructions make up |

mod content;
mod instructions;
mod overlay;
mod pair;
mod tables;

use crate::binding::boot_pointers::BootPointers;
use crate::binding::place::rename::stem;
use crate::binding::place::special::{Policy, policy};
use crate::binding::vmlinux_symbols::local_static;
use crate::binding::write::emit::Anonymous;
use crate::binding::{Binding, Error, Rewritten, symbols};
use crate::boundary::Fate;
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::relocation::Fields;
use schedswap_kernel::arch::{self, Arch};
use schedswap_kernel::objects::{Object, Place, Relocation, Section, SectionId, Symbol, SymbolId};
use schedswap_kernel::vmlinux::{Image, SiteKind};
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
struct Counterpart {
    /// Where it may be: one address, or several for function-local statics of one name.
    addrs: Vec<Addr>,
    /// For a function whose jumps have other lengths: offset here → offset in vmlinux.
    relaid: Option<BTreeMap<u64, u64>>,
}

/// Lays an unmodified scheduler, rewritten, over vmlinux.
///
/// # Errors
/// When vmlinux does not have the anchor, or a table is not a whole number of entries. What differs is no error: it is
/// in the proof.
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

struct Prover<'a> {
    binding: &'a Binding<'a>,
    image: &'a Image,
    arch: &'static dyn Arch,
    object: &'a Object,
    fields: Vec<Fields>,
    /// By symbol.
    counterparts: Vec<Counterpart>,
    by_name: HashMap<&'a str, SymbolId>,
    boot_pointers: BootPointers,
    /// Places in code that an entry of a table describes.
    described: HashSet<(SectionId, u64)>,
    /// Places where the module has a nop and vmlinux lets ftrace write one.
    untraced: HashSet<(SectionId, u64)>,
    anonymous: &'a Anonymous,
    /// Data that was found to be what vmlinux's code refers to in the same place.
    met: RefCell<HashSet<(SectionId, u64, Addr)>>,
    proof: Proof,
}

impl<'a> Prover<'a> {
    fn new(rewritten: &'a Rewritten, binding: &'a Binding<'a>) -> Result<Prover<'a>, Error> {
        let object = &rewritten.object;
        let image = binding.image;
        let arch = arch::of(image.machine);
        let named = object.symbols.iter().enumerate().filter(|(_, s)| !s.name.is_empty());
        let mut prover = Prover {
            binding,
            image,
            arch,
            object,
            fields: object.sections.iter().map(|s| fields_of_whole(arch, s)).collect(),
            counterparts: vec![Counterpart::default(); object.symbols.len()],
            by_name: named.map(|(i, s)| (s.name.as_str(), SymbolId(i as u32))).collect(),
            boot_pointers: BootPointers::of(image),
            described: described(arch, object),
            untraced: HashSet::new(),
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
        prover.set_objects(rewritten);
        Ok(prover)
    }

    /// Where vmlinux has the classes, and what the module has of its own but vmlinux has as well.
    fn set_objects(&mut self, rewritten: &Rewritten) {
        let binding = self.binding;
        for class in &binding.boundary.classes {
            if let Some(symbol) = rewritten.classes.get(&class.name) {
                self.set(symbol, class.addr);
            }
        }
        for data in &rewritten.private_data {
            let base = local_static(&data.name).unwrap_or(&data.name);
            let variables =
                binding.boundary.variables.iter().filter(|v| v.unit == data.unit && v.name == base);
            for variable in variables {
                self.set(&data.symbol, variable.addr);
            }
            if base == data.name
                && let Some(placed) = binding.addresses.get(&data.unit, &data.name)
            {
                self.set(&data.symbol, placed.addr);
            }
        }
    }

    /// Says that a symbol of the module is at this address of vmlinux, or may be.
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
                self.untraced.extend(self.nop_for_ftrace(code, range).map(|at| (section, symbol.value + at)));
            }
        }
        found
    }

    /// Where in a function's code ftrace has a nop, if the module has it too: its copy needs no call there.
    fn nop_for_ftrace(&self, code: &[u8], range: &Range<Addr>) -> Option<u64> {
        let nop = self.arch.fentry_nop()?;
        let first = self.image.sites.partition_point(|site| site.addr < range.start);
        let sites = self.image.sites[first..].iter().take_while(|site| site.addr < range.end);
        let mut of_ftrace = sites.filter(|site| site.kind == SiteKind::Fentry);
        let at = of_ftrace.next()?.addr - range.start;
        code.get(at as usize..).is_some_and(|code| code.starts_with(nop)).then_some(at)
    }

    fn name(&self, id: SymbolId) -> &str {
        &self.object.symbol(id).name
    }
}

/// The fields of a section's instructions. [`symbols::TEXT`] is decoded function by function where instructions have
/// several lengths: data may lie between functions.
fn fields_of_whole(arch: &dyn Arch, section: &Section) -> Fields {
    let mut fields = Fields::default();
    let is_whole = section.name != symbols::TEXT || arch.instruction_bytes().is_some();
    if section.flags & elf::SHF_EXECINSTR.0 != 0 && is_whole {
        arch.fields(&section.data, 0, &mut fields);
    }
    fields
}

/// The relocations whose fields begin in `start..end`.
fn relocations(section: &Section, start: u64, end: u64) -> &[Relocation] {
    let first = section.relocations.partition_point(|r| r.offset < start);
    let last = section.relocations.partition_point(|r| r.offset < end);
    &section.relocations[first..last.max(first)]
}

/// A function's bytes.
fn code<'o>(section: &'o Section, symbol: &Symbol) -> &'o [u8] {
    section.data.get(symbol.value as usize..(symbol.value + symbol.size) as usize).unwrap_or_default()
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

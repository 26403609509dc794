//! The last look before anything is loaded: the written bytes are read again, and every relocation in them is
//! checked against vmlinux and against the objects that the compiler wrote.
//!
//! None of the reasoning of the rewriting is used here. What a reference should amount to is found anew, from
//! the compiler's relocation alone, as the address that its symbol or section has in vmlinux.

mod compare;
mod entered;
mod fault;
mod relocations;

pub use fault::Fault;

use crate::binding::place::special::{Policy, policy};
use crate::binding::place::tables::entry_size;
use crate::binding::{Binding, Rewritten, UnitObject, symbols};
use crate::boundary::Fate;
use compare::Comparison;
use entered::Entered;
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::relocation::Fields;
use schedswap_kernel::arch::{self, Arch};
use schedswap_kernel::objects::{Object, Place, Section, Symbol, read};
use schedswap_kernel::vmlinux::Image;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What was checked.
#[derive(Clone, Default, Debug)]
pub struct VerifyReport {
    /// Relocations in all.
    pub relocations: usize,
    /// Of these, references to vmlinux.
    pub anchored: usize,
    /// Functions and objects compared with the compiler's.
    pub compared: usize,
    /// Table entries compared with the compiler's.
    pub entries: usize,
}

/// Checks the bytes that [`rewrite`](crate::binding::rewrite()) and [`schedswap_kernel::objects::write`] made of `units`.
///
/// # Errors
/// Everything that is wrong with them.
pub fn verify(
    bytes: &[u8],
    units: &[UnitObject],
    binding: &Binding,
    rewritten: &Rewritten,
) -> Result<VerifyReport, Vec<Fault>> {
    let fault = |place: &str, what: String| vec![Fault { place: place.into(), what }];
    let object = read("the written object", bytes).map_err(|e| fault("the file", e.to_string()))?;
    let Some(anchor) = binding.image.unique_symbol(binding.anchor) else {
        return Err(fault(binding.anchor, "vmlinux has no such symbol".into()));
    };
    let entered = Entered::new(units, binding, rewritten);
    let mut verifier = Verifier {
        binding,
        image: binding.image,
        arch: arch::of(binding.image.machine),
        anchor: anchor.addr,
        object: &object,
        diverted: diverted(binding, &entered),
        sealed: binding.image.sealed(),
        faults: Vec::new(),
        report: VerifyReport::default(),
    };
    verifier.check_symbols(rewritten);
    let fields = verifier.decode();
    verifier.check_relocations(&fields);
    verifier.check_tables();
    let Verifier { mut faults, mut report, .. } = verifier;
    let mut comparison = Comparison::new(&object, units, binding, anchor.addr, &fields, &entered);
    comparison.run();
    faults.append(&mut comparison.faults);
    report.compared = comparison.compared;
    report.entries = comparison.entries;
    if faults.is_empty() { Ok(report) } else { Err(faults) }
}

/// Entries of the functions that vmlinux diverts, or that the module has its own copy of: no branch of the
/// module may go to vmlinux's, except to those that are called there because tracers are.
fn diverted(binding: &Binding, entered: &Entered) -> HashMap<u64, String> {
    binding
        .boundary
        .functions
        .iter()
        .filter(|f| matches!(f.fate, Fate::Divert(_) | Fate::InsideOnly(_) | Fate::Duplicate(_)))
        .filter(|f| !entered.has(&f.unit, &f.name))
        .map(|f| (f.addr.0, f.name.clone()))
        .collect()
}

struct Verifier<'a> {
    binding: &'a Binding<'a>,
    image: &'a Image,
    arch: &'static dyn Arch,
    anchor: Addr,
    object: &'a Object,
    diverted: HashMap<u64, String>,
    /// Where an indirect branch must not land, if the kernel has a processor enforce that.
    sealed: Option<HashSet<Addr>>,
    faults: Vec<Fault>,
    report: VerifyReport,
}

impl Verifier<'_> {
    fn fault(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.faults.push(Fault { place: place.into(), what: what.into() });
    }

    /// Only what may be undefined is; nothing is defined twice, or under a name of vmlinux's.
    fn check_symbols(&mut self, rewritten: &Rewritten) {
        let object = self.object;
        let mut defined: BTreeMap<&str, usize> = BTreeMap::new();
        for symbol in &object.symbols {
            match symbol.place {
                Place::Undefined
                    if symbol.name == self.binding.anchor || symbol.name == symbols::SWITCH_TO => {}
                Place::Undefined => {
                    self.fault(&symbol.name, "is undefined, and no part of the module defines it")
                }
                Place::Absolute if symbol.name == symbols::ZERO && symbol.value == 0 => {}
                Place::Absolute => {
                    self.fault(&symbol.name, "is absolute; only the origin of per-CPU offsets is")
                }
                Place::Section(id) => self.check_defined(symbol, object.section(id)),
            }
            if matches!(symbol.place, Place::Section(_)) && !symbol.name.is_empty() {
                *defined.entry(&symbol.name).or_default() += 1;
            }
        }
        for (name, count) in &defined {
            if *count > 1 {
                self.fault(*name, format!("is defined {count} times"));
            }
        }
        let wanted = rewritten.targets.values().chain(rewritten.classes.values());
        for name in wanted.map(String::as_str).chain([symbols::TEXT_START, symbols::TEXT_END]) {
            if !defined.contains_key(name) {
                self.fault(name, "is not defined, but vmlinux is to be led there");
            }
        }
    }

    fn check_defined(&mut self, symbol: &Symbol, section: &Section) {
        if symbol.kind == elf::STT_SECTION.0 {
            return;
        }
        if symbol.value.saturating_add(symbol.size) > section.size {
            self.fault(&symbol.name, format!("reaches past the end of {}", section.name));
        }
        let is_ours = symbol.name.ends_with(".ss")
            || [symbols::TEXT_START, symbols::TEXT_END].contains(&symbol.name.as_str());
        if !is_ours || self.image.by_name.contains_key(&symbol.name) {
            self.fault(
                &symbol.name,
                "keeps a name that vmlinux's symbols have: probes on it would not be unique",
            );
        }
    }

    /// Instructions' fields, by section.
    fn decode(&self) -> Vec<Fields> {
        let mut all: Vec<Fields> = self.object.sections.iter().map(|_| Fields::default()).collect();
        for (i, section) in self.object.sections.iter().enumerate() {
            if section.flags & elf::SHF_EXECINSTR.0 == 0 {
                continue;
            }
            if section.name != symbols::TEXT || self.arch.instruction_bytes().is_some() {
                self.arch.fields(&section.data, 0, &mut all[i]);
            }
        }
        for symbol in self.object.symbols.iter().filter(|s| s.kind == elf::STT_FUNC.0) {
            if let Place::Section(id) = symbol.place
                && let Some(code) = self
                    .object
                    .section(id)
                    .data
                    .get(symbol.value as usize..(symbol.value + symbol.size) as usize)
            {
                self.arch.fields(code, symbol.value, &mut all[id.0 as usize]);
            }
        }
        all
    }

    /// Tables are whole numbers of entries, each describing code of the module.
    fn check_tables(&mut self) {
        let object = self.object;
        let count = |name: &str| object.sections.iter().find(|s| s.name == name).map_or(0, |s| s.size);
        for section in &object.sections {
            let size = match policy(self.arch, &section.name, section.flags) {
                Some((Policy::Table(entry), _)) => {
                    match entry_size("the module", section, entry, &self.image.entry_sizes) {
                        Ok(size) => size,
                        Err(e) => {
                            self.fault(&section.name, e.to_string());
                            continue;
                        }
                    }
                }
                Some((Policy::OrcIp, _)) => 4,
                Some((Policy::Orc, _)) => {
                    let entries = count(".orc_unwind_ip") / 4;
                    if entries == 0 || !section.size.is_multiple_of(entries) {
                        self.fault(&section.name, format!("{} bytes for {entries} entries", section.size));
                    }
                    continue;
                }
                Some((Policy::Code | Policy::Stubs | Policy::Data(_), _)) => continue,
                Some((Policy::Drop | Policy::Refuse, why)) => {
                    self.fault(&section.name, format!("should have been dropped: {why}"));
                    continue;
                }
                None => {
                    self.fault(&section.name, "is unknown, and would be loaded");
                    continue;
                }
            };
            if !section.size.is_multiple_of(size) {
                self.fault(&section.name, format!("{} bytes are not whole entries of {size}", section.size));
            }
            let firsts: BTreeSet<u64> = section
                .relocations
                .iter()
                .filter(|r| match object.symbol(r.symbol).place {
                    Place::Section(id) => object.section(id).flags & elf::SHF_EXECINSTR.0 != 0,
                    _ => false,
                })
                .map(|r| r.offset)
                .collect();
            for start in (0..section.size).step_by(size as usize) {
                if !firsts.contains(&start) {
                    let place = format!("{}+{start:#x}", section.name);
                    self.fault(place, "the entry describes no code of the module");
                }
            }
        }
    }
}

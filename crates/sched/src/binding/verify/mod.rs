//! The last look before anything is loaded: the written bytes are read again, and every relocation in them is
//! checked against vmlinux and against the objects that the compiler wrote.
//!
//! None of the reasoning of the rewriting is used here. What a reference should amount to is found anew, from
//! the compiler's relocation alone, as the address that its symbol or section has in vmlinux.

mod compare;
mod fault;

pub use fault::Fault;

use crate::binding::place::special::{Policy, policy};
use crate::binding::place::tables::entry_size;
use crate::binding::{Binding, Rewritten, UnitObject, symbols};
use crate::boundary::Fate;
use compare::Comparison;
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::relocation::{Field, Fields};
use schedswap_kernel::arch::{self, Arch};
use schedswap_kernel::objects::{Object, Place, Section, Symbol, read};
use schedswap_kernel::vmlinux::Image;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// As many bytes of a function's entry as tell whether an indirect branch may land there.
const LANDING_BYTES: u64 = 4;

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

/// Checks the bytes that [`crate::binding::write::rewrite()`] and [`schedswap_kernel::objects::write`] made of `units`.
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
    let mut verifier = Verifier {
        binding,
        image: binding.image,
        arch: arch::of(binding.image.machine),
        anchor: anchor.addr,
        object: &object,
        diverted: diverted(binding),
        sealed: binding.image.sealed(),
        faults: Vec::new(),
        report: VerifyReport::default(),
    };
    verifier.check_symbols(rewritten);
    let fields = verifier.decode();
    verifier.check_relocations(&fields);
    verifier.check_tables();
    let Verifier { mut faults, mut report, .. } = verifier;
    let mut comparison = Comparison::new(&object, units, binding, anchor.addr, &fields);
    comparison.run();
    faults.append(&mut comparison.faults);
    report.compared = comparison.compared;
    report.entries = comparison.entries;
    if faults.is_empty() { Ok(report) } else { Err(faults) }
}

/// Entries of the functions that vmlinux diverts, or that the module has its own copy of: no branch of the
/// module may go to vmlinux's.
fn diverted(binding: &Binding) -> HashMap<u64, String> {
    binding
        .boundary
        .functions
        .iter()
        .filter(|f| matches!(f.fate, Fate::Divert(_) | Fate::InsideOnly(_) | Fate::Duplicate(_)))
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
                    self.fault(&symbol.name, "is undefined, and the module defines it nowhere")
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
            self.fault(&symbol.name, format!("reaches behind the end of {}", section.name));
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

    fn check_relocations(&mut self, fields: &[Fields]) {
        let object = self.object;
        let mut switches = 0;
        for (i, section) in object.sections.iter().enumerate() {
            let mut end = 0;
            for relocation in &section.relocations {
                self.report.relocations += 1;
                let place = format!("{}+{:#x}", section.name, relocation.offset);
                if relocation.offset < end {
                    self.fault(&place, "two relocations of one field");
                }
                let Some(rule) = self.arch.field(relocation.kind).filter(Field::is_known) else {
                    self.fault(&place, format!("relocation type {} is unknown", relocation.kind));
                    continue;
                };
                end = relocation.offset + rule.width();
                match section.data.get(relocation.offset as usize..end as usize) {
                    None => self.fault(&place, "the field reaches behind the section's end"),
                    Some(field) if !rule.is_clear(field) => {
                        self.fault(&place, "the field is not zero; the loader refuses that");
                    }
                    Some(_) => {}
                }
                let symbol = object.symbol(relocation.symbol);
                let field = fields[i].by_offset.get(&relocation.offset);
                let is_code = section.flags & elf::SHF_EXECINSTR.0 != 0;
                if is_code && field.is_none() {
                    self.fault(&place, "lies in no instruction of a function");
                }
                let is_branch = field.is_some_and(|f| f.is_branch);
                let to_end = fields[i].to_end(&rule, relocation.offset);
                let offset = relocation.addend.wrapping_add(to_end);
                match symbol.place {
                    Place::Undefined if symbol.name == symbols::SWITCH_TO => {
                        switches += 1;
                        if !is_branch || offset != 0 {
                            self.fault(&place, "switches stacks otherwise than by a call");
                        }
                    }
                    Place::Undefined => {
                        self.check_anchored(&place, section, rule, is_branch, self.anchor.offset(offset))
                    }
                    Place::Absolute => self.check_offset(&place, offset),
                    Place::Section(target) => {
                        let at = (symbol.value as i64).wrapping_add(offset);
                        let size = object.section(target).size as i64;
                        if !(0..=size).contains(&at) {
                            self.fault(
                                &place,
                                format!("refers to {}{at:+#x}, outside of it", object.section(target).name),
                            );
                        }
                        let goes_to_code = object.section(target).flags & elf::SHF_EXECINSTR.0 != 0;
                        if is_branch && !goes_to_code {
                            self.fault(&place, format!("branches into {}", object.section(target).name));
                        }
                        let describes = matches!(
                            policy(self.arch, &section.name, section.flags),
                            Some((Policy::Table(_) | Policy::OrcIp, _))
                        );
                        if goes_to_code
                            && !is_branch
                            && !describes
                            && symbol.kind == elf::STT_FUNC.0
                            && offset == 0
                        {
                            let entry = object.section(target).data.get(at as usize..).unwrap_or_default();
                            self.check_landing(&place, &symbol.name, entry, false);
                        }
                    }
                }
            }
        }
        let springboards =
            self.binding.boundary.functions.iter().filter(|f| matches!(f.fate, Fate::Springboard(_))).count();
        if switches != springboards {
            self.fault(symbols::SWITCH_TO, format!("is called {switches} times, expected {springboards}"));
        }
    }

    /// A reference to vmlinux goes to something that is there, and of the right kind.
    fn check_anchored(&mut self, place: &str, section: &Section, rule: Field, is_branch: bool, target: Addr) {
        self.report.anchored += 1;
        if !self.arch.kernel_addresses().contains(&target.0) {
            self.fault(place, format!("refers to {target}, outside the kernel's image"));
            return;
        }
        if !rule.holds_kernel_addresses() {
            self.fault(place, "a kernel address does not fit a zero-extended field");
        }
        let is_text = self.image.section_at(target).is_some_and(|(_, s)| s.is_text());
        if is_branch || is_text {
            let is_entry = !self.image.functions_entered_at(target).is_empty();
            if !is_entry {
                self.fault(place, format!("refers to {target}, where no function of vmlinux begins"));
            } else if is_branch && let Some(name) = self.diverted.get(&target.0) {
                let what = format!("branches to vmlinux's {name}, of which the module has its own");
                self.fault(place, what);
            } else if !is_branch && !self.is_taken_by_vmlinux(target) {
                let entry = self.image.bytes(target, LANDING_BYTES).unwrap_or_default();
                let is_sealed = self.sealed.as_ref().is_some_and(|sealed| sealed.contains(&target));
                let there: Vec<_> =
                    self.image.functions_entered_at(target).iter().map(|id| self.image.symbol(*id)).collect();
                // The linker script's own symbols say where sections begin and end.
                if let Some(symbol) = there.last()
                    && there.iter().all(|symbol| symbol.is_function())
                {
                    self.check_landing(place, &symbol.name.clone(), entry, is_sealed);
                }
            }
            return;
        }
        if !self.is_data(target) {
            self.fault(place, format!("{} refers to {target}, where vmlinux has no object", section.name));
        }
    }

    /// A function that is reached by its address begins with what an indirect branch may land on.
    fn check_landing(&mut self, place: &str, name: &str, entry: &[u8], is_sealed: bool) {
        if self.sealed.is_some() && (is_sealed || self.arch.landing_pad(entry) == 0) {
            let why = if is_sealed { "boot code has sealed it" } else { "it has no endbr" };
            self.fault(place, format!("takes the address of {name}, which must not be called by it: {why}"));
        }
    }

    /// Whether code of vmlinux has the address as well (of static calls' trampolines, which are patched, not called).
    fn is_taken_by_vmlinux(&self, target: Addr) -> bool {
        self.image.uses.taken.binary_search_by_key(&target, |taken| taken.target).is_ok()
    }

    /// Within an object of vmlinux, or just before or behind one as compilers fold an index in; or where the linker
    /// script has set memory aside between sections (arm64's `reserved_pg_dir`).
    fn is_data(&self, target: Addr) -> bool {
        let in_section = self.image.sections.iter().any(|s| {
            s.flags & elf::SHF_ALLOC.0 != 0
                && s.addr.0 != 0
                && s.addr <= target
                && target.0 <= s.addr.0 + s.size
        });
        in_section || self.image.symbols.iter().any(|s| s.addr == target && s.binding != elf::STB_LOCAL.0)
    }

    /// A per-CPU offset lies in vmlinux's per-CPU section.
    fn check_offset(&mut self, place: &str, offset: i64) {
        let is_inside = self.image.sections.iter().any(|s| {
            crate::binding::place::destination::is_per_cpu(&s.name)
                && s.addr.0 == 0
                && (0..=s.size as i64).contains(&offset)
        });
        if !is_inside {
            self.fault(place, format!("{offset:#x} is no offset in vmlinux's per-CPU data"));
        }
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

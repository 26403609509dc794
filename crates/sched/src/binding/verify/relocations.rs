//! Relocations by themselves: each is one that the loader can apply, to something that is there and of the right kind.

use super::Verifier;
use crate::binding::place::special::{Policy, policy};
use crate::binding::symbols;
use crate::binding::vmlinux_symbols::is_per_cpu;
use crate::boundary::Fate;
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::relocation::{Field, Fields};
use schedswap_kernel::objects::{Place, Relocation, Section, SectionId, Symbol};

/// As many bytes of a function's entry as tell whether an indirect branch may land there.
const LANDING_BYTES: u64 = 4;

/// A relocation whose field and rule are known.
struct Known<'o> {
    /// What messages call its field.
    place: String,
    section: &'o Section,
    rule: Field,
    symbol: &'o Symbol,
    is_branch: bool,
    /// The byte referred to, counted from the symbol.
    offset: i64,
}

impl<'a> Verifier<'a> {
    pub fn check_relocations(&mut self, fields: &[Fields]) {
        let object = self.object;
        let mut switches = 0;
        for (section, fields) in object.sections.iter().zip(fields) {
            let mut end = 0;
            for relocation in &section.relocations {
                self.report.relocations += 1;
                let Some(known) = self.check_field(section, fields, relocation, &mut end) else { continue };
                let is_undefined = known.symbol.place == Place::Undefined;
                switches += usize::from(is_undefined && known.symbol.name == symbols::SWITCH_TO);
                self.check_target(&known);
            }
        }
        let springboards =
            self.binding.boundary.functions.iter().filter(|f| matches!(f.fate, Fate::Springboard(_))).count();
        if switches != springboards {
            self.fault(symbols::SWITCH_TO, format!("is called {switches} times, expected {springboards}"));
        }
    }

    /// The field that a relocation fills is one that the loader can fill. `end` is where the field before it ends.
    fn check_field(
        &mut self,
        section: &'a Section,
        fields: &Fields,
        relocation: &Relocation,
        end: &mut u64,
    ) -> Option<Known<'a>> {
        let place = format!("{}+{:#x}", section.name, relocation.offset);
        if relocation.offset < *end {
            self.fault(&place, "two relocations of one field");
        }
        let Some(rule) = self.arch.field(relocation.kind).filter(Field::is_known) else {
            self.fault(&place, format!("relocation type {} is unknown", relocation.kind));
            return None;
        };
        *end = relocation.offset + rule.width();
        match section.data.get(relocation.offset as usize..*end as usize) {
            None => self.fault(&place, "the field reaches past the section's end"),
            Some(field) if !rule.is_clear(field) => {
                self.fault(&place, "the field is not zero; the loader refuses that");
            }
            Some(_) => {}
        }
        let field = fields.by_offset.get(&relocation.offset);
        let is_code = section.flags & elf::SHF_EXECINSTR.0 != 0;
        if is_code && field.is_none() {
            self.fault(&place, "is not in an instruction of a function");
        }
        let to_end = fields.to_end(&rule, relocation.offset);
        Some(Known {
            place,
            section,
            rule,
            symbol: self.object.symbol(relocation.symbol),
            is_branch: field.is_some_and(|f| f.is_branch),
            offset: relocation.addend.wrapping_add(to_end),
        })
    }

    fn check_target(&mut self, known: &Known) {
        let Known { place, section, rule, symbol, is_branch, offset } = known;
        match symbol.place {
            Place::Undefined if symbol.name == symbols::SWITCH_TO => {
                if !is_branch || *offset != 0 {
                    self.fault(place, "expected a call of the switch, found another use of it");
                }
            }
            Place::Undefined => {
                self.check_anchored(place, section, *rule, *is_branch, self.anchor.offset(*offset));
            }
            Place::Absolute => self.check_offset(place, *offset),
            Place::Section(target) => self.check_own(known, target),
        }
    }

    /// A reference within the module stays in its section, and goes to code if it is a branch.
    fn check_own(&mut self, known: &Known, target: SectionId) {
        let Known { place, section, symbol, is_branch, offset, .. } = known;
        let target = self.object.section(target);
        let at = (symbol.value as i64).wrapping_add(*offset);
        if !(0..=target.size as i64).contains(&at) {
            self.fault(place, format!("refers to {}{at:+#x}, outside of it", target.name));
        }
        let goes_to_code = target.flags & elf::SHF_EXECINSTR.0 != 0;
        if *is_branch && !goes_to_code {
            self.fault(place, format!("branches into {}", target.name));
        }
        let describes = matches!(
            policy(self.arch, &section.name, section.flags),
            Some((Policy::Table(_) | Policy::OrcIp, _))
        );
        let takes_address = !is_branch && !describes && symbol.kind == elf::STT_FUNC.0 && *offset == 0;
        if goes_to_code && takes_address {
            let entry = target.data.get(at as usize..).unwrap_or_default();
            self.check_landing(place, &symbol.name, entry, false);
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

    /// Within an object of vmlinux, or just before or after one, as compilers fold an index in; or where the linker
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
        let is_inside = self
            .image
            .sections
            .iter()
            .any(|s| is_per_cpu(&s.name) && s.addr.0 == 0 && (0..=s.size as i64).contains(&offset));
        if !is_inside {
            self.fault(place, format!("{offset:#x} is not an offset in vmlinux's per-CPU data"));
        }
    }
}

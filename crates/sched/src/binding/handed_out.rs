//! Whether an address of the module's own memory can get out, so that something still has it when the module is gone.
//!
//! An address of the module's memory comes from one of two places: an instruction that has it in itself, or data that
//! holds it. So none gets out if the module's code only branches within the module, reads and writes its data in place,
//! and none of its data holds such an address. Whatever is not one of these counts as handed out, also if the one to
//! whom it goes forgets it at once, which nothing in the binary tells.
//!
//! What does not count:
//! - return addresses, on the stacks of threads. The runtime looks at the stacks before the memory is freed;
//! - tables that describe code. The kernel's module loader has registered them, and takes them back;
//! - the class objects. vmlinux's are meant wherever a class is named, and swapping out puts vmlinux's words back;
//! - the addresses of functions that vmlinux has too: those are vmlinux's.

use super::Rewritten;
use super::place::slice::{Cut, decode};
use super::place::special::{Policy, policy};
use super::symbols::TEXT;
use object::elf;
use schedswap_kernel::arch::{self, Arch};
use schedswap_kernel::objects::{Object, Place, Relocation, Section, SectionId, Symbol};
use std::collections::BTreeSet;

/// An address of the module's memory that may get out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HandedOut {
    /// The function or object that has it.
    pub by: String,
    /// What is at the address.
    pub what: String,
}

/// All of them. `anchor`: the symbol against which addresses in vmlinux are written.
pub fn handed_out(rewritten: &Rewritten, anchor: &str) -> BTreeSet<HandedOut> {
    let object = &rewritten.object;
    let Some(arch) = arch::of_elf(object.machine) else { return BTreeSet::new() };
    let classes: BTreeSet<&str> = rewritten.classes.values().map(String::as_str).collect();
    let mut found = BTreeSet::new();
    for (i, section) in object.sections.iter().enumerate() {
        let id = SectionId(i as u32);
        let search = Search { object, arch, anchor, id, section };
        let by_section = match policy(arch, &section.name, section.flags) {
            Some((Policy::Table(_) | Policy::Orc | Policy::OrcIp, _)) => continue,
            Some((Policy::Data(_), _)) => search.data(&classes),
            _ if section.flags & elf::SHF_EXECINSTR.0 != 0 => search.code(),
            _ => search.data(&classes),
        };
        found.extend(by_section);
    }
    found
}

struct Search<'a> {
    object: &'a Object,
    arch: &'static dyn Arch,
    anchor: &'a str,
    id: SectionId,
    section: &'a Section,
}

impl Search<'_> {
    /// What instructions make an address of.
    fn code(&self) -> Vec<HandedOut> {
        let cut = if self.section.name == TEXT { Cut::Functions } else { Cut::References };
        let fields = decode(self.arch, self.object, self.id, cut);
        let is_kept_inside = |relocation: &&Relocation| {
            let field = fields.by_offset.get(&relocation.offset);
            field.is_some_and(|field| !field.yields_address)
        };
        let own = self.section.relocations.iter().filter(|r| self.is_own(r));
        let out = own.filter(|relocation| !is_kept_inside(relocation));
        out.map(|relocation| {
            let field = self.arch.field(relocation.kind);
            let to_end = field.map_or(0, |field| fields.to_end(&field, relocation.offset));
            self.found(relocation, to_end)
        })
        .collect()
    }

    /// What data holds.
    fn data(&self, classes: &BTreeSet<&str>) -> Vec<HandedOut> {
        let own = self.section.relocations.iter().filter(|r| self.is_own(r));
        let out = own
            .filter(|r| !self.covering(self.id, r.offset as i64).is_some_and(|s| classes.contains(&*s.name)));
        out.map(|relocation| self.found(relocation, 0)).collect()
    }

    /// Whether the address is of the module's memory.
    fn is_own(&self, relocation: &Relocation) -> bool {
        let symbol = self.object.symbol(relocation.symbol);
        match symbol.place {
            Place::Undefined => symbol.name != self.anchor,
            Place::Absolute => false,
            Place::Section(_) => true,
        }
    }

    fn found(&self, relocation: &Relocation, to_end: i64) -> HandedOut {
        let symbol = self.object.symbol(relocation.symbol);
        let what = match symbol.place {
            Place::Section(id) => self.describe(id, symbol.value as i64 + relocation.addend + to_end),
            _ => symbol.name.clone(),
        };
        HandedOut { by: self.describe(self.id, relocation.offset as i64), what }
    }

    /// The symbol that covers an offset of a section, if one does.
    fn covering(&self, id: SectionId, offset: i64) -> Option<&Symbol> {
        self.object.symbols.iter().find(|s| {
            let start = s.value as i64;
            s.place == Place::Section(id)
                && !s.name.is_empty()
                && (start..start + s.size as i64).contains(&offset)
        })
    }

    /// The name of what is there, without the ending that all names in the module have; or the string.
    fn describe(&self, id: SectionId, offset: i64) -> String {
        if let Some(symbol) = self.covering(id, offset) {
            return symbol.name.strip_suffix(".ss").unwrap_or(&symbol.name).to_owned();
        }
        let section = self.object.section(id);
        let bytes =
            usize::try_from(offset).ok().and_then(|offset| section.data.get(offset..)).unwrap_or_default();
        let text: String =
            bytes.iter().take_while(|byte| is_printed(**byte)).map(|byte| char::from(*byte)).collect();
        match bytes.get(text.len()) {
            Some(0) if text.len() > 1 => {
                let dots = if text.len() > SHOWN { "..." } else { "" };
                format!("{:?}{dots}", &text[..text.len().min(SHOWN)])
            }
            _ => format!("{}+{offset:#x}", section.name),
        }
    }
}

/// How much of a string is shown.
const SHOWN: usize = 40;

/// printk's levels begin with an SOH.
fn is_printed(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\n' | b'\t' | 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedswap_kernel::objects::SymbolId;
    use schedswap_kernel::vmlinux::Machine;
    use std::collections::BTreeMap;

    const CODE: SectionId = SectionId(0);
    const STRINGS: SymbolId = SymbolId(0);
    const F: SymbolId = SymbolId(1);
    const VARIABLE: SymbolId = SymbolId(2);
    const CLASS: SymbolId = SymbolId(3);
    const ANCHOR: SymbolId = SymbolId(4);
    const RUNTIME: SymbolId = SymbolId(5);

    fn symbol(name: &str, place: Place, value: u64, size: u64, kind: u8) -> Symbol {
        Symbol { name: name.into(), place, value, size, binding: elf::STB_GLOBAL.0, kind, other: 0 }
    }

    fn section(name: &str, flags: u64, data: &[u8]) -> Section {
        Section {
            name: name.into(),
            flags,
            data: data.to_vec(),
            size: data.len() as u64,
            ..Section::default()
        }
    }

    /// A module whose function `f` is that code and whose variable and class are 8 bytes each, with one relocation.
    fn out(code: &[u8], in_section: usize, relocation: Relocation) -> Vec<String> {
        let [alloc, exec] = [elf::SHF_ALLOC.0, elf::SHF_ALLOC.0 | elf::SHF_EXECINSTR.0];
        let (function, data) = (elf::STT_FUNC.0, elf::STT_OBJECT.0);
        let place = |id| Place::Section(SectionId(id));
        let mut object = Object {
            machine: elf::EM_X86_64.0,
            sections: vec![
                section(TEXT, exec, code),
                section(".data", alloc, &[0; 16]),
                section(".rodata.ss_strings", alloc, b"a\0novel\n\0"),
                section("__bug_table", alloc, &[0; 12]),
            ],
            symbols: vec![
                symbol("", place(2), 0, 0, elf::STT_SECTION.0),
                symbol("f.ss", place(0), 0, code.len() as u64, function),
                symbol("variable.ss", place(1), 0, 8, data),
                symbol("class.ss", place(1), 8, 8, data),
                symbol("_printk", Place::Undefined, 0, 0, 0),
                symbol("ss_record_make", Place::Undefined, 0, 0, 0),
            ],
            ..Object::default()
        };
        object.sections[in_section].relocations.push(relocation);
        let rewritten = Rewritten {
            object,
            anonymous: BTreeMap::new(),
            targets: BTreeMap::new(),
            missing: Vec::new(),
            new_functions: Vec::new(),
            private_data: Vec::new(),
            classes: [("class".to_owned(), "class.ss".to_owned())].into(),
            dropped: Vec::new(),
            warnings: Vec::new(),
        };
        handed_out(&rewritten, "_printk")
            .into_iter()
            .map(|found| format!("{} {}", found.by, found.what))
            .collect()
    }

    #[test]
    fn instructions_that_make_an_address_hand_it_out() {
        assert_eq!(arch::of(Machine::X86_64).field(11).map(|field| field.len), Some(4));
        let [pc32, abs32] = [2, 11];
        let mov = [0x48, 0xc7, 0xc7, 0, 0, 0, 0];
        let lea = [0x48, 0x8d, 0x3d, 0, 0, 0, 0];
        let load = [0x48, 0x8b, 0x3d, 0, 0, 0, 0];
        let call = [0xe8, 0, 0, 0, 0];
        let relocation = |offset, kind, symbol, addend| Relocation { offset, kind, symbol, addend };
        let in_code = |code: &[u8], relocation| out(code, CODE.0 as usize, relocation);
        assert_eq!(in_code(&mov, relocation(3, abs32, STRINGS, 2)), ["f \"novel\\n\""]);
        assert_eq!(in_code(&lea, relocation(3, pc32, STRINGS, -2)), ["f \"novel\\n\""]);
        assert_eq!(in_code(&mov, relocation(3, abs32, VARIABLE, 0)), ["f variable"]);
        assert_eq!(in_code(&mov, relocation(3, abs32, F, 0)), ["f f"]);
        assert_eq!(in_code(&mov, relocation(3, abs32, RUNTIME, 0)), ["f ss_record_make"]);
        assert_eq!(in_code(&load, relocation(3, pc32, VARIABLE, -4)), [""; 0]);
        assert_eq!(in_code(&call, relocation(1, pc32, RUNTIME, -4)), [""; 0]);
        assert_eq!(in_code(&mov, relocation(3, abs32, ANCHOR, 0x1000)), [""; 0]);
        // Where no instruction was found, anything may be made of it.
        assert_eq!(in_code(&load, relocation(2, abs32, VARIABLE, 0)), ["f variable"]);
    }

    #[test]
    fn data_that_holds_an_address_hands_it_out() {
        let relocation = |offset, symbol| Relocation { offset, kind: 1, symbol, addend: 0 };
        assert_eq!(out(&[0xc3], 1, relocation(0, F)), ["variable f"]);
        assert_eq!(out(&[0xc3], 1, relocation(0, CLASS)), ["variable class"]);
        assert_eq!(out(&[0xc3], 1, relocation(0, ANCHOR)), [""; 0]);
        // vmlinux's class gets its own words back.
        assert_eq!(out(&[0xc3], 1, relocation(8, F)), [""; 0]);
        // The kernel's module loader takes its tables back.
        assert_eq!(out(&[0xc3], 3, relocation(0, F)), [""; 0]);
    }
}

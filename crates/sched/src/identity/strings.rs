//! Where vmlinux has the string literals of the scheduler's units.
//!
//! The linker merges strings, so their sections have no one place in vmlinux. But each string that identical code or data
//! refers to is where vmlinux's bytes below that reference say.

use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::relocation::Field;
use schedswap_kernel::objects::{Object, Place, Relocation, Section};
use schedswap_kernel::vmlinux::Image;
use std::collections::BTreeMap;

/// By the alignment of the section that the compiler puts it into: the linker merges those of one alignment. `None` if
/// references disagree, so that there are several.
#[derive(Default)]
pub(super) struct Strings(BTreeMap<u64, BTreeMap<String, Option<Addr>>>);

/// The text at an offset of a section of string literals.
pub(crate) fn literal(section: &Section, offset: u64) -> Option<&str> {
    let is_strings = section.flags & elf::SHF_STRINGS.0 != 0 && section.flags & elf::SHF_MERGE.0 != 0;
    if !is_strings || section.entry_size != 1 || section.flags & elf::SHF_WRITE.0 != 0 {
        return None;
    }
    let bytes = section.data.get(usize::try_from(offset).ok()?..)?;
    std::str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()
}

/// Whether vmlinux has the text at `addr`, among its constants.
pub(crate) fn is_there(image: &Image, addr: Addr, text: &str) -> bool {
    let is_constant = image.section_at(addr).is_some_and(|(_, section)| section.name.starts_with(".rodata"));
    let bytes = image.bytes(addr, text.len() as u64 + 1).unwrap_or_default();
    is_constant && bytes.split_last() == Some((&0, text.as_bytes()))
}

impl Strings {
    /// A relocation of the object, and the address that vmlinux's bytes have below it.
    pub fn learn(&mut self, image: &Image, object: &Object, (r, field): (&Relocation, &Field), target: Addr) {
        let symbol = object.symbol(r.symbol);
        // A PC-relative addend has the distance to the instruction's end in it.
        let (Place::Section(id), true) = (symbol.place, field.is_absolute()) else { return };
        let section = object.section(id);
        let Some(text) = literal(section, symbol.value.wrapping_add_signed(r.addend)) else { return };
        if is_there(image, target, text) {
            self.note(section.align, text, target);
        }
    }

    fn note(&mut self, align: u64, text: &str, addr: Addr) {
        let known = self.0.entry(align).or_default().entry(text.to_owned()).or_insert(Some(addr));
        if *known != Some(addr) {
            *known = None;
        }
    }

    /// Those that have one place.
    pub fn settled(self) -> BTreeMap<u64, BTreeMap<String, Addr>> {
        let one = |strings: BTreeMap<String, Option<Addr>>| {
            strings.into_iter().filter_map(|(text, addr)| Some((text, addr?))).collect()
        };
        self.0.into_iter().map(|(align, strings)| (align, one(strings))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strings_that_the_linker_merges_are_literals() {
        let flags = elf::SHF_ALLOC.0 | elf::SHF_MERGE.0 | elf::SHF_STRINGS.0;
        let section = |flags, entry_size| Section {
            flags,
            entry_size,
            data: b"one\0two\0\xff\0".to_vec(),
            ..Section::default()
        };
        assert_eq!(literal(&section(flags, 1), 4), Some("two"));
        assert_eq!(literal(&section(flags, 1), 5), Some("wo"));
        assert_eq!(literal(&section(flags, 1), 3), Some(""));
        assert_eq!(literal(&section(flags, 1), 8), None, "not text");
        assert_eq!(literal(&section(flags, 1), 99), None);
        assert_eq!(literal(&section(flags, 2), 4), None, "wide characters");
        assert_eq!(literal(&section(elf::SHF_ALLOC.0 | elf::SHF_STRINGS.0, 1), 4), None);
        assert_eq!(literal(&section(flags | elf::SHF_WRITE.0, 1), 4), None);
    }

    #[test]
    fn a_string_at_two_places_has_none() {
        let mut strings = Strings::default();
        for (text, addr) in [("one", 1), ("two", 2), ("one", 1), ("two", 3), ("two", 2)] {
            strings.note(1, text, Addr(addr));
        }
        strings.note(8, "two", Addr(9));
        let settled = strings.settled();
        assert_eq!(settled[&1], [("one".to_owned(), Addr(1))].into());
        assert_eq!(settled[&8], [("two".to_owned(), Addr(9))].into());
    }
}

//! The debug information of relocatable objects.

use super::model::Types;
use super::read::{self, Dwarf};
use crate::arch;
use crate::arch::relocation::Field;
use crate::objects::{Object, Place, SectionId};
use crate::vmlinux::debug;
use gimli::{EndianSlice, LittleEndian};
use std::collections::BTreeMap;

/// Debug sections with their relocations carried out, by name.
pub type Sections<'o> = BTreeMap<&'o str, Vec<u8>>;

/// Reads what the debug information of a unit's object declares. `unit` is `kernel/sched/core.c`.
///
/// # Errors
/// The debug information is damaged.
pub fn of_object(unit: &str, object: &Object) -> gimli::Result<Types> {
    let sections = relocated_debug_sections(object);
    let dwarf: Dwarf = load(&sections)?;
    let mut headers = dwarf.units();
    let Some(header) = headers.next()? else {
        return Ok(Types { unit: unit.to_owned(), ..Types::default() });
    };
    let found = dwarf.unit(header)?;
    // The object names its source by a path in some tree: what stands before the unit's name is the tree.
    let path = debug::path_of(&found);
    let root = path.strip_suffix(unit).unwrap_or_default();
    let files = debug::files(&dwarf, &found, root);
    read::read(&dwarf, &found, unit, &files)
}

pub(super) fn load<'a>(sections: &'a Sections) -> gimli::Result<Dwarf<'a>> {
    gimli::Dwarf::load(|id| {
        let bytes = sections.get(id.name()).map_or(&[][..], Vec::as_slice);
        Ok::<_, gimli::Error>(EndianSlice::new(bytes, LittleEndian))
    })
}

/// Debug sections with their relocations carried out. An address in the object becomes a word that [`placed`]
/// takes apart.
pub fn relocated_debug_sections(object: &Object) -> Sections<'_> {
    let mut sections = BTreeMap::new();
    for section in object.sections.iter().filter(|s| s.name.starts_with(".debug_")) {
        let mut data = section.data.clone();
        for relocation in &section.relocations {
            let symbol = object.symbol(relocation.symbol);
            let offset = symbol.value.wrapping_add_signed(relocation.addend);
            let value = match symbol.place {
                Place::Section(to) if object.section(to).name.starts_with(".debug_") => offset,
                Place::Section(to) => place_word(to, offset),
                Place::Undefined | Place::Absolute => 0,
            };
            let field = arch::of_elf(object.machine).and_then(|arch| arch.field(relocation.kind));
            let Some(width) = field.filter(Field::is_absolute).map(|field| field.len) else { continue };
            let at = relocation.offset as usize;
            if let Some(field) = data.get_mut(at..at + width) {
                field.copy_from_slice(&value.to_le_bytes()[..width]);
            }
        }
        sections.insert(section.name.as_str(), data);
    }
    sections
}

/// Bits for the offset in a [`place_word`].
const OFFSET_BITS: u32 = 40;

/// Section and offset in one word that looks like an address; never 0.
fn place_word(section: SectionId, offset: u64) -> u64 {
    (u64::from(section.0) + 1) << OFFSET_BITS | offset
}

/// The section and offset that an address in an object's debug information stands for.
pub fn placed(address: u64) -> Option<(SectionId, u64)> {
    let section = SectionId(u32::try_from((address >> OFFSET_BITS).checked_sub(1)?).ok()?);
    Some((section, address & ((1 << OFFSET_BITS) - 1)))
}

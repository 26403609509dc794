//! The debug information of relocatable objects.

use super::debug_info::DebugSections;
use super::index::UnitIndex;
use super::model::Types;
use super::parameters::{Parameters, read as read_parameters};
use crate::arch;
use crate::arch::relocation::Field;
use crate::objects::{Object, Place, SectionId, Symbol};
use gimli::{EndianSlice, LittleEndian};
use object::elf;
use std::collections::BTreeMap;

/// Debug sections with their relocations carried out, by name.
type Sections<'o> = BTreeMap<&'o str, Vec<u8>>;

/// Reads what the debug information of a unit's object declares. `unit` is `kernel/sched/core.c`.
///
/// ```no_run
/// use schedswap_kernel::{objects, types};
///
/// let object = objects::read("core.o", &std::fs::read("core.o")?)?;
/// let types = types::of_object("kernel/sched/core.c", &object)?;
/// let rq = types.layout("rq").expect("core.c includes sched.h");
/// println!("{} takes {} bytes", rq.title, rq.bytes);
/// for hole in &rq.holes {
///     println!("{} bytes are free at {}", hole.bytes, hole.offset);
/// }
/// for variable in types.variables.iter().filter(|variable| !variable.is_declaration) {
///     println!("{} {}", types.words(variable.of), variable.name);
/// }
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The debug information is damaged.
pub fn of_object(unit: &str, object: &Object) -> gimli::Result<Types> {
    let sections = relocated_debug_sections(object);
    let mut info = load(&sections)?;
    let Some(indexed) = info.index.units.first() else {
        return Ok(Types { unit: unit.to_owned(), ..Types::default() });
    };
    // The object names its source by a path in some tree: what stands before the unit's name is the tree.
    let root = indexed.path.strip_suffix(unit).unwrap_or_default().to_owned();
    info.root = root;
    let types = info.types(&info.index.units[0])?;
    Ok(Types { unit: unit.to_owned(), ..types })
}

/// Where the functions of an object find their parameters, by symbol.
///
/// # Errors
/// The debug information is damaged.
pub fn parameters_of_object(object: &Object) -> gimli::Result<BTreeMap<String, Parameters>> {
    let sections = relocated_debug_sections(object);
    let info = load(&sections)?;
    let Some(unit) = info.index.units.first() else { return Ok(BTreeMap::new()) };
    read_parameters(&info, unit, |address| {
        let here = symbols_at(object, address).filter(|symbol| symbol.kind == elf::STT_FUNC.0);
        here.map(|symbol| symbol.name.clone()).collect()
    })
}

/// The symbol of an object at the address of one of its variables.
pub fn symbol_at(object: &Object, address: u64) -> Option<&Symbol> {
    symbols_at(object, address).find(|symbol| !symbol.name.is_empty())
}

fn symbols_at(object: &Object, address: u64) -> impl Iterator<Item = &Symbol> {
    let place = section_and_offset(address);
    object.symbols.iter().filter(move |symbol| {
        place.is_some_and(|(section, offset)| {
            symbol.place == Place::Section(section) && symbol.value == offset
        })
    })
}

fn load<'a>(sections: &'a Sections<'_>) -> gimli::Result<DebugSections<'a>> {
    let dwarf = gimli::Dwarf::load(|id| {
        let bytes = sections.get(id.name()).map_or(&[][..], Vec::as_slice);
        Ok::<_, gimli::Error>(EndianSlice::new(bytes, LittleEndian))
    })?;
    let index = UnitIndex::build(&dwarf, &[])?;
    Ok(DebugSections { dwarf, index, root: String::new() })
}

/// Debug sections with their relocations carried out. An address in the object becomes a word that
/// [`section_and_offset`] takes apart.
fn relocated_debug_sections(object: &Object) -> Sections<'_> {
    let mut sections = BTreeMap::new();
    for section in object.sections.iter().filter(|s| s.name.starts_with(".debug_")) {
        let mut data = section.data.clone();
        for relocation in &section.relocations {
            let symbol = object.symbol(relocation.symbol);
            let offset = symbol.value.wrapping_add_signed(relocation.addend);
            let value = match symbol.place {
                Place::Section(to) if object.section(to).name.starts_with(".debug_") => offset,
                Place::Section(to) => address_word(to, offset),
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

/// Bits for the offset in a [`address_word`].
const OFFSET_BITS: u32 = 40;

/// Section and offset in one word that looks like an address; never 0.
fn address_word(section: SectionId, offset: u64) -> u64 {
    (u64::from(section.0) + 1) << OFFSET_BITS | offset
}

/// The section and offset that an address in an object's debug information stands for.
fn section_and_offset(address: u64) -> Option<(SectionId, u64)> {
    let section = SectionId(u32::try_from((address >> OFFSET_BITS).checked_sub(1)?).ok()?);
    Some((section, address & ((1 << OFFSET_BITS) - 1)))
}

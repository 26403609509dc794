//! Which types a unit declares at its top level, without reading what they are made of.

use super::debug_info::{Die, Dwarf, Slice};
use super::index::IndexedUnit;
use gimli::constants as dw;

/// A type with a name.
pub(crate) struct Named<'a> {
    /// Of its entry, in `.debug_info`.
    pub offset: usize,
    tag: gimli::DwTag,
    /// Tag of a structure, union or enumeration, or name of a typedef.
    pub name: Slice<'a>,
    /// Size.
    pub bytes: Option<u64>,
    /// Line of its declaration.
    pub line: Option<u64>,
    /// Only announced (`struct task_struct;`).
    pub is_declaration: bool,
}

impl Named<'_> {
    /// Whether it is a structure or union.
    pub fn is_record(&self) -> bool {
        matches!(self.tag, dw::DW_TAG_structure_type | dw::DW_TAG_union_type)
    }
}

pub(super) fn read<'a>(
    dwarf: &Dwarf<'a>,
    indexed: &IndexedUnit<'a>,
    mut see: impl FnMut(&Named<'a>),
) -> gimli::Result<()> {
    let unit = dwarf.unit(indexed.header)?;
    let mut entries = unit.entries_raw(None)?;
    let mut die = Die::null();
    while !entries.is_empty() {
        let depth = entries.next_depth();
        let mut here = entries.clone();
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        let tag = abbreviation.tag();
        entries.skip_attributes(abbreviation.attributes())?;
        if depth != 1 || !has_tag_or_name(tag) || !here.read_entry(&mut die)? {
            continue;
        }
        let Some(name) = die.attr_value(dw::DW_AT_name) else { continue };
        let number = |attribute| die.attr_value(attribute).and_then(|value| value.udata_value());
        see(&Named {
            offset: indexed.start + die.offset().0,
            tag,
            name: dwarf.attr_string(&unit, name)?,
            bytes: number(dw::DW_AT_byte_size),
            line: number(dw::DW_AT_decl_line),
            is_declaration: die.attr_value(dw::DW_AT_declaration).is_some(),
        });
    }
    Ok(())
}

fn has_tag_or_name(tag: gimli::DwTag) -> bool {
    matches!(
        tag,
        dw::DW_TAG_structure_type | dw::DW_TAG_union_type | dw::DW_TAG_enumeration_type | dw::DW_TAG_typedef
    )
}

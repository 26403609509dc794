//! One entry that describes code.

use crate::types::debug_info::{Dwarf, Slice, Unit, file_number, reference};
use gimli::{AttributeValue, DwTag, constants as dw};
use std::ops::Range;

/// One debugging information entry: a unit, a function, or a copy of one that was inlined.
pub(super) struct Die<'a> {
    /// Offset in `.debug_info`.
    pub offset: usize,
    pub tag: DwTag,
    /// The nearest enclosing entry of the table, by index.
    pub parent: Option<u32>,
    pub name: Option<Slice<'a>>,
    /// DW_AT_abstract_origin or DW_AT_specification.
    pub origin: Option<usize>,
    /// Index in its own table's [`Table::files`].
    pub decl_file: Option<u64>,
    pub decl_line: Option<u64>,
    /// Code: first what DW_AT_low_pc or the range list begins with.
    pub code: Vec<Range<u64>>,
    /// DW_AT_entry_pc, where it is an address.
    pub entry_pc: Option<u64>,
    pub external: bool,
    /// DW_AT_inline.
    pub inline: Option<u64>,
}

/// Whether entries of a tag are kept.
pub(super) fn is_tabled(tag: DwTag) -> bool {
    matches!(tag, dw::DW_TAG_compile_unit | dw::DW_TAG_subprogram | dw::DW_TAG_inlined_subroutine)
}

impl<'a> Die<'a> {
    pub(super) fn new(offset: usize, tag: DwTag, parent: Option<u32>) -> Die<'a> {
        Die {
            offset,
            tag,
            parent,
            name: None,
            origin: None,
            decl_file: None,
            decl_line: None,
            code: Vec::new(),
            entry_pc: None,
            external: false,
            inline: None,
        }
    }

    pub(super) fn set(
        &mut self,
        dwarf: &Dwarf<'a>,
        unit: &Unit<'a>,
        unit_start: usize,
        name: gimli::DwAt,
        value: AttributeValue<Slice<'a>>,
    ) -> gimli::Result<()> {
        let address = |value| dwarf.attr_address(unit, value);
        match name {
            dw::DW_AT_name => self.name = Some(dwarf.attr_string(unit, value)?),
            dw::DW_AT_abstract_origin | dw::DW_AT_specification => {
                self.origin = reference(unit_start, &value)
            }
            dw::DW_AT_decl_file => self.decl_file = file_number(&value),
            dw::DW_AT_decl_line => self.decl_line = value.udata_value(),
            dw::DW_AT_low_pc => {
                let low = address(value)?;
                self.code.splice(0..0, low.map(|low| low..low));
            }
            // Compilers write it after DW_AT_low_pc; as a number it is a length.
            dw::DW_AT_high_pc => {
                if let Some(range) = self.code.first_mut() {
                    range.end = match value.udata_value() {
                        Some(len) => range.start.saturating_add(len),
                        None => address(value)?.unwrap_or(range.start),
                    };
                }
            }
            dw::DW_AT_ranges if self.tag != dw::DW_TAG_compile_unit => {
                let mut ranges = dwarf.attr_ranges(unit, value)?;
                while let Some(range) = ranges.as_mut().map(|r| r.next()).transpose()?.flatten() {
                    self.code.push(range.begin..range.end);
                    // Of inlined code only the beginning is asked for.
                    if self.tag == dw::DW_TAG_inlined_subroutine {
                        break;
                    }
                }
            }
            dw::DW_AT_entry_pc => self.entry_pc = address(value)?,
            dw::DW_AT_external => self.external = value == AttributeValue::Flag(true),
            dw::DW_AT_inline => {
                self.inline = match value {
                    AttributeValue::Inline(inline) => Some(u64::from(inline.0)),
                    other => other.udata_value(),
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A unit's or a range-listed function's lone low_pc is a base, not code.
    pub(super) fn settle_code(&mut self) {
        self.code.retain(|range| range.start < range.end);
    }
}

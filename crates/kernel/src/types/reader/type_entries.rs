//! Entries that describe types.

use super::super::debug_info::Die;
use super::super::model::{Array, Bits, Enumeration, Kind, Member, Prototype, Record, Type, TypeId};
use super::{Reader, Source, flag, number};
use gimli::{AttributeValue, constants as dw};

/// Bytes of a pointer on every machine that is known. Compilers write it all the same.
const POINTER_BYTES: u64 = 8;

/// Whether entries of a tag describe types.
pub(super) fn is_type(tag: gimli::DwTag) -> bool {
    matches!(
        tag,
        dw::DW_TAG_base_type
            | dw::DW_TAG_pointer_type
            | dw::DW_TAG_array_type
            | dw::DW_TAG_structure_type
            | dw::DW_TAG_union_type
            | dw::DW_TAG_enumeration_type
            | dw::DW_TAG_typedef
            | dw::DW_TAG_const_type
            | dw::DW_TAG_volatile_type
            | dw::DW_TAG_restrict_type
            | dw::DW_TAG_atomic_type
            | dw::DW_TAG_subroutine_type
            | dw::DW_TAG_unspecified_type
    )
}

impl<'a> Reader<'a, '_> {
    /// The type that an entry describes, without what the entries inside it add.
    pub(super) fn type_of_entry(
        &mut self,
        source: &Source<'a>,
        tag: gimli::DwTag,
        die: &Die<'a>,
    ) -> gimli::Result<Type> {
        let bytes = number(die, dw::DW_AT_byte_size);
        let to = self.type_referred_to(source, die);
        let name = self.name(source, die)?;
        Ok(match tag {
            dw::DW_TAG_base_type => Type::Base {
                name: name.unwrap_or_default(),
                bytes: bytes.unwrap_or(0),
                encoding: match die.attr_value(dw::DW_AT_encoding) {
                    Some(AttributeValue::Encoding(encoding)) => encoding.0,
                    _ => 0,
                },
            },
            dw::DW_TAG_pointer_type => Type::Pointer { to, bytes: bytes.unwrap_or(POINTER_BYTES) },
            dw::DW_TAG_array_type => Type::Array(Array { of: to, counts: Vec::new() }),
            dw::DW_TAG_structure_type | dw::DW_TAG_union_type => Type::Record(Record {
                kind: if tag == dw::DW_TAG_union_type { Kind::Union } else { Kind::Struct },
                name,
                is_named_by_typedef: false,
                is_declaration: flag(die, dw::DW_AT_declaration),
                bytes: bytes.unwrap_or(0),
                asked_align: number(die, dw::DW_AT_alignment),
                members: Vec::new(),
                place: self.place(source, die),
            }),
            dw::DW_TAG_enumeration_type => Type::Enumeration(Enumeration {
                name,
                bytes: bytes.unwrap_or(0),
                values: Vec::new(),
                place: self.place(source, die),
            }),
            dw::DW_TAG_typedef => Type::Typedef { name: name.unwrap_or_default(), to },
            dw::DW_TAG_subroutine_type => Type::Function(Prototype { returns: to, ..Prototype::default() }),
            dw::DW_TAG_unspecified_type => Type::Unknown,
            _ => Type::Qualified { is_const: tag == dw::DW_TAG_const_type, to },
        })
    }

    /// Adds what an entry inside a type's entry says.
    pub(super) fn part_of_type(
        &mut self,
        source: &Source<'a>,
        tag: gimli::DwTag,
        die: &Die<'a>,
        id: TypeId,
    ) -> gimli::Result<()> {
        let of = self.type_referred_to(source, die);
        let name = self.name(source, die)?;
        match (tag, &mut self.types[id.0 as usize]) {
            (dw::DW_TAG_member, Some(Type::Record(record))) => record.members.push(member(die, name, of)),
            (dw::DW_TAG_subrange_type, Some(Type::Array(array))) => array.counts.push(count(die)),
            (dw::DW_TAG_enumerator, Some(Type::Enumeration(enumeration))) => {
                let value = die.attr_value(dw::DW_AT_const_value);
                let value = value.and_then(|value| signed(&value)).unwrap_or(0);
                enumeration.values.push((name.unwrap_or_default(), value));
            }
            (dw::DW_TAG_formal_parameter, Some(Type::Function(prototype))) => prototype.parameters.push(of),
            (dw::DW_TAG_unspecified_parameters, Some(Type::Function(prototype))) => {
                prototype.is_variadic = true;
            }
            _ => {}
        }
        Ok(())
    }
}

fn member(die: &Die<'_>, name: Option<String>, of: Option<TypeId>) -> Member {
    let offset = number(die, dw::DW_AT_data_member_location).unwrap_or(0);
    let bits = number(die, dw::DW_AT_bit_size).map(|width| {
        // DWARF 4 counts from the highest bit of the unit of storage; data_bit_offset from the start.
        let start = number(die, dw::DW_AT_data_bit_offset).unwrap_or_else(|| {
            let storage = number(die, dw::DW_AT_byte_size).unwrap_or(4);
            let from_top = number(die, dw::DW_AT_bit_offset).unwrap_or(0);
            offset.saturating_add(storage).saturating_mul(8).saturating_sub(from_top.saturating_add(width))
        });
        Bits { start, width }
    });
    Member {
        name,
        of,
        offset: bits.map_or(offset, |bits| bits.start / 8),
        bits,
        asked_align: number(die, dw::DW_AT_alignment),
        line: number(die, dw::DW_AT_decl_line).unwrap_or(0) as u32,
    }
}

/// Elements of one dimension of an array.
fn count(die: &Die<'_>) -> Option<u64> {
    number(die, dw::DW_AT_count).or_else(|| {
        let last = signed(&die.attr_value(dw::DW_AT_upper_bound)?)?;
        u64::try_from(last.checked_add(1)?).ok()
    })
}

/// A constant that may be negative. Compilers write a negative one as DW_FORM_sdata; the forms of fixed width
/// (DW_FORM_data1, where 200 is one byte) and DW_FORM_udata hold those that are not.
fn signed(value: &AttributeValue<super::super::debug_info::Slice<'_>>) -> Option<i64> {
    match value {
        AttributeValue::Sdata(value) => Some(*value),
        value => value.udata_value().map(|value| value as i64),
    }
}

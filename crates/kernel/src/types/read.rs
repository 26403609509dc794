//! One unit's entries, read into [`Types`]. DWARF 4 and 5, as gcc and clang write them for C.

use super::model::{
    Array, Bits, Enumeration, Function, Kind, Member, Place, Prototype, Record, Type, TypeId, Types, Variable,
};
use gimli::constants as dw;
use gimli::{AttributeValue, DebuggingInformationEntry, EndianSlice, LittleEndian};
use std::collections::HashMap;

pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;
pub(super) type Dwarf<'a> = gimli::Dwarf<Slice<'a>>;
pub(super) type Unit<'a> = gimli::Unit<Slice<'a>>;
type Entry<'a> = DebuggingInformationEntry<Slice<'a>>;

/// What encloses an entry.
#[derive(Clone, Copy)]
enum Enclosing {
    Nothing,
    /// Members, dimensions, enumerators and parameters belong to this type.
    Type(usize),
    /// Parameters belong to this function.
    Function(usize),
    /// A function's block, or code inlined into it.
    Inside(usize),
    /// Something that has nothing to tell.
    Skipped,
}

/// References are offsets in the unit until all types are known.
struct Reader<'a, 'r> {
    dwarf: &'r Dwarf<'a>,
    unit: &'r Unit<'a>,
    /// By DW_AT_decl_file.
    files: &'r [String],
    out: Types,
    ids: HashMap<usize, TypeId>,
}

/// Reads a unit. `files` is its line table's, by the number that entries use.
pub(super) fn read<'a>(
    dwarf: &Dwarf<'a>,
    unit: &Unit<'a>,
    name: &str,
    files: &[String],
) -> gimli::Result<Types> {
    let out = Types { unit: name.to_owned(), ..Types::default() };
    let mut reader = Reader { dwarf, unit, files, out, ids: HashMap::new() };
    reader.number_types()?;
    reader.fill()?;
    reader.name_by_typedef();
    reader.index();
    Ok(reader.out)
}

fn is_type(tag: gimli::DwTag) -> bool {
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

fn is_part(tag: gimli::DwTag) -> bool {
    matches!(
        tag,
        dw::DW_TAG_member
            | dw::DW_TAG_subrange_type
            | dw::DW_TAG_enumerator
            | dw::DW_TAG_formal_parameter
            | dw::DW_TAG_unspecified_parameters
            | dw::DW_TAG_subprogram
            | dw::DW_TAG_variable
    )
}

impl<'a> Reader<'a, '_> {
    /// Gives every type its number, so that a reference to a later one can be resolved at once.
    fn number_types(&mut self) -> gimli::Result<()> {
        let mut entries = self.unit.entries_raw(None)?;
        while !entries.is_empty() {
            let offset = entries.next_offset().0;
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            if is_type(abbreviation.tag()) {
                let id = TypeId(self.ids.len() as u32);
                self.ids.insert(offset, id);
            }
            entries.skip_attributes(abbreviation.attributes())?;
        }
        Ok(())
    }

    fn fill(&mut self) -> gimli::Result<()> {
        let mut entries = self.unit.entries_raw(None)?;
        let mut entry = Entry::null();
        // For each depth, what encloses the entries met there.
        let mut enclosing = vec![Enclosing::Nothing];
        while !entries.is_empty() {
            let depth = usize::try_from(entries.next_depth()).unwrap_or(0);
            // Looked at twice: most entries are of no interest, and skipping them is cheaper than reading.
            let mut ahead = entries.clone();
            let Some(abbreviation) = ahead.read_abbreviation()? else {
                entries = ahead;
                continue;
            };
            let (tag, has_children) = (abbreviation.tag(), abbreviation.has_children());
            let parent = enclosing.get(depth).copied().unwrap_or(Enclosing::Nothing);
            let this = if is_type(tag) || is_part(tag) {
                entries.read_entry(&mut entry)?;
                self.entry(tag, &entry, parent)?
            } else {
                ahead.skip_attributes(abbreviation.attributes())?;
                entries = ahead;
                match parent {
                    Enclosing::Function(index) | Enclosing::Inside(index) => Enclosing::Inside(index),
                    other => other,
                }
            };
            if has_children {
                enclosing.truncate(depth + 1);
                enclosing.resize(depth + 1, Enclosing::Nothing);
                enclosing.push(this);
            }
        }
        Ok(())
    }

    fn entry(&mut self, tag: gimli::DwTag, entry: &Entry<'a>, parent: Enclosing) -> gimli::Result<Enclosing> {
        if is_type(tag) {
            let type_ = self.type_of_entry(tag, entry)?;
            self.out.types.push(type_);
            return Ok(Enclosing::Type(self.out.types.len() - 1));
        }
        match (tag, parent) {
            (dw::DW_TAG_subprogram, _) => return self.function(entry, parent),
            (dw::DW_TAG_variable, _) => self.variable(entry, parent)?,
            (dw::DW_TAG_formal_parameter, Enclosing::Function(index)) => {
                let of = self.reference(entry);
                self.out.functions[index].prototype.parameters.push(of);
            }
            (dw::DW_TAG_unspecified_parameters, Enclosing::Function(index)) => {
                self.out.functions[index].prototype.is_variadic = true;
            }
            (_, Enclosing::Type(index)) => self.part_of_type(tag, entry, index)?,
            _ => {}
        }
        Ok(Enclosing::Skipped)
    }

    fn type_of_entry(&self, tag: gimli::DwTag, entry: &Entry<'a>) -> gimli::Result<Type> {
        let bytes = number(entry, dw::DW_AT_byte_size);
        let to = self.reference(entry);
        Ok(match tag {
            dw::DW_TAG_base_type => Type::Base {
                name: self.name(entry)?.unwrap_or_default(),
                bytes: bytes.unwrap_or(0),
                encoding: match entry.attr_value(dw::DW_AT_encoding) {
                    Some(AttributeValue::Encoding(encoding)) => encoding.0,
                    _ => 0,
                },
            },
            // All that this library knows has pointers of 8 bytes; compilers write it all the same.
            dw::DW_TAG_pointer_type => Type::Pointer { to, bytes: bytes.unwrap_or(8) },
            dw::DW_TAG_array_type => Type::Array(Array { of: to, counts: Vec::new() }),
            dw::DW_TAG_structure_type | dw::DW_TAG_union_type => Type::Record(Record {
                kind: if tag == dw::DW_TAG_union_type { Kind::Union } else { Kind::Struct },
                name: self.name(entry)?,
                is_named_by_typedef: false,
                is_declaration: flag(entry, dw::DW_AT_declaration),
                bytes: bytes.unwrap_or(0),
                asked_align: number(entry, dw::DW_AT_alignment),
                members: Vec::new(),
                place: self.place(entry),
            }),
            dw::DW_TAG_enumeration_type => Type::Enumeration(Enumeration {
                name: self.name(entry)?,
                bytes: bytes.unwrap_or(0),
                values: Vec::new(),
                place: self.place(entry),
            }),
            dw::DW_TAG_typedef => Type::Typedef { name: self.name(entry)?.unwrap_or_default(), to },
            dw::DW_TAG_subroutine_type => Type::Function(Prototype { returns: to, ..Prototype::default() }),
            dw::DW_TAG_unspecified_type => Type::Unknown,
            _ => Type::Qualified { to },
        })
    }

    fn part_of_type(&mut self, tag: gimli::DwTag, entry: &Entry<'a>, index: usize) -> gimli::Result<()> {
        let of = self.reference(entry);
        match tag {
            dw::DW_TAG_member => {
                let member = self.member(entry, of)?;
                if let Type::Record(record) = &mut self.out.types[index] {
                    record.members.push(member);
                }
            }
            dw::DW_TAG_subrange_type => {
                let last = entry.attr_value(dw::DW_AT_upper_bound).and_then(|value| value.sdata_value());
                let count = number(entry, dw::DW_AT_count)
                    .or_else(|| last.and_then(|last| u64::try_from(last.checked_add(1)?).ok()));
                if let Type::Array(array) = &mut self.out.types[index] {
                    array.counts.push(count);
                }
            }
            dw::DW_TAG_enumerator => {
                let value = entry.attr_value(dw::DW_AT_const_value);
                let value = value
                    .and_then(|v| v.sdata_value().or_else(|| v.udata_value().map(|v| v as i64)))
                    .unwrap_or(0);
                let name = self.name(entry)?.unwrap_or_default();
                if let Type::Enumeration(enumeration) = &mut self.out.types[index] {
                    enumeration.values.push((name, value));
                }
            }
            dw::DW_TAG_formal_parameter => {
                if let Type::Function(prototype) = &mut self.out.types[index] {
                    prototype.parameters.push(of);
                }
            }
            dw::DW_TAG_unspecified_parameters => {
                if let Type::Function(prototype) = &mut self.out.types[index] {
                    prototype.is_variadic = true;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn member(&self, entry: &Entry<'a>, of: Option<TypeId>) -> gimli::Result<Member> {
        let offset = number(entry, dw::DW_AT_data_member_location).unwrap_or(0);
        let bits = number(entry, dw::DW_AT_bit_size).map(|width| {
            // DWARF 4 counts from the highest bit of the unit of storage; data_bit_offset from the start.
            let start = number(entry, dw::DW_AT_data_bit_offset).unwrap_or_else(|| {
                let storage = number(entry, dw::DW_AT_byte_size).unwrap_or(4);
                let from_top = number(entry, dw::DW_AT_bit_offset).unwrap_or(0);
                ((offset + storage) * 8).saturating_sub(from_top + width)
            });
            Bits { start, width }
        });
        Ok(Member {
            name: self.name(entry)?,
            of,
            offset: bits.map_or(offset, |bits| bits.start / 8),
            bits,
            asked_align: number(entry, dw::DW_AT_alignment),
            line: number(entry, dw::DW_AT_decl_line).unwrap_or(0) as u32,
        })
    }

    /// A function's code that completes an earlier entry repeats neither name nor types.
    fn function(&mut self, entry: &Entry<'a>, parent: Enclosing) -> gimli::Result<Enclosing> {
        let Some(name) = self.name(entry)? else {
            return Ok(match parent {
                Enclosing::Function(index) | Enclosing::Inside(index) => Enclosing::Inside(index),
                _ => Enclosing::Skipped,
            });
        };
        self.out.functions.push(Function {
            name,
            is_external: flag(entry, dw::DW_AT_external),
            is_declaration: flag(entry, dw::DW_AT_declaration),
            prototype: Prototype { returns: self.reference(entry), ..Prototype::default() },
            place: self.place(entry),
        });
        Ok(Enclosing::Function(self.out.functions.len() - 1))
    }

    fn variable(&mut self, entry: &Entry<'a>, parent: Enclosing) -> gimli::Result<()> {
        let (Some(name), Some(of)) = (self.name(entry)?, self.reference(entry)) else { return Ok(()) };
        let function = match parent {
            Enclosing::Function(index) | Enclosing::Inside(index) => {
                Some(self.out.functions[index].name.clone())
            }
            _ => None,
        };
        let has_address = match entry.attr_value(dw::DW_AT_location) {
            Some(AttributeValue::Exprloc(expression)) => {
                let first = expression.operations(self.unit.encoding()).next();
                matches!(
                    first,
                    Ok(Some(gimli::Operation::Address { .. } | gimli::Operation::AddressIndex { .. }))
                )
            }
            _ => false,
        };
        self.out.variables.push(Variable {
            name,
            of: Some(of),
            is_automatic: function.is_some() && !has_address && !flag(entry, dw::DW_AT_external),
            function,
            is_declaration: flag(entry, dw::DW_AT_declaration),
            place: self.place(entry),
        });
        Ok(())
    }

    fn name(&self, entry: &Entry<'a>) -> gimli::Result<Option<String>> {
        let Some(value) = entry.attr_value(dw::DW_AT_name) else { return Ok(None) };
        Ok(Some(self.dwarf.attr_string(self.unit, value)?.to_string_lossy().into_owned()))
    }

    fn reference(&self, entry: &Entry<'a>) -> Option<TypeId> {
        match entry.attr_value(dw::DW_AT_type)? {
            AttributeValue::UnitRef(offset) => self.ids.get(&offset.0).copied(),
            _ => None,
        }
    }

    fn place(&self, entry: &Entry<'a>) -> Place {
        let number_of_file = match entry.attr_value(dw::DW_AT_decl_file) {
            Some(AttributeValue::FileIndex(file)) => Some(file),
            other => other.and_then(|value| value.udata_value()),
        };
        let file = number_of_file.and_then(|file| self.files.get(usize::try_from(file).ok()?));
        Place {
            file: file.cloned().unwrap_or_default(),
            line: number(entry, dw::DW_AT_decl_line).unwrap_or(0) as u32,
        }
    }

    /// `typedef struct { … } spinlock_t`: the typedef's name is the only one it has.
    fn name_by_typedef(&mut self) {
        for index in 0..self.out.types.len() {
            let Type::Typedef { name, to: Some(to) } = &self.out.types[index] else { continue };
            let (name, to) = (name.clone(), to.0 as usize);
            match &mut self.out.types[to] {
                Type::Record(record) if record.name.is_none() => {
                    record.name = Some(name);
                    record.is_named_by_typedef = true;
                }
                Type::Enumeration(enumeration) if enumeration.name.is_none() => {
                    enumeration.name = Some(name);
                }
                _ => {}
            }
        }
    }

    fn index(&mut self) {
        for (index, type_) in self.out.types.iter().enumerate() {
            let name = match type_ {
                Type::Record(record) if !record.is_declaration => &record.name,
                Type::Enumeration(enumeration) if !enumeration.values.is_empty() => &enumeration.name,
                _ => continue,
            };
            if let Some(name) = name {
                self.out.by_name.entry(name.clone()).or_insert(TypeId(index as u32));
            }
        }
    }
}

fn number(entry: &Entry<'_>, attribute: gimli::DwAt) -> Option<u64> {
    entry.attr_value(attribute)?.udata_value()
}

fn flag(entry: &Entry<'_>, attribute: gimli::DwAt) -> bool {
    matches!(entry.attr_value(attribute), Some(AttributeValue::Flag(true)))
}

//! A unit's entries as a flat table: only those that describe code, variables and types, with the attributes
//! that matter, references resolved to offsets in `.debug_info`. Questions are then plain look-ups.

use super::index::{IndexedUnit, UnitIndex};
use super::{Dwarf, Slice, paths};
use gimli::{AttributeValue, DwTag, Operation, constants as dw};
use std::collections::BTreeSet;
use std::ops::Range;

/// Longest chain of references (concrete instance → abstract instance → declaration, or type → type) that is
/// followed. Real chains are shorter; a damaged file may hold a circle.
const CHAIN_MAX: usize = 32;

/// One debugging information entry.
pub(super) struct Die<'a> {
    /// Offset in `.debug_info`.
    pub offset: usize,
    pub tag: DwTag,
    /// The nearest enclosing entry of the table, by index.
    pub parent: Option<u32>,
    pub name: Option<Slice<'a>>,
    /// DW_AT_abstract_origin or DW_AT_specification.
    pub origin: Option<usize>,
    /// DW_AT_type.
    pub type_: Option<usize>,
    /// Index in its own table's [`Table::files`].
    pub decl_file: Option<u64>,
    pub decl_line: Option<u64>,
    /// Code: first what DW_AT_low_pc or the range list begins with.
    pub code: Vec<Range<u64>>,
    /// DW_AT_entry_pc, where it is an address.
    pub entry_pc: Option<u64>,
    /// The operand of a location that is just DW_OP_addr.
    pub address: Option<u64>,
    /// DW_AT_byte_size, DW_AT_count, or DW_AT_upper_bound + 1.
    pub size: Option<u64>,
    /// Of a member: bits from the start of its structure.
    pub bit_offset: Option<u64>,
    /// DW_AT_bit_size.
    pub bit_size: Option<u64>,
    pub external: bool,
    pub declaration: bool,
    /// DW_AT_inline.
    pub inline: Option<u64>,
}

/// One unit's entries.
pub(super) struct Table<'a> {
    start: usize,
    end: usize,
    /// Relative to the kernel source where it lies there.
    pub name: String,
    pub comp_dir: String,
    pub producer: String,
    /// Files of the line table, relative to the kernel source; by the index that DW_AT_decl_file uses.
    files: Vec<String>,
    pub dies: Vec<Die<'a>>,
}

/// A unit with those units that it refers to (with link-time optimisation, or after `dwz`).
pub(super) struct Tables<'a> {
    pub own: Table<'a>,
    foreign: Vec<Table<'a>>,
}

impl<'a> Tables<'a> {
    pub(super) fn read(
        dwarf: &Dwarf<'a>,
        index: &UnitIndex<'a>,
        unit: &IndexedUnit<'a>,
        root: &str,
    ) -> gimli::Result<Tables<'a>> {
        let own = Table::read(dwarf, unit, root)?;
        let mut tables = Tables { own, foreign: Vec::new() };
        let mut seen: BTreeSet<usize> = BTreeSet::from([unit.start]);
        let mut wanted = tables.own.refers_to(index);
        while let Some(start) = wanted.pop_first() {
            if seen.insert(start)
                && let Some(unit) = index.unit_at(start)
            {
                let table = Table::read(dwarf, unit, root)?;
                wanted.extend(table.refers_to(index));
                tables.foreign.push(table);
            }
        }
        Ok(tables)
    }

    pub(super) fn find(&self, offset: usize) -> Option<(&Table<'a>, &Die<'a>)> {
        let mut tables = std::iter::once(&self.own).chain(&self.foreign);
        let table = tables.find(|t| (t.start..t.end).contains(&offset))?;
        let index = table.dies.binary_search_by_key(&offset, |d| d.offset).ok()?;
        Some((table, &table.dies[index]))
    }

    /// The first value found in an entry of this unit or, in turn, in those that it completes.
    fn resolve<T>(&self, die: &Die<'a>, mut get: impl FnMut(&Table<'a>, &Die<'a>) -> Option<T>) -> Option<T> {
        let mut at = Some((&self.own, die));
        for _ in 0..CHAIN_MAX {
            let (table, die) = at?;
            if let Some(value) = get(table, die) {
                return Some(value);
            }
            at = die.origin.and_then(|offset| self.find(offset));
        }
        None
    }

    /// DW_AT_name.
    pub(super) fn name(&self, die: &Die<'a>) -> Option<String> {
        self.resolve(die, |_, d| d.name).map(|name| name.to_string_lossy().into_owned())
    }

    /// Where it is declared: file relative to the kernel source, and line.
    pub(super) fn declared_at(&self, die: &Die<'a>) -> (String, u32) {
        let file = self.resolve(die, |table, d| {
            table.files.get(usize::try_from(d.decl_file?).ok()?).map(String::to_owned)
        });
        let line = self.resolve(die, |_, d| d.decl_line).and_then(|line| u32::try_from(line).ok());
        (file.unwrap_or_default(), line.unwrap_or(0))
    }

    pub(super) fn is_external(&self, die: &Die<'a>) -> bool {
        self.resolve(die, |_, d| d.external.then_some(())).is_some()
    }

    /// Declared `inline`, whether it was inlined or not.
    pub(super) fn is_declared_inline(&self, die: &Die<'a>) -> bool {
        let declared = [dw::DW_INL_declared_inlined, dw::DW_INL_declared_not_inlined].map(|c| u64::from(c.0));
        self.resolve(die, |_, d| d.inline).is_some_and(|inline| declared.contains(&inline))
    }

    /// The enclosing entries, innermost first.
    pub(super) fn ancestors<'t>(&'t self, die: &'t Die<'a>) -> impl Iterator<Item = &'t Die<'a>> {
        let up = |die: &'t Die<'a>| self.own.dies.get(die.parent? as usize);
        std::iter::successors(up(die), move |d| up(d))
    }

    /// DW_AT_type, as an offset.
    pub(super) fn type_of(&self, die: &Die<'a>) -> Option<usize> {
        self.resolve(die, |_, d| d.type_)
    }

    /// The type at an offset, behind typedefs and qualifiers.
    pub(super) fn unqualified(&self, mut offset: usize) -> Option<(&Table<'a>, &Die<'a>)> {
        for _ in 0..CHAIN_MAX {
            let (table, die) = self.find(offset)?;
            match die.tag {
                dw::DW_TAG_typedef
                | dw::DW_TAG_const_type
                | dw::DW_TAG_volatile_type
                | dw::DW_TAG_restrict_type
                | dw::DW_TAG_atomic_type => offset = die.type_?,
                _ => return Some((table, die)),
            }
        }
        None
    }

    /// Name of the structure that an entry's type is, behind typedefs and qualifiers; not an array of it.
    pub(super) fn structure_of_type(&self, die: &Die<'a>) -> Option<String> {
        let mut type_ = self.resolve(die, |_, d| d.type_)?;
        for _ in 0..CHAIN_MAX {
            let (_, die) = self.find(type_)?;
            match die.tag {
                dw::DW_TAG_structure_type => return Some(die.name?.to_string_lossy().into_owned()),
                dw::DW_TAG_const_type | dw::DW_TAG_volatile_type | dw::DW_TAG_typedef => type_ = die.type_?,
                _ => return None,
            }
        }
        None
    }

    /// A type as it is declared: `struct list_head *`, `u64[4]`.
    pub(super) fn type_text(&self, offset: Option<usize>) -> String {
        let mut offset = offset;
        let (mut before, mut behind) = (String::new(), String::new());
        for _ in 0..CHAIN_MAX {
            let Some((table, die)) = offset.and_then(|offset| self.find(offset)) else {
                // No type is void; one that is not among the tabled is a function's.
                let what = if offset.is_none() { "void" } else { "function" };
                return format!("{before}{what}{behind}");
            };
            let name = die.name.map_or("{…}".into(), |name| name.to_string_lossy());
            let prefix = match die.tag {
                dw::DW_TAG_structure_type => "struct ",
                dw::DW_TAG_union_type => "union ",
                dw::DW_TAG_enumeration_type => "enum ",
                dw::DW_TAG_base_type | dw::DW_TAG_typedef => "",
                dw::DW_TAG_const_type => {
                    before += "const ";
                    offset = die.type_;
                    continue;
                }
                dw::DW_TAG_pointer_type => {
                    behind =
                        if behind.starts_with('*') { format!("*{behind}") } else { format!(" *{behind}") };
                    offset = die.type_;
                    continue;
                }
                dw::DW_TAG_array_type => {
                    let dimensions = table.children(die).filter(|d| d.tag == dw::DW_TAG_subrange_type);
                    let text = |d: &Die<'_>| d.size.map_or("[]".to_owned(), |size| format!("[{size}]"));
                    behind = format!("{}{behind}", dimensions.map(text).collect::<String>());
                    offset = die.type_;
                    continue;
                }
                _ => {
                    offset = die.type_;
                    continue;
                }
            };
            return format!("{before}{prefix}{name}{behind}");
        }
        "?".to_owned()
    }

    /// Bytes of an entry's type.
    pub(super) fn size_of_type(&self, die: &Die<'a>) -> Option<u64> {
        let mut type_ = self.resolve(die, |_, d| d.type_)?;
        let mut elements = 1u64;
        for _ in 0..CHAIN_MAX {
            let (table, die) = self.find(type_)?;
            if die.tag == dw::DW_TAG_array_type {
                let index = table.dies.binary_search_by_key(&die.offset, |d| d.offset).ok()? as u32;
                let dimensions = table.dies[index as usize + 1..]
                    .iter()
                    .take_while(|d| d.parent == Some(index))
                    .filter(|d| d.tag == dw::DW_TAG_subrange_type);
                for dimension in dimensions {
                    elements = elements.checked_mul(dimension.size?)?;
                }
            } else if let Some(size) = die.size {
                return size.checked_mul(elements);
            }
            type_ = die.type_?;
        }
        None
    }
}

impl<'a> Table<'a> {
    /// The members of a structure or union.
    pub(super) fn members<'t>(&'t self, die: &Die<'a>) -> impl Iterator<Item = &'t Die<'a>> {
        self.children(die).filter(|d| d.tag == dw::DW_TAG_member)
    }

    fn children<'t>(&'t self, die: &Die<'a>) -> impl Iterator<Item = &'t Die<'a>> {
        let index = self.dies.binary_search_by_key(&die.offset, |d| d.offset).map_or(u32::MAX, |i| i as u32);
        let behind = self.dies.get(index as usize + 1..).unwrap_or_default();
        // Entries are in the order of the tree: what is inside follows, and has its parent there or further down.
        behind
            .iter()
            .take_while(move |d| d.parent.is_some_and(|parent| parent >= index))
            .filter(move |d| d.parent == Some(index))
    }

    fn read(dwarf: &Dwarf<'a>, indexed: &IndexedUnit<'a>, root: &str) -> gimli::Result<Table<'a>> {
        let unit = dwarf.unit(indexed.header)?;
        let comp_dir = comp_dir(&unit);
        let files = files(dwarf, &unit, root);
        let mut table = Table {
            start: indexed.start,
            end: indexed.end,
            name: paths::below_root(root, &indexed.path).to_owned(),
            comp_dir,
            producer: String::new(),
            files,
            dies: Vec::new(),
        };
        table.read_dies(dwarf, &unit)?;
        Ok(table)
    }

    /// Starts of the units that references lead to.
    fn refers_to(&self, index: &UnitIndex<'a>) -> BTreeSet<usize> {
        let references = self.dies.iter().flat_map(|d| d.origin.into_iter().chain(d.type_));
        let outside = references.filter(|offset| !(self.start..self.end).contains(offset));
        outside.filter_map(|offset| index.unit_at(offset)).map(|u| u.start).collect()
    }

    fn read_dies(&mut self, dwarf: &Dwarf<'a>, unit: &gimli::Unit<Slice<'a>>) -> gimli::Result<()> {
        let mut entries = unit.entries_raw(None)?;
        // For each depth, the table entry that encloses what is met there.
        let mut enclosing: Vec<Option<u32>> = vec![None];
        while !entries.is_empty() {
            let depth = usize::try_from(entries.next_depth()).unwrap_or(0);
            let offset = self.start.saturating_add(entries.next_offset().0);
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            let parent = enclosing.get(depth).copied().flatten();
            let mut this = parent;
            if is_tabled(abbreviation.tag()) {
                let mut die = Die::new(offset, abbreviation.tag(), parent);
                for spec in abbreviation.attributes() {
                    let attribute = entries.read_attribute_inline(*spec)?;
                    if attribute.name() == dw::DW_AT_producer {
                        let producer = dwarf.attr_string(unit, attribute.value())?;
                        self.producer = producer.to_string_lossy().into_owned();
                    } else {
                        die.set(dwarf, unit, self.start, attribute.name(), attribute.value())?;
                    }
                }
                die.settle_code();
                this = Some(self.dies.len() as u32);
                self.dies.push(die);
            } else {
                entries.skip_attributes(abbreviation.attributes())?;
            }
            if abbreviation.has_children() {
                enclosing.truncate(depth + 1);
                enclosing.resize(depth + 1, None);
                enclosing.push(this);
            }
        }
        Ok(())
    }
}

fn is_tabled(tag: DwTag) -> bool {
    matches!(
        tag,
        dw::DW_TAG_compile_unit
            | dw::DW_TAG_subprogram
            | dw::DW_TAG_inlined_subroutine
            | dw::DW_TAG_variable
            | dw::DW_TAG_base_type
            | dw::DW_TAG_structure_type
            | dw::DW_TAG_union_type
            | dw::DW_TAG_member
            | dw::DW_TAG_enumeration_type
            | dw::DW_TAG_pointer_type
            | dw::DW_TAG_array_type
            | dw::DW_TAG_subrange_type
            | dw::DW_TAG_typedef
            | dw::DW_TAG_const_type
            | dw::DW_TAG_volatile_type
            | dw::DW_TAG_restrict_type
            | dw::DW_TAG_atomic_type
    )
}

impl<'a> Die<'a> {
    fn new(offset: usize, tag: DwTag, parent: Option<u32>) -> Die<'a> {
        Die {
            offset,
            tag,
            parent,
            name: None,
            origin: None,
            type_: None,
            decl_file: None,
            decl_line: None,
            code: Vec::new(),
            entry_pc: None,
            address: None,
            size: None,
            bit_offset: None,
            bit_size: None,
            external: false,
            declaration: false,
            inline: None,
        }
    }

    fn set(
        &mut self,
        dwarf: &Dwarf<'a>,
        unit: &gimli::Unit<Slice<'a>>,
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
            dw::DW_AT_type => self.type_ = reference(unit_start, &value),
            dw::DW_AT_decl_file => {
                self.decl_file = match value {
                    AttributeValue::FileIndex(file) => Some(file),
                    other => other.udata_value(),
                }
            }
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
            dw::DW_AT_location => {
                if let AttributeValue::Exprloc(expression) = value {
                    self.address = fixed_address(dwarf, unit, expression)?;
                }
            }
            dw::DW_AT_byte_size | dw::DW_AT_count => self.size = value.udata_value(),
            dw::DW_AT_upper_bound => self.size = value.udata_value().and_then(|last| last.checked_add(1)),
            dw::DW_AT_data_member_location => {
                self.bit_offset = value.udata_value().and_then(|bytes| bytes.checked_mul(8));
            }
            dw::DW_AT_data_bit_offset => self.bit_offset = value.udata_value(),
            dw::DW_AT_bit_size => self.bit_size = value.udata_value(),
            dw::DW_AT_external => self.external = value == AttributeValue::Flag(true),
            dw::DW_AT_declaration => self.declaration = value == AttributeValue::Flag(true),
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
    fn settle_code(&mut self) {
        self.code.retain(|range| range.start < range.end);
    }
}

fn reference(unit_start: usize, value: &AttributeValue<Slice<'_>>) -> Option<usize> {
    match value {
        AttributeValue::UnitRef(offset) => unit_start.checked_add(offset.0),
        AttributeValue::DebugInfoRef(offset) => Some(offset.0),
        _ => None,
    }
}

/// The address of a variable with static storage: an expression of one operation, DW_OP_addr (or addrx).
fn fixed_address<'a>(
    dwarf: &Dwarf<'a>,
    unit: &gimli::Unit<Slice<'a>>,
    expression: gimli::Expression<Slice<'a>>,
) -> gimli::Result<Option<u64>> {
    let mut operations = expression.operations(unit.encoding());
    // Most locations begin with an operation that needs no decoding to be told apart.
    let first = operations.next()?;
    let address = match first {
        Some(Operation::Address { address }) => Some(address),
        Some(Operation::AddressIndex { index }) => Some(dwarf.address(unit, index)?),
        _ => None,
    };
    Ok(if address.is_some() && operations.next()?.is_none() { address } else { None })
}

fn comp_dir(unit: &gimli::Unit<Slice<'_>>) -> String {
    unit.comp_dir.map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The files of a unit's line table, relative to the kernel source, by the number that entries use.
pub(crate) fn files<'a>(dwarf: &Dwarf<'a>, unit: &gimli::Unit<Slice<'a>>, root: &str) -> Vec<String> {
    let Some(program) = &unit.line_program else { return Vec::new() };
    let header = program.header();
    let string = |value: AttributeValue<Slice<'a>>| {
        dwarf.attr_string(unit, value).map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let path = |file: &gimli::FileEntry<Slice<'a>>| {
        let directory = file.directory(header).map(string).unwrap_or_default();
        let path = paths::join(&paths::join(&comp_dir(unit), &directory), &string(file.path_name()));
        paths::below_root(root, &path).to_owned()
    };
    // Before version 5, file numbers began at 1 and 0 meant none.
    let unnumbered = (header.version() < 5).then(String::new);
    unnumbered.into_iter().chain(header.file_names().iter().map(path)).collect()
}

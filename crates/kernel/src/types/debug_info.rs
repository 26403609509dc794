//! The debug information of one file, vmlinux or an object: its sections, its units, and how to ask them.

use super::index::{IndexedUnit, UnitIndex};
use super::model::Types;
use super::reader;
use super::{outline, paths};
use gimli::{AttributeValue, DebuggingInformationEntry, EndianSlice, LittleEndian, Operation};

pub(crate) type Slice<'a> = EndianSlice<'a, LittleEndian>;
pub(crate) type Dwarf<'a> = gimli::Dwarf<Slice<'a>>;
pub(crate) type Unit<'a> = gimli::Unit<Slice<'a>>;
/// A debugging information entry.
pub(crate) type Die<'a> = DebuggingInformationEntry<Slice<'a>>;

/// The debug information of one file. All units are found and named; none is walked yet.
pub(crate) struct DebugSections<'a> {
    /// The sections.
    pub dwarf: Dwarf<'a>,
    /// The units.
    pub index: UnitIndex<'a>,
    /// Directory of the source tree as the units name it: empty, or ending in `/`.
    pub root: String,
}

impl<'a> DebugSections<'a> {
    /// A unit's source, relative to the source tree: `kernel/sched/core.c`.
    pub fn name_of<'u>(&self, unit: &'u IndexedUnit<'_>) -> &'u str {
        paths::below_root(&self.root, &unit.path)
    }

    /// Everything that a unit declares.
    pub fn types(&self, unit: &IndexedUnit<'a>) -> gimli::Result<Types> {
        reader::read(self, unit)
    }

    /// Those structures and unions of a unit that are fully described and whose tags are wanted, and all types that
    /// these refer to. Much cheaper than [`DebugSections::types`] for structures that refer to little.
    pub fn records_tagged(
        &self,
        unit: &IndexedUnit<'a>,
        is_wanted: impl Fn(&[u8]) -> bool,
    ) -> gimli::Result<Types> {
        let mut wanted = Vec::new();
        self.outline(unit, |named| {
            if named.is_record() && !named.is_declaration && is_wanted(named.name.slice()) {
                wanted.push(named.offset);
            }
        })?;
        reader::read_from(self, unit, &wanted)
    }

    /// Calls `see` for every type with a name at the top level of a unit, where compilers put what headers declare.
    pub fn outline(&self, unit: &IndexedUnit<'a>, see: impl FnMut(&outline::Named<'a>)) -> gimli::Result<()> {
        outline::read(&self.dwarf, unit, see)
    }
}

/// A unit's source, with its compilation directory put before it where it is relative.
pub(crate) fn path_of(unit: &Unit<'_>) -> String {
    let name = unit.name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    paths::join(&comp_dir(unit), &name)
}

/// DW_AT_comp_dir.
pub(crate) fn comp_dir(unit: &Unit<'_>) -> String {
    unit.comp_dir.map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The files of a unit's line table, relative to the source tree, by the number that entries use.
pub(crate) fn files<'a>(dwarf: &Dwarf<'a>, unit: &Unit<'a>, root: &str) -> Vec<String> {
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

/// The offset in `.debug_info` that a reference leads to, from a unit that starts at `unit_start`.
pub(crate) fn reference(unit_start: usize, value: &AttributeValue<Slice<'_>>) -> Option<usize> {
    match value {
        AttributeValue::UnitRef(offset) => unit_start.checked_add(offset.0),
        AttributeValue::DebugInfoRef(offset) => Some(offset.0),
        _ => None,
    }
}

/// The number of a DW_AT_decl_file.
pub(crate) fn file_number(value: &AttributeValue<Slice<'_>>) -> Option<u64> {
    match value {
        AttributeValue::FileIndex(file) => Some(*file),
        other => other.udata_value(),
    }
}

/// The address of a variable with static storage: a location that is a single operation, DW_OP_addr or DW_OP_addrx.
/// With further operations the address would be a part of the variable's value.
pub(crate) fn fixed_address<'a>(
    dwarf: &Dwarf<'a>,
    unit: &Unit<'a>,
    location: AttributeValue<Slice<'a>>,
) -> gimli::Result<Option<u64>> {
    let AttributeValue::Exprloc(expression) = location else { return Ok(None) };
    let mut operations = expression.operations(unit.encoding());
    let address = match operations.next()? {
        Some(Operation::Address { address }) => address,
        Some(Operation::AddressIndex { index }) => dwarf.address(unit, index)?,
        _ => return Ok(None),
    };
    Ok(operations.next()?.is_none().then_some(address))
}

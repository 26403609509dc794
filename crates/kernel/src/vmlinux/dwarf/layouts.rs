//! Sizes and members of the structures in which special sections keep their entries.

use super::Dwarf;
use super::index::{IndexedUnit, UnitIndex};
use crate::elf::Elf;
use gimli::constants as dw;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// One structure.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Layout {
    /// Bytes.
    pub size: u64,
    /// Member → offset in bytes.
    pub members: BTreeMap<String, u64>,
}

/// Structure name → layout.
pub(in super::super) type Layouts = BTreeMap<String, Layout>;

/// A structure that is wanted.
struct Wanted {
    structure: &'static str,
    /// Symbol at the start of the table of such entries. A kernel without it may lack the structure.
    table: &'static str,
    /// How the name of a unit ends that walks such entries and so describes them fully. It only says where to look
    /// first.
    usual_unit: &'static str,
}

const WANTED: &[Wanted] = &[
    wanted("alt_instr", "__alt_instructions", "kernel/alternative.c"),
    wanted("paravirt_patch_site", "__parainstructions", "kernel/alternative.c"),
    wanted("jump_entry", "__start___jump_table", "kernel/jump_label.c"),
    wanted("static_call_site", "__start_static_call_sites", "kernel/static_call_inline.c"),
    wanted("bug_entry", "__start___bug_table", "lib/bug.c"),
    wanted("exception_table_entry", "__start___ex_table", "lib/extable.c"),
    wanted("orc_entry", "__start_orc_unwind", "arch/x86/kernel/unwind_orc.c"),
];

const fn wanted(structure: &'static str, table: &'static str, usual_unit: &'static str) -> Wanted {
    Wanted { structure, table, usual_unit }
}

/// Layouts of the wanted structures that this kernel has.
pub(super) fn read(elf: &Elf, dwarf: &Dwarf<'_>, index: &UnitIndex<'_>) -> gimli::Result<Layouts> {
    let mut layouts = Layouts::new();
    let mut missing: Vec<&Wanted> =
        WANTED.iter().filter(|w| !elf.symbols_named(w.table).is_empty()).collect();
    let usual: Vec<&IndexedUnit<'_>> =
        index.units.iter().filter(|u| missing.iter().any(|w| u.path.ends_with(w.usual_unit))).collect();
    for found in usual.par_iter().map(|unit| find_in(dwarf, unit, &missing)).collect::<Vec<_>>() {
        layouts.extend(found?);
    }
    missing.retain(|w| !layouts.contains_key(w.structure));
    for unit in &index.units {
        if missing.is_empty() {
            break;
        }
        layouts.extend(find_in(dwarf, unit, &missing)?);
        missing.retain(|w| !layouts.contains_key(w.structure));
    }
    Ok(layouts)
}

fn find_in(dwarf: &Dwarf<'_>, indexed: &IndexedUnit<'_>, wanted: &[&Wanted]) -> gimli::Result<Layouts> {
    let unit = dwarf.unit(indexed.header)?;
    let mut layouts = Layouts::new();
    // The structure whose members are being read.
    let mut current: Option<(String, Layout)> = None;
    let mut entries = unit.entries_raw(None)?;
    let mut entry = gimli::DebuggingInformationEntry::null();
    while !entries.is_empty() {
        let depth = entries.next_depth();
        if depth <= 1 {
            layouts.extend(current.take());
        }
        // Structures are children of the unit, members of structures.
        let read = match depth {
            1 => true,
            2 => current.is_some(),
            _ => false,
        };
        if !read {
            if let Some(abbreviation) = entries.read_abbreviation()? {
                entries.skip_attributes(abbreviation.attributes())?;
            }
            continue;
        }
        if !entries.read_entry(&mut entry)? {
            continue;
        }
        let Some(name) = entry.attr_value(dw::DW_AT_name) else { continue };
        match (entry.tag(), &mut current) {
            (dw::DW_TAG_structure_type, _) if depth == 1 => {
                let name = dwarf.attr_string(&unit, name)?;
                let is_wanted = wanted.iter().any(|w| w.structure.as_bytes() == name.slice());
                let size = entry.attr_value(dw::DW_AT_byte_size).and_then(|v| v.udata_value());
                if let Some(size) = size.filter(|_| is_wanted) {
                    let layout = Layout { size, members: BTreeMap::new() };
                    current = Some((name.to_string_lossy().into_owned(), layout));
                }
            }
            (dw::DW_TAG_member, Some((_, layout))) => {
                let offset = entry.attr_value(dw::DW_AT_data_member_location).and_then(|v| v.udata_value());
                let name = dwarf.attr_string(&unit, name)?.to_string_lossy().into_owned();
                layout.members.extend(offset.map(|offset| (name, offset)));
            }
            _ => {}
        }
    }
    layouts.extend(current);
    Ok(layouts)
}

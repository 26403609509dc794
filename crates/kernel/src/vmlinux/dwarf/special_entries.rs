//! Sizes and members of the structures in which special sections keep their entries, and of the scheduling classes'.

use super::DebugSections;
use crate::elf::Elf;
use crate::types::index::IndexedUnit;
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
    /// Symbol at the start of the table of such entries, or one of them. A kernel without it may lack the structure.
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
    wanted(CLASS, "fair_sched_class", "kernel/sched/core.c"),
    wanted("orc_entry", "__start_orc_unwind", "arch/x86/kernel/unwind_orc.c"),
];

/// The type of scheduling classes.
pub(in super::super) const CLASS: &str = "sched_class";

const fn wanted(structure: &'static str, table: &'static str, usual_unit: &'static str) -> Wanted {
    Wanted { structure, table, usual_unit }
}

/// Layouts of the wanted structures that this kernel has.
pub(super) fn read<'a>(elf: &Elf, info: &DebugSections<'a>) -> gimli::Result<Layouts> {
    let mut layouts = Layouts::new();
    let mut missing: Vec<&Wanted> =
        WANTED.iter().filter(|w| !elf.symbols_named(w.table).is_empty()).collect();
    let is_usual = |unit: &&IndexedUnit<'a>| missing.iter().any(|w| unit.path.ends_with(w.usual_unit));
    let usual: Vec<&IndexedUnit<'_>> = info.index.units.iter().filter(is_usual).collect();
    for found in usual.par_iter().map(|unit| find_in(info, unit, &missing)).collect::<Vec<_>>() {
        layouts.extend(found?);
    }
    missing.retain(|w| !layouts.contains_key(w.structure));
    for unit in &info.index.units {
        if missing.is_empty() {
            break;
        }
        layouts.extend(find_in(info, unit, &missing)?);
        missing.retain(|w| !layouts.contains_key(w.structure));
    }
    Ok(layouts)
}

fn find_in<'a>(
    info: &DebugSections<'a>,
    unit: &IndexedUnit<'a>,
    wanted: &[&Wanted],
) -> gimli::Result<Layouts> {
    let types = info.records_tagged(unit, |tag| wanted.iter().any(|w| w.structure.as_bytes() == tag))?;
    let layout = |w: &&Wanted| {
        let record = types.record_named(w.structure)?;
        let members = record.members.iter().filter(|member| member.bits.is_none());
        let members = members.filter_map(|member| Some((member.name.clone()?, member.offset))).collect();
        Some((w.structure.to_owned(), Layout { size: record.bytes, members }))
    };
    Ok(wanted.iter().filter_map(layout).collect())
}

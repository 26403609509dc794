//! The functions of the scheduler in which objects begin and end. Calls to them go to the runtime's entry points first.

use super::descriptors::StateDescriptor;
use super::{Error, Extension, Kind, is_replaced};
use crate::binding::Rewritten;
use crate::boundary::{Boundary, Fate, Sharing, StayReason, features};
use object::elf;
use schedswap_kernel::objects::{Object, Place, SectionId, Symbol, SymbolId};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Where the runtime's entry points lie (`runtime/tasks.c`).
const SECTION: &str = ".text.entries";

/// One function, and the entry point that is called instead of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryPoint {
    /// Unit of the function.
    pub unit: String,
    /// The function.
    pub function: &'static str,
    /// The module's symbol for it, which the entry point calls.
    pub own: String,
    /// The runtime's symbol for the entry point.
    pub entry: &'static str,
    /// The macro by which the runtime's source names `own`.
    name: &'static str,
}

/// A function that is called for every object of a kind, when it begins or when it ends.
struct Wanted {
    kind: Kind,
    function: &'static str,
    what: &'static str,
    entry: &'static str,
    name: &'static str,
}

const fn wanted(
    kind: Kind,
    function: &'static str,
    what: &'static str,
    entry: &'static str,
    name: &'static str,
) -> Wanted {
    Wanted { kind, function, what, entry, name }
}

/// `copy_process` calls the first for each new thread and fails if it does, `free_task` the second for each
/// `task_struct`, of failed forks too (since 5.15, 07ec77a1d4e8). The others are called by the scheduler alone, from another
/// unit, so that no compiler makes them part of their callers.
const WANTED: &[Wanted] = &[
    wanted(Kind::Task, "sched_fork", "begin", "ss_entry_task_begins", "SS_TASK_BEGINS"),
    wanted(Kind::Task, "release_user_cpus_ptr", "end", "ss_entry_task_ends", "SS_TASK_ENDS"),
    wanted(Kind::Group, "alloc_fair_sched_group", "begin", "ss_entry_group_begins", "SS_GROUP_BEGINS"),
    wanted(Kind::Group, "free_fair_sched_group", "end", "ss_entry_group_ends", "SS_GROUP_ENDS"),
];

/// The functions in which objects of a kind begin and end.
pub(super) fn of_kind(kind: Kind) -> impl Iterator<Item = &'static str> {
    WANTED.iter().filter(move |wanted| wanted.kind == kind).map(|wanted| wanted.function)
}

/// Those of a kind.
pub(super) fn of(
    boundary: &Boundary,
    rewritten: &Rewritten,
    state: &StateDescriptor,
) -> Result<Vec<EntryPoint>, Error> {
    let mut entries = Vec::new();
    for wanted in WANTED.iter().filter(|wanted| wanted.kind == state.kind) {
        let missing = |why: String| Error::NoEntry {
            state: state.name.clone(),
            kind: state.kind.plural(),
            function: wanted.function,
            what: wanted.what,
            why,
        };
        let function = boundary.functions.iter().find(|f| f.name == wanted.function);
        let function = function.ok_or_else(|| missing("this kernel has no such function".to_owned()))?;
        if !is_replaced(&function.fate) {
            return Err(missing("it stays in vmlinux".to_owned()));
        }
        let key = (function.unit.clone(), function.name.clone());
        let own = rewritten
            .targets
            .get(&key)
            .ok_or_else(|| missing("the edited tree no longer has it".to_owned()))?;
        entries.push(EntryPoint {
            unit: function.unit.clone(),
            function: wanted.function,
            own: own.clone(),
            entry: wanted.entry,
            name: wanted.name,
        });
    }
    Ok(entries)
}

/// What is called when the features file is written, if vmlinux's switches have to follow the module's: while it runs,
/// code of vmlinux asks about features that the module has switches of its own for.
pub(super) fn of_features(boundary: &Boundary, rewritten: &Rewritten) -> Option<EntryPoint> {
    let is_partial = boundary.functions.iter().any(|f| f.fate == Fate::Stay(StayReason::Unchanged));
    let mut bits = boundary.variables.iter().filter(|v| v.name == features::BITS);
    let is_own = bits.any(|v| matches!(v.sharing, Sharing::Private(_)));
    if !is_partial || !is_own {
        return None;
    }
    let mut writers = boundary.functions.iter().filter(|f| f.name == features::WRITER);
    let writer = writers.find(|f| matches!(f.fate, Fate::Divert(_)))?;
    let own = rewritten.targets.get(&(writer.unit.clone(), writer.name.clone()))?;
    Some(EntryPoint {
        unit: writer.unit.clone(),
        function: features::WRITER,
        own: own.clone(),
        entry: "ss_entry_features_written",
        name: "SS_FEATURES_WRITER",
    })
}

/// The file of the runtime with that entry point, without its ending.
const FEATURES: &str = "feature_write";

impl Extension {
    fn entries(&self) -> impl Iterator<Item = &EntryPoint> {
        self.numbered.iter().flat_map(|numbered| &numbered.entries).chain(&self.features)
    }

    /// Where vmlinux's functions are diverted to: the runtime's entry points where there are any, else the scheduler's
    /// own functions.
    pub(in crate::module) fn targets(
        &self,
        own: &BTreeMap<(String, String), String>,
    ) -> BTreeMap<(String, String), String> {
        let mut targets = own.clone();
        for entry in self.entries() {
            targets.insert((entry.unit.clone(), entry.function.to_owned()), entry.entry.to_owned());
        }
        targets
    }

    /// Makes the scheduler's own calls of those functions go there too.
    pub(in crate::module) fn lead(&self, scheduler: &Object) -> Object {
        let mut led = scheduler.clone();
        for entry in self.entries() {
            let Some(own) = led.symbols.iter().position(|s| s.name == entry.own) else { continue };
            let id = SymbolId(led.symbols.len() as u32);
            led.symbols.push(global(entry.entry, Place::Undefined, 0));
            let calls = led
                .sections
                .iter_mut()
                .filter(|section| section.flags & elf::SHF_EXECINSTR.0 != 0)
                .flat_map(|section| &mut section.relocations)
                // Only branches to its first byte: where its address is taken, that is vmlinux's.
                .filter(|r| r.symbol.0 as usize == own && r.addend == -4);
            calls.for_each(|call| call.symbol = id);
        }
        led
    }

    /// `entries.h`
    pub(in crate::module) fn header(&self) -> String {
        let mut out = String::from(
            "/* SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause */\n/* Written by the build. */\n",
        );
        for numbered in &self.numbered {
            let name = match numbered.kind {
                Kind::Task => "SS_TASK_HOLE",
                Kind::Group => "SS_GROUP_HOLE",
                Kind::Rq => continue,
            };
            let _ = writeln!(out, "#define {name} {}", numbered.hole);
        }
        for entry in self.entries() {
            let _ = writeln!(out, "#define {} {:?}", entry.name, entry.own);
        }
        out
    }

    /// The sources of the runtime that this module needs.
    pub(in crate::module) fn needs(&self, source: &str) -> bool {
        let is_wanted = |name: &str, wanted: bool| source != format!("{name}.c") || wanted;
        is_wanted(FEATURES, self.features.is_some())
            && [Kind::Task, Kind::Group]
                .into_iter()
                .all(|kind| kind.source().is_none_or(|name| is_wanted(name, self.numbers(kind))))
    }

    /// Symbols at both ends of each file's entry points. No thread may be inside of them when the module goes.
    pub(in crate::module) fn text_bounds(&self) -> Vec<(String, String)> {
        let sources = self.numbered.iter().filter_map(|numbered| numbered.kind.source());
        sources.chain(self.features.as_ref().map(|_| FEATURES)).map(bounds).collect()
    }
}

fn bounds(source: &str) -> (String, String) {
    (format!("ss_{source}_entries_start"), format!("ss_{source}_entries_end"))
}

/// Adds those symbols to a compiled file of the runtime.
pub(in crate::module) fn mark(source: &str, object: &mut Object) {
    let Some(section) = object.sections.iter().position(|section| section.name == SECTION) else { return };
    let place = Place::Section(SectionId(section as u32));
    let (start, end) = bounds(source);
    let size = object.sections[section].size;
    object.symbols.push(global(&start, place, 0));
    object.symbols.push(global(&end, place, size));
}

fn global(name: &str, place: Place, value: u64) -> Symbol {
    Symbol {
        name: name.to_owned(),
        place,
        value,
        size: 0,
        binding: elf::STB_GLOBAL.0,
        kind: elf::STT_NOTYPE.0,
        other: 0,
    }
}

//! The types of vmlinux's scheduler.

use super::model::{Record, Types};
use super::reach::Reach;
use super::read;
use super::view::RecordLayout;
use crate::vmlinux::{self, Image, debug};
use rayon::prelude::*;
use std::collections::BTreeSet;

/// What the scheduler's units of a vmlinux declare.
#[derive(Clone, Debug, Default)]
pub struct Layouts {
    /// Sorted by name.
    pub units: Vec<Types>,
}

impl Layouts {
    /// Reads the scheduler's units.
    ///
    /// # Errors
    /// The debug information is missing or damaged.
    pub fn of_kernel(image: &Image) -> Result<Layouts, vmlinux::Error> {
        let info = debug::Units::of(image)?;
        let wanted: Vec<_> = info.of_the_module().collect();
        let units = wanted
            .par_iter()
            .map(|(name, indexed)| {
                let unit = info.dwarf.unit(indexed.header)?;
                let files = debug::files(&info.dwarf, &unit, &info.root);
                read::read(&info.dwarf, &unit, name, &files)
            })
            .collect::<gimli::Result<Vec<_>>>()
            .map_err(|error| debug::malformed(image, error))?;
        let mut layouts = Layouts { units };
        layouts.units.sort_by(|a, b| a.unit.cmp(&b.unit));
        Ok(layouts)
    }

    /// What one unit declares.
    pub fn unit(&self, name: &str) -> Option<&Types> {
        self.units.iter().find(|types| types.unit == name)
    }

    /// The first unit that fully describes a structure, union or enumeration.
    pub fn with(&self, name: &str) -> Option<&Types> {
        self.units.iter().find(|types| types.named(name).is_some())
    }

    /// A structure or union by tag or typedef name: `task_struct`.
    pub fn layout(&self, name: &str) -> Option<RecordLayout> {
        self.with(name)?.layout(name)
    }

    /// Every structure and union that the scheduler's own files declare, that a static variable of the scheduler
    /// is made of, or that one of the scheduler's own points to; and what these have in them. Names, sorted.
    pub fn of_the_scheduler(&self) -> Vec<String> {
        let reach = Reach::of(&self.units);
        let mut own = BTreeSet::new();
        for types in &self.units {
            let declared = types.records().filter(|(_, _, record)| is_the_schedulers(record));
            own.extend(declared.map(|(name, ..)| name.to_owned()));
            let kept =
                types.variables.iter().filter(|v| !v.is_automatic && v.place.file.starts_with(DIRECTORY));
            own.extend(kept.flat_map(|variable| types.structures_in(variable.of)));
        }
        let pointed_to: Vec<String> =
            own.iter().flat_map(|name| reach.pointed_to_from(name)).map(str::to_owned).collect();
        own.extend(pointed_to);
        let all = reach.closure(own.iter().map(String::as_str), false);
        all.into_iter().filter(|name| self.with(name).is_some()).collect()
    }
}

/// Directory of the scheduler in the kernel's source.
const DIRECTORY: &str = "kernel/sched/";

fn is_the_schedulers(record: &Record) -> bool {
    record.place.file.starts_with(DIRECTORY)
}

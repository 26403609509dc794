//! The types of several units together, vmlinux's scheduler's.

use super::model::{SourceLine, Types, Variable};
use super::paths;
use super::reach::Reach;
use super::view::RecordLayout;
use std::collections::BTreeSet;

/// What the scheduler's units of a vmlinux declare. [`Layouts::of_kernel`] reads them.
#[derive(Clone, Debug, Default)]
pub struct Layouts {
    /// Sorted by name.
    pub units: Vec<Types>,
}

impl Layouts {
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

    /// Every structure and union that the scheduler's own files declare, that a static variable which only they declare
    /// contains, or that one of the scheduler's own points to; and what these contain. Names, sorted.
    pub fn of_the_scheduler(&self) -> Vec<String> {
        let reach = Reach::of(&self.units);
        let mut own = BTreeSet::new();
        for types in &self.units {
            let is_own = |place: &SourceLine| paths::is_below_scheduler(&place.file);
            let declared = types.records().filter(|(.., record)| is_own(&record.place));
            own.extend(declared.map(|(name, ..)| name.to_owned()));
            let elsewhere = types.variables.iter().filter(|v| v.is_declaration && !is_own(&v.place));
            let elsewhere: BTreeSet<&str> = elsewhere.map(|v| v.name.as_str()).collect();
            let is_kept = |v: &&Variable| {
                !v.is_automatic
                    && is_own(&v.place)
                    && (v.function.is_some() || !elsewhere.contains(v.name.as_str()))
            };
            let kept = types.variables.iter().filter(is_kept);
            own.extend(kept.flat_map(|variable| types.structures_in(variable.of)));
        }
        let pointed_to: Vec<String> =
            own.iter().flat_map(|name| reach.pointed_to_from(name)).map(str::to_owned).collect();
        own.extend(pointed_to);
        let all = reach.closure(own.iter().map(String::as_str), false);
        all.into_iter().filter(|name| self.with(name).is_some()).collect()
    }
}

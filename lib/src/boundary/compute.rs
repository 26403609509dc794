//! Computing the boundary of one kernel.

use super::callers::{Reached, SchedulerText};
use super::exceptions::NMI_SOURCES;
use super::explain;
use super::patch_site::patch_site;
use super::sleepers::sleepers;
use super::{Boundary, BoundaryFunction, Class, Fate, StayReason, data, sidecar};
use crate::address::Addr;
use crate::vmlinux::{Function, Image, Unit};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// STB_LOCAL.
const LOCAL: u8 = 0;

/// What the work dir holds.
const SOURCES: &str = "kernel/sched/";

/// Why no boundary can be computed.
#[derive(Debug, Error)]
pub enum Error {
    /// The scheduler has no `__schedule`.
    #[error(
        "{0} has no function __schedule in its scheduler units; expected the kernel's own debug vmlinux of a \
         kernel with kernel/sched/core.c built in"
    )]
    NoSchedule(String),
    /// The jump to the stub cannot be written.
    #[error("__schedule cannot be diverted: {0}; this kernel is not supported")]
    ScheduleHasNoRoom(String),
    /// No scheduling class was found.
    #[error(
        "{0} has no variable of type struct sched_class; expected at least the fair class (is its DWARF complete?)"
    )]
    NoClasses(String),
    /// A sidecar's function is not there, or cannot be diverted.
    #[error("{function} in {unit}, which the configuration names as a sidecar, cannot be replaced: {why}")]
    Sidecar {
        /// Its unit.
        unit: String,
        /// Its name.
        function: String,
        /// Why not, and what to do.
        why: String,
    },
}

/// Decides for every function and variable of the scheduler what becomes of it.
pub fn compute(image: &Image) -> Result<Boundary, Error> {
    let path = || image.path.display().to_string();
    let text = SchedulerText::of(image);
    let schedule = image
        .units
        .iter()
        .flat_map(|u| &u.functions)
        .find(|f| f.name == "__schedule")
        .ok_or_else(|| Error::NoSchedule(path()))?
        .addr;
    let facts = Facts {
        image,
        reached: Reached::of(image, &text),
        sleepers: sleepers(image, &text, schedule),
        schedule,
    };
    let mut functions = Vec::new();
    for unit in &image.units {
        sidecar::refuse_missing(image, unit)?;
        for function in &unit.functions {
            functions.push(facts.boundary_function(unit, function)?);
        }
    }
    functions.sort_by(|a, b| (&a.unit, a.addr).cmp(&(&b.unit, b.addr)));
    let classes = data::classes(image);
    if classes.is_empty() {
        return Err(Error::NoClasses(path()));
    }
    Ok(Boundary {
        release: image.release.clone(),
        build_id: image.build_id.iter().map(|b| format!("{b:02x}")).collect(),
        functions,
        variables: data::variables(image),
        classes,
    })
}

struct Facts<'a> {
    image: &'a Image,
    reached: Reached,
    sleepers: BTreeMap<Addr, Vec<String>>,
    schedule: Addr,
}

impl Facts<'_> {
    fn boundary_function(&self, unit: &Unit, function: &Function) -> Result<BoundaryFunction, Error> {
        let symbol = self.image.symbol(function.symbol);
        let names = |map: &BTreeMap<Addr, std::collections::BTreeSet<String>>| -> Vec<String> {
            map.get(&function.addr).into_iter().flatten().cloned().collect()
        };
        let called_from = names(&self.reached.called_from);
        let stored_in = names(&self.reached.stored_in);
        let exported = symbol.binding != LOCAL && self.image.exports.contains_key(&*symbol.name);
        let class = if exported || !called_from.is_empty() {
            Class::Interface
        } else if !stored_in.is_empty() {
            Class::Callback
        } else {
            Class::Insider
        };
        Ok(BoundaryFunction {
            name: function.name.clone(),
            unit: unit.name.clone(),
            decl_file: function.decl_file.clone(),
            decl_line: function.decl_line,
            addr: function.addr,
            ranges: function.ranges.clone(),
            local: symbol.binding == LOCAL,
            class,
            fate: match &unit.sidecar {
                Some(named) => self.fate_in_sidecar(unit, named, function)?,
                None => self.fate(function, class)?,
            },
            called_from,
            stored_in,
            exported,
        })
    }

    fn fate(&self, function: &Function, class: Class) -> Result<Fate, Error> {
        let site = || patch_site(self.image, function);
        if function.addr == self.schedule {
            return site().map(Fate::Springboard).map_err(Error::ScheduleHasNoRoom);
        }
        if let Some(reason) = self.must_stay(function) {
            return Ok(Fate::Stay(reason));
        }
        if !function.decl_file.starts_with(SOURCES) {
            return Ok(Fate::Duplicate(function.decl_file.clone()));
        }
        Ok(match site() {
            Ok(site) => Fate::Redirect(site),
            Err(obstacle) if class == Class::Insider && !self.is_called_by_one_that_stays(function) => {
                Fate::InsideOnly(obstacle)
            }
            Err(obstacle) => Fate::Stay(StayReason::NoRoom { obstacle }),
        })
    }

    /// Only the named functions are replaced. One that sleeps may be among them: unlike the scheduler's, it need
    /// not always be on somebody's stack, and the stack check finds those that are inside.
    fn fate_in_sidecar(
        &self,
        unit: &Unit,
        named: &BTreeSet<String>,
        function: &Function,
    ) -> Result<Fate, Error> {
        if !named.contains(&function.source_name) {
            return Ok(Fate::Stay(StayReason::NotNamed));
        }
        let refused = |why| Error::Sidecar { unit: unit.name.clone(), function: function.name.clone(), why };
        match self.must_stay(function) {
            Some(reason) => Err(refused(explain::stay(&reason))),
            None => patch_site(self.image, function)
                .map(Fate::Redirect)
                .map_err(|obstacle| refused(explain::stay(&StayReason::NoRoom { obstacle }))),
        }
    }

    fn must_stay(&self, function: &Function) -> Option<StayReason> {
        let symbol = self.image.symbol(function.symbol);
        if symbol.addr != function.addr {
            return Some(StayReason::OverriddenWeak);
        }
        if self.is_init(function.addr) {
            return Some(StayReason::Init);
        }
        if let Some(via) = self.sleepers.get(&function.addr) {
            return Some(StayReason::Sleeps { via: via.clone() });
        }
        if let Some((_, reason)) = NMI_SOURCES.iter().find(|(file, _)| *file == function.decl_file) {
            return Some(StayReason::Nmi { via: vec![(*reason).to_string()] });
        }
        self.is_noinstr(function.addr).then_some(StayReason::NoInstr)
    }

    fn is_called_by_one_that_stays(&self, function: &Function) -> bool {
        let callers = self.reached.called_inside.get(&function.addr);
        callers.into_iter().flatten().any(|caller| {
            let at = self.image.symbol(*caller).addr;
            self.image
                .units
                .iter()
                .flat_map(|u| &u.functions)
                .filter(|f| f.ranges.iter().any(|r| r.contains(&at)))
                .any(|f| f.addr == self.schedule || self.must_stay(f).is_some())
        })
    }

    fn is_init(&self, addr: Addr) -> bool {
        self.image
            .sections
            .iter()
            .any(|s| s.name.starts_with(".init") && s.addr <= addr && addr < s.addr + s.size)
            || self.is_between("__init_begin", "__init_end", addr)
    }

    fn is_noinstr(&self, addr: Addr) -> bool {
        self.is_between("__noinstr_text_start", "__noinstr_text_end", addr)
    }

    fn is_between(&self, start: &str, end: &str, addr: Addr) -> bool {
        match (self.image.unique_symbol(start), self.image.unique_symbol(end)) {
            (Some(start), Some(end)) => start.addr <= addr && addr < end.addr,
            _ => false,
        }
    }
}

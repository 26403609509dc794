//! Computing the boundary of one kernel.

use super::callers::{Reached, SchedulerText};
use super::exceptions::NMI_SOURCES;
use super::nmi::run_by_nmis;
use super::patch_site::patch_site;
use super::privacy::Users;
use super::sleepers::sleepers;
use super::{Boundary, BoundaryFunction, Class, Fate, StayReason, data, sidecar};
use crate::config::{self, At, Config, Fault, ListedName, SCHEDULER};
use schedswap_kernel::address::Addr;
use schedswap_kernel::vmlinux::{Function, Image, Unit};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// STB_LOCAL.
const LOCAL: u8 = 0;

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
    /// The configuration asks for what cannot be.
    #[error(transparent)]
    Config(#[from] config::Error),
}

/// Decides for every function and variable of the scheduler what becomes of it, as the configuration says where it
/// says something.
///
/// # Errors
/// When vmlinux has no `__schedule` that can be diverted or no scheduling class, or the configuration asks for what
/// cannot be.
pub fn compute(image: &Image, config: &Config) -> Result<Boundary, Error> {
    config.check_symbols(image)?;
    let path = || image.path.display().to_string();
    let text = SchedulerText::of(image);
    let schedule = image
        .units
        .iter()
        .flat_map(|u| &u.functions)
        .find(|f| f.name == "__schedule")
        .ok_or_else(|| Error::NoSchedule(path()))?
        .addr;
    let sleepers = sleepers(image, &text, schedule);
    let facts = Facts {
        image,
        config,
        reached: Reached::of(image, &text),
        nmis: run_by_nmis(image, &text, &sleepers),
        sleepers,
        schedule,
    };
    let mut functions = Vec::new();
    for unit in &image.units {
        for function in &unit.functions {
            functions.push(facts.boundary_function(unit, function)?);
        }
    }
    functions.sort_by(|a, b| (&a.unit, a.addr).cmp(&(&b.unit, b.addr)));
    let classes = data::classes(image);
    if classes.is_empty() {
        return Err(Error::NoClasses(path()));
    }
    let users = Users::new(image, &text, &functions);
    let data = data::variables(image, config, &users);
    let mut refused = data.refused;
    refused.extend(sidecar::refused(image, config, &functions));
    refused.extend(facts.schedule_must_be_replaced());
    refuse(config, refused)?;
    let mut notes = data.notes;
    notes.extend(not_replaced(config, &functions));
    Ok(Boundary {
        release: image.release.clone(),
        build_id: image.build_id.iter().map(|b| format!("{b:02x}")).collect(),
        functions,
        variables: data.variables,
        classes,
        notes,
    })
}

fn refuse(config: &Config, mut refused: Vec<(At, String)>) -> Result<(), Error> {
    refused.sort();
    // One entry may mean several variables.
    refused.dedup();
    if refused.is_empty() {
        return Ok(());
    }
    let file = config.file.clone().unwrap_or_default();
    let fault = |(at, what)| Fault { file: file.clone(), at, what };
    Err(Error::Config(config::Error::Faults(refused.into_iter().map(fault).collect())))
}

/// Interfaces that the configuration names and that stay in vmlinux for a reason that it cannot override.
fn not_replaced(config: &Config, functions: &[BoundaryFunction]) -> Vec<String> {
    let named = |f: &&BoundaryFunction| {
        let has = |name: &str| functions.iter().any(|other| other.unit == f.unit && other.name == name);
        config.interface.iter().any(|entry| entry.means_function(&f.unit, &f.name, has))
    };
    let stays = |f: &BoundaryFunction| match &f.fate {
        Fate::Stay(reason) => Some(super::explain::stay(reason)),
        Fate::Duplicate(header) => Some(format!("it comes from {header}")),
        Fate::Divert(_) | Fate::InsideOnly(_) | Fate::Springboard(_) => None,
    };
    functions
        .iter()
        .filter(named)
        .filter_map(|f| {
            Some(format!("{} stays in vmlinux although it is named an interface: {}", f.name, stays(f)?))
        })
        .collect()
}

struct Facts<'a> {
    image: &'a Image,
    config: &'a Config,
    reached: Reached,
    sleepers: BTreeMap<Addr, Vec<String>>,
    /// Functions that NMIs run, each with the path to it.
    nmis: BTreeMap<Addr, Vec<String>>,
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
        let class_configured =
            self.config.makes_interface(&unit.name, &function.name, |name| unit.has_function(name));
        let class = if exported || !called_from.is_empty() || class_configured.is_some() {
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
            class_configured: class_configured.filter(|_| !exported && called_from.is_empty()),
            fate: match &unit.sidecar {
                Some(named) => self.fate_in_sidecar(unit, named, function),
                None => self.fate(unit, function, class)?,
            },
            called_from,
            stored_in,
            exported,
        })
    }

    fn fate(&self, unit: &Unit, function: &Function, class: Class) -> Result<Fate, Error> {
        let site = || patch_site(self.image, function);
        if function.addr == self.schedule {
            return site().map(Fate::Springboard).map_err(Error::ScheduleHasNoRoom);
        }
        if let Some(reason) = self.must_stay(unit, function) {
            return Ok(Fate::Stay(reason));
        }
        if !function.decl_file.starts_with(SCHEDULER) {
            return Ok(Fate::Duplicate(function.decl_file.clone()));
        }
        Ok(match site() {
            Ok(site) => Fate::Divert(site),
            Err(obstacle) if class == Class::Insider && !self.is_called_by_one_that_stays(function) => {
                Fate::InsideOnly(obstacle)
            }
            Err(obstacle) => Fate::Stay(StayReason::NoRoom { obstacle }),
        })
    }

    /// Only the named functions are replaced. One that sleeps may be among them: unlike the scheduler's, it is
    /// not always on some thread's stack, and the stack check finds the threads that are inside.
    fn fate_in_sidecar(&self, unit: &Unit, named: &BTreeSet<String>, function: &Function) -> Fate {
        if !named.contains(&function.source_name) {
            return Fate::Stay(StayReason::NotNamed);
        }
        match self.must_stay(unit, function) {
            Some(reason) => Fate::Stay(reason),
            None => patch_site(self.image, function)
                .map_or_else(|obstacle| Fate::Stay(StayReason::NoRoom { obstacle }), Fate::Divert),
        }
    }

    fn must_stay(&self, unit: &Unit, function: &Function) -> Option<StayReason> {
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
        if let Some(via) = self.nmis.get(&function.addr) {
            return Some(StayReason::Nmi { via: via.clone() });
        }
        if self.is_noinstr(function.addr) {
            return Some(StayReason::NoInstr);
        }
        let by = self.kept_by_configuration(unit, function)?;
        Some(StayReason::Configured { by })
    }

    fn kept_by_configuration(&self, unit: &Unit, function: &Function) -> Option<String> {
        self.config.keeps(&unit.name, &function.name, &function.decl_file, |name| unit.has_function(name))
    }

    /// Every sleeping thread's stack ends in `__schedule`: nothing is replaced without it.
    fn schedule_must_be_replaced(&self) -> Option<(At, String)> {
        let mut functions = self.image.units.iter().flat_map(|u| u.functions.iter().map(move |f| (u, f)));
        let (unit, schedule) = functions.find(|(_, f)| f.addr == self.schedule)?;
        self.kept_by_configuration(unit, schedule)?;
        let is_named =
            |e: &&ListedName| e.means_function(&unit.name, &schedule.name, |name| unit.has_function(name));
        let named = self.config.stay_in_vmlinux.iter().find(is_named);
        let files = self.config.mod_files.iter().flatten().next();
        let at = named.or(files).map_or(At { line: 1, column: 1 }, |entry| entry.at);
        let what = match named {
            Some(_) => format!("{} cannot stay in vmlinux: the swap goes through it", schedule.name),
            None => format!(
                "{} has to be among mod_files: it defines {}, through which the swap goes",
                schedule.decl_file, schedule.name
            ),
        };
        Some((at, what))
    }

    fn is_called_by_one_that_stays(&self, function: &Function) -> bool {
        let callers = self.reached.called_inside.get(&function.addr);
        callers.into_iter().flatten().any(|caller| {
            let at = self.image.symbol(*caller).addr;
            self.image
                .units
                .iter()
                .flat_map(|u| u.functions.iter().map(move |f| (u, f)))
                .filter(|(_, f)| f.ranges.iter().any(|r| r.contains(&at)))
                .any(|(unit, f)| f.addr == self.schedule || self.must_stay(unit, f).is_some())
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

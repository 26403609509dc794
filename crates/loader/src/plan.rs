//! `plan`: what an install would meet now. The module is loaded, checks without stopping the machine, and is unloaded
//! again.

use crate::candidate::Candidate;
use crate::conflicts;
use crate::error::LoaderError;
use crate::host::Machine;
use crate::install::{self, Fit};
use crate::predict::predict;
use crate::registry::Registry;
use crate::running::{self, Loaded};
use crate::{retired, swap};
use rustix::io::Errno;
use schedswap_payload::report::{Outcome, PlanReport};
use schedswap_payload::sysfs::{self, Blocker, Plan, Timing};
use std::path::Path;

/// The report of `plan`. Returns an error if the module could not be asked at all.
pub fn plan(machine: &Machine, path: &Path) -> Result<PlanReport, LoaderError> {
    let candidate = Candidate::open(machine, path)?;
    if let Fit::Other(error) = install::fit(machine, candidate.module())? {
        return Err(error);
    }
    let functions = candidate.functions();
    let mut report = PlanReport {
        outcome: Outcome::Ok,
        version: candidate.version(),
        plan: None,
        blockers: Vec::new(),
        prediction: None,
        errors: Vec::new(),
        kernel_log: Vec::new(),
        notes: Vec::new(),
    };
    if let Err(error) = conflicts::refuse(&machine.paths, &functions) {
        report.errors.push(error.to_string());
    }
    let mut swaps: Vec<Timing> = history(machine);
    let already = running::scheduler(&machine.paths)?;
    if let Some(loaded) = already.as_ref().filter(|loaded| loaded.is_in_use()) {
        swaps.extend(loaded.says.timing.clone().filter(|timing| !swaps.contains(timing)));
        if is_it(loaded, &candidate) {
            report.notes.push(format!("{} runs already: there is nothing to do", loaded.says.version));
            return Ok(report);
        }
    }
    if let Err(error) = retired::check_room(machine, candidate.module()) {
        report.errors.push(error.to_string());
    }
    match swap::visit(machine, candidate.module(), ask)? {
        Asked::Plan(plan, blockers) => {
            if plan.busy > 0 {
                report.errors.push(format!("{} threads are inside functions to be replaced", plan.busy));
            }
            report.prediction = Some(predict(&plan, &swaps));
            (report.plan, report.blockers) = (Some(plan), blockers);
        }
        Asked::Held => {
            let mut by = conflicts::find(&machine.paths, &functions);
            by.retain(|conflict| conflict.refuses);
            report.errors.push(LoaderError::Held { by }.to_string());
        }
    }
    if !report.errors.is_empty() {
        report.outcome = Outcome::Refused;
    }
    Ok(report)
}

enum Asked {
    Plan(Plan, Vec<Blocker>),
    Held,
}

/// Reading the file makes the module check.
fn ask(loaded: &Loaded) -> Result<Asked, LoaderError> {
    let path = loaded.dir.join("plan");
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let blockers = running::read(&loaded.dir, "blocker").unwrap_or_default();
            Ok(Asked::Plan(text.parse().map_err(LoaderError::from)?, sysfs::parse_blockers(&blockers)?))
        }
        Err(error) if Errno::from_io_error(&error) == Some(Errno::ADDRINUSE) => Ok(Asked::Held),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::PROTO) => Err(LoaderError::OtherHandover),
        Err(source) => Err(LoaderError::Sysfs { path, source }),
    }
}

fn is_it(loaded: &Loaded, candidate: &Candidate) -> bool {
    swap::is_that(loaded, candidate.module(), candidate.version().as_deref())
}

fn history(machine: &Machine) -> Vec<Timing> {
    let registry = Registry::of(&machine.paths, &machine.disk, &machine.host.release());
    registry.history().into_iter().map(|swap| swap.timing).collect()
}

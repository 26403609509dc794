//! `plan`: what an install would meet now. The module is loaded, looks for itself without stopping the machine, and
//! goes again.

use crate::conflicts;
use crate::error::LoaderError;
use crate::host::Machine;
use crate::install::{self, Fit};
use crate::predict::predict;
use crate::registry::Registry;
use crate::running::{self, Loaded};
use crate::swap;
use crate::target::Target;
use rustix::io::Errno;
use schedswap_payload::report::{Outcome, PlanReport};
use schedswap_payload::sysfs::{self, Blocker, Plan, Timing};
use std::path::Path;

/// What is to be reported. An error is what keeps the module from being asked at all.
pub fn plan(machine: &Machine, path: &Path) -> Result<PlanReport, LoaderError> {
    let target = Target::open(machine, path)?;
    if let Fit::Other(error) = install::fit(machine, target.module())? {
        return Err(error);
    }
    let functions = target.functions();
    let mut report = PlanReport {
        outcome: Outcome::Ok,
        version: target.version(),
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
        if is_it(loaded, &target) {
            report.notes.push(format!("{} runs already: there is nothing to do", loaded.says.version));
            return Ok(report);
        }
    }
    match swap::visit(machine, target.module(), ask)? {
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

/// Reading the file is what makes the module look.
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

fn is_it(loaded: &Loaded, target: &Target) -> bool {
    swap::is_that(loaded, target.module(), target.version().as_deref())
}

fn history(machine: &Machine) -> Vec<Timing> {
    let registry = Registry::of(&machine.paths, &machine.disk, &machine.host.release());
    registry.history().into_iter().map(|swap| swap.timing).collect()
}

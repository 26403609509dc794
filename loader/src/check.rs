//! `check`: everything that would stop an install, without changing anything.

use crate::command::causes;
use crate::conflicts::{self, Functions};
use crate::error::LoaderError;
use crate::host::Machine;
use crate::install::{self, Fit};
use crate::target::Target;
use crate::{boot, running, swap, text};
use schedswap_payload::report::{CheckReport, Outcome};
use std::path::Path;

/// Looks at everything, also when something is found to be wrong.
pub fn check(machine: &Machine, path: &Path) -> Result<CheckReport, LoaderError> {
    let mut report = CheckReport {
        outcome: Outcome::Ok,
        path: path.display().to_string(),
        version: None,
        problems: Vec::new(),
        conflicts: Vec::new(),
        notes: Vec::new(),
    };
    let functions = match Target::open(machine, path) {
        Err(error) => {
            report.problems.push(causes(&error).join(": "));
            Functions::default()
        }
        Ok(target) => {
            report.version = target.version();
            match install::fit(machine, target.module()) {
                Ok(Fit::Runs) => look_at_what_runs(machine, &target, &mut report)?,
                Ok(Fit::Other(error)) | Err(error) => report.problems.push(error.to_string()),
            }
            target.functions()
        }
    };
    report.conflicts = conflicts::find(&machine.paths, &functions);
    let refusing: Vec<_> = report.conflicts.iter().filter(|c| c.refuses).cloned().collect();
    if !refusing.is_empty() {
        report.problems.push(LoaderError::Conflicts { conflicts: refusing }.to_string());
    }
    report.notes.extend(boot::blocked(machine).map(|blocked| text::blocked(&blocked)));
    if !report.problems.is_empty() {
        report.outcome = Outcome::Refused;
    }
    Ok(report)
}

fn look_at_what_runs(
    machine: &Machine,
    target: &Target,
    report: &mut CheckReport,
) -> Result<(), LoaderError> {
    let paths = &machine.paths;
    let loaded = running::scheduler(paths)?.filter(|loaded| loaded.is_in_use());
    let version = target.version();
    match loaded {
        Some(loaded) if swap::is_that(&loaded, target.module(), version.as_deref()) => {
            report.notes.push(format!("{} runs already", loaded.says.version));
        }
        Some(loaded) => match target {
            Target::Payload(_) => {
                report.notes.push(format!("{} runs, and would be replaced in one stop", loaded.says.version));
            }
            Target::Loose(..) => {
                let (version, state) = (loaded.says.version, loaded.says.state);
                report.problems.push(LoaderError::AlreadyLoaded { version, state }.to_string());
            }
        },
        None if running::module_is_loaded(paths, &target.module().info.name) => {
            let name = target.module().info.name.clone();
            report.problems.push(LoaderError::NameTaken { name }.to_string());
        }
        None => {}
    }
    if std::fs::read_to_string(paths.of("proc/sys/kernel/modules_disabled"))
        .is_ok_and(|text| text.trim() == "1")
    {
        report
            .problems
            .push("modules may not be loaded: kernel.modules_disabled is 1 until the next boot".to_owned());
    }
    Ok(())
}

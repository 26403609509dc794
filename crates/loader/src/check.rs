//! `check`: finds everything that would prevent an install, without changing anything.

use crate::candidate::Candidate;
use crate::command::causes;
use crate::conflicts::{self, Functions};
use crate::error::LoaderError;
use crate::host::Machine;
use crate::install::{self, Fit};
use crate::paths::Paths;
use crate::{boot, lock, retired, running, swap, text};
use schedswap_payload::report::{CheckReport, Outcome};
use std::path::Path;
use std::time::Duration;

/// Checks everything, even after it has found a problem.
pub fn check(machine: &Machine, path: &Path) -> Result<CheckReport, LoaderError> {
    let mut report = CheckReport {
        outcome: Outcome::Ok,
        path: path.display().to_string(),
        version: None,
        problems: Vec::new(),
        conflicts: Vec::new(),
        notes: Vec::new(),
    };
    let functions = match Candidate::open(machine, path) {
        Err(error) => {
            report.problems.push(causes(&error).join(": "));
            Functions::default()
        }
        Ok(candidate) => {
            report.version = candidate.version();
            match install::fit(machine, candidate.module()) {
                Ok(Fit::Runs) => look_at_what_runs(machine, &candidate, &mut report)?,
                Ok(Fit::Other(error)) | Err(error) => report.problems.push(error.to_string()),
            }
            candidate.functions()
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
    candidate: &Candidate,
    report: &mut CheckReport,
) -> Result<(), LoaderError> {
    let paths = &machine.paths;
    let loaded = running::scheduler(paths)?.filter(|loaded| loaded.is_in_use());
    let version = candidate.version();
    match loaded {
        Some(loaded) if swap::is_that(&loaded, candidate.module(), version.as_deref()) => {
            report.notes.push(format!("{} runs already", loaded.says.version));
        }
        Some(loaded) => match candidate {
            Candidate::Payload(_) => {
                report.notes.push(format!("{} runs and would be replaced in one stop", loaded.says.version));
            }
            Candidate::Loose(..) => {
                let (version, state) = (loaded.says.version, loaded.says.state);
                report.problems.push(LoaderError::AlreadyLoaded { version, state }.to_string());
            }
        },
        None if running::module_is_loaded(paths, &candidate.module().info.name) => {
            let name = candidate.module().info.name.clone();
            report.problems.push(LoaderError::NameTaken { name }.to_string());
        }
        None => {}
    }
    report
        .problems
        .extend(retired::check_room(machine, candidate.module()).err().map(|error| error.to_string()));
    report.problems.extend(module_loading(paths, candidate.module().is_signed));
    if matches!(candidate, Candidate::Payload(_)) {
        report.problems.extend(state_is_read_only(paths));
    }
    if let Err(LoaderError::Locked { .. }) = lock::take(paths, Duration::ZERO) {
        report.notes.push("another loader is at work now".to_owned());
    }
    Ok(())
}

/// What keeps the kernel from loading modules, or from loading this one.
fn module_loading(paths: &Paths, is_signed: bool) -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(paths.of(path)).unwrap_or_default();
    let mut problems = Vec::new();
    if read("proc/sys/kernel/modules_disabled").trim() == "1" {
        problems
            .push("modules cannot be loaded until the next boot: kernel.modules_disabled is 1".to_owned());
    }
    let lockdown = read("sys/kernel/security/lockdown");
    let is_locked_down = ["[integrity]", "[confidentiality]"].iter().any(|level| lockdown.contains(level));
    if !is_signed && (is_locked_down || read("sys/module/module/parameters/sig_enforce").trim() == "Y") {
        problems.push(swap::UNSIGNED.to_owned());
    }
    problems
}

fn state_is_read_only(paths: &Paths) -> Option<String> {
    let found = rustix::fs::statvfs(paths.state()).ok()?;
    found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY).then(|| {
        format!(
            "{} is on a file system that is mounted read-only, so nothing can be registered: mount it read-write",
            paths.state().display()
        )
    })
}

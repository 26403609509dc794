//! Runs the command that the command line asks for, and reports its result.

use crate::args::{Command, CommandLine};
use crate::disk::Disk;
use crate::error::LoaderError;
use crate::host::{Host, Machine, Running};
use crate::kernel_log::KernelLog;
use crate::paths::Paths;
use crate::record::Record;
use crate::retired::Memory;
use crate::{boot, candidate, check, install, lock, plan, refusal, remove, running, status, text};
use clap::CommandFactory as _;
use schedswap_payload::report::{Outcome, Report};
use serde::Serialize;
use std::error::Error;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// The whole program.
pub fn run(line: CommandLine) -> ExitCode {
    let CommandLine { json, root, lock_wait, retired_max, command } = line;
    let machine = Machine {
        owner: if root.is_some() { rustix::process::geteuid().as_raw() } else { 0 },
        is_live: root.is_none(),
        paths: Paths::below(root.map_or("/".into(), |root| install::absolute(&root))),
        host: Box::new(Running) as Box<dyn Host>,
        disk: Disk::default(),
        retired_max_mib: retired_max,
    };
    match &command {
        Command::Status => print(&command, json, status::status(&machine), text::status, |_| Outcome::Ok),
        Command::Man { dir } => match write_manual(dir) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: cannot write the manual to {}: {error}", dir.display());
                ExitCode::FAILURE
            }
        },
        Command::Check { path } => {
            let report = allowed(&machine, &command)
                .and_then(|()| candidate::path_of(&machine, path.as_deref()))
                .and_then(|path| check::check(&machine, &path));
            print(&command, json, report, text::check, |report| report.outcome)
        }
        Command::Plan { path } => {
            let log = KernelLog::from_here();
            let report = allowed(&machine, &command)
                .and_then(|()| candidate::path_of(&machine, path.as_deref()))
                .and_then(|path| {
                    let _lock = lock::take(&machine.paths, lock_wait)?;
                    plan::plan(&machine, &path)
                });
            let report = report.map(|mut report| {
                if report.outcome != Outcome::Ok {
                    report.kernel_log = log.lines();
                }
                report
            });
            print(&command, json, report, text::plan, |report| report.outcome)
        }
        _ => act(&machine, &command, json, lock_wait),
    }
}

/// Runs a command that changes something, as root and as the only loader, and reports its result.
fn act(machine: &Machine, command: &Command, json: bool, lock_wait: Duration) -> ExitCode {
    let log = KernelLog::from_here();
    let mut record = Record::default();
    let result = allowed(machine, command).and_then(|()| change(machine, command, lock_wait, &mut record));
    let mut report = Report {
        command: command.name().to_owned(),
        outcome: Outcome::Ok,
        version: record.version,
        attempts: record.attempts,
        notes: record.notes,
        errors: Vec::new(),
        kernel_log: Vec::new(),
    };
    let mut status = 0;
    if let Err(error) = &result {
        status = error.exit_code();
        report.outcome = error.outcome();
        report.errors = causes(error);
        report.kernel_log = log.lines();
    }
    let text = text::report(&report, record.done.as_deref());
    if json {
        report.notes.splice(0..0, record.done);
        say(io::stdout(), &to_json(&report));
    } else if result.is_ok() {
        say(io::stdout(), &text);
    } else {
        say(io::stderr(), &text);
    }
    ExitCode::from(status)
}

fn change(
    machine: &Machine,
    command: &Command,
    lock_wait: Duration,
    record: &mut Record,
) -> Result<(), LoaderError> {
    // systemd runs these while another loader waits for systemd: they must not wait for that loader.
    match command {
        Command::Start { .. } if boot::runs_already(machine) => {
            record.done = Some("the registered scheduler runs already".to_owned());
            return Ok(());
        }
        Command::Stop { .. } if running::scheduler(&machine.paths)?.is_none() => {
            record.done = Some("no scheduler module is loaded: nothing to do".to_owned());
            return Ok(());
        }
        _ => {}
    }
    let lock = lock::take(&machine.paths, lock_wait);
    if let (Err(_), Command::Install { path: Some(path), .. }) = (&lock, command) {
        refusal::note(machine, &install::absolute(path), record);
    }
    let _lock = lock?;
    match command {
        Command::Install { path, patience } => {
            let path = path.as_deref().map_or_else(install::default_path, install::absolute);
            install::install(machine, &path, patience.into(), record)
        }
        Command::Switch { path, patience } => install::switch(machine, path, patience.into(), record),
        Command::Uninstall { free, patience } => {
            let memory = if *free { Memory::Free } else { Memory::Keep };
            remove::uninstall(machine, memory, patience.into(), record)
        }
        Command::Remove { dir, patience } => {
            remove::remove(machine, &install::absolute(dir), patience.into(), record)
        }
        Command::Forget { dir, patience } => {
            remove::forget(machine, &install::absolute(dir), patience.into(), record)
        }
        Command::Start { force, patience } => boot::start(machine, *force, patience.into(), record),
        Command::Stop { patience } => boot::stop(machine, patience.into(), record),
        Command::Healthy => boot::healthy(machine, record),
        Command::Status | Command::Check { .. } | Command::Plan { .. } | Command::Man { .. } => Ok(()),
    }
}

/// Whether this user may run the command, and whether there is a kernel for it.
fn allowed(machine: &Machine, command: &Command) -> Result<(), LoaderError> {
    let works_on_images =
        matches!(command, Command::Install { .. } | Command::Remove { .. } | Command::Forget { .. });
    if !machine.is_live {
        return if works_on_images { Ok(()) } else { Err(LoaderError::NoKernel) };
    }
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Ok(());
    }
    Err(LoaderError::NotRoot { command: command.name(), uid: uid.as_raw() })
}

fn print<T: Serialize>(
    command: &Command,
    json: bool,
    result: Result<T, LoaderError>,
    text: fn(&T) -> String,
    outcome: fn(&T) -> Outcome,
) -> ExitCode {
    match result {
        Ok(report) => {
            say(io::stdout(), &if json { to_json(&report) } else { text(&report) });
            match outcome(&report) {
                Outcome::Ok => ExitCode::SUCCESS,
                Outcome::Failed => ExitCode::from(1),
                Outcome::Refused => ExitCode::from(3),
            }
        }
        Err(error) => {
            let report = failure(command, &error);
            if json {
                say(io::stdout(), &to_json(&report));
            } else {
                say(io::stderr(), &text::report(&report, None));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// The report of a command that failed.
fn failure(command: &Command, error: &LoaderError) -> Report {
    Report {
        command: command.name().to_owned(),
        outcome: error.outcome(),
        version: None,
        attempts: Vec::new(),
        notes: Vec::new(),
        errors: causes(error),
        kernel_log: Vec::new(),
    }
}

fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("strings and numbers always become JSON") + "\n"
}

/// The reader may have gone, which changes nothing about what was done.
fn say(mut to: impl io::Write, text: &str) {
    let _ = to.write_all(text.as_bytes());
}

/// The error's message and those of its causes.
pub fn causes(error: &LoaderError) -> Vec<String> {
    let mut causes = vec![error.to_string()];
    let mut error: &dyn Error = error;
    while let Some(source) = error.source() {
        causes.push(source.to_string());
        error = source;
    }
    causes
}

fn write_manual(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(CommandLine::command(), dir)
}

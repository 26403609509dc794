//! schedswap-loader: puts a scheduler module into the running kernel and takes it out again.
//!
//! A static program that needs nothing of the host but sysfs: no modprobe, no shell, no library.
//! [`module_file`] reads the module, [`running`] the kernel; [`install`] and [`uninstall`] act through
//! [`switch`]; [`kernel_log`] brings back what the kernel said.

mod args;
mod error;
mod install;
mod kernel_log;
mod lock;
mod module_file;
mod running;
mod switch;
mod text;
mod uninstall;
mod urgency;

use args::{Command, CommandLine};
use clap::Parser;
use error::LoaderError;
use kernel_log::KernelLog;
use schedswap_payload::report::{Attempt, Outcome, Report};
use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    let CommandLine { json, command } = CommandLine::parse();
    match command {
        Command::Install { path, patience } => {
            let path = path.unwrap_or_else(install::default_path);
            act("install", json, |attempts, version| {
                install::install(&path, (&patience).into(), attempts, version)
            })
        }
        Command::Uninstall { patience } => act("uninstall", json, |attempts, version| {
            uninstall::uninstall((&patience).into(), attempts, version)
        }),
        Command::Status => show_status(json),
    }
}

/// Runs a command that changes the kernel, as root, and reports how it went.
fn act(
    command: &'static str,
    json: bool,
    action: impl FnOnce(&mut Vec<Attempt>, &mut Option<String>) -> Result<(), LoaderError>,
) -> ExitCode {
    let log = KernelLog::from_here();
    let (mut attempts, mut version) = (Vec::new(), None);
    let uid = rustix::process::geteuid();
    let result = if uid.is_root() {
        action(&mut attempts, &mut version)
    } else {
        Err(LoaderError::NotRoot { command, uid: uid.as_raw() })
    };
    let mut report = Report {
        command: command.to_owned(),
        outcome: Outcome::Ok,
        version,
        attempts,
        errors: Vec::new(),
        kernel_log: Vec::new(),
    };
    if let Err(error) = &result {
        report.outcome = error.outcome();
        report.errors = causes(error);
        report.kernel_log = log.lines();
    }
    if json {
        println!("{}", serde_json::to_string(&report).expect("strings and numbers always become JSON"));
    } else if result.is_ok() {
        print!("{}", text::report(&report));
    } else {
        eprint!("{}", text::report(&report));
    }
    exit_code(report.outcome)
}

fn show_status(json: bool) -> ExitCode {
    match running::status() {
        Ok(status) if json => {
            println!("{}", serde_json::to_string(&status).expect("strings and numbers always become JSON"));
            ExitCode::SUCCESS
        }
        Ok(status) => {
            print!("{}", text::status(&status));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}", causes(&error).join(": "));
            exit_code(error.outcome())
        }
    }
}

/// The error's sentence and those below it.
fn causes(error: &LoaderError) -> Vec<String> {
    let mut causes = vec![error.to_string()];
    let mut error: &dyn Error = error;
    while let Some(source) = error.source() {
        causes.push(source.to_string());
        error = source;
    }
    causes
}

fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Ok => ExitCode::SUCCESS,
        Outcome::Failed => ExitCode::from(1),
        Outcome::Refused => ExitCode::from(3),
    }
}

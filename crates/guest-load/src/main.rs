//! The program that works inside a test guest. It is linked statically, so an initramfs needs only this file and a
//! busybox.
//!
//! * `agent`: runs commands for the host over a serial port.
//! * `run`, `progress`: a mixed load on the scheduler, and whether each kind of load makes progress.
//! * `kcore`: saves and compares kernel memory, independently of any module.
//! * `park`: holds a thread inside a function of the scheduler.
//! * `pipe`, `time`: work of a fixed size, timed by the guest's clock.

mod agent;
mod kcore;
mod load;
mod park;
mod timed;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Works inside a schedswap test guest.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run commands for the host, which sends them over a serial port; ends by restarting the machine
    Agent(agent::AgentArgs),
    /// Put a mixed scheduling load on this machine
    Run(load::RunArgs),
    /// Wait until every kind of load has made progress since this command started; name those that have not
    Progress(load::ProgressArgs),
    /// Save kernel memory, or compare two saves
    #[command(subcommand)]
    Kcore(kcore::Command),
    /// Hold a thread inside the system call sched_setattr until told to release it
    Park(park::ParkArgs),
    /// Pass a byte back and forth between two threads; prints how many ns that took
    Pipe(timed::PipeArgs),
    /// Run a program; prints how many ns that took
    Time(timed::TimeArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Agent(args) => agent::run(&args),
        Command::Run(args) => load::run(&args),
        Command::Progress(args) => load::progress(&args),
        Command::Kcore(command) => kcore::run(&command),
        Command::Park(args) => park::run(&args),
        Command::Pipe(args) => timed::pipe_rounds(&args),
        Command::Time(args) => timed::time(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("guest-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

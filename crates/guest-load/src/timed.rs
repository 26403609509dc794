//! Work of a fixed size, timed by the guest's own clock: `make bench` compares two schedulers by it.

use anyhow::{Context, Result, ensure};
use clap::Args;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Instant;

/// Arguments of `pipe`.
#[derive(Args)]
pub struct PipeArgs {
    /// How often a byte goes there and back
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    rounds: u64,
}

/// Arguments of `time`.
#[derive(Args)]
pub struct TimeArgs {
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Passes a byte back and forth between two threads, with two sleeps and two wake-ups per round; prints ns.
pub fn pipe_rounds(args: &PipeArgs) -> Result<ExitCode> {
    let (ours, theirs) = (pipe().context("pipe")?, pipe().context("pipe")?);
    let rounds = args.rounds;
    let (back, there) = (ours.1, theirs.0);
    let partner = thread::spawn(move || pass_on(there, back, rounds));
    let (mut from, mut to) = (ours.0, theirs.1);
    let begun = Instant::now();
    for _ in 0..rounds {
        to.write_all(b"x")?;
        from.read_exact(&mut [0])?;
    }
    println!("{}", begun.elapsed().as_nanos());
    partner.join().expect("the partner does not panic")?;
    Ok(ExitCode::SUCCESS)
}

fn pass_on(mut from: PipeReader, mut to: PipeWriter, rounds: u64) -> Result<()> {
    for _ in 0..rounds {
        from.read_exact(&mut [0])?;
        to.write_all(b"x")?;
    }
    Ok(())
}

/// Runs a program to its end and discards its output; prints ns.
pub fn time(args: &TimeArgs) -> Result<ExitCode> {
    let (program, arguments) =
        args.command.split_first().context("no program given: name one after `time`")?;
    let begun = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("running {program}"))?;
    let took = begun.elapsed();
    ensure!(status.success(), "{program} ended with {status}");
    println!("{}", took.as_nanos());
    Ok(ExitCode::SUCCESS)
}

//! `make bench`: measures, prints the figures beside their targets, and never fails because something is slow.
//!
//! Each group of measurements is a file. What counts is a ratio within one run where there is one: times depend
//! on the machine, and times in a guest are the emulator's. The kernel comes from `$SCHEDSWAP_TEST_*`, as in tests.

mod alone;
mod analysis;
mod cost;
mod counted;
mod extension;
mod figures;
mod set;
mod stop;
mod workdir;

use alone::Piece;
use anyhow::Context;
use clap::{Parser, ValueEnum};
use figures::Findings;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures schedswap on the kernel in $SCHEDSWAP_TEST_*; prints figures beside their targets
#[derive(Parser)]
struct Cli {
    /// What to measure [default: all]
    groups: Vec<Group>,
    /// Sleeping threads of the groups of loads; the targets are for the largest against the smallest
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "500,2000,10000")]
    threads: Vec<u64>,
    /// Loads and unloads with each number of threads
    #[arg(long, value_name = "N", default_value_t = 10)]
    cycles: u32,
    /// Runs of each program on each scheduler
    #[arg(long, value_name = "N", default_value_t = 7)]
    rounds: u32,
    /// Where to write all figures and samples
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Do one piece of work in this process and print what it cost
    #[arg(long, hide = true)]
    alone: Option<Piece>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Group {
    /// Reading vmlinux and rewriting objects: time and memory
    Analysis,
    /// init, build, build again, and the work dir's size
    Workdir,
    /// The stop and its parts, beside the way that does everything inside it
    Stop,
    /// The stop with sets of replaced functions of several sizes, with and without rebuilding the queues
    Set,
    /// What programs pay for running on a swapped-in scheduler
    Cost,
    /// State beyond the kernel's structures: an access, and the stop with it
    Extension,
}

/// One group in the JSON file.
#[derive(Serialize)]
struct Measured {
    group: Group,
    load_average: String,
    #[serde(flatten)]
    findings: Findings,
    error: Option<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    if let Some(piece) = cli.alone {
        alone::run(piece)?;
        return Ok(ExitCode::SUCCESS);
    }
    let groups = if cli.groups.is_empty() { Group::value_variants() } else { &cli.groups };
    let mut all = Vec::new();
    for group in groups {
        let load_average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned();
        println!("\n== {group:?} (load average {load_average})");
        let mut findings = Findings::default();
        // What was found before a failure is shown, and the other groups go on.
        let result = match group {
            Group::Analysis => analysis::measure(&mut findings),
            Group::Workdir => workdir::measure(&mut findings),
            Group::Stop => stop::measure(&cli.threads, cli.cycles, &mut findings),
            Group::Set => set::measure(&cli.threads, cli.cycles, &mut findings),
            Group::Cost => cost::measure(cli.rounds, &mut findings),
            Group::Extension => extension::measure(&cli.threads, cli.cycles, cli.rounds, &mut findings),
        };
        print!("{findings}");
        let error = result.err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            println!("not measured to the end: {error}");
        }
        all.push(Measured { group: *group, load_average, findings, error });
    }
    if let Some(path) = &cli.json {
        let text = serde_json::to_string_pretty(&all)?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if all.iter().any(|group| group.error.is_some()) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

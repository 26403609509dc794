//! The mixed load: what takes part in it, and for how long.
//!
//! Sleepers, forks and quotas are processes of their own, forked first; everything else is a thread of the
//! leading process. All count on one shared [`Board`](board::Board), which [`monitor`] watches.

mod board;
mod calls;
mod monitor;
mod progress;
mod quota;
mod sleepers;
mod work;

pub use progress::{ProgressArgs, progress};

use anyhow::{Result, bail};
use board::{Fault, Kind};
use clap::Args;
use monitor::{Monitor, STATUS_PERIOD};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// How long the load may take to end once told so.
const END_LIMIT: Duration = Duration::from_secs(90);

/// Arguments of `run`.
#[derive(Args)]
pub struct RunArgs {
    /// Stop after this many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Stop when this file exists
    #[arg(long, value_name = "FILE")]
    until_file: Option<PathBuf>,
    /// Threads that sleep, besides those that work
    #[arg(long, value_name = "N", default_value_t = 100)]
    threads: u64,
    /// Where to write how the load progresses, as JSON
    #[arg(long, value_name = "FILE", default_value = "/run/guest-load.json")]
    status: PathBuf,
    /// Report how long each kind stands still before this file exists apart from how long it does from then on
    #[arg(long, value_name = "FILE")]
    mark_file: Option<PathBuf>,
    /// Only the sleepers: for measurements that other load would blur
    #[arg(long)]
    sleepers_only: bool,
}

/// Runs the load; fails when something happened that must not, or a kind never made progress.
pub fn run(args: &RunArgs) -> Result<ExitCode> {
    let board = calls::shared_board()?;
    let cpus = thread::available_parallelism().map_or(1, |n| n.get());
    let mut skipped = BTreeMap::new();
    let mut children = Vec::new();
    let mut groups = None;
    // Children first, while this process has one thread: see calls::fork.
    let sleepers = args.threads;
    children.push(("sleepers".to_string(), calls::fork(move || sleepers::run(board, sleepers))?));
    if !args.sleepers_only {
        children.push(("forks".to_string(), calls::fork(move || work::forks(board))?));
        match quota::start(board) {
            Ok((made, pids)) => {
                groups = Some(made);
                children.extend(pids.into_iter().map(|pid| ("quota".to_string(), pid)));
            }
            Err(error) => {
                skipped.insert(Kind::Quota.name().to_string(), format!("{error:#}"));
            }
        }
    }
    let mut monitor = Monitor::new(board, args, cpus, skipped);
    monitor.write("starting", groups.as_ref())?;
    while board.sleepers_up.load(std::sync::atomic::Ordering::Acquire) < args.threads {
        if calls::has_ended(children[0].1) {
            bail!("the sleepers ended before all {} had been started", args.threads);
        }
        thread::sleep(Duration::from_millis(20));
    }
    let workers = if args.sleepers_only { Vec::new() } else { work::workers(cpus) };
    let threads: Vec<_> = workers
        .into_iter()
        .map(|(name, body)| {
            thread::Builder::new().name(name.clone()).spawn(move || {
                if let Err(error) = body(board) {
                    eprintln!("guest-load: {name}: {error:#}");
                    board.fault(Fault::FailedCall, 1);
                }
            })
        })
        .collect::<Result<_, _>>()?;
    // From here on, who stands still is late.
    monitor.write("starting", groups.as_ref())?;

    let over = |begun: Instant| {
        args.seconds.is_some_and(|n| begun.elapsed() >= Duration::from_secs(n))
            || args.until_file.as_ref().is_some_and(|file| file.exists())
    };
    while !over(monitor.begun) {
        thread::sleep(STATUS_PERIOD);
        monitor.write("running", groups.as_ref())?;
    }
    monitor.write("stopping", groups.as_ref())?;
    board.stop();
    end(threads, &children)?;
    monitor.write("done", groups.as_ref())?;
    drop(groups);
    monitor.verdict()
}

/// Waits for all threads and processes, but not for ever: a thread that never ends is what this program has to find.
fn end(threads: Vec<thread::JoinHandle<()>>, children: &[(String, i32)]) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mut left: Vec<&str> =
            threads.iter().filter(|t| !t.is_finished()).filter_map(|t| t.thread().name()).collect();
        left.extend(
            children.iter().filter(|(_, pid)| !calls::has_ended(*pid)).map(|(name, _)| name.as_str()),
        );
        if left.is_empty() {
            break;
        }
        if begun.elapsed() > END_LIMIT {
            bail!("did not end within {} s: {}", END_LIMIT.as_secs(), left.join(", "));
        }
        thread::sleep(Duration::from_millis(10));
    }
    for (name, pid) in children {
        let code = calls::reap(*pid)?;
        if code != 0 {
            bail!("{name} ended with {code}");
        }
    }
    Ok(())
}

//! The mixed load: who takes part, and the status file that says how each kind gets on.
//!
//! Sleepers, forks and quotas are processes of their own, forked first; everything else is a thread of the
//! leading process. All count on one shared [`Board`].

mod board;
mod calls;
mod quota;
mod sleepers;
mod work;

use anyhow::{Context, Result, bail};
use board::{Board, Fault, Kind};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// How often the status file is written.
const STATUS_PERIOD: Duration = Duration::from_millis(200);
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
    /// Where to write how the load gets on, as JSON
    #[arg(long, value_name = "FILE", default_value = "/run/guest-load.json")]
    status: PathBuf,
    /// Only the sleepers: for measurements that other load would blur
    #[arg(long)]
    sleepers_only: bool,
}

/// Arguments of `progress`.
#[derive(Args)]
pub struct ProgressArgs {
    /// The status file of the running load
    #[arg(long, value_name = "FILE", default_value = "/run/guest-load.json")]
    status: PathBuf,
    /// How long every kind has to get on
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u64,
}

/// The status file.
#[derive(Serialize, Deserialize)]
struct Status {
    /// `starting`, `running`, `stopping` or `done`.
    state: String,
    elapsed_ms: u64,
    /// CPUs on line when the load began.
    cpus: usize,
    /// Sleeping threads.
    sleepers: u64,
    /// Units of work by kind; what the unit is differs from kind to kind.
    counters: BTreeMap<String, u64>,
    /// The longest time in which a kind's counter stood still.
    longest_gap_ms: BTreeMap<String, u64>,
    /// What must never happen; all zero.
    faults: BTreeMap<String, u64>,
    /// How often a cgroup ran out of quota.
    throttled: u64,
    /// The latest that a 1 ms timer was.
    timer_late_max_ns: u64,
    /// Kinds that this kernel has no means for, with the reason.
    skipped: BTreeMap<String, String>,
}

/// Runs the load; fails when something happened that must not, or a kind never got on.
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
    if args.sleepers_only {
        monitor.expect_only_sleepers();
    }
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

/// Waits for everybody, but not for ever: a thread that never ends is what this program is there to find.
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

/// Watches the counters and writes the status file.
struct Monitor<'a> {
    board: &'static Board,
    status: &'a Path,
    begun: Instant,
    cpus: usize,
    sleepers: u64,
    kinds: Vec<Kind>,
    skipped: BTreeMap<String, String>,
    seen: Vec<(u64, Instant)>,
    gaps: Vec<Duration>,
}

impl<'a> Monitor<'a> {
    fn new(board: &'static Board, args: &'a RunArgs, cpus: usize, skipped: BTreeMap<String, String>) -> Self {
        let expected = |kind: &Kind| {
            let impossible = *kind == Kind::Sleeper && args.threads == 0;
            !impossible && !skipped.contains_key(kind.name())
        };
        let kinds: Vec<Kind> = Kind::ALL.iter().copied().filter(expected).collect();
        Monitor {
            board,
            status: &args.status,
            begun: Instant::now(),
            cpus,
            sleepers: args.threads,
            seen: vec![(0, Instant::now()); kinds.len()],
            gaps: vec![Duration::ZERO; kinds.len()],
            kinds,
            skipped,
        }
    }

    fn expect_only_sleepers(&mut self) {
        self.kinds.retain(|kind| *kind == Kind::Sleeper);
    }

    fn write(&mut self, state: &str, groups: Option<&quota::Groups>) -> Result<()> {
        let now = Instant::now();
        for (index, kind) in self.kinds.iter().enumerate() {
            let count = self.board.counted(*kind);
            let (seen, since) = &mut self.seen[index];
            // Before the workers are there and after they were told to end, nothing can get on.
            if count != *seen || state != "running" {
                (*seen, *since) = (count, now);
            }
            self.gaps[index] = self.gaps[index].max(now - *since);
        }
        let by_kind = |value: &dyn Fn(usize, Kind) -> u64| -> BTreeMap<String, u64> {
            self.kinds
                .iter()
                .enumerate()
                .map(|(i, kind)| (kind.name().to_string(), value(i, *kind)))
                .collect()
        };
        let status = Status {
            state: state.to_string(),
            elapsed_ms: self.begun.elapsed().as_millis() as u64,
            cpus: self.cpus,
            sleepers: self.sleepers,
            counters: by_kind(&|_, kind| self.board.counted(kind)),
            longest_gap_ms: by_kind(&|index, _| self.gaps[index].as_millis() as u64),
            faults: Fault::ALL.iter().map(|f| (f.name().to_string(), self.board.faults(*f))).collect(),
            throttled: groups.map_or(0, quota::Groups::throttled),
            timer_late_max_ns: self.board.timer_late_max_ns.load(std::sync::atomic::Ordering::Relaxed),
            skipped: self.skipped.clone(),
        };
        // Renamed into place, so that a reader never sees half of it.
        let partial = self.status.with_extension("partial");
        fs::write(&partial, serde_json::to_vec(&status)?)
            .and_then(|()| fs::rename(&partial, self.status))
            .with_context(|| format!("cannot write {}", self.status.display()))
    }

    fn verdict(&self) -> Result<ExitCode> {
        let faults: Vec<String> = Fault::ALL
            .iter()
            .filter(|fault| self.board.faults(**fault) > 0)
            .map(|fault| format!("{} ({}×)", fault.name(), self.board.faults(*fault)))
            .collect();
        if !faults.is_empty() {
            bail!("the load met: {}", faults.join(", "));
        }
        let never: Vec<&str> = self
            .kinds
            .iter()
            .filter(|kind| self.board.counted(**kind) == 0)
            .map(|kind| kind.name())
            .collect();
        if !never.is_empty() {
            bail!("never got on: {}", never.join(", "));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Waits until each kind's counter has grown.
pub fn progress(args: &ProgressArgs) -> Result<ExitCode> {
    let read = || -> Result<Status> {
        let text = fs::read(&args.status)
            .with_context(|| format!("cannot read {}: is the load running?", args.status.display()))?;
        Ok(serde_json::from_slice(&text)?)
    };
    let begun = Instant::now();
    // A load that is just being started has no status file for a moment.
    while !args.status.exists() && begun.elapsed() < Duration::from_secs(args.seconds) {
        thread::sleep(Duration::from_millis(50));
    }
    let before = read()?;
    loop {
        let now = read()?;
        let stuck: Vec<&str> = before
            .counters
            .iter()
            .filter(|(kind, count)| now.counters.get(*kind) <= Some(*count))
            .map(|(kind, _)| kind.as_str())
            .collect();
        if now.state == "running" && stuck.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        if now.state != "running" && now.state != "starting" {
            bail!("the load has ended");
        }
        if begun.elapsed() > Duration::from_secs(args.seconds) {
            bail!("no progress within {} s: {}", args.seconds, stuck.join(", "));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

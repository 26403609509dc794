//! The standard scenario: a scheduler is loaded and unloaded again and again while the machine works.

use super::memory::Memory;
use super::{Error, Guest, Output, Result};
use schedswap_payload::report::{Attempt, Outcome, Report};
use schedswap_payload::sysfs::{Blocker, Timing};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Where the scheduler module lies in the guest. `try --run` tells scripts by `$SCHEDSWAP_MODULE`.
pub const MODULE_PATH: &str = "/schedswap/scheduler.ko";
/// Where the load writes how it progresses.
const STATUS: &str = "/run/guest-load.json";
const STOP_FILE: &str = "/run/guest-load-stop";
/// Tells the load that the swaps begin.
const MARK_FILE: &str = "/run/guest-load-swaps";
/// One load or unload, with the loader's retries.
const SWITCH_LIMIT: Duration = Duration::from_secs(180);
/// How long every kind of load has to make progress, in seconds in which others work.
const PROGRESS_SECONDS: u64 = 60;
/// The same by this machine's clock, where the guest may get little of its CPUs.
const PROGRESS_LIMIT: Duration = Duration::from_secs(600);
/// How much slower than this machine's clock the guest's may go, which may count instructions.
const BASELINE_PATIENCE: u32 = 20;
/// MiB that the modules of all cycles may keep: the guest's memory is the limit.
const RETIRED_MAX: u32 = 1 << 20;
/// Tries of an unload that finds threads in the way; the loader itself retries within each.
const UNLOADS: u32 = 5;
/// Tries of taking a CPU off line.
const UNPLUGS: u32 = 50;
/// Shows how much time DEADLINE threads were promised, for the error.
const PROMISED: &str = "grep -h dl_bw /sys/kernel/debug/sched/debug | sort | uniq -c >&2";
/// Where the scheduler's features are shown: since 5.13, and before.
const FEATURES: &str = "for file in /sys/kernel/debug/sched/features /sys/kernel/debug/sched_features; do \
                        if [ -e $file ]; then cat $file || exit; fi; done";

/// What to do.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Loads followed by unloads.
    pub cycles: u32,
    /// Sleeping threads, besides the load's own.
    pub threads: u64,
    /// Put the mixed load on; without it, only the sleepers are there.
    pub load: bool,
    /// How long to watch the load on the kernel's own scheduler before the first swap, at least, in the guest's time:
    /// what it is compared with.
    pub baseline: Duration,
    /// How long the scheduler stays loaded in each cycle, at least.
    pub hold: Duration,
    /// A CPU that goes off and on line in each cycle, while the scheduler is loaded.
    pub hotplug: Option<u32>,
    /// Kernel memory to compare before the first and after the last cycle; [`Memory::put_into`] must have
    /// put its files into the guest.
    pub memory: Option<Memory>,
    /// The guest's whole life, which bounds the load's.
    pub limit: Duration,
}

/// How a cycle went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CycleResult {
    /// Loaded and unloaded.
    Ok,
    /// Threads were in the way at every try; nothing was changed.
    Busy,
}

/// One load and unload.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Cycle {
    /// From 1.
    pub cycle: u32,
    /// How it went.
    pub result: CycleResult,
    /// The threads that were in the way, at any try, on the way in or out.
    pub busy_by: Vec<Blocker>,
    /// Tries that found a thread in the way.
    pub busy_tries: u32,
    /// The load's times; absent when busy.
    #[serde(flatten)]
    pub load: Option<Timing>,
    /// The unload's times; absent when busy.
    pub unload: Option<Timing>,
}

/// What the scenario found.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// Every cycle.
    pub cycles: Vec<Cycle>,
    /// Features that the new scheduler has and the kernel's own does not have.
    pub new_features: Vec<String>,
    /// Bytes of kernel memory compared and found identical; `None` when not asked for.
    pub identical_bytes: Option<u64>,
    /// What the load had done at the end, by kind; empty without load.
    pub counters: BTreeMap<String, u64>,
    /// How long the load was watched, in ms of the guest's time.
    pub watched_ms: Spans,
    /// The longest time for which a kind of load stood still, in ms. A kind that stands still on any scheduler
    /// (SCHED_IDLE among threads that compute) does so before the first swap too.
    pub longest_gap_ms: BTreeMap<String, Spans>,
}

/// Two measurements of the same: on the kernel's own scheduler, and during the cycles.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Spans {
    /// Before the first swap.
    pub before: u64,
    /// From the first swap to the end of the load.
    pub during: u64,
}

/// What is reported while it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// The load is up, with this many sleepers, and every kind of it makes progress.
    LoadRuns(u64),
    /// The load is watched on the kernel's own scheduler.
    BaselineBegins,
    /// The swaps begin.
    BaselineEnds,
    /// A cycle is over.
    Cycle(&'a Cycle),
}

/// The part of the load's status file that is reported.
#[derive(Default, Deserialize)]
struct LoadStatus {
    counters: BTreeMap<String, u64>,
    watched_ms: Spans,
    longest_gap_ms: BTreeMap<String, Spans>,
}

impl Scenario {
    /// Runs it; the module must lie at [`MODULE_PATH`] and the loader in the guest's PATH.
    ///
    /// # Errors
    /// Anything that is not as it should be, as soon as it is seen. A busy cycle is not an error.
    pub fn run(&self, guest: &Guest, mut report: impl FnMut(Event<'_>)) -> Result<Findings> {
        // Memory is read while nothing else runs: it is 14 MB, and the guest may have little of the host.
        self.save_memory(guest, "before")?;
        let only = if self.load { "" } else { " --sleepers-only" };
        let threads = self.threads;
        let command = format!(
            "guest-load run --threads {threads} --until-file {STOP_FILE} --mark-file {MARK_FILE} --status {STATUS}{only}"
        );
        let running = guest.start(&command, self.limit)?;
        self.check_progress(guest)?;
        report(Event::LoadRuns(threads));
        let features = features(guest)?;
        if !self.baseline.is_zero() {
            report(Event::BaselineBegins);
        }
        self.watch_without_swaps(guest)?;
        if !self.baseline.is_zero() {
            report(Event::BaselineEnds);
        }

        let mut new_features = Vec::new();
        let mut cycles = Vec::new();
        for number in 1..=self.cycles {
            let cycle = self.cycle(guest, number, &features, &mut new_features)?;
            report(Event::Cycle(&cycle));
            cycles.push(cycle);
        }

        self.check_progress(guest)?;
        guest.sh(&format!("touch {STOP_FILE}"))?;
        let output = guest.finish(running)?;
        if output.status != 0 {
            return Err(Error::CommandFailed { command, status: output.status, output: output.stderr });
        }
        let identical_bytes = self.compare_memory(guest)?;
        let status: LoadStatus = parse(&guest.sh(&format!("cat {STATUS}"))?, "the load's status")?;
        Ok(Findings {
            cycles,
            new_features,
            identical_bytes,
            counters: status.counters,
            watched_ms: status.watched_ms,
            longest_gap_ms: status.longest_gap_ms,
        })
    }

    /// Lets the load run on the kernel's own scheduler, then tells it that the swaps begin.
    fn watch_without_swaps(&self, guest: &Guest) -> Result<()> {
        let seconds = self.baseline.as_secs_f64();
        let limit = self.baseline * BASELINE_PATIENCE + PROGRESS_LIMIT;
        let command = format!("sleep {seconds}; touch {MARK_FILE}");
        let output = guest.run_within(&command, limit)?;
        if output.status != 0 {
            return Err(Error::CommandFailed { command, status: output.status, output: output.stderr });
        }
        Ok(())
    }

    fn cycle(
        &self,
        guest: &Guest,
        number: u32,
        before: &BTreeSet<String>,
        new_features: &mut Vec<String>,
    ) -> Result<Cycle> {
        let mut cycle = Cycle {
            cycle: number,
            result: CycleResult::Busy,
            busy_by: Vec::new(),
            busy_tries: 0,
            load: None,
            unload: None,
        };
        cycle.load = cycle
            .switch(guest, &format!("loader --json --retired-max {RETIRED_MAX} install {MODULE_PATH}"))?;
        if cycle.load.is_none() {
            return Ok(cycle);
        }
        let loaded = features(guest)?;
        let lost: Vec<&str> = before.difference(&loaded).map(String::as_str).collect();
        if !lost.is_empty() {
            let lost = lost.join(" ");
            return Err(Error::Scenario(format!(
                "cycle {number}: features lost or changed by loading: {lost}"
            )));
        }
        *new_features = loaded.difference(before).cloned().collect();
        std::thread::sleep(self.hold);
        self.plug(guest)?;
        self.check_progress(guest)?;
        for _ in 0..UNLOADS {
            cycle.unload = cycle.switch(guest, "loader --json uninstall")?;
            if cycle.unload.is_some() {
                break;
            }
        }
        if cycle.unload.is_none() {
            let by: Vec<String> = cycle.busy_by.iter().map(Blocker::to_string).collect();
            return Err(Error::Scenario(format!("cycle {number}: could not be unloaded: {}", by.join(", "))));
        }
        let after = features(guest)?;
        if after != *before {
            let changed: Vec<&str> = after.symmetric_difference(before).map(String::as_str).collect();
            let changed = changed.join(" ");
            return Err(Error::Scenario(format!(
                "cycle {number}: features not as before after unloading: {changed}"
            )));
        }
        cycle.result = CycleResult::Ok;
        Ok(cycle)
    }

    /// Every kind of load makes progress, or the one that does not is named.
    fn check_progress(&self, guest: &Guest) -> Result<()> {
        let command = format!("guest-load progress --status {STATUS} --seconds {PROGRESS_SECONDS}");
        if self.threads == 0 && !self.load {
            return Ok(());
        }
        let output = guest.run_within(&command, PROGRESS_LIMIT)?;
        if output.status != 0 {
            return Err(Error::CommandFailed { command, status: output.status, output: output.stderr });
        }
        Ok(())
    }

    fn save_memory(&self, guest: &Guest, name: &str) -> Result<()> {
        self.memory.as_ref().map_or(Ok(()), |memory| memory.save(guest, name))
    }

    fn compare_memory(&self, guest: &Guest) -> Result<Option<u64>> {
        self.save_memory(guest, "after")?;
        self.memory.as_ref().map(|memory| memory.compare(guest, "before", "after")).transpose()
    }

    /// Takes the CPU off line and brings it back, if there is one to do that with. Every kind of load must get
    /// on without it.
    fn plug(&self, guest: &Guest) -> Result<()> {
        let Some(cpu) = self.hotplug else { return Ok(()) };
        let switch = format!("/sys/devices/system/cpu/cpu{cpu}/online");
        // EBUSY: what DEADLINE threads were promised does not fit into the other CPUs just now. Threads come and go.
        let off = format!(
            "for try in $(seq {UNPLUGS}); do echo 0 >{switch} && exit; sleep 0.2; done; {PROMISED}; exit 1"
        );
        guest.sh(&off)?;
        self.check_progress(guest)?;
        guest.sh(&format!("echo 1 >{switch}"))?;
        Ok(())
    }
}

impl Cycle {
    /// Runs a command of the loader; `None` when threads were in the way until the loader gave up.
    fn switch(&mut self, guest: &Guest, command: &str) -> Result<Option<Timing>> {
        let Output { status, stdout, stderr } = guest.run_within(command, SWITCH_LIMIT)?;
        let failed = |output: String| Error::CommandFailed { command: command.to_string(), status, output };
        let Some(report) = stdout.lines().last().and_then(|line| serde_json::from_str::<Report>(line).ok())
        else {
            return Err(failed(format!("{stdout}{stderr}")));
        };
        let mut switched = None;
        for attempt in &report.attempts {
            match attempt {
                Attempt::Switched { timing } => switched = Some(timing.clone().unwrap_or_default()),
                Attempt::Busy { blockers } => {
                    self.busy_tries += 1;
                    for blocker in blockers {
                        if !self.busy_by.contains(blocker) {
                            self.busy_by.push(blocker.clone());
                        }
                    }
                }
            }
        }
        let gave_up = matches!(report.attempts.last(), Some(Attempt::Busy { .. }));
        match (report.outcome, switched) {
            (Outcome::Ok, Some(timing)) => Ok(Some(timing)),
            (Outcome::Refused, None) if gave_up => Ok(None),
            (Outcome::Refused, _) => {
                let output = [report.errors, report.kernel_log].concat().join("\n");
                Err(Error::LoaderRefused { command: command.to_string(), output })
            }
            _ => Err(failed([report.errors, report.kernel_log].concat().join("\n"))),
        }
    }
}

fn features(guest: &Guest) -> Result<BTreeSet<String>> {
    // A kernel without CONFIG_SCHED_DEBUG shows none; there is nothing to compare then.
    let read = guest.run(FEATURES)?;
    if read.status != 0 {
        let what = format!("the features cannot be read (status {}): {}", read.status, read.stderr);
        return Err(Error::Scenario(what));
    }
    Ok(read.stdout.split_whitespace().map(str::to_string).collect())
}

fn parse<T: DeserializeOwned>(text: &str, what: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| Error::Scenario(format!("{what} is not as expected: {error}: {text}")))
}

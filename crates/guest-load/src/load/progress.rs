//! Whether every kind of load makes progress.

use super::board::Kind;
use super::monitor::{STATUS_PERIOD, Status};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// How often to look at the status file.
const POLL_PERIOD: Duration = Duration::from_millis(50);

/// Arguments of `progress`.
#[derive(Args)]
pub struct ProgressArgs {
    /// The status file of the running load
    #[arg(long, value_name = "FILE", default_value = "/run/guest-load.json")]
    status: PathBuf,
    /// How long every kind has to make progress: seconds in which others do
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u64,
}

/// Waits until each kind's counter has grown.
///
/// A guest may get little of a busy host, and then its clock goes on while its CPUs stand still; so no kind is judged by
/// the clock. It has stalled if it did nothing while others worked for as long as the limit says ([`Watch`]).
///
/// SCHED_IDLE is waited for during a quarter of that, so that it usually has a turn, but none is required: its weight is
/// 3 beside the 1024 of an ordinary thread, so among threads that compute it waits for seconds on any scheduler, and for
/// minutes in a guest that gets a tenth of a CPU. That it gets a turn once they end is required when the load stops.
pub fn progress(args: &ProgressArgs) -> Result<ExitCode> {
    let limit = Duration::from_secs(args.seconds);
    let mut looked = Instant::now();
    let mut waited = Duration::ZERO;
    // A load that is just being started has no status file for a moment.
    while !args.status.exists() && waited < limit {
        thread::sleep(POLL_PERIOD);
        waited += POLL_PERIOD;
    }
    let mut watch = Watch::new(read(&args.status)?);
    loop {
        let now = read(&args.status)?;
        if now.state != "running" && now.state != "starting" {
            bail!("the load has ended");
        }
        let is_running = now.state == "running";
        watch.look(now, looked.elapsed());
        looked = Instant::now();
        let stuck = watch.stuck();
        if is_running && stuck.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        if watch.still > limit {
            bail!("nothing made progress within {} s: {}", args.seconds, stuck.join(", "));
        }
        if is_running && stuck == [Kind::Idle.name()] && watch.worked > limit / 4 {
            return Ok(ExitCode::SUCCESS);
        }
        if watch.worked > limit {
            bail!("no progress while others worked for {} s: {}", args.seconds, stuck.join(", "));
        }
        thread::sleep(POLL_PERIOD);
    }
}

fn read(path: &Path) -> Result<Status> {
    let text =
        fs::read(path).with_context(|| format!("cannot read {}: is the load running?", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

/// What became of the counters since the first look.
struct Watch {
    first: BTreeMap<String, u64>,
    last: Status,
    /// How long some kind has worked: the time between two writings of the status file, if a counter grew in it. Both
    /// are done every [`STATUS_PERIOD`]; what it takes longer than twice that, the guest did not run.
    worked: Duration,
    /// How long no counter has grown, likewise by how often this program had its turn.
    still: Duration,
}

impl Watch {
    fn new(first: Status) -> Watch {
        Watch { first: first.counters.clone(), last: first, worked: Duration::ZERO, still: Duration::ZERO }
    }

    /// `since_last`: the time since the look before this one.
    fn look(&mut self, now: Status, since_last: Duration) {
        if now.counters == self.last.counters {
            self.still += since_last.min(2 * STATUS_PERIOD);
        } else {
            let written = Duration::from_millis(now.elapsed_ms.saturating_sub(self.last.elapsed_ms));
            self.worked += written.min(2 * STATUS_PERIOD);
            self.still = Duration::ZERO;
        }
        self.last = now;
    }

    /// Kinds whose counters have not grown since the first look.
    fn stuck(&self) -> Vec<&str> {
        let stuck = self.first.iter().filter(|(kind, count)| self.last.counters.get(*kind) <= Some(*count));
        stuck.map(|(kind, _)| kind.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(elapsed_ms: u64, cfs: u64, idle: u64) -> Status {
        let text = format!(
            r#"{{"state":"running","elapsed_ms":{elapsed_ms},"cpus":1,"sleepers":0,
                "counters":{{"cfs":{cfs},"idle":{idle}}},"watched_ms":{{"before":0,"during":0}},
                "longest_gap_ms":{{}},"faults":{{}},"throttled":0,"timer_late_max_ns":0,"skipped":{{}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    const POLL: Duration = Duration::from_millis(50);

    #[test]
    fn time_counts_only_while_something_works() {
        let mut watch = Watch::new(status(0, 0, 0));
        watch.look(status(200, 5, 0), POLL);
        assert_eq!((watch.worked.as_millis(), watch.still.as_millis()), (200, 0));
        // The guest stood still for ten seconds.
        watch.look(status(10_200, 6, 0), Duration::from_secs(10));
        assert_eq!((watch.worked.as_millis(), watch.still.as_millis()), (600, 0));
        // Its clock goes on, but nothing works.
        watch.look(status(10_400, 6, 0), POLL);
        watch.look(status(10_600, 6, 0), Duration::from_secs(10));
        assert_eq!((watch.worked.as_millis(), watch.still.as_millis()), (600, 450));
        assert_eq!(watch.stuck(), ["idle"]);
        watch.look(status(10_800, 6, 1), POLL);
        assert_eq!((watch.still.as_millis(), watch.stuck().len()), (0, 0));
    }
}

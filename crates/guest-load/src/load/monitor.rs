//! Watches the counters, and writes the status file that says how each kind progresses.

use super::RunArgs;
use super::board::{Board, Fault, Kind};
use super::quota::Groups;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often the status file is written.
pub const STATUS_PERIOD: Duration = Duration::from_millis(200);

/// The status file.
#[derive(Serialize, Deserialize)]
pub struct Status {
    /// `starting`, `running`, `stopping` or `done`.
    pub state: String,
    pub elapsed_ms: u64,
    /// CPUs on line when the load began.
    cpus: usize,
    /// Sleeping threads.
    sleepers: u64,
    /// Units of work by kind; what the unit is differs from kind to kind.
    pub counters: BTreeMap<String, u64>,
    /// Before the mark and from then on. Without a mark, all of the time counts as before.
    watched_ms: Spans<u64>,
    /// The longest time in which a kind's counter stood still, to [`STATUS_PERIOD`]; 0 if it never did for as long as
    /// that. One that lasts across the mark counts after it too, in its whole length: it may be what is looked for.
    longest_gap_ms: BTreeMap<String, Spans<u64>>,
    /// What must never happen; all zero.
    faults: BTreeMap<String, u64>,
    /// How often a cgroup ran out of quota.
    throttled: u64,
    /// The latest that a 1 ms timer was.
    timer_late_max_ns: u64,
    /// Kinds that this kernel has no means for, with the reason.
    skipped: BTreeMap<String, String>,
}

/// What was measured before the mark, and from then on.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Spans<T> {
    before: T,
    during: T,
}

/// Watches the counters and writes the status file.
pub struct Monitor<'a> {
    board: &'static Board,
    args: &'a RunArgs,
    pub begun: Instant,
    marked: Option<Instant>,
    cpus: usize,
    skipped: BTreeMap<String, String>,
    kinds: Vec<Watched>,
}

/// A kind, and since when its counter has stood still.
struct Watched {
    kind: Kind,
    count: u64,
    since: Instant,
    longest: Spans<Duration>,
}

impl Watched {
    /// Looks at the counter. While `idle`, nothing can progress, and nothing stands still.
    fn look(&mut self, count: u64, now: Instant, idle: bool, marked: bool) {
        if count != self.count || idle {
            (self.count, self.since) = (count, now);
        }
        let longest = if marked { &mut self.longest.during } else { &mut self.longest.before };
        *longest = (*longest).max(now - self.since);
    }
}

impl<'a> Monitor<'a> {
    pub fn new(
        board: &'static Board,
        args: &'a RunArgs,
        cpus: usize,
        skipped: BTreeMap<String, String>,
    ) -> Self {
        let now = Instant::now();
        let expected = |kind: &Kind| match *kind {
            Kind::Sleeper => args.threads > 0,
            _ => !args.sleepers_only && !skipped.contains_key(kind.name()),
        };
        let watched = |kind| Watched { kind, count: 0, since: now, longest: Spans::default() };
        let kinds = Kind::ALL.iter().copied().filter(expected).map(watched).collect();
        Monitor { board, args, begun: now, marked: None, cpus, skipped, kinds }
    }

    /// Looks at all counters and writes the status file.
    pub fn write(&mut self, state: &str, groups: Option<&Groups>) -> Result<()> {
        let now = Instant::now();
        if self.marked.is_none() && self.args.mark_file.as_ref().is_some_and(|file| file.exists()) {
            self.marked = Some(now);
        }
        // Before the workers are there and after they were told to end, nothing can progress.
        let idle = state != "running";
        for watched in &mut self.kinds {
            watched.look(self.board.counted(watched.kind), now, idle, self.marked.is_some());
        }
        let status = self.status(state, now, groups);
        // Renamed into place, so that a reader never sees half of it.
        let file: &Path = &self.args.status;
        let partial = file.with_extension("partial");
        fs::write(&partial, serde_json::to_vec(&status)?)
            .and_then(|()| fs::rename(&partial, file))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    fn status(&self, state: &str, now: Instant, groups: Option<&Groups>) -> Status {
        let ms = |time: Duration| time.as_millis() as u64;
        let until_mark = self.marked.unwrap_or(now);
        let name = |watched: &Watched| watched.kind.name().to_string();
        let gaps =
            |longest: Spans<Duration>| Spans { before: ms(longest.before), during: ms(longest.during) };
        Status {
            state: state.to_string(),
            elapsed_ms: ms(now - self.begun),
            cpus: self.cpus,
            sleepers: self.args.threads,
            counters: self.kinds.iter().map(|w| (name(w), self.board.counted(w.kind))).collect(),
            watched_ms: Spans { before: ms(until_mark - self.begun), during: ms(now - until_mark) },
            longest_gap_ms: self.kinds.iter().map(|w| (name(w), gaps(w.longest))).collect(),
            faults: Fault::ALL.iter().map(|f| (f.name().to_string(), self.board.faults(*f))).collect(),
            throttled: groups.map_or(0, Groups::throttled),
            timer_late_max_ns: self.board.timer_late_max_ns.load(Ordering::Relaxed),
            skipped: self.skipped.clone(),
        }
    }

    /// Fails if something happened that must not, or a kind never made progress.
    pub fn verdict(&self) -> Result<ExitCode> {
        let faults: Vec<String> = Fault::ALL
            .iter()
            .filter(|fault| self.board.faults(**fault) > 0)
            .map(|fault| format!("{} ({}×)", fault.name(), self.board.faults(*fault)))
            .collect();
        if !faults.is_empty() {
            bail!("the load met: {}", faults.join(", "));
        }
        let kinds = self.kinds.iter().map(|watched| watched.kind);
        let never: Vec<&str> = kinds.filter(|kind| self.board.counted(*kind) == 0).map(Kind::name).collect();
        if !never.is_empty() {
            bail!("never made progress: {}", never.join(", "));
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_still_across_the_mark_counts_after_it_and_none_counts_while_nothing_can_get_on() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut watched = Watched { kind: Kind::Idle, count: 0, since: begun, longest: Spans::default() };
        watched.look(0, at(900), true, false);
        assert_eq!(watched.longest, Spans::default());
        watched.look(0, at(1000), false, false);
        watched.look(1, at(1200), false, false);
        assert_eq!(watched.longest.before, Duration::from_millis(100));
        // From 1200 on, across the mark.
        watched.look(1, at(1400), false, false);
        watched.look(1, at(2000), false, true);
        watched.look(2, at(2200), false, true);
        watched.look(2, at(2400), true, true);
        let (before, during) = (Duration::from_millis(200), Duration::from_millis(800));
        assert_eq!(watched.longest, Spans { before, during });
    }
}

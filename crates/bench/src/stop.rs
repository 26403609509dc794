//! The stop, split into its parts, while few and many threads sleep.
//!
//! In one guest, whose sleepers change and whose clock counts instructions, the module swaps in and out in two ways,
//! alternately: as it always does, and with `check_all_in_stop`, which walks all threads and checks all stacks inside
//! the stop. Before each swap it measures a stop that does nothing.

use crate::counted::counted;
use crate::figures::{Findings, Table, Target, median};
use anyhow::{Context, Result};
use schedswap_guest::{Guest, Running};
use schedswap_payload::sysfs::Timing;
use schedswap_tests::Built;
use serde_json::json;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(1800);

/// `$1`: how many cycles. `$2`: the parameter that makes the difference between the two ways. Prints the timing of every
/// swap after a line that says in which way it was done.
const SWAP: &str = r#"#!/bin/sh
dir=/sys/kernel/schedswap
switch() {
    tries=0
    until echo "$1" >$dir/enable 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 50 ] || { echo "still busy: $(cat $dir/blocker)" >&2; exit 1; }
        sleep 0.1
    done
    echo "manner=$2"
    cat $dir/timing
}
[ -d $dir ] || insmod "$SCHEDSWAP_MODULE" enable=0 || exit
parameters=/sys/module/$(cat $dir/module)/parameters
echo Y >$parameters/empty_stop || exit
cycle=0
while [ $cycle -lt "$1" ]; do
    for manner in N Y; do
        echo $manner >$parameters/$2 || exit
        switch 1 $manner
        switch 0 $manner
    done
    cycle=$((cycle + 1))
done
"#;

/// One swap.
pub struct Swap {
    pub sleepers: u64,
    /// Whether the parameter was set.
    pub is_other_way: bool,
    pub timing: Timing,
}

type Part = (&'static str, fn(&Timing) -> u64);

const PARTS: [Part; 9] = [
    ("empty stop", empty_stop),
    ("stop", |t| t.stop_ns),
    ("handler", |t| t.handler_ns),
    ("stack check", |t| t.stack_check_ns),
    ("dequeue", |t| t.dequeue_ns),
    ("patch", |t| t.patch_ns),
    ("enqueue", |t| t.enqueue_ns),
    ("without patch", without_patch),
    ("outside", |t| t.check_outside_ns),
];

/// A stop that does nothing, measured just before the swap.
pub fn empty_stop(timing: &Timing) -> u64 {
    timing.other.get("empty_stop_ns").and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// Patching does not depend on the threads.
fn without_patch(timing: &Timing) -> u64 {
    timing.handler_ns - timing.patch_ns
}

/// Measures into `findings`.
pub fn measure(threads: &[u64], cycles: u32, findings: &mut Findings) -> Result<()> {
    measure_of(&schedswap_tests::pristine()?, threads, cycles, findings)
}

/// The same of any scheduler.
pub fn measure_of(module: &Built, threads: &[u64], cycles: u32, findings: &mut Findings) -> Result<()> {
    let mut swaps = Vec::new();
    let result = swap_both_ways(module, "check_all_in_stop", threads, cycles, &mut swaps);
    for swap in &swaps {
        findings.samples.push(json!({
            "sleepers": swap.sleepers, "all_in_stop": swap.is_other_way, "timing": swap.timing
        }));
    }
    findings.tables.push(table("load", &swaps));
    findings.tables.push(table("unload", &swaps));
    ratios(&swaps, findings);
    result
}

/// Swaps in one guest, in turn with and without a parameter of the module, with each number of threads.
pub fn swap_both_ways(
    module: &Built,
    parameter: &str,
    threads: &[u64],
    cycles: u32,
    swaps: &mut Vec<Swap>,
) -> Result<()> {
    let guest = schedswap_tests::guest(module, |config| {
        counted(config);
        config.cpus = 2;
        config.initramfs.bytes("/bin/swap", SWAP.as_bytes(), 0o755);
    })?;
    swap_with_each(&guest, parameter, threads, cycles, swaps)?;
    guest.shutdown()?;
    Ok(())
}

fn swap_with_each(
    guest: &Guest,
    parameter: &str,
    threads: &[u64],
    cycles: u32,
    swaps: &mut Vec<Swap>,
) -> Result<()> {
    for (index, &sleepers) in threads.iter().enumerate() {
        let running = start_sleepers(guest, sleepers)?;
        let command = format!("SCHEDSWAP_MODULE={} swap {cycles} {parameter}", schedswap_tests::MODULE);
        let output = guest.run_within(&command, LIMIT)?;
        swaps.extend(read_swaps(&output.stdout, sleepers)?);
        anyhow::ensure!(output.status == 0, "with {sleepers} sleepers: {}", output.stderr.trim());
        // The last ones end with the guest.
        if index + 1 < threads.len() {
            guest.sh(&format!("touch {}", stop_file(sleepers)))?;
            guest.finish(running)?;
        }
    }
    Ok(())
}

/// They end when this file exists.
fn stop_file(sleepers: u64) -> String {
    format!("/run/stop-{sleepers}")
}

/// They are one process, whatever the number: it wakes a sleeper now and then, and only the number may differ.
fn start_sleepers(guest: &Guest, count: u64) -> Result<Running> {
    let (status, stop) = (format!("/run/sleepers-{count}.json"), stop_file(count));
    let running = guest.start(
        &format!("guest-load run --threads {count} --sleepers-only --until-file {stop} --status {status}"),
        LIMIT,
    )?;
    let command = format!("guest-load progress --status {status} --seconds 300");
    let output = guest.run_within(&command, LIMIT)?;
    anyhow::ensure!(output.status == 0, "{count} sleepers: {}", output.stderr.trim());
    Ok(running)
}

fn read_swaps(output: &str, sleepers: u64) -> Result<Vec<Swap>> {
    let swap = |text: &str| {
        let (manner, timing) = text.split_once('\n').context("no timing")?;
        Ok(Swap { sleepers, is_other_way: manner == "Y", timing: timing.parse()? })
    };
    output.split("manner=").skip(1).map(swap).collect()
}

pub fn select(swaps: &[Swap], op: &str, sleepers: u64, is_other_way: bool) -> Vec<Timing> {
    let chosen = swaps.iter().filter(|swap| {
        swap.timing.op == op && swap.sleepers == sleepers && swap.is_other_way == is_other_way
    });
    chosen.map(|swap| swap.timing.clone()).collect()
}

pub fn sleepers_of(swaps: &[Swap]) -> Vec<u64> {
    let mut all: Vec<u64> = swaps.iter().map(|swap| swap.sleepers).collect();
    all.dedup();
    all
}

fn table(op: &str, swaps: &[Swap]) -> Table {
    let mut head = vec!["sleepers".to_owned(), String::new()];
    head.extend(PARTS.map(|(name, _)| name.to_owned()));
    head.push("stacks checked in the stop".to_owned());
    let mut rows = Vec::new();
    for sleepers in sleepers_of(swaps) {
        for (all_in_stop, manner) in [(false, "ours"), (true, "all in stop")] {
            let timings = select(swaps, op, sleepers, all_in_stop);
            let mut row = vec![sleepers.to_string(), format!("{manner} ({})", timings.len())];
            row.extend(PARTS.map(|(_, part)| {
                let least = timings.iter().map(part).min().unwrap_or(0);
                format!("{:.3}/{:.3}", least as f64 / 1e6, median(timings.iter().map(part)) as f64 / 1e6)
            }));
            row.push(median(timings.iter().map(|timing| timing.checked)).to_string());
            rows.push(row);
        }
    }
    Table { title: format!("{op}, million instructions: minimum/median"), head, rows }
}

/// Of the minima: what threads do at that very moment only adds.
fn ratios(swaps: &[Swap], findings: &mut Findings) {
    let all = sleepers_of(swaps);
    let (Some(&few), Some(&many)) = (all.first(), all.last()) else { return };
    for op in ["load", "unload"] {
        let least = |sleepers, all_in_stop, part: fn(&Timing) -> u64| {
            let timings = select(swaps, op, sleepers, all_in_stop);
            timings.iter().map(part).min().map_or(f64::NAN, |ns| ns.max(1) as f64)
        };
        let whole = least(many, false, |t| t.stop_ns) / least(few, false, |t| t.stop_ns);
        findings.note(&format!("{op}: stop, {many} sleepers / {few}"), whole, "x", Target::AtMost(1.5));
        let flat = least(many, false, without_patch) / least(few, false, without_patch);
        let what = format!("{op}: handler without patching, {many} sleepers / {few}");
        findings.note(&what, flat, "x", Target::AtMost(1.5));
        let handler = least(many, true, without_patch) / least(many, false, without_patch);
        let what = format!("{op}: handler without patching at {many}, all in stop / ours");
        findings.note(&what, handler, "x", Target::AtLeast(10.0));
        let check = least(many, true, |t| t.stack_check_ns) / least(many, false, |t| t.stack_check_ns);
        let what = format!("{op}: stack check at {many}, all in stop / ours");
        findings.note(&what, check, "x", Target::AtLeast(100.0));
        let empty = least(many, false, |t| t.stop_ns - t.patch_ns) / least(many, false, PARTS[0].1);
        findings.note(&format!("{op}: stop without patching / empty stop, at {many}"), empty, "x", None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_output_is_one_timing_a_swap() {
        let timing = "op=load\ncpus=2\nthreads=612\nlogged=17\nchecked=21\nrequeued=3\nstop_ns=310000\n\
            handler_ns=150000\nstack_check_ns=21000\ndequeue_ns=4000\npatch_ns=90000\nenqueue_ns=5000\n\
            check_outside_ns=2000000\ntotal_ns=9000000\nempty_stop_ns=70000\n";
        let swaps = read_swaps(&format!("manner=N\n{timing}manner=Y\n{timing}"), 500).unwrap();
        assert_eq!(swaps.iter().map(|swap| swap.is_other_way).collect::<Vec<_>>(), [false, true]);
        assert_eq!((PARTS[0].1(&swaps[0].timing), without_patch(&swaps[0].timing)), (70_000, 60_000));
    }
}

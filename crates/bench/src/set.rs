//! The stop by the size of the set: modules that replace 1, 10, 100 and all functions, each with and without rebuilding the
//! queues. Each changed function has a `nop` more at its entry, so nothing else differs.

use crate::figures::{Findings, Table, Target};
use crate::stop::{Swap, empty_stop, select, sleepers_of, swap_both_ways};
use anyhow::{Result, ensure};
use schedswap_payload::sysfs::Timing;
use schedswap_sched::boundary::{self, Fate};
use schedswap_sched::config::Config;
use schedswap_tests::{Built, build_changed, image, pristine};
use serde_json::json;
use std::collections::BTreeMap;

/// How many functions are edited, at most, so that about 1, 10 and 100 differ: of some, another definition is compiled.
const SIZES: [usize; 3] = [1, 24, 200];
/// Files without code that runs when threads are queued, so that the build lets the queues be.
const FILES: [&str; 9] = [
    "debug.c",
    "topology.c",
    "cputime.c",
    "cpuacct.c",
    "membarrier.c",
    "loadavg.c",
    "autogroup.c",
    "stats.c",
    "cpufreq_schedutil.c",
];

/// Measures into `findings`.
pub fn measure(threads: &[u64], cycles: u32, findings: &mut Findings) -> Result<()> {
    let mut ends: Vec<u64> = [threads.first(), threads.last()].into_iter().flatten().copied().collect();
    ends.dedup();
    let functions = functions()?;
    let mut table = Table {
        title: "handler, million instructions: minimum".to_owned(),
        head: ["functions", "sleepers", "", "rebuild", "handler", "patch", "empty stop"]
            .map(str::to_owned)
            .to_vec(),
        rows: Vec::new(),
    };
    let mut result = Ok(());
    for size in SIZES {
        result = result.and_then(|()| of(&edited(&functions, size)?, &ends, cycles, &mut table, findings));
    }
    result = result.and_then(|()| of(&pristine()?, &ends, cycles, &mut table, findings));
    findings.tables.push(table);
    result
}

/// The functions that can be edited: file and name in the source.
fn functions() -> Result<Vec<(&'static str, String)>> {
    let boundary = boundary::compute(image(), &Config::default())?;
    let source_names: BTreeMap<&str, (&str, bool)> = image()
        .units
        .iter()
        .flat_map(|unit| &unit.functions)
        .map(|f| (f.name.as_str(), (f.source_name.as_str(), f.declared_inline)))
        .collect();
    let mut found = Vec::new();
    for function in boundary.functions.iter().filter(|f| matches!(f.fate, Fate::Divert(_))) {
        let file = FILES.into_iter().find(|file| function.decl_file.ends_with(&format!("/{file}")));
        if let (Some(file), Some((name, false))) = (file, source_names.get(function.name.as_str()))
            && *name == function.name
        {
            found.push((file, function.name.clone()));
        }
    }
    // The same files for each size.
    found.sort_by_key(|(file, name)| (FILES.iter().position(|f| f == file), name.clone()));
    Ok(found)
}

fn edited(functions: &[(&str, String)], size: usize) -> Result<Built> {
    build_changed(&format!("set-{size}"), |tree| {
        let mut edited = 0;
        for (file, name) in functions {
            if edited < size && tree.at_entry(file, name, "asm volatile(\"nop\");").is_ok() {
                edited += 1;
            }
        }
        ensure!(edited > 0, "no function of {FILES:?} can be edited");
        Ok(())
    })
}

fn of(
    module: &Built,
    threads: &[u64],
    cycles: u32,
    table: &mut Table,
    findings: &mut Findings,
) -> Result<()> {
    let mut swaps = Vec::new();
    let result = swap_both_ways(module, "always_rebuild", threads, cycles, &mut swaps);
    for swap in &swaps {
        findings.samples.push(json!({ "sleepers": swap.sleepers, "timing": swap.timing }));
    }
    for sleepers in sleepers_of(&swaps) {
        for op in ["load", "unload"] {
            table.rows.extend([false, true].iter().filter_map(|way| row(&swaps, op, sleepers, *way)));
        }
    }
    ratios(&swaps, findings);
    result
}

fn least(timings: &[Timing], part: fn(&Timing) -> u64) -> Option<f64> {
    timings.iter().map(part).min().map(|ns| ns.max(1) as f64)
}

fn row(swaps: &[Swap], op: &str, sleepers: u64, way: bool) -> Option<Vec<String>> {
    let timings = select(swaps, op, sleepers, way);
    let first = timings.first()?;
    // A module that has to rebuild does it in both ways.
    if !way && first.rebuilt() {
        return None;
    }
    let parts: [fn(&Timing) -> u64; 3] = [|t| t.handler_ns, |t| t.patch_ns, empty_stop];
    let mut row = vec![
        first.functions().unwrap_or(0).to_string(),
        sleepers.to_string(),
        op.to_owned(),
        if first.rebuilt() { "yes" } else { "no" }.to_owned(),
    ];
    row.extend(parts.map(|part| format!("{:.3}", least(&timings, part).unwrap_or(0.0) / 1e6)));
    Some(row)
}

fn ratios(swaps: &[Swap], findings: &mut Findings) {
    let all = sleepers_of(swaps);
    let (Some(&few), Some(&many)) = (all.first(), all.last()) else { return };
    for op in ["load", "unload"] {
        let timings = |sleepers| select(swaps, op, sleepers, false);
        let Some(functions) = timings(few).first().filter(|t| !t.rebuilt()).and_then(Timing::functions)
        else {
            continue;
        };
        let handler = |sleepers| least(&timings(sleepers), |t| t.handler_ns).unwrap_or(f64::NAN);
        let empty = least(&timings(few), empty_stop).unwrap_or(f64::NAN);
        let target = (functions == 1).then_some(Target::AtMost(2.0));
        let what = format!("{op}, {functions} functions: handler / empty stop, at {few}");
        findings.note(&what, handler(few) / empty, "x", target);
        let what = format!("{op}, {functions} functions: handler, {many} sleepers / {few}");
        findings.note(&what, handler(many) / handler(few), "x", Target::AtMost(1.5));
    }
}

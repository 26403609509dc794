//! What `try` prints of a scenario.

use schedswap_guest::scenario::{Cycle, CycleResult, Findings, Spans};
use schedswap_payload::sysfs::Timing;

/// What a cycle came to, while the next one runs.
pub fn cycle_line(cycle: &Cycle, cycles: u32) -> String {
    let head = format!("cycle {:>2}/{cycles}", cycle.cycle);
    let by = cycle.busy_by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let busy = match (cycle.busy_tries, by.as_str()) {
        (0, _) => String::new(),
        (tries, by) => format!("; in the way at {tries} tries: {by}"),
    };
    match (&cycle.load, &cycle.unload) {
        (Some(load), Some(unload)) => format!(
            "{head}: ok, {} threads, stop {} in, {} out{busy}",
            load.threads,
            milliseconds(load.stop_ns),
            milliseconds(unload.stop_ns)
        ),
        _ => format!("{head}: busy{busy}"),
    }
}

fn milliseconds(ns: u64) -> String {
    format!("{:.3} ms", ns as f64 / 1e6)
}

type Part = (&'static str, fn(&Timing) -> u64);

/// Rows of the table, in the order in which they happen.
const PARTS: [Part; 7] = [
    ("check before the stop", |t| t.check_outside_ns),
    ("stop", |t| t.stop_ns),
    ("  handler", |t| t.handler_ns),
    ("    stack check", |t| t.stack_check_ns),
    ("    dequeue", |t| t.dequeue_ns),
    ("    patch", |t| t.patch_ns),
    ("    enqueue", |t| t.enqueue_ns),
];

/// The findings as text: a table of times, what was checked, and how the load did.
pub fn summary(findings: &Findings) -> String {
    let mut text = String::new();
    let loads: Vec<&Timing> = findings.cycles.iter().filter_map(|c| c.load.as_ref()).collect();
    let unloads: Vec<&Timing> = findings.cycles.iter().filter_map(|c| c.unload.as_ref()).collect();
    if !loads.is_empty() && !unloads.is_empty() {
        text += &format!("{:24}{:^33}  {:^33}\n", "ms", "load", "unload");
        let heads = format!("{:>11}{:>11}{:>11}", "min", "median", "max");
        text += &format!("{:24}{heads}  {heads}\n", "");
        for (name, value) in PARTS {
            text += &format!("{name:24}{}  {}\n", spread(&loads, value), spread(&unloads, value));
        }
    }
    let ok = findings.cycles.iter().filter(|c| c.result == CycleResult::Ok).count();
    let busy = findings.cycles.len() - ok;
    text += &format!("{ok} cycles done, {busy} refused because threads were in the way\n");
    if !findings.new_features.is_empty() {
        text += &format!("new features while loaded: {}\n", findings.new_features.join(" "));
    }
    if let Some(bytes) = findings.identical_bytes {
        text +=
            &format!("kernel text and scheduling classes afterwards: identical ({bytes} bytes compared)\n");
    }
    text + &stand_stills(findings)
}

/// How long each kind of load stood still at most, beside what it did on the kernel's own scheduler: some do on any.
fn stand_stills(findings: &Findings) -> String {
    if findings.longest_gap_ms.is_empty() {
        return String::new();
    }
    let Spans { before, during } = findings.watched_ms;
    let seconds = |ms: u64| format!("({:.0} s)", ms as f64 / 1e3);
    let row = |name: &str, before: &str, during: &str| format!("{name:24}{before:>20}{during:>20}\n");
    let mut text =
        String::from("every kind of load made progress; the longest stand-still of each, in ms:\n");
    text += &row("", "before the swaps", "during the swaps");
    text += &row("", &seconds(before), &seconds(during));
    for (kind, gap) in &findings.longest_gap_ms {
        text += &row(kind, &gap.before.to_string(), &gap.during.to_string());
    }
    text
}

/// Minimum, median and maximum in ms, right-aligned.
fn spread(timings: &[&Timing], value: fn(&Timing) -> u64) -> String {
    let mut values: Vec<u64> = timings.iter().map(|timing| value(timing)).collect();
    values.sort_unstable();
    let (min, median, max) = (values[0], values[values.len() / 2], values[values.len() - 1]);
    [min, median, max].map(|ns| format!("{:>11.3}", ns as f64 / 1e6)).concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedswap_payload::sysfs::Blocker;
    use std::collections::BTreeMap;

    fn findings(cycles: Vec<Cycle>) -> Findings {
        Findings {
            cycles,
            new_features: vec!["NO_SCHEDSWAP_TEST".into()],
            identical_bytes: Some(12),
            counters: BTreeMap::new(),
            watched_ms: Spans { before: 10_000, during: 31_400 },
            longest_gap_ms: BTreeMap::new(),
        }
    }

    fn timing(stop_ns: u64) -> Option<Timing> {
        Some(Timing { threads: 600, stop_ns, ..Timing::default() })
    }

    fn cycle(number: u32, stop_ns: Option<u64>) -> Cycle {
        let timing = stop_ns.and_then(timing);
        Cycle {
            cycle: number,
            result: if timing.is_some() { CycleResult::Ok } else { CycleResult::Busy },
            busy_by: Vec::new(),
            busy_tries: 0,
            load: timing.clone(),
            unload: timing,
        }
    }

    #[test]
    fn a_cycle_is_one_line() {
        let mut busy = cycle(2, None);
        busy.busy_tries = 6;
        busy.busy_by.push(Blocker { comm: "parked".into(), pid: 7, function: "yield_task_fair".into() });
        assert_eq!(
            cycle_line(&cycle(1, Some(1_500_000)), 3),
            "cycle  1/3: ok, 600 threads, stop 1.500 ms in, 1.500 ms out"
        );
        assert_eq!(
            cycle_line(&busy, 3),
            "cycle  2/3: busy; in the way at 6 tries: parked (thread 7) in yield_task_fair"
        );
    }

    #[test]
    fn the_table_has_minimum_median_and_maximum() {
        let text = summary(&findings(vec![
            cycle(1, Some(3_000_000)),
            cycle(2, None),
            cycle(3, Some(1_000_000)),
            cycle(4, Some(2_000_000)),
        ]));
        let stop = text.lines().find(|line| line.starts_with("stop")).unwrap();
        assert_eq!(
            stop.split_whitespace().collect::<Vec<_>>(),
            ["stop", "1.000", "2.000", "3.000", "1.000", "2.000", "3.000"]
        );
        assert!(text.contains("3 cycles done, 1 refused"), "{text}");
        assert!(text.contains("NO_SCHEDSWAP_TEST") && text.contains("identical (12 bytes"), "{text}");
    }

    #[test]
    fn a_stand_still_is_shown_beside_that_on_the_kernels_own_scheduler() {
        let mut findings = findings(vec![cycle(1, Some(1))]);
        assert!(!summary(&findings).contains("stand-still"));
        findings.longest_gap_ms.insert("cfs".into(), Spans { before: 0, during: 200 });
        findings.longest_gap_ms.insert("idle".into(), Spans { before: 8012, during: 5465 });
        let text = summary(&findings);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let last: Vec<Vec<String>> = text.lines().rev().take(3).map(words).collect();
        assert_eq!(last[0], ["idle", "8012", "5465"]);
        assert_eq!(last[1], ["cfs", "0", "200"]);
        assert_eq!(last[2], ["(10", "s)", "(31", "s)"]);
        let value = serde_json::to_value(&findings).unwrap();
        assert_eq!(value["longest_gap_ms"]["idle"]["before"], 8012);
        assert_eq!(value["watched_ms"]["during"], 31_400);
    }

    #[test]
    fn json_has_a_record_a_cycle_with_the_times_at_its_top() {
        let value = serde_json::to_value(cycle(1, Some(5))).unwrap();
        for key in [
            "threads",
            "cpus",
            "stop_ns",
            "handler_ns",
            "stack_check_ns",
            "dequeue_ns",
            "patch_ns",
            "enqueue_ns",
        ] {
            assert!(value[key].is_u64() && value["unload"][key].is_u64(), "{key}: {value}");
        }
        assert_eq!(value["result"], "ok");
        let busy = serde_json::to_value(cycle(1, None)).unwrap();
        assert_eq!((busy["result"].as_str(), &busy["unload"]), (Some("busy"), &serde_json::Value::Null));
    }
}

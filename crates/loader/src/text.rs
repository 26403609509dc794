//! Reports in the form of text.

use crate::retired::kib;
use schedswap_payload::report::{
    Attempt, Blocked, CheckReport, Conflict, Holder, LoadedScheduler, Outcome, PlanReport, Prediction,
    Report, RetiredScheduler, Status,
};
use schedswap_payload::sysfs::Timing;
use std::fmt::Write;

/// The text of the report of a command that changes something. Errors are for stderr, the rest for stdout. `done`
/// says what was done, if the command's name does not say it.
pub fn report(report: &Report, done: Option<&str>) -> String {
    let mut text = String::new();
    let busy = report.attempts.iter().filter(|a| matches!(a, Attempt::Busy { .. })).count();
    if report.outcome == Outcome::Ok {
        let version = report.version.as_deref().unwrap_or("the scheduler");
        match (done, report.command.as_str(), &report.version) {
            (Some(done), ..) => {
                let _ = writeln!(text, "{done}");
            }
            (None, "uninstall" | "stop", None) => {
                text.push_str("no scheduler module is loaded: nothing to do\n");
            }
            _ => {
                let _ = writeln!(text, "{version} is running");
            }
        }
        if busy > 0 {
            let _ = writeln!(text, "  after {busy} attempts with threads in the way");
        }
        if let Some(Attempt::Switched { timing: Some(timing) }) = report.attempts.last() {
            text.push_str(&times(timing));
        }
    }
    for (depth, error) in report.errors.iter().enumerate() {
        let _ = writeln!(text, "{}{error}", if depth == 0 { "error: " } else { "  because: " });
    }
    lines(&mut text, "  note: ", &report.notes);
    kernel_log(&mut text, &report.kernel_log);
    text
}

fn lines(text: &mut String, prefix: &str, lines: &[String]) {
    for line in lines {
        let _ = writeln!(text, "{prefix}{line}");
    }
}

fn kernel_log(text: &mut String, log: &[String]) {
    if !log.is_empty() {
        text.push_str("kernel log:\n");
        lines(text, "  ", log);
    }
}

/// The text of `status`.
pub fn status(status: &Status) -> String {
    let build_id = status.build_id.as_ref().map_or("unknown".to_owned(), |id| id.to_string());
    let mut text = format!("kernel {} (build-id {build_id})\n", status.kernel_release);
    match &status.scheduler {
        None => text.push_str("scheduler: the kernel's own; no module is loaded\n"),
        Some(loaded) => scheduler(&mut text, "scheduler", loaded),
    }
    status.beside.iter().for_each(|loaded| scheduler(&mut text, "left over", loaded));
    retired(&mut text, &status.retired);
    if status.disabled_on_the_command_line {
        text.push_str("at boot: nothing, because the kernel command line contains schedswap.enable=0\n");
    } else if let Some(blocked_by) = &status.blocked {
        let _ = writeln!(text, "at boot: {}", blocked(blocked_by));
    } else {
        let _ =
            writeln!(text, "at boot: {}", status.active.as_deref().unwrap_or("the kernel's own scheduler"));
    }
    for payload in &status.payloads {
        let active = if payload.active { ", active" } else { "" };
        let dash = if payload.summary.is_empty() { "" } else { ": " };
        let _ = writeln!(
            text,
            "installed: {} for kernel {}{active}{dash}{}",
            payload.payload, payload.kernel_release, payload.summary
        );
        lines(&mut text, "  allowed by its author: ", &payload.findings_allowed);
        lines(&mut text, "  warning of its check: ", &payload.warnings);
    }
    conflict_lines(&mut text, &status.conflicts);
    match &status.taint {
        Some(taint) if taint.bits != 0 => {
            let _ = writeln!(text, "kernel tainted ({}): {}", taint.bits, taint.reasons.join(", "));
        }
        _ => {}
    }
    text
}

fn retired(text: &mut String, all: &[RetiredScheduler]) {
    for retired in all {
        let size = kib(retired.bytes);
        let free = match retired.unproved.as_slice() {
            [] => "`uninstall --free` can free it".to_owned(),
            [first, ..] => format!("it must stay: {first}"),
        };
        let _ = writeln!(
            text,
            "retired: {} (module {}), keeps {size} until the next boot; {free}",
            retired.version, retired.module
        );
    }
}

fn scheduler(text: &mut String, what: &str, loaded: &LoadedScheduler) {
    let _ =
        write!(text, "{what}: {}, {}, {} functions diverted", loaded.version, loaded.state, loaded.functions);
    if let Some(since) = loaded.since {
        let _ = write!(text, ", since {}", time(since));
    }
    text.push('\n');
    loaded.blockers.iter().for_each(|blocker| {
        let _ = writeln!(text, "  last in the way: {blocker}");
    });
    loaded.timing.iter().for_each(|timing| text.push_str(&times(timing)));
}

/// The text of `check`.
pub fn check(report: &CheckReport) -> String {
    let name = report.version.as_deref().unwrap_or(&report.path);
    let mut text = match report.problems.len() {
        0 => format!(
            "{name}: nothing found that would prevent an install (the module itself was not loaded to check)\n"
        ),
        1 => format!("{name} would not be installed:\n"),
        several => format!("{name} would not be installed, for {several} reasons:\n"),
    };
    lines(&mut text, "  - ", &report.problems);
    conflict_lines(&mut text, &report.conflicts);
    lines(&mut text, "  note: ", &report.notes);
    text
}

/// The text of `plan`.
pub fn plan(report: &PlanReport) -> String {
    let name = report.version.as_deref().unwrap_or("the scheduler");
    let mut text = match report.outcome {
        Outcome::Ok => format!("{name} would be installed\n"),
        _ => format!("{name} would not be installed now:\n"),
    };
    lines(&mut text, "  - ", &report.errors);
    report.blockers.iter().for_each(|blocker| {
        let _ = writeln!(text, "  in the way: {blocker}");
    });
    if let Some(plan) = &report.plan {
        let _ = writeln!(
            text,
            "  {} threads, {} of them queued on {} CPUs; checking all stacks with the machine running took {}, and {} \
             threads ran meanwhile",
            plan.threads,
            plan.queued,
            plan.cpus,
            us(plan.walk_ns),
            plan.logged
        );
        if let Some(functions) = plan.functions() {
            let rebuilds = if plan.rebuilds() { "are" } else { "are not" };
            let _ = writeln!(text, "  functions to divert: {functions}; the queues {rebuilds} rebuilt");
        }
    }
    report.prediction.iter().for_each(|prediction| predicted(&mut text, prediction));
    lines(&mut text, "  note: ", &report.notes);
    kernel_log(&mut text, &report.kernel_log);
    text
}

fn predicted(text: &mut String, prediction: &Prediction) {
    let basis = match prediction.swaps {
        0 => "no swap was measured on this machine: estimated from a slow one".to_owned(),
        1 => "from the one swap measured on this machine".to_owned(),
        swaps => format!("from the last {swaps} swaps on this machine"),
    };
    let _ = writeln!(
        text,
        "  the machine would stand still for about {}, at worst {} ({} stacks to check, {} threads to requeue; {basis})",
        us(prediction.stop_ns),
        us(prediction.worst_ns),
        prediction.checked,
        prediction.requeued
    );
}

/// Why the registered scheduler is not loaded at boot.
pub fn blocked(blocked: &Blocked) -> String {
    if blocked.payload.is_empty() {
        return "nothing is loaded: the record of the last attempt cannot be read, so that boot may have gone \
            wrong; `start --force` or `install` loads it anyway"
            .to_owned();
    }
    format!(
        "{} is not loaded: the machine did not come up healthy after it was loaded at {} (boot {}); \
         `start --force` or `install` loads it anyway",
        blocked.payload,
        time(blocked.at),
        blocked.boot_id
    )
}

fn conflict_lines(text: &mut String, all: &[Conflict]) {
    for one in all {
        let what = if one.refuses { "in the way" } else { "beside it" };
        let _ = writeln!(text, "{what}: {}", conflict(one));
    }
}

/// Conflicts in one line.
pub fn conflicts(all: &[Conflict]) -> String {
    all.iter().map(conflict).collect::<Vec<_>>().join("; ")
}

fn conflict(one: &Conflict) -> String {
    let (kind, remedy) = match one.holder {
        Holder::Livepatch => ("livepatch", "disable it: echo 0 to its `enabled`"),
        Holder::Kpatch => ("kpatch", "unload it: kpatch unload"),
        Holder::Plugsched => ("plugsched", "uninstall its scheduler package"),
        Holder::ManualFix => ("hot fix", "unload it"),
        Holder::SchedExt => ("sched_ext policy", "end the program that loaded it"),
        Holder::Kprobe => ("kprobe", "remove the probe"),
        Holder::Ipmodify => ("ftrace user that changes where the function continues", "unload it"),
        Holder::Trampoline => ("BPF trampoline", ""),
        Holder::Tracer => ("tracer", ""),
    };
    let name = if one.name.is_empty() { String::new() } else { format!(" {}", one.name) };
    let at =
        if one.functions.is_empty() { String::new() } else { format!(" at {}", one.functions.join(", ")) };
    let remedy = if one.refuses { format!(" ({remedy})") } else { String::new() };
    format!("{kind}{name}{at}{remedy}")
}

fn us(ns: u64) -> String {
    format!("{}.{} µs", ns / 1000, ns % 1000 / 100)
}

fn times(t: &Timing) -> String {
    format!(
        "  {}: stopped {} with {} CPUs and {} threads (handler {}: stack check {}, dequeue {}, patch {}, \
         enqueue {}); {} in all\n",
        t.op,
        us(t.stop_ns),
        t.cpus,
        t.threads,
        us(t.handler_ns),
        us(t.stack_check_ns),
        us(t.dequeue_ns),
        us(t.patch_ns),
        us(t.enqueue_ns),
        us(t.total_ns),
    )
}

/// Seconds since 1970 as a date and time in UTC.
fn time(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Counted in eras of 400 years from 1 March of the year 0, so that the leap day comes last.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedswap_payload::report::{InstalledPayload, Taint};
    use schedswap_payload::sysfs::{Blocker, Plan, State};

    fn sample(outcome: Outcome, attempts: Vec<Attempt>) -> Report {
        Report {
            command: "install".into(),
            outcome,
            version: Some("demo 1-1".into()),
            attempts,
            notes: vec![],
            errors: vec![],
            kernel_log: vec![],
        }
    }

    #[test]
    fn a_success_shows_its_times_and_how_often_it_was_busy() {
        let timing = Timing { op: "load".into(), stop_ns: 310_250, cpus: 4, ..Timing::default() };
        let attempts = vec![Attempt::Busy { blockers: vec![] }, Attempt::Switched { timing: Some(timing) }];
        let text = report(&sample(Outcome::Ok, attempts), None);
        assert!(text.starts_with("demo 1-1 is running\n  after 1 attempt"), "{text}");
        assert!(text.contains("stopped 310.2 µs with 4 CPUs"), "{text}");
    }

    #[test]
    fn a_failure_shows_every_cause_and_the_kernel_s_words() {
        let blocker = Blocker { comm: "x".into(), pid: 1, function: "f".into() };
        let mut failed = sample(Outcome::Refused, vec![Attempt::Busy { blockers: vec![blocker] }]);
        failed.errors = vec!["outer".into(), "inner".into()];
        failed.kernel_log = vec!["schedswap: busy".into()];
        let text = report(&failed, None);
        assert_eq!(text, "error: outer\n  because: inner\nkernel log:\n  schedswap: busy\n");
    }

    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_700_000_000, "2023-11-14 22:13:20 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(time(seconds), expected);
        }
    }

    fn full_status() -> Status {
        Status {
            kernel_release: "6.1.0-1-amd64".into(),
            build_id: None,
            scheduler: Some(LoadedScheduler {
                version: "demo-2".into(),
                module: "scheduler_0123abcd".into(),
                state: State::Enabled,
                since: Some(1_700_000_000),
                functions: 900,
                timing: None,
                blockers: vec![],
            }),
            beside: vec![],
            retired: vec![
                RetiredScheduler {
                    version: "demo-1".into(),
                    module: "scheduler_89abcdef_r1".into(),
                    bytes: 1 << 20,
                    unproved: vec!["update_curr hands out the address of novel_node".into()],
                },
                RetiredScheduler {
                    version: "demo-1".into(),
                    module: "scheduler_89abcdef_r2".into(),
                    bytes: 5000,
                    unproved: vec![],
                },
            ],
            active: Some("demo-2".into()),
            payloads: vec![InstalledPayload {
                kernel_release: "6.1.0-1-amd64".into(),
                payload: "demo-2".into(),
                active: true,
                summary: "fair, but less so".into(),
                findings_allowed: vec!["SS203 poll_timer".into()],
                warnings: vec!["SS204 sched_nr_migrate".into()],
            }],
            blocked: Some(Blocked { payload: "demo-2".into(), boot_id: "b1".into(), at: 0 }),
            disabled_on_the_command_line: false,
            conflicts: vec![Conflict {
                holder: Holder::Trampoline,
                name: "bpf_trampoline_1".into(),
                functions: vec!["schedule_tail".into()],
                refuses: false,
            }],
            taint: Some(Taint { bits: 4096, reasons: vec!["module from outside the kernel".into()] }),
        }
    }

    #[test]
    fn a_status_as_people_read_it() {
        assert_eq!(
            status(&full_status()),
            "kernel 6.1.0-1-amd64 (build-id unknown)\n\
             scheduler: demo-2, enabled, 900 functions diverted, since 2023-11-14 22:13:20 UTC\n\
             retired: demo-1 (module scheduler_89abcdef_r1), keeps 1024 KiB until the next boot; it must stay: \
             update_curr hands out the address of novel_node\n\
             retired: demo-1 (module scheduler_89abcdef_r2), keeps 5 KiB until the next boot; `uninstall --free` \
             can free it\n\
             at boot: demo-2 is not loaded: the machine did not come up healthy after it was loaded at \
             1970-01-01 00:00:00 UTC (boot b1); `start --force` or `install` loads it anyway\n\
             installed: demo-2 for kernel 6.1.0-1-amd64, active: fair, but less so\n\
             \x20 allowed by its author: SS203 poll_timer\n\
             \x20 warning of its check: SS204 sched_nr_migrate\n\
             beside it: BPF trampoline bpf_trampoline_1 at schedule_tail\n\
             kernel tainted (4096): module from outside the kernel\n"
        );
    }

    #[test]
    fn a_status_as_scripts_read_it() {
        let json: serde_json::Value = serde_json::to_value(full_status()).unwrap();
        assert_eq!(json["scheduler"]["version"], "demo-2");
        assert_eq!(json["scheduler"]["since"], 1_700_000_000);
        assert_eq!(json["scheduler"]["state"], "enabled");
        assert_eq!(json["active"], "demo-2");
        assert_eq!(json["retired"][0]["bytes"], 1 << 20);
        assert_eq!(json["retired"][0]["module"], "scheduler_89abcdef_r1");
        assert_eq!(json["payloads"][0]["kernel_release"], "6.1.0-1-amd64");
        assert_eq!(json["blocked"]["boot_id"], "b1");
        assert_eq!(json["conflicts"][0]["holder"], "trampoline");
        assert_eq!(json["conflicts"][0]["refuses"], false);
        assert_eq!(json["taint"]["bits"], 4096);
        let back: Status = serde_json::from_value(json).unwrap();
        assert_eq!(back, full_status());
    }

    #[test]
    fn a_prediction_says_what_it_rests_on() {
        let report = PlanReport {
            outcome: Outcome::Ok,
            version: Some("demo-1".into()),
            plan: Some(Plan { threads: 140, cpus: 4, ..Plan::default() }),
            blockers: vec![],
            prediction: Some(Prediction {
                stop_ns: 300_000,
                worst_ns: 900_000,
                swaps: 0,
                checked: 5,
                requeued: 1,
            }),
            errors: vec![],
            kernel_log: vec![],
            notes: vec![],
        };
        let text = plan(&report);
        assert!(text.contains("about 300.0 µs, at worst 900.0 µs (5 stacks"), "{text}");
        assert!(text.contains("no swap was measured on this machine"), "{text}");
    }
}

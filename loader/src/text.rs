//! Reports as people read them.

use schedswap_payload::report::{Attempt, Outcome, Report, Status};
use schedswap_payload::sysfs::Timing;
use std::fmt::Write;

/// The text of a report of `install` or `uninstall`. Errors are for stderr, the rest for stdout.
pub fn report(report: &Report) -> String {
    let mut text = String::new();
    let busy = report.attempts.iter().filter(|a| matches!(a, Attempt::Busy { .. })).count();
    if report.outcome == Outcome::Ok {
        let version = report.version.as_deref().unwrap_or("the scheduler");
        match (report.command.as_str(), &report.version) {
            ("uninstall", None) => text.push_str("no scheduler module is loaded: nothing to do\n"),
            ("uninstall", Some(_)) => {
                let _ = writeln!(text, "the kernel's own scheduler runs again; {version} is unloaded");
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
        return text;
    }
    for (depth, error) in report.errors.iter().enumerate() {
        let _ = writeln!(text, "{}{error}", if depth == 0 { "error: " } else { "  because: " });
    }
    if !report.kernel_log.is_empty() {
        text.push_str("kernel log:\n");
        report.kernel_log.iter().for_each(|line| {
            let _ = writeln!(text, "  {line}");
        });
    }
    text
}

/// The text of `status`.
pub fn status(status: &Status) -> String {
    let build_id = status.build_id.as_ref().map_or("unknown".to_owned(), |id| id.to_string());
    let mut text = format!("kernel {} (build-id {build_id})\n", status.kernel_release);
    match &status.scheduler {
        None => text.push_str("scheduler: the kernel's own; no module is loaded\n"),
        Some(loaded) => {
            let _ = writeln!(
                text,
                "scheduler: {}, {}, {} functions redirected",
                loaded.version, loaded.state, loaded.functions
            );
            loaded.blockers.iter().for_each(|blocker| {
                let _ = writeln!(text, "  last in the way: {blocker}");
            });
            loaded.timing.iter().for_each(|timing| text.push_str(&times(timing)));
        }
    }
    text
}

fn times(t: &Timing) -> String {
    let us = |ns: u64| format!("{}.{} µs", ns / 1000, ns % 1000 / 100);
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

#[cfg(test)]
mod tests {
    use super::*;
    use schedswap_payload::sysfs::Blocker;

    fn sample(outcome: Outcome, attempts: Vec<Attempt>) -> Report {
        Report {
            command: "install".into(),
            outcome,
            version: Some("demo 1-1".into()),
            attempts,
            errors: vec![],
            kernel_log: vec![],
        }
    }

    #[test]
    fn a_success_shows_its_times_and_how_often_it_was_busy() {
        let timing = Timing { op: "load".into(), stop_ns: 310_250, cpus: 4, ..Timing::default() };
        let attempts = vec![Attempt::Busy { blockers: vec![] }, Attempt::Switched { timing: Some(timing) }];
        let text = report(&sample(Outcome::Ok, attempts));
        assert!(text.starts_with("demo 1-1 is running\n  after 1 attempt"), "{text}");
        assert!(text.contains("stopped 310.2 µs with 4 CPUs"), "{text}");
    }

    #[test]
    fn a_failure_shows_every_cause_and_the_kernel_s_words() {
        let blocker = Blocker { comm: "x".into(), pid: 1, function: "f".into() };
        let mut failed = sample(Outcome::Refused, vec![Attempt::Busy { blockers: vec![blocker] }]);
        failed.errors = vec!["outer".into(), "inner".into()];
        failed.kernel_log = vec!["schedswap: busy".into()];
        let text = report(&failed);
        assert_eq!(text, "error: outer\n  because: inner\nkernel log:\n  schedswap: busy\n");
    }
}

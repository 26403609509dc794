//! How long the machine would stand still: computed from the cost of a swap here and the amount of work.

use schedswap_payload::report::Prediction;
use schedswap_payload::sysfs::{Plan, Timing};

/// The cost of the steps of one swap, per unit of work.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Costs {
    /// Stopping all CPUs and restarting them.
    stop_ns: f64,
    /// Checking one stack.
    per_stack_ns: f64,
    /// Taking one thread off its queue and putting it back.
    per_thread_ns: f64,
    /// Writing text, and the rest of the handler's work.
    patch_ns: f64,
}

/// Used if no swap was measured on this machine: the costs of the project's benchmark in a guest with 4 virtual CPUs
/// under emulation, which is slower than any hardware.
const MEASURED_ELSEWHERE: Costs =
    Costs { stop_ns: 39_200_000.0, per_stack_ns: 12_000.0, per_thread_ns: 600_000.0, patch_ns: 10_300_000.0 };

/// The prediction for what `plan` found, from the times of earlier swaps on this machine.
pub fn predict(plan: &Plan, swaps: &[Timing]) -> Prediction {
    // Threads that ran while the stacks were walked, those on a queue, and the idle thread of each CPU.
    let checked = (plan.logged + plan.queued + plan.cpus).min(plan.threads + plan.cpus);
    let requeued = if plan.rebuilds() { plan.queued } else { 0 };
    let costs: Vec<Costs> = swaps.iter().map(Costs::of).collect();
    let of = |pick: fn(&[f64]) -> f64| {
        if costs.is_empty() {
            return MEASURED_ELSEWHERE;
        }
        let each = |part: fn(&Costs) -> f64| pick(&costs.iter().map(part).collect::<Vec<_>>());
        Costs {
            stop_ns: each(|c| c.stop_ns),
            per_stack_ns: each(|c| c.per_stack_ns),
            per_thread_ns: each(|c| c.per_thread_ns),
            patch_ns: each(|c| c.patch_ns),
        }
    };
    Prediction {
        stop_ns: of(median).stop(checked, requeued, plan.rebuilds()),
        worst_ns: of(|all| all.iter().copied().fold(0.0, f64::max)).stop(checked, requeued, plan.rebuilds()),
        swaps: swaps.len(),
        checked,
        requeued,
    }
}

impl Costs {
    fn of(timing: &Timing) -> Costs {
        let per = |ns: u64, count: u64| ns as f64 / count.max(1) as f64;
        let requeue_ns = timing.dequeue_ns + timing.enqueue_ns;
        let parts = timing.stack_check_ns + requeue_ns + timing.patch_ns;
        Costs {
            stop_ns: timing.stop_ns.saturating_sub(timing.handler_ns) as f64,
            per_stack_ns: per(timing.stack_check_ns, timing.checked),
            per_thread_ns: per(requeue_ns, timing.requeued().unwrap_or(0)),
            patch_ns: (timing.patch_ns + timing.handler_ns.saturating_sub(parts)) as f64,
        }
    }

    fn stop(&self, checked: u64, requeued: u64, rebuilds: bool) -> u64 {
        // Emptying and filling the queues has a cost even if they are empty.
        let threads = requeued.max(rebuilds.into()) as f64;
        (self.stop_ns + self.patch_ns + self.per_stack_ns * checked as f64 + self.per_thread_ns * threads)
            as u64
    }
}

fn median(all: &[f64]) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(scale: u64, checked: u64, requeued: u64) -> Timing {
        Timing {
            stop_ns: 300_000 * scale,
            handler_ns: 150_000 * scale,
            stack_check_ns: 1_000 * checked * scale,
            dequeue_ns: 400 * requeued * scale,
            enqueue_ns: 600 * requeued * scale,
            patch_ns: 90_000 * scale,
            checked,
            other: [("requeued".to_owned(), requeued.to_string())].into(),
            ..Timing::default()
        }
    }

    fn plan(logged: u64, queued: u64) -> Plan {
        Plan { threads: 1000, logged, queued, cpus: 4, ..Plan::default() }
    }

    #[test]
    fn a_swap_like_the_last_one_takes_as_long() {
        let last = timing(1, 24, 10);
        let prediction = predict(&plan(10, 10), &[last]);
        assert_eq!((prediction.checked, prediction.requeued, prediction.swaps), (24, 10, 1));
        assert_eq!(prediction.stop_ns, 300_000);
        assert_eq!(prediction.worst_ns, 300_000);
    }

    #[test]
    fn more_threads_take_longer_and_the_worst_is_remembered() {
        let swaps = [timing(1, 24, 10), timing(1, 24, 10), timing(3, 24, 10)];
        let few = predict(&plan(10, 10), &swaps);
        let many = predict(&plan(10, 110), &swaps);
        assert_eq!((few.stop_ns, few.worst_ns), (300_000, 900_000));
        // A hundred more: each is checked and requeued.
        assert_eq!(many.stop_ns, 300_000 + 100 * (1_000 + 1_000));
    }

    #[test]
    fn without_a_swap_to_go_by_there_is_a_figure_all_the_same() {
        let prediction = predict(&plan(10, 10), &[]);
        assert_eq!(prediction.swaps, 0);
        assert!(prediction.stop_ns > 0);
        assert!(predict(&plan(5000, 0), &[]).checked <= 1004);
    }
}

//! State that the runtime keeps beside the kernel's structures (the author guide's example): what an access costs
//! beside a plain member, and whether the stop with it stays as short with many threads as with few.

use crate::counted::counted;
use crate::figures::{Findings, Target, median};
use crate::stop;
use anyhow::{Context, Result};
use serde_json::json;

const EXAMPLE: &str = "examples/extension/hops.patch";
/// Also in the code below.
const ACCESSES: f64 = 1e6;

/// Reads a member and a record a million times each, and a record of a group and of a run queue; the thread is
/// hidden from the compiler, so that each is an access of its own.
const LOOPS: &str = r#"
#define BENCH_LOOP(expression) ({							\
	u64 begun = ktime_get_mono_fast_ns();						\
	int i;										\
	for (i = 0; i < 1000000; i++) {							\
		OPTIMIZER_HIDE_VAR(p);							\
		READ_ONCE(expression);							\
		barrier();								\
	}										\
	ktime_get_mono_fast_ns() - begun; })

static void bench_access(enum schedswap_event event)
{
	struct task_struct *p = current;
	unsigned long flags;
	u64 plain, task, group, rq, rq_plain, group_plain;

	local_irq_save(flags);
	plain = BENCH_LOOP(p->se.nr_migrations);
	task = BENCH_LOOP(task_hops(p)->count);
	group_plain = BENCH_LOOP(task_group(p)->shares);
	group = BENCH_LOOP(group_hops(task_group(p))->count.counter);
	rq_plain = BENCH_LOOP(task_rq(p)->nr_switches);
	rq = BENCH_LOOP(rq_hops(task_rq(p))->count);
	local_irq_restore(flags);
	pr_info("bench-access %llu %llu %llu %llu %llu %llu\n", plain, task, group_plain, group, rq_plain, rq);
}
SCHEDSWAP_AFTER_SWAP(bench_access);
"#;

/// Measures into `findings`.
pub fn measure(threads: &[u64], cycles: u32, rounds: u32, findings: &mut Findings) -> Result<()> {
    access(rounds, findings)?;
    let module = schedswap_tests::build("bench-extension", |tree| tree.patch(EXAMPLE))?;
    let ends = [threads.first(), threads.last()].map(|n| n.copied().unwrap_or(500));
    stop::measure_of(&module, &ends, cycles, findings)
}

/// Counted in instructions.
fn access(rounds: u32, findings: &mut Findings) -> Result<()> {
    let module = schedswap_tests::build("bench-access", |tree| {
        tree.patch(EXAMPLE)?;
        tree.append("core.c", LOOPS)
    })?;
    let guest = schedswap_tests::guest(&module, counted)?;
    guest.sh(&format!("insmod {} enable=0", schedswap_tests::MODULE))?;
    for _ in 0..rounds {
        guest.sh("echo 1 >/sys/kernel/schedswap/enable && echo 0 >/sys/kernel/schedswap/enable")?;
    }
    let log = guest.sh("dmesg | sed -n 's/.*bench-access //p'")?;
    let mut samples: Vec<Vec<u64>> = Vec::new();
    for line in log.lines() {
        let numbers = line.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>();
        samples.push(numbers.with_context(|| format!("the guest said {line:?}"))?);
    }
    findings.samples.push(json!({ "access_instructions_per_million": samples }));
    for (index, what) in ["a thread's", "a group's", "a run queue's"].into_iter().enumerate() {
        let of = |column: usize| -> f64 {
            median(samples.iter().filter_map(|numbers| numbers.get(column).copied())) as f64 / ACCESSES
        };
        let (plain, record) = (of(2 * index), of(2 * index + 1));
        findings.note(&format!("{what} member, with the loop around it"), plain, "instructions", None);
        let more = format!("{what} record: more than the member");
        findings.note(&more, record - plain, "instructions", Target::AtMost(20.0));
    }
    guest.shutdown()?;
    Ok(())
}

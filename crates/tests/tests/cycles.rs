//! Loads and unloads again and again while the machine works and a CPU comes and goes. A thread may be in the way if
//! it is named; lost threads, wrong results, complaints of the kernel and changed memory are failures.

use anyhow::{Result, ensure};
use schedswap_guest::memory::Memory;
use schedswap_guest::scenario::{Cycle, CycleResult, MODULE_PATH, Scenario};
use schedswap_tests::{MODULE, guest, image, pristine};
use std::env;
use std::time::Duration;

/// How many cycles, unless the environment asks for more.
fn cycles() -> Result<u32> {
    env::var("SCHEDSWAP_TEST_CYCLES").map_or(Ok(25), |cycles| Ok(cycles.parse()?))
}

/// For one cycle, on a machine that is also busy with other work.
const LIMIT: Duration = Duration::from_secs(40);

fn cycles_under_load(preemption: &str) -> Result<()> {
    assert_eq!(MODULE, MODULE_PATH);
    let cycles = cycles()?;
    let guest = guest(&pristine()?, |config| {
        config.append.push(format!("preempt={preemption}"));
        config.time_limit = LIMIT * cycles;
    })?;
    let modes = guest.sh("cat /sys/kernel/debug/sched/preempt")?;
    ensure!(modes.contains(&format!("({preemption})")), "preempt={preemption} was not obeyed: {modes}");
    let scenario = Scenario {
        cycles,
        threads: 200,
        load: true,
        baseline: Duration::ZERO,
        hold: Duration::ZERO,
        hotplug: Some(1),
        memory: Some(Memory::of(image())),
        limit: LIMIT * cycles,
    };
    let findings = scenario.run(&guest, |_| ())?;

    let done = |cycle: &&Cycle| cycle.result == CycleResult::Ok;
    let ok = findings.cycles.iter().filter(done).count();
    eprintln!("preempt={preemption}: {ok} of {cycles} cycles done");
    for cycle in &findings.cycles {
        for blocker in &cycle.busy_by {
            eprintln!("cycle {}: {blocker}", cycle.cycle);
            // What the kernel cannot name, it prints in parentheses or as a number.
            ensure!(
                blocker.function.starts_with(|c: char| c.is_alphabetic() || c == '_'),
                "cycle {}: {blocker} names no function",
                cycle.cycle
            );
        }
        ensure!(
            cycle.busy_tries == 0 || !cycle.busy_by.is_empty(),
            "cycle {}: {} tries found a thread in the way, but none is named",
            cycle.cycle,
            cycle.busy_tries
        );
    }
    ensure!(findings.cycles.len() == cycles as usize, "{} cycles", findings.cycles.len());
    // If most were refused, the cycles would have shown little.
    ensure!(ok * 2 > cycles as usize, "only {ok} of {cycles} cycles could be done");
    ensure!(findings.identical_bytes > Some(1 << 20), "memory was not compared");
    guest.shutdown()?;
    Ok(())
}

#[test]
fn with_voluntary_preemption() -> Result<()> {
    cycles_under_load("voluntary")
}

#[test]
#[ignore = "takes ten minutes on one host thread: `make soak` runs it"]
fn with_full_preemption() -> Result<()> {
    cycles_under_load("full")
}

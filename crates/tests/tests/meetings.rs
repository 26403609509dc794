//! CPUs wait for each other in the stop, with interrupts off. A CPU that does not come is named, and what can still be undone
//! is undone. Each fault is an edit that acts on CPU 1 only, and only in the stop.

use anyhow::{Context, Result, bail, ensure};
use schedswap_guest::console::Kind;
use schedswap_guest::{Error, Guest};
use schedswap_tests::{Built, MODULE, build, guest, memory};
use std::time::Duration;

/// The wait of 30 s, which is longer on a busy host, and all else.
const LIMIT: Duration = Duration::from_secs(400);
/// The run queue is off line while the stop empties it.
const IN_STOP: &str = "!rq->online && cpu_of(rq) == 1";
const LOAD: &str =
    "for try in $(seq 100); do insmod /schedswap/scheduler.ko && exit; sleep 0.2; done; exit 1";

/// A guest in which every CPU's queue has threads.
fn busy_guest(built: &Built) -> Result<Guest> {
    let guest = guest(built, |config| {
        config.command_limit = LIMIT;
        config.time_limit = 2 * LIMIT;
    })?;
    guest.sh("for loop in 1 2 3 4 5 6 7 8; do while :; do :; done >/dev/null 2>&1 & done")?;
    Ok(guest)
}

/// Runs a command in which the kernel must panic, with these words on the console.
fn panics(guest: &Guest, command: &str, words: &[&str]) -> Result<()> {
    let error = match guest.run(command) {
        Ok(output) => bail!("no panic: {output:?}"),
        Err(error) => error,
    };
    ensure!(error.complains_of(Kind::Panic) || matches!(error, Error::EndedEarly { .. }), "{error}");
    let console = guest.console()?;
    match words.iter().find(|word| !console.contains(**word)) {
        Some(missing) => bail!("{missing:?} is not on the console:\n{console}"),
        None => Ok(()),
    }
}

#[test]
fn a_cpu_that_is_late_before_the_exchange_is_named_and_nothing_changes() -> Result<()> {
    let late = build("late", |tree| {
        tree.before("fair.c", "dequeue_task_fair", "#include <linux/timekeeping.h>\nstatic u64 late_until;")?;
        let wait = format!(
            "if ({IN_STOP} && !late_until) {{ late_until = ktime_get_mono_fast_ns() + 45 * NSEC_PER_SEC; \
             while (ktime_get_mono_fast_ns() < late_until) cpu_relax(); }}"
        );
        tree.at_entry("fair.c", "dequeue_task_fair", &wait)
    })?;
    assert_eq!(MODULE, "/schedswap/scheduler.ko");
    let guest = busy_guest(&late)?;
    memory().save(&guest, "stock")?;
    guest.sh(LOAD)?;
    memory().save(&guest, "loaded")?;

    // A thread may be in the way at first.
    let unload = "for try in $(seq 100); do echo 0 >/sys/kernel/schedswap/enable && exit 2; \
                  dmesg | grep 'schedswap: CPU' && exit; sleep 0.2; done; exit 1";
    let said = guest.sh(unload).context("the unload is given up")?;
    ensure!(said.contains("CPU 1 has not emptied its queues within 30 s"), "{said}");
    ensure!(!said.contains("CPU 0") && !said.contains("CPU 2") && !said.contains("CPU 3"), "{said}");
    guest.sh("dmesg | grep 'schedswap: gave up, nothing is changed'")?;
    guest.sh("[ $(cat /sys/kernel/schedswap/state) = enabled ]")?;
    memory().save(&guest, "still-loaded")?;
    memory().compare(&guest, "loaded", "still-loaded")?;

    // It is not late again.
    guest.sh(
        "for try in $(seq 100); do echo 0 >/sys/kernel/schedswap/enable && exit; sleep 0.2; done; exit 1",
    )?;
    guest.sh("echo 1 >/sys/kernel/schedswap/retire && ! [ -e /sys/kernel/schedswap ]")?;
    memory().save(&guest, "after")?;
    memory().compare(&guest, "stock", "after")?;
    guest.shutdown()?;
    Ok(())
}

#[test]
fn a_cpu_that_hangs_after_the_exchange_ends_in_a_panic_that_names_it() -> Result<()> {
    let hangs = build("hangs", |tree| {
        let hang = "while (current == rq->stop && cpu_of(rq) == 1) cpu_relax();";
        tree.at_entry("fair.c", "enqueue_task_fair", hang)
    })?;
    let words = [
        "schedswap: CPU 1 has not filled its queues again within 30 s",
        "not syncing: schedswap: CPU 1 has not filled its queues again, and the others cannot go on without it",
        "enqueue_task_fair", // where it is
    ];
    panics(&busy_guest(&hangs)?, LOAD, &words)
}

/// Kernels of distributions do not panic after an oops; without the stopper thread, `stop_machine` never ends.
#[test]
fn an_oops_in_the_stop_ends_in_a_panic_that_names_the_cpu() -> Result<()> {
    let oopses =
        build("oopses", |tree| tree.at_entry("fair.c", "dequeue_task_fair", &format!("BUG_ON({IN_STOP});")))?;
    let guest = busy_guest(&oopses)?;
    guest.sh(LOAD)?;
    guest.sh("echo 0 >/proc/sys/kernel/panic_on_oops")?;
    let unload = "for try in $(seq 100); do echo 0 >/sys/kernel/schedswap/enable; sleep 0.2; done";
    let words = [
        "schedswap: CPU 1 has not emptied its queues within 30 s",
        "not syncing: schedswap: CPU 1 has not emptied its queues, and the others cannot go on without it",
    ];
    panics(&guest, unload, &words)
}

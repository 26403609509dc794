//! Edits in every part of the scheduler, with every kind of new code and data, take effect and are undone.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Guest;
use schedswap_tests::{MODULE, build, guest};
use std::time::Duration;

/// One function in each file, replaced on all kernels seen so far, and what makes it run.
const CHANGED: &[(&str, &str)] = &[
    ("core.c", "sched_fork"),
    ("fair.c", "task_tick_fair"),
    ("rt.c", "enqueue_task_rt"),
    ("deadline.c", "enqueue_task_dl"),
    ("idle.c", "pick_next_task_idle"),
    ("topology.c", "partition_sched_domains_locked"),
];

fn said(file: &str) -> String {
    format!("schedswap-test: {file} runs")
}

#[test]
fn a_changed_function_of_each_file_runs() -> Result<()> {
    let module = build("files", |tree| {
        for (file, function) in CHANGED {
            // Deferred, because most of these run with a run queue locked.
            tree.at_entry(file, function, &format!("printk_deferred_once(\"{}\\n\");", said(file)))?;
        }
        Ok(())
    })?;
    let guest = guest(&module, |_| ())?;
    // Forks, ticks, real-time and deadline threads; idle CPUs; and a CPU that goes offline, which rebuilds the
    // domains.
    let drive = "guest-load run --seconds 3 --threads 1 && sleep 0.3 \
                 && cd /sys/devices/system/cpu/cpu1 && echo 0 >online && echo 1 >online";
    guest.sh(drive)?;
    let silent = |guest: &Guest| -> Result<Vec<&str>> {
        let log = guest.sh("dmesg")?;
        Ok(CHANGED.iter().map(|(file, _)| *file).filter(|file| !log.contains(&said(file))).collect())
    };
    assert_eq!(silent(&guest)?.len(), CHANGED.len(), "the kernel's own functions speak");

    guest.sh(&format!("loader install {MODULE}"))?;
    guest.sh(drive)?;
    assert_eq!(silent(&guest)?, [""; 0], "these files' changed functions have not run");

    guest.sh("loader uninstall")?;
    guest.sh(drive)?;
    guest.shutdown()?;
    Ok(())
}

/// New data in core.c, read by stats.c, which belongs to another unit.
const DECLARATION: &str = "extern void schedswap_test_show(struct seq_file *seq);";

/// A new static variable with an initial value, a new per-CPU variable, and a timer that runs while its feature is
/// on, and is stopped before unloading.
const NEW: &str = r#"
#include <schedswap/author.h>

static unsigned long schedswap_test_forks = 1000;
static DEFINE_PER_CPU(unsigned long, schedswap_test_forks_here) = 10;
static atomic_long_t schedswap_test_ticked;

static void schedswap_test_tick(struct timer_list *timer)
{
	atomic_long_inc(&schedswap_test_ticked);
	if (sched_feat(SCHEDSWAP_TIMER))
		mod_timer(timer, jiffies + HZ / 50);
}

static DEFINE_TIMER(schedswap_test_timer, schedswap_test_tick);
static DEFINE_RAW_SPINLOCK(schedswap_test_lock);

static void schedswap_test_stop(enum schedswap_event event)
{
	del_timer_sync(&schedswap_test_timer);
}
SCHEDSWAP_BEFORE_UNLOAD(schedswap_test_stop);

static void schedswap_test_fork(void)
{
	raw_spin_lock(&schedswap_test_lock);
	schedswap_test_forks++;
	this_cpu_inc(schedswap_test_forks_here);
	raw_spin_unlock(&schedswap_test_lock);
	if (sched_feat(SCHEDSWAP_TIMER) && !timer_pending(&schedswap_test_timer))
		mod_timer(&schedswap_test_timer, jiffies + 1);
}

void schedswap_test_show(struct seq_file *seq)
{
	int cpu;

	raw_spin_lock(&schedswap_test_lock);
	seq_printf(seq, "schedswap-test %lu %lu", atomic_long_read(&schedswap_test_ticked), schedswap_test_forks);
	for_each_online_cpu(cpu)
		seq_printf(seq, " %lu", per_cpu(schedswap_test_forks_here, cpu));
	raw_spin_unlock(&schedswap_test_lock);
	seq_putc(seq, '\n');
}
"#;

/// The line that [`NEW`] adds to /proc/schedstat.
struct Shown {
    ticks: u64,
    forks: u64,
    forks_by_cpu: Vec<u64>,
}

fn shown(guest: &Guest) -> Result<Shown> {
    let text = guest.sh("cat /proc/schedstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("schedswap-test "));
    let line = line.with_context(|| format!("/proc/schedstat has no line of the new code:\n{text}"))?;
    let numbers =
        line.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>().context(line.to_owned())?;
    ensure!(numbers.len() == 2 + 4, "four CPUs are expected: {line}");
    Ok(Shown { ticks: numbers[0], forks: numbers[1], forks_by_cpu: numbers[2..].to_vec() })
}

#[test]
fn new_variables_and_a_new_timer_work_and_end() -> Result<()> {
    let module = build("novelties", |tree| {
        tree.append("features.h", "SCHED_FEAT(SCHEDSWAP_TIMER, false)")?;
        tree.before("core.c", "sched_fork", NEW)?;
        tree.at_entry("core.c", "sched_fork", "schedswap_test_fork();")?;
        tree.before("stats.c", "show_schedstat", DECLARATION)?;
        // The first item of the list is not a CPU but the head of the file.
        tree.at_entry("stats.c", "show_schedstat", "if (v == (void *)1) schedswap_test_show(seq);")
    })?;
    let guest = guest(&module, |_| ())?;
    for round in 1..=2 {
        assert!(shown(&guest).is_err(), "round {round}: the new line is there without the new scheduler");
        guest.sh(&format!("loader install {MODULE}"))?;

        let first = shown(&guest)?;
        ensure!(first.forks >= 1000 && first.forks < 1100, "round {round}: {} forks at first", first.forks);
        guest.sh("for cpu in 0 1 2 3; do taskset -c $cpu sh -c 'for i in $(seq 20); do (:); done'; done")?;
        let then = shown(&guest)?;
        ensure!(then.forks >= first.forks + 80, "round {round}: {} forks, then {}", first.forks, then.forks);
        for (cpu, count) in then.forks_by_cpu.iter().enumerate() {
            ensure!(*count >= 10 + 20, "round {round}: {count} forks on CPU {cpu}");
        }
        let sum: u64 = then.forks_by_cpu.iter().sum();
        assert_eq!(sum - 4 * 10, then.forks - 1000, "round {round}: the CPUs' counts do not add up");

        assert_eq!(then.ticks, 0, "round {round}: the timer runs before its feature is on");
        guest.sh("echo SCHEDSWAP_TIMER >/sys/kernel/debug/sched/features; sh -c :; sleep 2")?;
        let ticks = shown(&guest)?.ticks;
        ensure!(ticks >= 20, "round {round}: {ticks} ticks in 2 s");
        guest.sh("echo NO_SCHEDSWAP_TIMER >/sys/kernel/debug/sched/features; sleep 0.2")?;
        let ticks = shown(&guest)?.ticks;
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(shown(&guest)?.ticks, ticks, "round {round}: the timer runs though its feature is off");

        guest.sh("loader uninstall")?;
    }
    // The second time, everything was new again: see the first assertions of the loop.
    guest.shutdown()?;
    Ok(())
}

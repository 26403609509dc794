//! Tracers that are attached to replaced functions go on working, and stack traces through the stub are complete.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Guest;
use schedswap_tests::{MODULE, build, guest, pristine};

/// Called by fork through vmlinux's address.
const TRACED: &str = "sched_fork";
const PROBED: &str = "wake_up_new_task";
const FORKS: u64 = 50;

/// How often the function tracer has met [`TRACED`], and the kprobe [`PROBED`].
#[derive(Clone, Copy, Debug)]
struct Hits {
    traced: u64,
    probed: u64,
}

fn hits(guest: &Guest) -> Result<Hits> {
    // So few hits do not overflow the buffer.
    let text = guest.sh(&format!(
        "cd /sys/kernel/tracing; grep -c ' {TRACED} <-' trace; grep schedswap_probe kprobe_profile"
    ))?;
    let numbers: Vec<&str> = text.split_whitespace().collect();
    let number = |at: usize| -> Result<u64> {
        numbers.get(at).and_then(|n| n.parse().ok()).with_context(|| format!("not as expected: {text}"))
    };
    Ok(Hits { traced: number(0)?, probed: number(2)? })
}

/// Forks a known number of times and checks that both have met at least that many.
fn forks_are_seen(guest: &Guest, when: &str) -> Result<()> {
    let before = hits(guest)?;
    guest.sh(&format!("for i in $(seq {FORKS}); do (:); done"))?;
    let after = hits(guest)?;
    ensure!(after.traced >= before.traced + FORKS, "{when}, the function tracer: {before:?}, then {after:?}");
    ensure!(after.probed >= before.probed + FORKS, "{when}, the kprobe: {before:?}, then {after:?}");
    Ok(())
}

fn attach(guest: &Guest) -> Result<()> {
    guest.sh(&format!(
        "cd /sys/kernel/tracing && echo {TRACED} >set_ftrace_filter && echo function >current_tracer \
         && echo 'p:schedswap_probe {PROBED}' >kprobe_events && echo 1 >events/kprobes/schedswap_probe/enable"
    ))?;
    Ok(())
}

fn detach(guest: &Guest) -> Result<()> {
    guest.sh("cd /sys/kernel/tracing && echo nop >current_tracer && echo >set_ftrace_filter \
         && echo 0 >events/kprobes/schedswap_probe/enable && echo >kprobe_events")?;
    Ok(())
}

#[test]
fn function_tracer_and_kprobe_see_replaced_functions() -> Result<()> {
    let guest = guest(&pristine()?, |_| ())?;
    attach(&guest)?;
    forks_are_seen(&guest, "before")?;
    guest.sh(&format!("loader install {MODULE}"))?;
    forks_are_seen(&guest, "attached before, loaded")?;
    detach(&guest)?;
    attach(&guest)?;
    forks_are_seen(&guest, "attached while loaded")?;
    guest.sh("loader uninstall")?;
    forks_are_seen(&guest, "after")?;
    detach(&guest)?;
    guest.shutdown()?;
    Ok(())
}

/// Once for a program and once for a kernel thread, as each goes to sleep.
const DUMP: &str = "\
	if (sched_feat(SCHEDSWAP_DUMP) && !is_idle_task(prev) && !task_is_running(prev)) {
		static unsigned long dumped;

		if (!test_and_set_bit(prev->flags & PF_KTHREAD ? 1 : 0, &dumped))
			dump_stack();
	}
";
/// In `__schedule`, before any lock is taken.
const PLACE: &str =
    "\tif (sched_feat(HRTICK) || sched_feat(HRTICK_DL))\n\t\thrtick_clear(rq);\n\n\tlocal_irq_disable();";

/// The frames of each stack trace in a kernel log, innermost first, without those marked `?`: the unwinder found
/// these on the stack but did not reach them by unwinding.
fn dumped_stacks(log: &str) -> Vec<Vec<String>> {
    let mut stacks = Vec::new();
    let mut lines = log.lines().map(|line| line.split_once("] ").map_or(line, |(_, text)| text).trim());
    while lines.any(|line| line == "Call Trace:") {
        let frames = lines.by_ref().take_while(|line| *line != "</TASK>" && !line.starts_with("RIP:"));
        let frames = frames.filter(|line| !line.starts_with(['<', '?']) && line.contains("+0x"));
        stacks.push(frames.map(|line| line.split("+0x").next().unwrap_or(line).to_owned()).collect());
    }
    stacks
}

/// Whether `stack` goes from the new `__schedule` through the stub to vmlinux's `schedule` and on to its end.
fn ensure_whole(stack: &[String], ends: &[&str]) -> Result<()> {
    let whole =
        stack.windows(2).any(|pair| pair[0].starts_with("__schedule.ss") && pair[1] == "ss_schedule_stub")
            && stack.windows(2).any(|pair| pair[0] == "ss_schedule_stub" && pair[1].contains("schedule"))
            && stack.last().is_some_and(|last| ends.contains(&last.as_str()));
    ensure!(whole, "no whole stack, which ends with one of {ends:?}: {stack:#?}");
    Ok(())
}

const USER_ENDS: &[&str] = &["entry_SYSCALL_64_after_hwframe", "asm_exc_page_fault"];
const KERNEL_THREAD_ENDS: &[&str] = &["ret_from_fork", "ret_from_fork_asm"];

#[test]
fn stack_traces_through_the_stub_are_whole() -> Result<()> {
    let module = build("dump", |tree| {
        tree.append("features.h", "SCHED_FEAT(SCHEDSWAP_DUMP, false)")?;
        tree.replace("core.c", PLACE, &format!("{DUMP}\n{PLACE}"))
    })?;
    let mut guest = guest(&module, |_| ())?;
    guest.sh(&format!("loader install {MODULE}"))?;

    guest.expect_on_console("Call Trace:");
    guest.sh("echo SCHEDSWAP_DUMP >/sys/kernel/debug/sched/features; sleep 1")?;
    let log = guest.sh("dmesg")?;
    let stacks = dumped_stacks(&log);
    ensure!(stacks.len() == 2, "{} stack traces:\n{log}", stacks.len());
    let (threads, programs): (Vec<_>, Vec<_>) =
        stacks.iter().partition(|s| s.last().is_some_and(|f| KERNEL_THREAD_ENDS.contains(&f.as_str())));
    ensure!(programs.len() == 1 && threads.len() == 1, "not one of each:\n{log}");
    ensure_whole(programs[0], USER_ENDS)?;
    ensure_whole(threads[0], KERNEL_THREAD_ENDS)?;

    // The event's own stack trace reaches the same frames in another way.
    guest.sh(
        "cd /sys/kernel/tracing && echo >trace && echo 'stacktrace if prev_comm == \"sleep\"' \
         >events/sched/sched_switch/trigger && sleep 0.1 && echo '!stacktrace' >events/sched/sched_switch/trigger",
    )?;
    let trace = guest.sh("cat /sys/kernel/tracing/trace")?;
    let traced: Vec<Vec<String>> = trace
        .split("<stack trace>")
        .skip(1)
        .map(|part| {
            part.lines().filter_map(|line| line.trim().strip_prefix("=> ")).map(str::to_owned).collect()
        })
        .collect();
    let sleeping = traced.iter().find(|stack| stack.iter().any(|frame| frame.contains("nanosleep")));
    let sleeping = sleeping.with_context(|| format!("no trace of a program that sleeps:\n{trace}"))?;
    ensure_whole(sleeping, USER_ENDS)?;

    guest.sh("loader uninstall")?;
    guest.shutdown()?;
    Ok(())
}

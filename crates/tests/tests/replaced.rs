//! Only what an edit changes is replaced: every other function of the kernel runs on as it is, with its tracers and with
//! the threads that are in it.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Guest;
use schedswap_guest::scenario::{CycleResult, Scenario};
use schedswap_payload::sysfs::Timing;
use schedswap_tests::edit::Tree;
use schedswap_tests::{Built, MODULE, build_changed, guest, memory, own, pristine, schedswap, work_dir};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const SAYS: &str = "schedswap was here";
const OTHER: &str = "/other/scheduler.ko";
const DEBUG: &str = "cat /sys/kernel/debug/sched/debug";
/// Functions in which each thread is at times, none of them edited.
const PROBED: [&str; 4] = ["try_to_wake_up", "update_curr", "set_next_entity", "wake_up_new_task"];

fn edited(name: &str) -> Result<Built> {
    build_changed(name, |tree: &Tree| {
        tree.at_entry("debug.c", "sched_debug_header", &format!("SEQ_printf(m, \"{SAYS}\\n\");"))
    })
}

fn says(guest: &Guest) -> Result<bool> {
    Ok(guest.sh(&format!("{DEBUG} | head -20"))?.contains(SAYS))
}

/// Whether the last swap has rebuilt the queues.
fn rebuilt(guest: &Guest, expected: bool) -> Result<()> {
    let timing: Timing = guest.sh("cat /sys/kernel/schedswap/timing")?.parse()?;
    ensure!(timing.rebuilt() == expected && (expected || timing.requeued() == Some(0)), "{timing:?}");
    Ok(())
}

/// How often each probe has been hit.
fn hits(guest: &Guest) -> Result<Vec<u64>> {
    let hits = |name: &&str| -> Result<u64> {
        let line = guest.sh(&format!("grep ' ss_{name} ' /sys/kernel/tracing/kprobe_profile"))?;
        let hits = line.split_whitespace().nth(1).and_then(|n| n.parse().ok());
        hits.with_context(|| format!("not as expected: {line}"))
    };
    PROBED.iter().map(hits).collect()
}

/// Makes the machine do something and wants all probes to see it.
fn all_are_seen(guest: &Guest, when: &str) -> Result<()> {
    let before = hits(guest)?;
    guest.sh("for i in $(seq 20); do (sleep 0.01); done")?;
    let after = hits(guest)?;
    for ((name, before), after) in PROBED.iter().zip(before).zip(after) {
        ensure!(after >= before + 20, "{when}, the probe of {name}: {before}, then {after}");
    }
    Ok(())
}

/// What a command says, if it ends with success.
fn said(arguments: &[&str]) -> Result<String> {
    let output = schedswap(arguments)?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(output.status.success(), "{arguments:?}: {said}");
    Ok(said)
}

#[test]
fn an_edit_of_words_builds_nothing_and_says_so() -> Result<()> {
    let (work, _lock) = work_dir()?;
    let (dir, module) = (work.display().to_string(), work.join("scheduler.ko"));
    let tree = Tree::at(&work);
    tree.append("core.c", "/* The end. */")?;
    let all = said(&["build", &dir, "--divert", "all", "--format", "none"])?;
    ensure!(all.contains("everything that can be diverted is") && module.exists(), "{all}");
    let nothing = said(&["build", &dir, "--format", "none"])?;
    ensure!(nothing.contains("changes nothing that runs"), "{nothing}");
    ensure!(!module.exists(), "the module of another build is still there");

    tree.at_entry("debug.c", "sched_debug_header", &format!("SEQ_printf(m, \"{SAYS}\\n\");"))?;
    let built = said(&["build", &dir, "--format", "none"])?;
    ensure!(built.contains("1 function changed: sched_debug_header"), "{built}");
    ensure!(built.contains("1 function of"), "{built}");
    ensure!(built.contains("queues are not rebuilt"), "{built}");
    let explained = said(&["explain", &dir, "sched_debug_header"])?;
    ensure!(explained.contains("The last build replaces it: its code differs"), "{explained}");
    tree.at_entry("fair.c", "update_min_vruntime", "if (unlikely(!cfs_rq)) return;")?;
    let built = said(&["build", &dir, "--format", "none"])?;
    ensure!(built.contains("queues are rebuilt, because update_min_vruntime is replaced"), "{built}");
    let explained = said(&["explain", &dir, "try_to_wake_up"])?;
    ensure!(explained.contains("The last build leaves it to vmlinux"), "{explained}");
    Ok(())
}

#[test]
fn one_edited_function_is_diverted_and_no_other() -> Result<()> {
    let module = edited("one")?;
    let functions = module.manifest()?.functions;
    let names: Vec<&str> = functions.iter().map(|function| function.name.as_str()).collect();
    ensure!(names == ["sched_debug_header"], "{names:?}");

    let guest = guest(&module, |config| config.time_limit = Duration::from_secs(1800))?;
    for name in PROBED {
        guest.sh(&format!(
            "cd /sys/kernel/tracing && echo 'p:ss_{name} {name}' >>kprobe_events && echo 1 >events/kprobes/ss_{name}/enable"
        ))?;
    }
    all_are_seen(&guest, "before")?;
    memory().save(&guest, "before")?;
    ensure!(!says(&guest)?);
    guest.sh(&format!("loader install {MODULE}"))?;
    ensure!(says(&guest)?, "the edit has no effect");
    rebuilt(&guest, false)?;
    all_are_seen(&guest, "while it is loaded")?;
    guest.sh("loader uninstall")?;
    ensure!(!says(&guest)?, "the edit is still in effect");
    all_are_seen(&guest, "afterwards")?;
    memory().save(&guest, "after")?;
    memory().compare(&guest, "before", "after")?;

    guest.sh("cd /sys/kernel/tracing && echo 0 >events/kprobes/enable && echo >kprobe_events")?;
    let scenario = Scenario {
        cycles: 3,
        threads: 200,
        load: true,
        baseline: Duration::ZERO,
        hold: Duration::ZERO,
        hotplug: Some(1),
        memory: Some(memory().clone()),
        limit: Duration::from_secs(1200),
    };
    let findings = scenario.run(&guest, |_| ())?;
    for cycle in &findings.cycles {
        let blockers: Vec<String> = cycle.busy_by.iter().map(ToString::to_string).collect();
        ensure!(
            cycle.result == CycleResult::Ok && blockers.is_empty(),
            "cycle {}: {blockers:?}",
            cycle.cycle
        );
    }
    guest.shutdown()?;
    Ok(())
}

/// From one function to all of them and back, and from the kernel's own scheduler to each.
#[test]
fn sets_of_all_sizes_take_over_from_each_other() -> Result<()> {
    let (one, all) = (edited("one")?, pristine()?);
    let guest = guest(&one, |config| {
        config.initramfs.bytes(OTHER, &fs::read(all.module()).unwrap_or_default(), 0o644);
    })?;
    let version = || guest.sh("cat /sys/kernel/schedswap/version");
    memory().save(&guest, "before")?;
    let steps = [
        ("install", MODULE, "one-1"),
        ("switch", OTHER, "pristine-1"),
        ("switch", MODULE, "one-1"),
        ("uninstall", "", ""),
        ("install", OTHER, "pristine-1"),
        ("switch", MODULE, "one-1"),
        ("switch", OTHER, "pristine-1"),
        ("uninstall", "", ""),
    ];
    for (step, (command, module, expected)) in steps.into_iter().enumerate() {
        guest.sh(&format!("loader {command} {module} --retries 30 --wait 1s"))?;
        ensure!(says(&guest)? == (expected == "one-1"), "step {step}: {command} {module}");
        if expected.is_empty() {
            memory().save(&guest, "after")?;
            memory().compare(&guest, "before", "after")?;
            continue;
        }
        ensure!(version()? == expected, "step {step}");
        // Only between the kernel's own scheduler and the module of one function.
        rebuilt(&guest, !(command == "install" && expected == "one-1"))
            .with_context(|| format!("step {step}"))?;
    }
    guest.shutdown()?;
    Ok(())
}

/// Anybody can be in `membarrier()` all the time.
const MEMBARRIER: &str = "
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) { setuid(1000); for (;;) syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0); }
";

fn membarrier() -> Result<PathBuf> {
    let dir = own()?;
    let (source, program) = (dir.join("membarrier.c"), dir.join("membarrier"));
    fs::write(&source, MEMBARRIER)?;
    let status = Command::new("gcc").args(["-static", "-o"]).args([&program, &source]).status()?;
    ensure!(status.success(), "gcc");
    Ok(program)
}

#[test]
fn a_thread_in_a_function_that_nobody_edited_is_not_in_the_way() -> Result<()> {
    let (module, program) = (edited("one")?, membarrier()?);
    let guest = guest(&module, |config| {
        config.initramfs.copy(&program, "/bin/membarrier").expect("it was just made");
    })?;
    guest.sh("for i in $(seq 4); do membarrier & done; sleep 1")?;
    for _ in 0..3 {
        guest.sh(&format!("loader install {MODULE} --retries 0"))?;
        ensure!(says(&guest)?);
        guest.sh("loader uninstall --retries 0")?;
    }
    guest.shutdown()?;
    Ok(())
}

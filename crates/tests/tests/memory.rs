//! A swap while memory is short works, or is refused cleanly.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Guest;
use schedswap_tests::{MODULE, guest, pristine};
use std::time::Duration;

const INSTALL: &str = "loader install --retries 30 --wait 1s";
const UNINSTALL: &str = "loader uninstall --retries 30 --wait 1s";
const NOTHING_LOADED: &str = "! [ -e /sys/kernel/schedswap ] && ! ls -d /sys/module/scheduler_????????";
const AVAILABLE: &str = "sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo";

fn number(guest: &Guest, command: &str) -> Result<u64> {
    let text = guest.sh(command)?;
    text.parse().with_context(|| format!("{command}: {text}"))
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn short_of_memory_it_works_or_is_refused_cleanly() -> Result<()> {
    let guest = guest(&pristine()?, |config| config.memory_mib = 1024)?;
    guest.sh("mkdir /full && mount -t tmpfs -o size=100% none /full")?;
    for left_mib in [64, 32, 24] {
        let fill_mib = (number(&guest, AVAILABLE)? / 1024).saturating_sub(left_mib);
        guest.sh(&format!("dd if=/dev/zero of=/full/{left_mib} bs=1M count={fill_mib} 2>/dev/null"))?;
        let installed = guest.run(&format!("{INSTALL} {MODULE}"))?;
        if installed.status == 0 {
            guest.sh(UNINSTALL)?;
        }
        guest.sh(NOTHING_LOADED)?;
    }
    guest.sh("rm /full/*")?;
    guest.sh(&format!("{INSTALL} {MODULE} && {UNINSTALL}"))?;
    guest.shutdown()?;
    Ok(())
}

/// More memory than there is, written again and again by four processes: one that needs too much is killed, and
/// restarted.
#[test]
#[ignore = "slow: `make soak` runs it"]
fn under_pressure_only_who_presses_is_killed() -> Result<()> {
    const CYCLES: u32 = 8;
    let limit = Duration::from_secs(900);
    let mut guest = guest(&pristine()?, |config| {
        config.memory_mib = 768;
        config.time_limit = 3 * limit;
        config.command_limit = limit;
        // A process that fills memory within one system call stays in the kernel for long where emulation is slow;
        // RCU-tasks waits for it, and would report that after 10 s. In ticks.
        config.append.push("rcupdate.rcu_task_stall_info=50000".into());
        config.initramfs.program("stress-ng").expect("stress-ng");
    })?;
    // A report with a stack trace; what the kernel reports about any other process's memory is a complaint.
    guest.expect_on_console("invoked oom-killer");
    let press_kib = number(&guest, AVAILABLE)? * 5 / 4;
    let pressing = guest.start(
        &format!(
            "echo $$ >/run/stress.pid; cd /tmp; exec stress-ng --quiet --vm 4 --vm-bytes {press_kib}k --vm-populate \
             --vm-method write64 --timeout {}",
            limit.as_secs()
        ),
        limit,
    )?;
    let killed = "sed -n 's/^oom_kill //p' /proc/vmstat";
    let wait =
        format!("n=0; until [ $({killed}) -gt 0 ]; do n=$((n+1)); [ $n -lt 600 ] || exit 1; sleep 0.5; done");
    let short = guest.run(&wait)?;
    ensure!(short.status == 0, "memory was never short: {}", guest.sh("cat /proc/meminfo; ps")?);

    let mut swapped = 0;
    let mut least_kib = u64::MAX;
    for _ in 0..CYCLES {
        // Like an operator's shell, and not protected as the agent is that runs this.
        let installed = guest.run(&format!("echo 0 >/proc/self/oom_score_adj; {INSTALL} {MODULE}"))?;
        least_kib = least_kib.min(number(&guest, AVAILABLE)?);
        if installed.status == 0 {
            swapped += 1;
            guest.sh(&format!("echo 0 >/proc/self/oom_score_adj; {UNINSTALL}"))?;
        } else {
            eprintln!("refused: {}", installed.stderr);
        }
        guest.sh(NOTHING_LOADED)?;
    }
    eprintln!(
        "{swapped} of {CYCLES} cycles, {} killed, {} KiB available at the least",
        guest.sh(killed)?,
        least_kib
    );
    ensure!(swapped * 2 >= CYCLES, "only {swapped} of {CYCLES} could be done");
    guest.sh("kill $(cat /run/stress.pid)")?;
    let output = guest.finish(pressing)?;
    eprintln!("stress-ng ended with {}: {}", output.status, output.stderr);
    let others = guest.sh("dmesg | grep 'Killed process' | grep -v '(stress-ng' || true")?;
    ensure!(others.is_empty(), "killed as well: {others}");
    // Afterwards everything is as before.
    guest.sh(&format!("{INSTALL} {MODULE} && {UNINSTALL}"))?;
    guest.shutdown()?;
    Ok(())
}

//! What the scheduler promises to programs holds across a swap, both ways: bandwidth quotas, policies, priorities and
//! affinities set by system calls. And a swap when memory is short works, or is refused cleanly.

use anyhow::{Context, Result, ensure};
use schedswap::guest::Guest;
use schedswap_tests::{MODULE, guest, pristine};

const INSTALL: &str = "loader install --retries 30 --wait 1s";
const UNINSTALL: &str = "loader uninstall --retries 30 --wait 1s";

fn number(guest: &Guest, command: &str) -> Result<u64> {
    let text = guest.sh(command)?;
    text.parse().with_context(|| format!("{command}: {text}"))
}

#[test]
fn a_quota_holds_before_during_and_after() -> Result<()> {
    let guest = guest(&pristine()?, |_| ())?;
    guest.sh(
        "mkdir -p /cg && mount -t cgroup2 none /cg && echo +cpu >/cg/cgroup.subtree_control && mkdir /cg/quota \
         && echo '20000 100000' >/cg/quota/cpu.max",
    )?;
    guest.sh(
        "sh -c 'echo $$ >/cg/quota/cgroup.procs; while :; do :; done' >/dev/null 2>&1 & \
         n=0; until grep -q . /cg/quota/cgroup.procs; do n=$((n+1)); [ $n -lt 100 ] || exit 1; sleep 0.1; done",
    )?;
    let throttled = "sed -n 's/^nr_throttled //p' /cg/quota/cpu.stat";
    // Ten periods are begun, and in each of them the quota runs out.
    let is_held = |when: &str| -> Result<()> {
        let before = number(&guest, throttled)?;
        guest.sh(&format!(
            "n=0; while [ $({throttled}) -lt {} ]; do n=$((n+1)); [ $n -lt 300 ] || exit 1; sleep 0.2; done",
            before + 10
        ))
        .with_context(|| format!("the quota does not hold {when}"))?;
        ensure!(guest.sh("cat /cg/quota/cpu.max")? == "20000 100000", "the quota is another one {when}");
        Ok(())
    };
    is_held("before")?;
    guest.sh(&format!("{INSTALL} {MODULE}"))?;
    is_held("while loaded")?;
    guest.sh("echo max >/cg/quota/cpu.max; sleep 0.5")?;
    let lifted = number(&guest, throttled)?;
    ensure!(
        number(&guest, &format!("sleep 2; {throttled}"))? <= lifted + 1,
        "a quota that was lifted still throttles"
    );
    guest.sh("echo '20000 100000' >/cg/quota/cpu.max")?;
    is_held("while loaded, set anew")?;
    guest.sh(UNINSTALL)?;
    is_held("afterwards")?;
    guest.shutdown()?;
    Ok(())
}

/// Every policy and its priority, as `chrt` takes them.
const POLICIES: [(&str, u32); 6] = [
    ("--other", 0),
    ("--batch", 0),
    ("--idle", 0),
    ("--fifo", 10),
    ("--rr", 5),
    ("--deadline --sched-runtime 1000000 --sched-deadline 50000000 --sched-period 100000000", 0),
];

#[test]
fn what_system_calls_set_is_what_they_get() -> Result<()> {
    let guest = guest(&pristine()?, |config| {
        config.initramfs.program("chrt").expect("util-linux's chrt");
    })?;
    let mut threads = Vec::new();
    for (policy, priority) in POLICIES {
        threads.push(guest.sh(&format!("chrt {policy} {priority} sleep 10000 >/dev/null 2>&1 & echo $!"))?);
    }
    let all = threads.join(" ");
    let pinned = &threads[0];
    guest.sh(&format!("taskset -p 2 {pinned} && renice -n 7 -p {pinned}"))?;
    let seen = || -> Result<String> {
        Ok(guest.sh(&format!(
            "for p in {all}; do chrt -p $p; taskset -p $p; cut -d' ' -f18,19,41 /proc/$p/stat; done"
        ))?)
    };
    let stock = seen()?;
    ensure!(stock.contains("SCHED_DEADLINE") && stock.contains("SCHED_RR"), "policies were not set: {stock}");

    guest.sh(&format!("{INSTALL} {MODULE}"))?;
    ensure!(seen()? == stock, "loading has changed\n{stock}\nto\n{}", seen()?);
    // Each becomes what the next one was.
    for (thread, (policy, priority)) in threads.iter().zip(POLICIES.iter().cycle().skip(1)) {
        guest.sh(&format!("chrt {policy} -p {priority} {thread}"))?;
    }
    guest.sh(&format!("taskset -p 4 {pinned}"))?;
    let loaded = seen()?;
    ensure!(loaded != stock, "nothing was changed while loaded: {loaded}");

    guest.sh(UNINSTALL)?;
    ensure!(seen()? == loaded, "unloading has changed\n{loaded}\nto\n{}", seen()?);
    guest.sh(&format!("kill -9 {all}"))?;
    guest.shutdown()?;
    Ok(())
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn short_of_memory_it_works_or_is_refused_cleanly() -> Result<()> {
    let guest = guest(&pristine()?, |config| config.memory_mib = 1024)?;
    guest.sh("mkdir /full && mount -t tmpfs -o size=100% none /full")?;
    let available = "sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo";
    for left_mib in [64, 32, 24] {
        let fill_mib = (number(&guest, available)? / 1024).saturating_sub(left_mib);
        guest.sh(&format!("dd if=/dev/zero of=/full/{left_mib} bs=1M count={fill_mib} 2>/dev/null"))?;
        let installed = guest.run(&format!("{INSTALL} {MODULE}"))?;
        if installed.status == 0 {
            guest.sh(UNINSTALL)?;
        }
        guest.sh("! [ -e /sys/kernel/schedswap ] && ! ls -d /sys/module/scheduler_*")?;
    }
    guest.sh("rm /full/*")?;
    guest.sh(&format!("{INSTALL} {MODULE} && {UNINSTALL}"))?;
    guest.shutdown()?;
    Ok(())
}

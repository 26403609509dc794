//! A swap leaves every queue as it was. The runtime compares them itself inside the stop, where nothing runs
//! (`check_order`, runtime/order.c), and writes what it has found to the kernel log.
//!
//! With EEVDF (from 6.6 on), a thread's place is computed from those who are on its queue when it comes back, so `make
//! test` runs this on a kernel with it, too.

use anyhow::{Context, Result, ensure};
use schedswap_tests::{guest, pristine};
use std::collections::BTreeMap;
use std::time::Duration;

/// place_entity() divides whole numbers: a few ns for each entity, more if a heavy one comes back to a light one.
const ROUNDING_NS: u64 = 10_000;

/// Threads of equal and unequal weights, on a CPU of their own and on any; groups two deep; a quota that is nearly always
/// used up. A group that has all its threads on one CPU keeps its weight. Some threads sleep often: they, and their
/// groups, stay queued for a while ("delayed").
const LOAD: &str = r#"
cd /sys/fs/cgroup || exit
echo +cpu >cgroup.subtree_control
mkdir -p a/b a/c q/r q/s || exit
echo +cpu >a/cgroup.subtree_control
echo +cpu >q/cgroup.subtree_control
echo 300 >a/b/cpu.weight
echo 50 >q/cpu.weight
echo '30000 100000' >q/cpu.max
spin() { taskset $3 sh -c "echo \$\$ >$1/cgroup.procs; echo >>/run/begun; renice -n $2 -p \$\$; while :; do :; done" >/dev/null 2>&1 & }
nap() { taskset $2 sh -c "echo \$\$ >$1/cgroup.procs; echo >>/run/begun; while :; do usleep 3000; n=0; while [ \$n -lt 200 ]; do n=\$((n+1)); done; done" >/dev/null 2>&1 & }
: >/run/begun
for n in 0 0 0 0 0 0 -5 5 10 19; do spin . $n 2; done
for n in 0 0 0 0 -3 3; do spin . $n f; done
for n in 0 1 2; do spin a/b 0 2; spin a/c $n 2; spin q/r $n 4; done
spin q/s 0 4
nap . 2; nap . f; nap a/b 2; nap a/c 2; nap q/r 4; nap q/s 4
# For three threads of one real-time priority, which sleep too often to be throttled.
for n in 1 2 3; do
    chrt -f 5 taskset 8 sh -c 'echo >>/run/begun; while :; do usleep 20000; n=0; while [ $n -lt 20 ]; do n=$((n+1)); done; done' >/dev/null 2>&1 &
done
t=0
until [ $(wc -l </run/begun) = 35 ]; do t=$((t+1)); [ $t -lt 300 ] || { cat /run/begun | wc -l >&2; exit 1; }; sleep 0.2; done
sleep 3
insmod /schedswap/scheduler.ko enable=0 check_order=1
"#;

const SWAPS: &str = r#"
switch() {
    t=0
    until echo $1 >/sys/kernel/schedswap/enable 2>/dev/null; do t=$((t+1)); [ $t -lt 100 ] || exit 1; sleep 0.2; done
}
for n in 1 2 3 4 5 6; do switch 1; sleep 0.3; switch 0; sleep 0.3; done
dmesg | sed -n 's/.*schedswap: order: //p'
"#;

fn values(line: &str) -> Result<BTreeMap<&str, u64>> {
    line.split_whitespace()
        .map(|pair| {
            let (name, value) = pair.split_once('=').with_context(|| format!("no value: {pair}"))?;
            Ok((name, value.parse().with_context(|| pair.to_owned())?))
        })
        .collect()
}

#[test]
fn an_unmodified_swap_leaves_every_queue_as_it_was() -> Result<()> {
    let guest = guest(&pristine()?, |config| {
        config.initramfs.program("chrt").expect("util-linux's chrt");
        config.command_limit = Duration::from_secs(300);
    })?;
    guest.sh(LOAD)?;
    let said = guest.sh(SWAPS)?;
    eprintln!("{said}");
    ensure!(said.lines().count() == 12, "not one line for each swap");
    let (mut threads, mut groups, mut pairs) = (0, 0, 0);
    for line in said.lines() {
        let value = values(line)?;
        for (name, what) in [
            ("gone", "have left their queue"),
            ("come", "are on a queue that were not"),
            ("moved", "are at another place of their list"),
            ("left_out", "were too many to compare"),
            ("inverted", "pairs have another order"),
        ] {
            ensure!(value[name] == 0, "{} {what}: {line}", value[name]);
        }
        ensure!(value["vruntime_ns"] <= ROUNDING_NS, "a virtual runtime has moved: {line}");
        ensure!(value["deadline_ns"] <= ROUNDING_NS, "a deadline has moved: {line}");
        threads += value["threads"];
        groups += value["groups"];
        pairs += value["pairs"];
    }
    // Otherwise little was compared. From 7.3 on, groups are on no queue.
    ensure!(threads > 12 * 15 && pairs > 12 * 40, "{threads} threads, {pairs} pairs");
    eprintln!("{threads} threads, {groups} groups, {pairs} pairs");
    guest.shutdown()?;
    Ok(())
}

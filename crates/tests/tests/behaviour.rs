//! What the scheduler guarantees stays true across a swap in both directions: bandwidth quotas; policies, priorities
//! and affinities set by system calls; variables that both sides share; domains that follow the CPUs.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Guest;
use schedswap_tests::{MODULE, build, guest, pristine};
use std::collections::BTreeMap;

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
    // Ten periods begin, and in each of them the quota runs out.
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

/// Every policy with its priority, as arguments of `chrt`.
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
    // Each thread gets the attributes of the next one.
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

/// The new scheduler adds this to a CPU's count of switches whenever its features are read: more than a guest makes.
const STEP: u64 = 1_000_000_000;

#[test]
fn what_one_side_writes_the_other_reads() -> Result<()> {
    let shows = format!(
        "{{ int cpu; u64 sum = 0; for_each_possible_cpu(cpu) sum += cpu_rq(cpu)->nr_switches; \
         preempt_disable(); this_rq()->nr_switches += {STEP}; preempt_enable(); \
         seq_printf(m, \"timeslice=%u switches=%llu \", jiffies_to_msecs(sched_rr_timeslice), sum); }}"
    );
    let built = build("shared-variables", |tree| tree.at_entry("debug.c", "sched_feat_show", &shows))?;
    let guest = guest(&built, |_| ())?;
    let set_timeslice = |ms: u32| guest.sh(&format!("echo {ms} >/proc/sys/kernel/sched_rr_timeslice_ms"));
    let switches = || number(&guest, "sed -n 's/^ctxt //p' /proc/stat");
    let shown = |key: &str| {
        number(&guest, &format!("sed -n 's/.*{key}=\\([0-9]*\\).*/\\1/p' /sys/kernel/debug/sched/features"))
    };

    // One variable belongs to the code, one is in every CPU's run queue; the kernel's own scheduler writes both.
    set_timeslice(40)?;
    let stock = switches()?;
    guest.sh(&format!("{INSTALL} {MODULE}"))?;
    let timeslice = shown("timeslice")?;
    ensure!(timeslice == 40, "the new scheduler sees a timeslice of {timeslice} ms, the old one has set 40");
    let seen = shown("switches")?;
    ensure!((stock + STEP..stock + 2 * STEP).contains(&seen), "{stock} switches went before, it sees {seen}");

    // Now the new scheduler writes: the old one sees that, and so does the next one.
    set_timeslice(80)?;
    let loaded = switches()?;
    guest.sh(UNINSTALL)?;
    let restored = switches()?;
    ensure!(
        (loaded..loaded + STEP).contains(&restored),
        "{loaded} switches went before, the old one sees {restored}"
    );
    guest.sh(&format!("{INSTALL} {MODULE}"))?;
    let timeslice = shown("timeslice")?;
    ensure!(timeslice == 80, "the timeslice is {timeslice} ms, the last one has set 80");
    guest.sh(UNINSTALL)?;
    guest.shutdown()?;
    Ok(())
}

/// Which CPUs each CPU's scheduling domains span, the smallest domain first, as the scheduler itself reports.
fn domains(guest: &Guest) -> Result<BTreeMap<u32, Vec<u64>>> {
    let text = guest.sh("cat /proc/schedstat")?;
    let mut domains: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut of = 0;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some(cpu) = first.strip_prefix("cpu") {
            of = cpu.parse()?;
            domains.insert(of, Vec::new());
        } else if first.starts_with("domain") {
            // Since 6.15 there is a name before the mask.
            let mask = words.find_map(|word| u64::from_str_radix(word, 16).ok()).context(text.clone())?;
            domains.entry(of).or_default().push(mask);
        }
    }
    Ok(domains)
}

#[test]
fn domains_follow_the_cpus_while_loaded_and_afterwards() -> Result<()> {
    let guest = guest(&pristine()?, |_| ())?;
    let all = domains(&guest)?;
    ensure!(all.len() == 4 && all.values().all(|masks| masks.last() == Some(&0b1111)), "{all:?}");
    let without_the_last: BTreeMap<u32, Vec<u64>> =
        [0, 1, 2].map(|cpu| (cpu, all[&cpu].iter().map(|mask| mask & 0b0111).collect())).into();
    let online =
        |yes: bool| guest.sh(&format!("echo {} >/sys/devices/system/cpu/cpu3/online", u8::from(yes)));
    let assert_domains = |expected: &BTreeMap<u32, Vec<u64>>, when: &str| -> Result<()> {
        let found = domains(&guest)?;
        ensure!(found == *expected, "{when}: {found:?}, expected {expected:?}");
        Ok(())
    };
    // As many threads as CPUs, not bound to any: balancing gives each one its own CPU.
    let busy =
        guest.sh("for n in 1 2 3 4; do sh -c 'while :; do :; done' >/dev/null 2>&1 & echo $!; done")?;
    let busy = busy.replace('\n', " ");
    let on_all_cpus = |when: &str| {
        let spread =
            format!("[ $(for p in {busy}; do cut -d' ' -f39 /proc/$p/stat; done | sort -u | wc -l) = 4 ]");
        guest
            .sh(&format!("n=0; until {spread}; do n=$((n+1)); [ $n -lt 300 ] || exit 1; sleep 0.1; done"))
            .with_context(|| format!("threads do not spread over the CPUs {when}"))
    };

    guest.sh(&format!("{INSTALL} {MODULE}"))?;
    assert_domains(&all, "after loading")?;
    on_all_cpus("after loading")?;
    online(false)?;
    assert_domains(&without_the_last, "loaded, without the last CPU")?;
    online(true)?;
    assert_domains(&all, "loaded, with the last CPU again")?;
    on_all_cpus("after a CPU came back while loaded")?;

    // Swapped while the CPU is away: the other code gives it its domains.
    online(false)?;
    guest.sh(UNINSTALL)?;
    assert_domains(&without_the_last, "unloaded, without the last CPU")?;
    online(true)?;
    assert_domains(&all, "unloaded, with the last CPU again")?;
    on_all_cpus("after a CPU came back afterwards")?;
    guest.sh(&format!("kill -9 {busy}"))?;
    guest.shutdown()?;
    Ok(())
}

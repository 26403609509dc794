//! State beyond the kernel's structures: each object has its own record, as long as it lives and the scheduler runs.
//!
//! The scheduler is the author guide's example, which counts how often threads change CPUs, with additional checks:
//! every record knows its owner, and records made and ended are counted.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Guest;
use schedswap_kernel::types::{Hole, Layouts};
use schedswap_tests::edit::Tree;
use schedswap_tests::{Built, MODULE, build, guest, image, work_dir};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

const EXAMPLE: &str = "examples/extension/hops.patch";

/// States that only hold their owner, and what was found wrong with them.
const CHECKS: &str = r#"
struct test_mine { unsigned long self; };
static atomic64_t test_made, test_ended, test_wrong;

#define TEST_STATE(what, object)							\
static void test_##what##_init(struct test_mine *mine, struct object *o)		\
{											\
	if (mine->self)									\
		atomic64_inc(&test_wrong);						\
	mine->self = (unsigned long)o;							\
	atomic64_inc(&test_made);							\
}											\
static void test_##what##_exit(struct test_mine *mine)					\
{											\
	if (!mine->self)								\
		atomic64_inc(&test_wrong);						\
	mine->self = 0;									\
	atomic64_inc(&test_ended);							\
}
TEST_STATE(task, task_struct)
TEST_STATE(group, task_group)
SCHEDSWAP_TASK_STATE(struct test_mine, test_task, .init = test_task_init, .exit = test_task_exit);
SCHEDSWAP_GROUP_STATE(struct test_mine, test_group, .init = test_group_init, .exit = test_group_exit);

static void test_check(struct task_struct *p)
{
	if (test_task(p)->self != (unsigned long)p ||
	    test_group(task_group(p))->self != (unsigned long)task_group(p))
		atomic64_inc(&test_wrong);
}

void test_show(struct seq_file *seq);
void test_show(struct seq_file *seq)
{
	seq_printf(seq, "test %lld %lld %lld\n", atomic64_read(&test_made), atomic64_read(&test_ended),
		   atomic64_read(&test_wrong));
}
"#;

/// The example with the checks.
fn checked(tree: &Tree) -> Result<()> {
    tree.patch(EXAMPLE)?;
    tree.before("core.c", "enqueue_task", CHECKS)?;
    tree.at_entry("core.c", "enqueue_task", "test_check(p);")?;
    tree.at_entry("core.c", "dequeue_task", "test_check(p);")?;
    tree.before("stats.c", "show_schedstat", "extern void test_show(struct seq_file *seq);")?;
    // The first item of the list is not a CPU but the head of the file.
    tree.at_entry("stats.c", "show_schedstat", "if (v == (void *)1) test_show(seq);")
}

/// The number of records made, ended, and found to have another owner.
#[derive(Debug)]
struct Counts {
    made: u64,
    ended: u64,
    wrong: u64,
}

fn counts(guest: &Guest) -> Result<Counts> {
    let text = guest.sh("cat /proc/schedstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("test "));
    let line = line.with_context(|| format!("/proc/schedstat has no line of the checks:\n{text}"))?;
    let numbers =
        line.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>().context(line.to_owned())?;
    let &[made, ended, wrong] = numbers.as_slice() else {
        anyhow::bail!("three numbers are expected: {line}")
    };
    Ok(Counts { made, ended, wrong })
}

/// How many slots of a kind are in use.
fn used(guest: &Guest, kind: &str) -> Result<u64> {
    let text = guest.sh("cat /sys/kernel/schedswap/extension")?;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{kind} used=")));
    let used = line.and_then(|line| line.split(' ').next()).with_context(|| text.clone())?;
    used.parse().context(text.clone())
}

fn number(guest: &Guest, command: &str) -> Result<u64> {
    let text = guest.sh(command)?;
    text.trim().parse().with_context(|| format!("{command} printed {text:?}"))
}

/// When the machine is at rest there are as many records as objects, and all others have ended. It takes a moment
/// until RCU has freed the last ones.
fn nothing_is_left_over(guest: &Guest) -> Result<()> {
    let begun = Instant::now();
    loop {
        // A shell and its commands come and go with each look, so one process does all the counting.
        let seen = guest
            .sh("set -- /proc/[0-9]*/task/*; echo $#; set -- $(find /sys/fs/cgroup -type d); echo $#; \
             cat /sys/kernel/schedswap/extension; head -3 /proc/schedstat")?;
        let (tasks, groups) = (used(guest, "thread")?, used(guest, "group")?);
        let Counts { made, ended, wrong } = counts(guest)?;
        // In addition: the idle threads. The shell itself is among the threads found while it looks.
        let threads = number(guest, "set -- /proc/[0-9]*/task/*; echo $#")? + 4;
        // One for each directory that has a cpu controller, and the root's.
        let directories = number(guest, "find /sys/fs/cgroup -name cpu.weight | wc -l")? + 1;
        ensure!(wrong == 0, "{wrong} records had another owner");
        let balanced = made - ended == tasks + groups;
        if balanced && tasks.abs_diff(threads) <= 1 && groups == directories {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(60),
            "{made} records were made and {ended} ended; {tasks} of threads and {groups} of groups are in use, but \
             there are {threads} threads and {directories} groups; {seen}"
        );
        sleep(Duration::from_millis(500));
    }
}

/// Makes and removes groups with tasks in them, forks, and forks in vain, until told to stop.
const CHURN: &str = r#"
cd /sys/fs/cgroup || exit
mkdir -p few && echo +pids >cgroup.subtree_control && echo 8 >few/pids.max || exit
n=0
while ! [ -e /run/churn-stop ]; do
    n=$((n + 1))
    mkdir group-$n || exit
    ( echo 0 >group-$n/cgroup.procs; for i in 1 2 3 4 5 6 7 8 9 10; do (:); done )
    ( echo 0 >few/cgroup.procs; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 0.1 & done; wait ) 2>/dev/null
    # The last of it may still be on its way out.
    until rmdir group-$n 2>/dev/null; do :; done
done
echo $n >/run/churned
"#;

#[test]
fn everybody_has_their_own_state_and_none_is_left_over() -> Result<()> {
    let module = build("extension", checked)?;
    let guest = guest(&module, |config| {
        config.initramfs.bytes("/bin/churn", format!("#!/bin/sh\n{CHURN}").as_bytes(), 0o755);
        config.time_limit = Duration::from_secs(1800);
    })?;
    let limit = Duration::from_secs(1500);
    let load = guest
        .start("guest-load run --threads 300 --until-file /run/load-stop --status /run/load.json", limit)?;
    let churn = guest.start("churn", limit)?;
    let progress = "guest-load progress --status /run/load.json --seconds 60";
    guest.run_within(progress, limit)?;

    let patient = Duration::from_secs(300);
    for cycle in 0..5 {
        let install =
            guest.run_within(&format!("loader install {MODULE} --retries 60 --wait 500ms"), patient)?;
        ensure!(install.status == 0, "cycle {cycle}: {}{}", install.stdout, install.stderr);
        guest.run_within(progress, limit)?;
        let Counts { made, ended, wrong } = counts(&guest)?;
        ensure!(wrong == 0 && ended > 0, "cycle {cycle}: {made} made, {ended} ended, {wrong} wrong");
        if cycle == 4 {
            break;
        }
        let uninstall = guest.run_within("loader uninstall --retries 60 --wait 500ms", patient)?;
        ensure!(uninstall.status == 0, "cycle {cycle}: {}{}", uninstall.stdout, uninstall.stderr);
    }
    // Thousands more begin and end, many of them in vain.
    let before = counts(&guest)?.made;
    let begun = Instant::now();
    while counts(&guest)?.made < before + 5000 {
        ensure!(begun.elapsed() < Duration::from_secs(600), "forking makes no progress");
        sleep(Duration::from_millis(500));
    }
    guest.sh("touch /run/load-stop /run/churn-stop")?;
    let churned = guest.finish(churn)?;
    ensure!(churned.status == 0, "churn: {}{}", churned.stdout, churned.stderr);
    let loaded = guest.finish(load)?;
    ensure!(loaded.status == 0, "load: {}", loaded.stderr);
    ensure!(number(&guest, "cat /run/churned")? > 5, "groups came and went");
    let vain = number(&guest, "sed -n 's/^max //p' /sys/fs/cgroup/few/pids.events")?;
    ensure!(vain > 5, "{vain} forks were refused");
    eprintln!("{vain} forks were refused, {:?}", counts(&guest)?);
    nothing_is_left_over(&guest)?;

    // Swapped out and in again without being unloaded: the old records have ended, and everything begins anew.
    let made = counts(&guest)?.made;
    guest.sh("cd /sys/kernel/schedswap && echo 0 >enable && echo 1 >enable")?;
    let again = counts(&guest)?;
    ensure!(again.ended >= made, "{made} had been made when it was unloaded, but {} ended", again.ended);
    nothing_is_left_over(&guest)?;
    guest.sh("loader uninstall")?;
    guest.shutdown()?;
    Ok(())
}

/// A line of /proc/PID/sched.
fn shown(guest: &Guest, pid: &str, what: &str) -> Result<u64> {
    number(guest, &format!("sed -n 's/^{what} *: *//p' /proc/{pid}/sched"))
}

/// Loads a version over the one that runs.
fn switch(guest: &Guest, path: &str) -> Result<()> {
    let command = format!(
        "for try in $(seq 50); do insmod {path} replace=1 && break; sleep 0.2; done; \
         grep -q ^op=switch /sys/kernel/schedswap/timing"
    );
    guest.sh(&command)?;
    Ok(())
}

#[test]
fn the_next_version_keeps_what_it_declares_alike() -> Result<()> {
    let one = build("hops-1", |tree| tree.patch(EXAMPLE))?;
    let two = build("hops-2", |tree| {
        tree.patch(EXAMPLE)?;
        tree.at_entry("core.c", "sched_fork", "p->se.nr_migrations = 0;")
    })?;
    // A thread's record has one more member; those of groups and run queues are as before.
    let three = build("hops-3", |tree| {
        tree.patch(EXAMPLE)?;
        tree.replace("hops.h", "struct task_hops {\n", "struct task_hops {\n\tu64 more;\n")
    })?;
    let guest = guest(&one, |config| {
        config.cpus = 2;
        for (path, built) in [("/two.ko", &two), ("/three.ko", &three)] {
            let bytes = fs::read(built.module()).expect("it was built");
            config.initramfs.bytes(path, &bytes, 0o644);
        }
        config.initramfs.program("taskset").expect("taskset (util-linux) is installed");
    })?;
    guest.sh(&format!("insmod {MODULE}"))?;
    // Made after the load, so all its moves have been counted.
    let spin = "(exec >/dev/null 2>&1; while :; do :; done) & \
                for i in 1 2 3 4 5 6; do for cpu in 0 1; do taskset -p -c $cpu $! >/dev/null; sleep 0.1; done; done; echo $!";
    let pid = guest.sh(spin)?.trim().to_owned();
    let hops = || shown(&guest, &pid, "hops");
    let by_cpu = || -> Result<u64> {
        number(
            &guest,
            "sed -n 's/.* hops //p' /proc/schedstat | { s=0; while read n; do s=$((s + n)); done; echo $s; }",
        )
    };
    let (counted, group, cpus) = (hops()?, shown(&guest, &pid, "hops.group")?, by_cpu()?);
    ensure!(counted >= 11, "it was moved at least 11 times, {counted} are counted");
    assert_eq!(shown(&guest, &pid, "se.nr_migrations")?, counted, "as the kernel itself counts");
    ensure!(group >= counted && cpus >= group, "{counted} {group} {cpus}");

    switch(&guest, "/two.ko")?;
    assert_eq!(hops()?, counted, "kept: it is pinned to a CPU by now");
    ensure!(shown(&guest, &pid, "hops.group")? >= group && by_cpu()? >= cpus, "kept");

    switch(&guest, "/three.ko")?;
    assert_eq!(hops()?, 0, "the type differs");
    ensure!(shown(&guest, &pid, "hops.group")? >= group && by_cpu()? >= cpus, "these do not");
    guest.sh(&format!("taskset -p -c 0 {pid}"))?;
    sleep(Duration::from_millis(300));
    assert_eq!(hops()?, 1);

    // The first version takes over again: the second version's records of groups are older than it, its own are gone.
    guest.sh("for m in /sys/kernel/schedswap-*; do echo 1 >$m/enable && break; done")?;
    assert_eq!(hops()?, 0);
    guest.sh(&format!("kill {pid}"))?;
    guest.sh("echo 0 >/sys/kernel/schedswap/enable")?;
    guest.shutdown()?;
    Ok(())
}

/// A scheduler that needs this much for every thread.
fn greedy(name: &str, bytes: u64) -> Result<Built> {
    build(name, |tree| {
        tree.before(
            "core.c",
            "sched_fork",
            &format!(
                "#include <schedswap/author.h>\n\
                 struct test_greedy {{ char bytes[{bytes}]; }};\n\
                 SCHEDSWAP_TASK_STATE(struct test_greedy, test_greedy);\n"
            ),
        )?;
        tree.at_entry("core.c", "wake_up_new_task", "test_greedy(p)->bytes[0] = 1;")
    })
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn what_there_is_no_memory_for_is_refused() -> Result<()> {
    let module = greedy("greedy", 16 << 20)?;
    let guest = guest(&module, |config| (config.memory_mib, config.cpus) = (512, 2))?;
    let available = "sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo";
    let before = number(&guest, available)?;
    for _ in 0..3 {
        let output = guest.run(&format!("insmod {MODULE}"))?;
        ensure!(output.status != 0 && output.stderr.contains("Cannot allocate memory"), "{output:?}");
        guest.sh("! ls -d /sys/kernel/schedswap* /sys/module/scheduler_*")?;
    }
    guest.sh("dmesg | grep 'refused: the state test_greedy, 16777216 bytes for each thread'")?;
    let after = number(&guest, available)?;
    ensure!(after + 20_000 > before, "{before} kB were available before, {after} are now");
    guest.shutdown()?;
    Ok(())
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn a_fork_for_which_there_is_no_memory_fails_and_nothing_else_does() -> Result<()> {
    // 200 kB for each thread: the memory is enough for twice the present threads, but not for a thousand more.
    let module = greedy("hungry", 200 << 10)?;
    let guest = guest(&module, |config| (config.memory_mib, config.cpus) = (512, 2))?;
    guest.sh(&format!("insmod {MODULE}"))?;
    let output = guest.run(
        "guest-load run --threads 3000 --sleepers-only --seconds 1 --status /run/load.json 2>&1; echo ended $?",
    )?;
    ensure!(!output.stdout.contains("ended 0"), "3000 threads fit: {}", output.stdout);
    guest.sh("echo 0 >/sys/kernel/schedswap/enable")?;
    guest.sh("! dmesg | grep -i 'out of memory\\|no test_greedy state'")?;
    guest.shutdown()?;
    Ok(())
}

#[test]
fn a_member_in_the_padding_moves_the_number_elsewhere() -> Result<()> {
    let work = work_dir()?.0;
    let chosen = |name: &str, edit: &dyn Fn(&Tree) -> Result<()>| -> Result<u64> {
        build(name, |tree| {
            tree.patch(EXAMPLE)?;
            edit(tree)
        })?;
        let header = fs::read_to_string(work.join(".schedswap/build/runtime/entries.h"))?;
        let hole = header.lines().find_map(|line| line.strip_prefix("#define SS_GROUP_HOLE "));
        hole.with_context(|| header.clone())?.parse().context("a number")
    };
    let free = chosen("extension-free", &|_| Ok(()))?;
    let taken = chosen("extension-taken", &|tree| {
        // A new member after the one that the padding follows.
        let layout = Layouts::of_kernel(image())?.layout("task_group").context("struct task_group")?;
        let is_it =
            |hole: &&Hole| hole.path.is_empty() && (hole.offset..hole.offset + hole.bytes).contains(&free);
        let after = layout.holes.iter().find(is_it).and_then(|h| h.after.clone()).context("padding in it")?;
        let header = fs::read_to_string(work.join("kernel/sched/sched.h"))?;
        let begin = "\nstruct task_group {\n";
        let (_, group) = header.split_once(begin).context("struct task_group")?;
        let is_member = |line: &&str| line.ends_with(&format!("\t{after};"));
        let member = group.lines().find(is_member).with_context(|| format!("{after} in it"))?;
        let (before, _) = group.split_once(member).context("what is before it")?;
        let old = format!("{begin}{before}{member}\n");
        tree.replace("sched.h", &old, &format!("{old}\tint\t\t\ttest_taken;\n"))
    })?;
    ensure!(taken != free, "the number and the member are both at {free}");
    Ok(())
}

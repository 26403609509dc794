//! Functions outside kernel/sched that are replaced together with the scheduler: one each of kernel/cgroup/cpuset.c,
//! kernel/kthread.c and kernel/time/, which /proc shows, and one in which every machine has a sleeping thread.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Guest;
use schedswap_sched::boundary::{Fate, StayReason};
use schedswap_sdk::workdir::Workdir;
use schedswap_tests::edit::Tree;
use schedswap_tests::{Built, MODULE, build_in, guest, kernel, memory, own, schedswap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CPUSET: &str = "kernel/cgroup/cpuset.c";
const KTHREAD: &str = "kernel/kthread.c";
const TIMERS: &str = "kernel/time/timer_list.c";

/// The path of a file in the work dir's tree; edits are relative to the scheduler's directory.
fn path(unit: &str) -> String {
    format!("../../{unit}")
}

fn configuration(named: &[(&str, &str)]) -> String {
    let lines = named.iter().map(|(unit, function)| format!("  - {function}: {unit}\n"));
    format!("sidecar:\n{}", lines.collect::<String>())
}

/// Runs `init` with such a configuration.
fn init(work: &Path, named: &[(&str, &str)]) -> Result<Output> {
    let kernel = kernel()?;
    let config = work.with_extension("yaml");
    fs::write(&config, configuration(named))?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("UTF-8");
    let (source, work, sysroot) = (text(&kernel.source)?, text(work)?, text(&kernel.sysroot)?);
    schedswap(&["init", &kernel.release, &source, &work, "--sysroot", &sysroot, "--config", &text(&config)?])
}

/// The same; the configuration must be accepted.
fn work_dir_with(name: &str, named: &[(&str, &str)]) -> Result<PathBuf> {
    let work = work_dir(name)?;
    let output = init(&work, named)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(work)
}

/// A pristine work dir of the test's own, in which compiled objects need not be compiled again.
fn work_dir(name: &str) -> Result<PathBuf> {
    let (shared, _lock) = schedswap_tests::work_dir()?;
    let dir = own()?.join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    let copied = Command::new("cp").arg("-a").arg(&shared).arg(&dir).status()?;
    ensure!(copied.success(), "copying {}", shared.display());
    Ok(dir.canonicalize()?)
}

/// What the edit below adds to three files of /proc, each with the words that identify it.
const SHOWN: [(&str, &str); 3] = [
    ("/proc/self/status", "schedswap-test: cpuset"),
    // The first kernel thread.
    ("/proc/2/comm", "schedswap-test"),
    ("/proc/timer_list", "schedswap-test: timers"),
];

fn edit(tree: &Tree) -> Result<()> {
    // One calls a function of its own unit that stays, one calls a new function.
    tree.before(&path(CPUSET), "cpuset_task_status_allowed", NEW_FUNCTION)?;
    tree.at_entry(
        &path(CPUSET),
        "cpuset_task_status_allowed",
        "schedswap_test_show(m, cpuset_mems_allowed(task));",
    )?;
    tree.at_entry(
        &path(KTHREAD),
        "get_kthread_comm",
        "if (to_kthread(tsk) || tsk->pid == 2) { strscpy(buf, \"schedswap-test\", buf_size); return; }",
    )?;
    tree.at_entry(&path(TIMERS), "timer_list_show", "seq_puts(m, \"schedswap-test: timers\\n\");")?;
    // The scheduler proper is edited with them.
    tree.at_entry("core.c", "sched_fork", "printk_deferred_once(\"schedswap-test: fork\\n\");")
}

const NEW_FUNCTION: &str = r#"
static unsigned long schedswap_test_calls = 100;

static noinline void schedswap_test_show(struct seq_file *m, nodemask_t mems)
{
	seq_printf(m, "schedswap-test: cpuset %d %lu\n", nodes_weight(mems), ++schedswap_test_calls);
}
"#;

/// Which of the additions are visible.
fn shown(guest: &Guest) -> Result<Vec<&'static str>> {
    let mut shown = Vec::new();
    for (file, words) in SHOWN {
        if guest.sh(&format!("cat {file}"))?.contains(words) {
            shown.push(file);
        }
    }
    Ok(shown)
}

#[test]
fn functions_outside_the_scheduler_are_replaced_with_it() -> Result<()> {
    let named =
        [(CPUSET, "cpuset_task_status_allowed"), (KTHREAD, "get_kthread_comm"), (TIMERS, "timer_list_show")];
    let work = work_dir_with("sidecars", &named)?;
    let boundary = Workdir::open(&work)?.boundary()?;
    for (unit, name) in named {
        let function = boundary.function(unit, name).with_context(|| format!("{name} of {unit}"))?;
        ensure!(matches!(function.fate, Fate::Divert(_)), "{name}: {:?}", function.fate);
        let others = boundary.functions.iter().filter(|f| f.unit == unit && f.name != name);
        let strays: Vec<_> = others.filter(|f| f.fate != Fate::Stay(StayReason::NotNamed)).collect();
        ensure!(strays.is_empty(), "more than {name} is replaced of {unit}: {strays:?}");
    }
    let example = example(&work)?;
    let module = build_in(&work, "sidecars", edit)?;
    let manifest = module.manifest()?;
    for (unit, name) in named {
        let listed = manifest.functions.iter().any(|f| f.name == name);
        ensure!(listed, "the manifest does not list {name} of {unit}");
    }
    let guest = guest(&module, |config| {
        for (file, from) in
            [("scheduler.ko", example.module()), ("manifest.json", example.dir.join("manifest.json"))]
        {
            config.initramfs.copy(&from, &format!("/example/{file}")).expect("the module was built");
        }
    })?;
    memory().save(&guest, "stock")?;
    for round in 1..=2 {
        assert_eq!(shown(&guest)?, [""; 0], "round {round}: the kernel's own functions show it");
        guest.sh(&format!("loader install {MODULE}"))?;
        assert_eq!(shown(&guest)?, SHOWN.map(|(file, _)| file), "round {round}: not replaced");
        let calls = |guest: &Guest| guest.sh("sed -n 's/^schedswap-test: cpuset //p' /proc/self/status");
        assert_eq!(calls(&guest)?.trim(), "1 102", "round {round}: nodes of memory, and calls from 100 on");
        guest.sh("loader uninstall")?;
    }
    guest.sh("loader install /example/scheduler.ko")?;
    let asked_for = "taskset 2 sed -n 's/^Cpus_asked_for:[[:space:]]*//p' /proc/self/status";
    assert_eq!(guest.sh(asked_for)?, "1", "the guide's example");
    guest.sh("loader uninstall")?;
    assert_eq!(guest.sh(asked_for)?, "");
    memory().save(&guest, "after")?;
    memory().compare(&guest, "stock", "after")?;
    guest.shutdown()?;
    Ok(())
}

/// The guide's example, in a work dir without other edits. Its sidecar is among those of that work dir.
fn example(work: &Path) -> Result<Built> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/sidecar/boundary.yaml");
    assert_eq!(fs::read_to_string(config)?, configuration(&[(CPUSET, "cpuset_task_status_allowed")]));
    build_in(work, "sidecar-example", |tree| tree.patch("examples/sidecar/asked-for.patch"))
}

/// kthreadd() is where the thread that makes kernel threads sleeps, on every machine and always.
#[test]
fn a_sidecar_with_a_thread_inside_is_found_by_the_stack_check() -> Result<()> {
    let work = work_dir_with("sidecar-asleep", &[(KTHREAD, "kthreadd")])?;
    let module = build_in(&work, "sidecar-asleep", |tree| {
        tree.at_entry(&path(KTHREAD), "kthreadd", "pr_info(\"schedswap-test: never\\n\");")
    })?;
    let guest = guest(&module, |_| ())?;
    memory().save(&guest, "stock")?;
    let output = guest.run(&format!("loader install {MODULE} --retries 1 --wait 100ms"))?;
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.status, 3, "{said}");
    ensure!(said.contains("kthreadd (thread 2) in kthreadd"), "the thread is not named: {said}");
    memory().save(&guest, "after")?;
    memory().compare(&guest, "stock", "after")?;
    guest.shutdown()?;
    Ok(())
}

/// Edits that would have no effect, or only half of it.
#[test]
fn what_is_not_named_cannot_be_changed() -> Result<()> {
    let work = work_dir_with("sidecar-refused", &[(CPUSET, "cpuset_task_status_allowed")])?;
    Tree::at(&work).at_entry(&path(CPUSET), "cpuset_cpus_allowed", "asm volatile(\"nop; lfence\");")?;
    let output = schedswap(&["check", work.to_str().context("UTF-8")?])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("refused")).collect();
    ensure!(
        lines.len() == 1 && lines[0].contains("SS101") && lines[0].contains("cpuset_cpus_allowed"),
        "one refusal by name: {said}"
    );
    ensure!(said.contains("name it there"), "what to do: {said}");
    Ok(())
}

#[test]
fn what_cannot_be_a_sidecar_is_refused_by_name() -> Result<()> {
    let work = work_dir("sidecar-wrong")?;
    for (named, words) in [
        ((CPUSET, "cpuset_init"), &["sidecar-wrong.yaml:2:", "cpuset_init", "__init"][..]),
        (
            (CPUSET, "cpuset_atach"),
            &["sidecar-wrong.yaml:2:", "no such function", "did you mean cpuset_attach?"],
        ),
        ((CPUSET, "sched_fork"), &["sched_fork", "core.c"]),
        ((TIMERS, "timer_list_header"), &["inlined", "timer_list_show"]),
        (("kernel/cgroup/none.c", "f"), &["sidecar-wrong.yaml:2:", "no file kernel/cgroup/none.c"]),
        // It exists, but is not compiled into this kernel.
        (("kernel/time/test_udelay.c", "f"), &["no translation unit", "kernel/time/tick-common.c"]),
    ] {
        let output = init(&work, &[named])?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{named:?}: {error}");
        for word in words {
            ensure!(error.contains(word), "{named:?}: {word:?} is not in: {error}");
        }
    }
    Ok(())
}

/// The developer may have edited the tree already when a sidecar is added to it.
#[test]
fn a_sidecar_can_be_added_to_an_edited_tree() -> Result<()> {
    let work = work_dir("sidecar-later")?;
    let tree = Tree::at(&work);
    tree.at_entry("core.c", "sched_fork", "/* mine */")?;
    ensure!(!work.join(CPUSET).exists());
    let output = init(&work, &[(CPUSET, "cpuset_task_status_allowed")])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(work.join(CPUSET).is_file(), "the sidecar's file is not there");
    let core = fs::read_to_string(work.join("kernel/sched/core.c"))?;
    ensure!(core.contains("/* mine */"), "the edit is gone");
    let status = Command::new("git").arg("-C").arg(&work).args(["status", "--short", "kernel"]).output()?;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status, " M kernel/sched/core.c\n", "only the edit differs from what was committed");
    Ok(())
}

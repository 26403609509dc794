//! Functions outside kernel/sched that are replaced with the scheduler: one each of kernel/cgroup/cpuset.c,
//! kernel/kthread.c and kernel/time/, which /proc shows, and one that no machine can do without a thread in.

use anyhow::{Context, Result, ensure};
use schedswap::boundary::{Fate, StayReason};
use schedswap::guest::Guest;
use schedswap::source::{Search, locate};
use schedswap::vmlinux::Sidecars;
use schedswap::workdir::{self, Options, Workdir};
use schedswap_tests::edit::Tree;
use schedswap_tests::{MODULE, build_in, guest, kernel, memory, schedswap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const CPUSET: &str = "kernel/cgroup/cpuset.c";
const KTHREAD: &str = "kernel/kthread.c";
const TIMERS: &str = "kernel/time/timer_list.c";

/// Where the work dir's tree has a file; edits count from the scheduler's directory.
fn path(unit: &str) -> String {
    format!("../../{unit}")
}

fn sidecars(named: &[(&str, &str)]) -> Sidecars {
    let mut sidecars = Sidecars::new();
    for (unit, function) in named {
        sidecars.entry((*unit).to_owned()).or_default().insert((*function).to_owned());
    }
    sidecars
}

fn init(work: &Path, sidecars: Sidecars) -> Result<Workdir, workdir::Error> {
    let kernel = kernel().expect("the kernel under test");
    let search = Search { sysroot: Some(kernel.sysroot), ..Search::default() };
    let options = Options {
        kernel: locate(&kernel.release, &search)?,
        source: kernel.source,
        work: work.to_owned(),
        allow_different: false,
        sidecars,
    };
    Ok(workdir::init(&options, &schedswap::progress::Silent)?.0)
}

/// A pristine work dir of the test's own, in which what is compiled already need not be compiled again.
fn work_dir(name: &str) -> Result<PathBuf> {
    let (shared, _lock) = schedswap_tests::work_dir()?;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../out/test").join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    let copied = Command::new("cp").arg("-a").arg(&shared).arg(&dir).status()?;
    ensure!(copied.success(), "copying {}", shared.display());
    Ok(dir.canonicalize()?)
}

/// What the edit below adds to three files of /proc, each with the words by which it is known.
const SHOWN: [(&str, &str); 3] = [
    ("/proc/self/status", "schedswap-test: cpuset"),
    // The first kernel thread.
    ("/proc/2/comm", "schedswap-test"),
    ("/proc/timer_list", "schedswap-test: timers"),
];

fn edit(tree: &Tree) -> Result<()> {
    // One calls a function of its own unit that stays, one a new function.
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

/// Which of the additions are there.
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
    let work = work_dir("sidecars")?;
    let named =
        [(CPUSET, "cpuset_task_status_allowed"), (KTHREAD, "get_kthread_comm"), (TIMERS, "timer_list_show")];
    let opened = init(&work, sidecars(&named))?;
    let boundary = opened.boundary()?;
    for (unit, name) in named {
        let function = boundary.function(unit, name).with_context(|| format!("{name} of {unit}"))?;
        ensure!(matches!(function.fate, Fate::Redirect(_)), "{name}: {:?}", function.fate);
        let others = boundary.functions.iter().filter(|f| f.unit == unit && f.name != name);
        let strays: Vec<_> = others.filter(|f| f.fate != Fate::Stay(StayReason::NotNamed)).collect();
        ensure!(strays.is_empty(), "more than {name} is replaced of {unit}: {strays:?}");
    }
    let module = build_in(&work, "sidecars", edit)?;
    let manifest = module.manifest()?;
    for (unit, name) in named {
        let listed = manifest.functions.iter().any(|f| f.name == name);
        ensure!(listed, "the manifest does not list {name} of {unit}");
    }
    let guest = guest(&module, |_| ())?;
    memory().save(&guest, "stock")?;
    for round in 1..=2 {
        assert_eq!(shown(&guest)?, [""; 0], "round {round}: the kernel's own functions show it");
        guest.sh(&format!("loader install {MODULE}"))?;
        assert_eq!(shown(&guest)?, SHOWN.map(|(file, _)| file), "round {round}: not replaced");
        let calls = |guest: &Guest| guest.sh("sed -n 's/^schedswap-test: cpuset //p' /proc/self/status");
        assert_eq!(calls(&guest)?.trim(), "1 102", "round {round}: nodes of memory, and calls from 100 on");
        guest.sh("loader uninstall")?;
    }
    memory().save(&guest, "after")?;
    memory().compare(&guest, "stock", "after")?;
    guest.shutdown()?;
    Ok(())
}

/// kthreadd() is where the thread that makes kernel threads sleeps, on every machine, always.
#[test]
fn a_sidecar_with_a_thread_inside_is_found_by_the_stack_check() -> Result<()> {
    let work = work_dir("sidecar-asleep")?;
    init(&work, sidecars(&[(KTHREAD, "kthreadd")]))?;
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

/// Edits that would have no effect, or only half of one.
#[test]
fn what_is_not_named_cannot_be_changed() -> Result<()> {
    let work = work_dir("sidecar-refused")?;
    init(&work, sidecars(&[(CPUSET, "cpuset_task_status_allowed")]))?;
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
        ((CPUSET, "cpuset_init"), &["cpuset_init", "__init"][..]),
        ((CPUSET, "not_there"), &["not_there", "no such function"]),
        ((CPUSET, "sched_fork"), &["sched_fork", "core.c"]),
        ((TIMERS, "timer_list_header"), &["inlined", "timer_list_show"]),
        (("kernel/cgroup/none.c", "f"), &["kernel/cgroup/none.c", "no translation unit", CPUSET]),
    ] {
        let error = match init(&work, sidecars(&[named])) {
            Ok(_) => anyhow::bail!("{named:?} was taken"),
            Err(error) => error.to_string(),
        };
        for word in words {
            ensure!(error.contains(word), "{named:?}: {word:?} is not in: {error}");
        }
    }
    Ok(())
}

/// The tree may be the developer's already when a sidecar is added to it.
#[test]
fn a_sidecar_can_be_added_to_an_edited_tree() -> Result<()> {
    let work = work_dir("sidecar-later")?;
    let tree = Tree::at(&work);
    tree.at_entry("core.c", "sched_fork", "/* mine */")?;
    ensure!(!work.join(CPUSET).exists());
    init(&work, sidecars(&[(CPUSET, "cpuset_task_status_allowed")]))?;
    ensure!(work.join(CPUSET).is_file(), "the sidecar's file is not there");
    let core = fs::read_to_string(work.join("kernel/sched/core.c"))?;
    ensure!(core.contains("/* mine */"), "the edit is gone");
    let status = Command::new("git").arg("-C").arg(&work).args(["status", "--short", "kernel"]).output()?;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status, " M kernel/sched/core.c\n", "only the edit differs from what was committed");
    Ok(())
}

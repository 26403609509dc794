//! A kernel of one's own: the archive's source, built in a tree with a small configuration, and its scheduler swapped
//! in a guest. Building the kernel takes about ten minutes of processor time, so only `make soak` does it.

use anyhow::{Context, Result, ensure};
use schedswap_guest::memory::Memory;
use schedswap_guest::{Config, Guest, Initramfs, Tools};
use schedswap_sdk::workdir::Workdir;
use schedswap_source::Cache;
use schedswap_tests::edit::Tree;
use schedswap_tests::sources::sh;
use schedswap_tests::{MODULE, schedswap};
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the kernel's own `tinyconfig` lacks: several CPUs, modules, debug information, the options that most kernels
/// have set, and what a guest needs. The release ends like those of rpm distributions.
const FRAGMENT: &str = "
CONFIG_LOCALVERSION=\"-1.mine.x86_64\"
CONFIG_64BIT=y
CONFIG_SMP=y
CONFIG_PCI=y
CONFIG_ACPI=y
CONFIG_MODULES=y
CONFIG_MODULE_UNLOAD=y
CONFIG_DEBUG_KERNEL=y
CONFIG_DEBUG_INFO_DWARF4=y
CONFIG_CC_OPTIMIZE_FOR_PERFORMANCE=y
CONFIG_RELOCATABLE=y
CONFIG_RANDOMIZE_BASE=y
CONFIG_STACKPROTECTOR=y
CONFIG_STACKPROTECTOR_STRONG=y
CONFIG_CPU_MITIGATIONS=y
CONFIG_RETPOLINE=y
CONFIG_PREEMPT_VOLUNTARY=y
CONFIG_NO_HZ_IDLE=y
CONFIG_HIGH_RES_TIMERS=y
CONFIG_HZ_250=y
CONFIG_UNWINDER_ORC=y
CONFIG_KALLSYMS=y
CONFIG_KALLSYMS_ALL=y
CONFIG_FTRACE=y
CONFIG_FUNCTION_TRACER=y
CONFIG_DYNAMIC_FTRACE=y
CONFIG_CGROUPS=y
CONFIG_CGROUP_SCHED=y
CONFIG_FAIR_GROUP_SCHED=y
CONFIG_CFS_BANDWIDTH=y
CONFIG_CPUSETS=y
CONFIG_SCHED_DEBUG=y
CONFIG_SLUB=y
CONFIG_KERNEL_GZIP=y
CONFIG_MULTIUSER=y
CONFIG_PRINTK=y
CONFIG_PRINTK_TIME=y
CONFIG_BUG=y
CONFIG_FUTEX=y
CONFIG_EPOLL=y
CONFIG_SIGNALFD=y
CONFIG_TIMERFD=y
CONFIG_EVENTFD=y
CONFIG_POSIX_TIMERS=y
CONFIG_SHMEM=y
CONFIG_FILE_LOCKING=y
CONFIG_SYSCTL=y
CONFIG_MEMBARRIER=y
CONFIG_BINFMT_ELF=y
CONFIG_BINFMT_SCRIPT=y
CONFIG_BLK_DEV_INITRD=y
CONFIG_TTY=y
CONFIG_UNIX98_PTYS=y
CONFIG_SERIAL_8250=y
CONFIG_SERIAL_8250_CONSOLE=y
CONFIG_DEVTMPFS=y
CONFIG_TMPFS=y
CONFIG_PROC_FS=y
CONFIG_PROC_SYSCTL=y
CONFIG_PROC_KCORE=y
CONFIG_SYSFS=y
CONFIG_DEBUG_FS=y
";

/// The kernel's own checkers. With them, the code after the switch of stacks in `__schedule` uses its frame.
const CHECKERS: &str = "
CONFIG_PROVE_LOCKING=y
CONFIG_DEBUG_ATOMIC_SLEEP=y
CONFIG_DEBUG_LIST=y
CONFIG_DEBUG_PREEMPT=y
CONFIG_SCHED_STACK_END_CHECK=y
CONFIG_DEBUG_OBJECTS=y
CONFIG_DEBUG_OBJECTS_TIMERS=y
CONFIG_PROVE_RCU=y
CONFIG_SCHED_CORE=y
CONFIG_SCHED_MC=y
CONFIG_UCLAMP_TASK=y
";

const LINE: &str = "I am the new scheduler: __schedule";

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

fn done(arguments: &[&str]) -> Result<String> {
    let output = schedswap(arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?} ended with {}:\n{said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `make` in a kernel's source, for a build in `out`.
fn make(tree: &Path, out: &Path, targets: &str) -> Result<()> {
    let same = if tree == out { "" } else { "O=\"$1\"" };
    // Its normal output is of no use; errors are on standard error.
    sh(
        tree,
        &format!("unset MAKEFLAGS MFLAGS MAKELEVEL; make -C \"$0\" {same} --silent {targets}"),
        &[tree, out],
    )
}

fn configure(tree: &Path, out: &Path, more: &str) -> Result<()> {
    make(tree, out, "tinyconfig >/dev/null 2>&1")?;
    let config = [FRAGMENT, more].concat();
    OpenOptions::new().append(true).open(out.join(".config"))?.write_all(config.as_bytes())?;
    make(tree, out, "olddefconfig 2>/dev/null")
}

/// The source in `tree` below this test's files, extracted unless an earlier run has done so, and a kernel built from
/// it in `out`, with `more` options.
fn built(tree: &str, out: &str, more: &str) -> Result<[PathBuf; 2]> {
    let name = "SCHEDSWAP_TEST_LINUX_SOURCE";
    let tarball =
        env::var(name).with_context(|| format!("{name} is not set; run the tests through `make soak`"))?;
    let own = schedswap_tests::own()?;
    let [tree, out] = [tree, out].map(|name| own.join(name));
    if !tree.exists() {
        done(&["extract-src", &tarball, text(&tree)?])?;
    }
    fs::create_dir_all(&out)?;
    let configured = out.join(".configured");
    if !configured.exists() {
        configure(&tree, &out, more)?;
        File::create(configured)?;
    }
    make(&tree, &out, "-j$(nproc)")?;
    Ok([tree, out])
}

#[test]
#[ignore = "builds a kernel; part of `make soak`"]
fn a_kernel_built_here_is_swapped() -> Result<()> {
    let [tree, _] = built("linux", "linux", "")?;
    let dir = tempfile::tempdir()?;
    let work = dir.path().join("work");
    is_swapped(&tree, &work)?;
    ensure!(
        !work.join("kernel/sched/core.o").exists(),
        "what was built in the tree was taken for its source"
    );
    a_tree_that_was_changed_since_is_refused(&tree, dir.path())
}

/// `make O=`: the compiler is called from another directory, and sees the source under other names.
#[test]
#[ignore = "builds a kernel; part of `make soak`"]
fn a_kernel_built_beside_its_source_is_swapped() -> Result<()> {
    let [tree, out] = built("linux-source", "linux-build", "")?;
    ensure!(!tree.join("vmlinux").exists(), "it was built in its source");
    let dir = tempfile::tempdir()?;
    is_swapped(&out, &dir.path().join("work"))
}

/// Takes the kernel that was built in `tree` all the way from `dev_init` to swaps in a guest.
fn is_swapped(tree: &Path, work: &Path) -> Result<()> {
    println!("{}", done(&["dev_init", text(tree)?, text(work)?])?);
    Tree::at(work).patch("examples/demo/schedswap_test.patch")?;
    done(&["build", text(work)?, "--divert", "all", "--format", "none"])?;

    let opened = Workdir::open(work)?;
    ensure!(opened.kernel().release.ends_with(".x86_64"), "{}", opened.kernel().release);
    let (guest, memory) = launch(&opened)?;
    ensure!(guest.sh("nproc")? == "4", "the kernel runs on {} CPUs", guest.sh("nproc")?);
    memory.save(&guest, "before")?;
    for _ in 0..3 {
        guest.sh(&format!("loader install {MODULE}"))?;
        guest.sh("echo SCHEDSWAP_TEST >/sys/kernel/debug/sched/features; sleep 1")?;
        guest.sh("loader uninstall")?;
    }
    ensure!(guest.sh("dmesg")?.matches(LINE).count() == 3, "{}", guest.sh("dmesg | tail -20")?);
    memory.save(&guest, "after")?;
    let compared = memory.compare(&guest, "before", "after")?;
    ensure!(compared > 1 << 20, "only {compared} bytes were compared");
    guest.shutdown()?;
    Ok(())
}

/// A guest with the module that the work dir has now.
fn launch(work: &Workdir) -> Result<(Guest, Memory)> {
    let memory = Memory::of(&work.image()?);
    let busybox = Cache::from_environment().ok().and_then(|cache| cache.busybox());
    let mut initramfs = Initramfs::new(&Tools::find_with(busybox.as_deref())?)?;
    memory.put_into(&mut initramfs);
    initramfs.copy(&work.module(), MODULE)?;
    initramfs.copy(&work.root().join("manifest.json"), "/schedswap/manifest.json")?;
    let image = work.config().bzimage.clone().context("a kernel that was built has an image")?;
    Ok((Guest::launch(Config::new(&image, initramfs))?, memory))
}

/// `__schedule` of such a kernel cannot be replaced, everything else can, and the checkers watch the swaps. Whatever they
/// complain about is on the console, which ends the test.
#[test]
#[ignore = "builds a kernel; part of `make soak`"]
fn a_kernel_with_checkers_is_swapped_but_for_its_schedule() -> Result<()> {
    let [tree, _] = built("linux-checkers", "linux-checkers", CHECKERS)?;
    let dir = tempfile::tempdir()?;
    let work = dir.path().join("work");
    let said = done(&["dev_init", text(&tree)?, text(&work)?])?;
    ensure!(said.matches("note: __schedule stays vmlinux's on this kernel").count() == 1, "{said}");

    let edit = Tree::at(&work);
    edit.patch("examples/demo/schedswap_test.patch")?;
    let refused = schedswap(&["build", text(&work)?, "--format", "none"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        refused.status.code() == Some(3)
            && said.contains("the edit changes __schedule, which cannot be replaced"),
        "{said}"
    );
    sh(&work, "git -C \"$0\" checkout -q .", &[])?;

    edit.at_entry("fair.c", "place_entity", "if (unlikely(!cfs_rq)) return;")?;
    edit.at_entry("core.c", "try_to_wake_up", "if (unlikely(!p)) return 0;")?;
    for divert in ["changed", "all"] {
        done(&["build", text(&work)?, "--divert", divert, "--format", "none"])?;
        swapped_under_the_checkers(&Workdir::open(&work)?).with_context(|| format!("--divert {divert}"))?;
    }
    Ok(())
}

fn swapped_under_the_checkers(work: &Workdir) -> Result<()> {
    let (guest, memory) = launch(work)?;
    memory.save(&guest, "before")?;
    let load = guest.start(
        "guest-load run --threads 100 --until-file /run/stop --status /run/load.json",
        Duration::from_secs(1200),
    )?;
    for _ in 0..5 {
        guest.sh(&format!("loader install {MODULE} --retries 30 --wait 1s"))?;
        guest.sh("sleep 1")?;
        guest.sh("loader uninstall --retries 30 --wait 1s")?;
    }
    guest.sh("touch /run/stop")?;
    let load = guest.finish(load)?;
    ensure!(load.status == 0, "the load failed: {load:?}");
    // It turns itself off after its first complaint.
    let lockdep = guest.sh("grep debug_locks /proc/lockdep_stats")?;
    ensure!(lockdep.ends_with(" 1"), "{lockdep}");
    memory.save(&guest, "after")?;
    memory.compare(&guest, "before", "after")?;
    guest.shutdown()?;
    Ok(())
}

fn a_tree_that_was_changed_since_is_refused(tree: &Path, dir: &Path) -> Result<()> {
    let (fair, config) = (tree.join("kernel/sched/fair.c"), tree.join(".config"));
    let before = fs::read(&fair)?;
    Tree::at(tree).at_entry("fair.c", "task_tick_fair", "queued++;")?;
    let refused = schedswap(&["dev_init", text(tree)?, text(&dir.join("changed"))?]);
    fs::write(&fair, before)?;
    let refused = refused?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        refused.status.code() == Some(3) && said.contains("task_tick_fair (kernel/sched/fair.c)"),
        "{said}"
    );

    let built = fs::metadata(&config)?.modified()?;
    File::open(&config)?.set_modified(std::time::SystemTime::now())?;
    let refused = schedswap(&["dev_init", text(tree)?, text(&dir.join("configured"))?]);
    File::open(&config)?.set_modified(built)?;
    let refused = refused?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(1) && said.contains("run make there"), "{said}");
    Ok(())
}

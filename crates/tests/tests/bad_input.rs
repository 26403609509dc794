//! Mistakes of users, made through the command itself: each ends with the right status and with a message that says
//! what was found and what to do.

use anyhow::{Context, Result, ensure};
use schedswap_source::{Search, locate};
use schedswap_tests::edit::Tree;
use schedswap_tests::{Kernel, kernel, schedswap, work_dir};
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const REFUSED: i32 = 3;

/// Runs the command, which must end with that status; returns what it wrote to standard error.
fn ends_with(status: i32, arguments: &[&str]) -> Result<String> {
    let output = schedswap(arguments)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!said.contains("panicked"), "{arguments:?}: {said}");
    ensure!(output.status.code() == Some(status), "{arguments:?} ended with {}: {said}", output.status);
    Ok(said)
}

/// The same; it must also have written each of the words.
fn ends_saying(status: i32, arguments: &[&str], words: &[&str]) -> Result<String> {
    let said = ends_with(status, arguments)?;
    for word in words {
        ensure!(said.contains(word), "{arguments:?}: {word:?} is not said in:\n{said}");
    }
    Ok(said)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// The kernel's files as `init` finds them.
fn located() -> Result<schedswap_source::Kernel> {
    let Kernel { release, sysroot, .. } = kernel()?;
    Ok(locate(&release, &Search { sysroot: Some(sysroot), ..Search::default() })?)
}

#[test]
fn a_file_that_is_no_debug_vmlinux_is_refused_by_what_it_is() -> Result<()> {
    let (dir, kernel) = (tempfile::tempdir()?, kernel()?);
    let start_of_vmlinux = |len: u64| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(&kernel.vmlinux)?.take(len).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let cases: [(&str, Vec<u8>, &[&str]); 6] = [
        ("empty", Vec::new(), &["is not an ELF file", "it is empty"]),
        ("text", b"vmlinux".to_vec(), &["is not an ELF file", "debug package"]),
        ("image", fs::read(&kernel.bzimage)?, &["is not an ELF file", "not a bootable image"]),
        ("header", start_of_vmlinux(40)?, &["is truncated", "the ELF header", "the file has 40"]),
        (
            "start",
            start_of_vmlinux(3 << 20)?,
            &["is truncated", "the section header table", "unpack it again"],
        ),
        ("program", fs::read(env::current_exe()?)?, &["is not a usable Linux kernel"]),
    ];
    for (name, bytes, words) in cases {
        let file = dir.path().join(name);
        fs::write(&file, bytes)?;
        let work = dir.path().join(format!("work-{name}"));
        let arguments = ["init", &kernel.release, text(&kernel.source)?, text(&work)?];
        let places = ["--sysroot", text(&kernel.sysroot)?, "--vmlinux", text(&file)?];
        ends_saying(FAILED, &[arguments, places].concat(), &[words, &[text(&file)?]].concat())?;
    }
    Ok(())
}

#[test]
fn a_vmlinux_of_another_release_is_refused_by_both_names() -> Result<()> {
    let (dir, kernel, found) = (tempfile::tempdir()?, kernel()?, located()?);
    let work = dir.path().join("work");
    let places = [
        ["--vmlinux", text(&found.vmlinux)?],
        ["--headers", text(&found.headers)?],
        ["--kernel-config", text(&found.config)?],
    ];
    let arguments = ["init", "0.0.0-other", text(&kernel.source)?, text(&work)?];
    let told = format!("is the kernel {}, not 0.0.0-other", kernel.release);
    ends_saying(FAILED, &[&arguments[..], &places.concat()].concat(), &[&told, text(&kernel.vmlinux)?])?;
    Ok(())
}

/// What `--allow-different` lets through is refused by a safety check without it.
#[test]
fn a_source_of_another_version_is_refused_by_a_safety_check() -> Result<()> {
    let (dir, kernel) = (tempfile::tempdir()?, kernel()?);
    let (source, work) = (dir.path().join("source"), dir.path().join("work"));
    fs::create_dir_all(source.join("kernel/sched"))?;
    fs::write(source.join("kernel/sched/core.c"), "")?;
    fs::write(source.join("Makefile"), "VERSION = 4\nPATCHLEVEL = 0\nSUBLEVEL = 99\n")?;
    let arguments = ["init", &kernel.release, text(&source)?, text(&work)?, "--no-config"];
    let arguments = [&arguments[..], &["--sysroot", text(&kernel.sysroot)?]].concat();
    ends_saying(REFUSED, &arguments, &["the source is version 4.0.99", "--allow-different to continue"])?;
    Ok(())
}

#[test]
fn a_missing_package_is_named() -> Result<()> {
    let (dir, kernel, found) = (tempfile::tempdir()?, kernel()?, located()?);
    let (release, root) = (&kernel.release, dir.path().join("root"));
    let put = |path: String| -> Result<()> {
        let path = root.join(path);
        fs::create_dir_all(path.parent().context("it has one")?)?;
        Ok(fs::write(path, "")?)
    };
    let work = dir.path().join("work");
    let arguments = ["init", release, text(&kernel.source)?, text(&work)?, "--sysroot", text(&root)?];

    // Only the image's package, then the debug symbols too: what is missing is named each time.
    put(format!("boot/config-{release}"))?;
    put(format!("boot/vmlinuz-{release}"))?;
    let looked_at = format!("usr/lib/debug/boot/vmlinux-{release}");
    ends_saying(
        FAILED,
        &arguments,
        &[&format!("linux-image-{release}-dbg"), "kernel-debuginfo", &looked_at],
    )?;
    put(looked_at)?;
    ends_saying(FAILED, &arguments, &[&format!("linux-headers-{release}"), "kernel-devel"])?;
    ensure!(!work.exists(), "a work dir was made although files are missing");

    // One half of the headers, which refers to the other by an absolute path: only Debian's are like that.
    let half = root.join(format!("usr/src/linux-headers-{release}"));
    fs::create_dir_all(&half)?;
    let makefile = fs::read_to_string(found.headers.join("Makefile"))?;
    let Some(other_half) = makefile.split_whitespace().find(|word| word.starts_with("/usr/src/")) else {
        return Ok(());
    };
    fs::copy(found.headers.join(".config"), half.join(".config"))?;
    fs::write(half.join("Makefile"), &makefile)?;
    let vmlinux = ["--vmlinux", text(&kernel.vmlinux)?];
    let words = [other_half.trim_end_matches("/Makefile"), "unpack the package that holds it"];
    ends_saying(FAILED, &[&arguments[..], &vmlinux].concat(), &words)?;
    Ok(())
}

#[test]
fn another_programs_directory_is_left_alone() -> Result<()> {
    let (dir, kernel) = (tempfile::tempdir()?, kernel()?);
    fs::write(dir.path().join("letter"), "mine")?;
    let arguments = ["init", &kernel.release, text(&kernel.source)?, text(dir.path())?, "--sysroot"];
    let words = [text(dir.path())?, "is not empty and is not a schedswap work dir"];
    ends_saying(FAILED, &[&arguments[..], &[text(&kernel.sysroot)?]].concat(), &words)?;
    let names: Vec<_> =
        fs::read_dir(dir.path())?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    assert_eq!(names, ["letter"]);
    // Nor is it taken for a work dir.
    ends_saying(FAILED, &["build", text(dir.path())?], &["is not a schedswap work dir", "schedswap init"])?;
    Ok(())
}

/// A disk of its own, mounted while the value exists.
struct SmallDisk {
    mount_point: PathBuf,
}

impl SmallDisk {
    /// `None` if this machine does not allow mounting.
    fn mount(mount_point: &Path, kib: u32) -> Result<Option<SmallDisk>> {
        fs::create_dir_all(mount_point)?;
        let size = format!("size={kib}k");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(mount_point)
            .output()
            .context("mount")?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            eprintln!("SKIPPED: a full disk is not tested, for a tmpfs cannot be mounted here: {why}");
            return Ok(None);
        }
        Ok(Some(SmallDisk { mount_point: mount_point.to_owned() }))
    }

    fn grow(&self, kib: u32) -> Result<()> {
        let size = format!("remount,size={kib}k");
        let status = Command::new("mount").args(["-o", &size]).arg(&self.mount_point).status()?;
        ensure!(status.success(), "mount -o {size}: {status}");
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mount_point).status();
    }
}

#[test]
fn a_full_disk_is_said_to_be_full_and_more_room_is_all_it_takes() -> Result<()> {
    let (dir, kernel) = (tempfile::tempdir()?, kernel()?);
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 512)? else { return Ok(()) };
    let work = disk.mount_point.join("work");
    let arguments =
        ["init", &kernel.release, text(&kernel.source)?, text(&work)?, "--sysroot", text(&kernel.sysroot)?];
    let words = ["the disk that holds", text(&work)?, "is full", "free some space"];
    // Too small for the source.
    ends_saying(FAILED, &arguments, &words)?;
    ensure!(finished_steps(&work)? == ["01-kernel"], "{:?}", finished_steps(&work)?);
    // Large enough for the source, too small for the objects: the compiler runs out of space.
    disk.grow(2048)?;
    let said = ends_saying(FAILED, &arguments, &words)?;
    ensure!(first_step(&said) == Some(2), "it did not go on with the second step:\n{said}");
    ensure!(finished_steps(&work)?.last().is_some_and(|step| step == "04-commands"), "{said}");
    Ok(())
}

/// Names of the stamps, in order.
fn finished_steps(work: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(work.join(".schedswap/steps"))?;
    let mut names: Vec<String> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// The numbers of the steps in what `init` said: ` 4/12 asking Kbuild for its commands (0.3 s)`.
fn steps_in(said: &str) -> Vec<u32> {
    let number = |line: &str| line.trim_start().split_once('/')?.0.parse().ok();
    said.lines().filter_map(number).collect()
}

fn first_step(said: &str) -> Option<u32> {
    steps_in(said).first().copied()
}

#[test]
fn an_interrupted_init_goes_on_where_it_stopped() -> Result<()> {
    let (dir, kernel) = (tempfile::tempdir()?, kernel()?);
    let work = dir.path().join("work");
    let arguments =
        ["init", &kernel.release, text(&kernel.source)?, text(&work)?, "--sysroot", text(&kernel.sysroot)?];
    kill_while_compiling(&arguments, &work)?;
    let finished = finished_steps(&work)?;
    ensure!(finished.len() == 4, "{finished:?}");
    let stamps = || -> Result<Vec<_>> {
        let modified =
            |step: &String| Ok(fs::metadata(work.join(".schedswap/steps").join(step))?.modified()?);
        finished.iter().map(modified).collect()
    };
    let made = stamps()?;

    // Half a work dir is not used as a complete one.
    let unfinished = ["is not complete", "step 5 (gate-build)", "run `schedswap init` again"];
    ends_saying(FAILED, &["build", text(&work)?], &unfinished)?;

    let said = ends_with(0, &arguments)?;
    ensure!(steps_in(&said) == (5..=12).collect::<Vec<u32>>(), "{said}");
    ensure!(stamps()? == made, "steps that were finished were done again");

    // Complete: nothing is left to do, and edits made meanwhile stay.
    let edited = work.join("kernel/sched/core.c");
    let code = fs::read_to_string(&edited)? + "/* mine */\n";
    fs::write(&edited, &code)?;
    let said = ends_with(0, &arguments)?;
    ensure!(steps_in(&said).is_empty(), "{said}");
    ensure!(fs::read_to_string(&edited)? == code, "init overwrote an edit");
    Ok(())
}

/// Runs the command until the first compiler runs, then kills it with all its children.
fn kill_while_compiling(arguments: &[&str], work: &Path) -> Result<()> {
    let program = env::var("SCHEDSWAP").context("SCHEDSWAP is not set; run the tests through `make test`")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let mut said = String::new();
    let lines = BufReader::new(child.stderr.take().context("piped")?).lines();
    for line in lines.map_while(Result::ok) {
        said += &line;
        said.push('\n');
        // Printed when a step is done.
        if steps_in(&line) == [4] {
            break;
        }
    }
    let objects = work.join(".schedswap/pristine/gate");
    for _ in 0..600 {
        if objects.is_dir() || child.try_wait()?.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(child.try_wait()?.is_none(), "it ended by itself:\n{said}");
    // In the middle of the work, not at its start.
    std::thread::sleep(Duration::from_millis(500));
    let group = format!("-{}", child.id());
    let status = Command::new("kill").args(["-KILL", "--", &group]).status().context("kill")?;
    ensure!(status.success(), "kill: {status}");
    child.wait()?;
    Ok(())
}

/// A function of the smallest unit, which compiles fastest.
const EDITED: (&str, &str) = ("idle.c", "pick_next_task_idle");

#[test]
fn a_compile_error_is_shown_as_the_compiler_s_own() -> Result<()> {
    let (work, _lock) = work_dir()?;
    Tree::at(&work).at_entry(EDITED.0, EDITED.1, "novel_mistake = 1;")?;
    let file = work.join("kernel/sched").join(EDITED.0);
    let code = fs::read_to_string(&file)?;
    let line = 1 + code.lines().position(|line| line.contains("novel_mistake")).context("planted")?;
    let words = [
        &format!("{}:{line}:", file.display()),
        "error: ",
        "novel_mistake",
        // The line itself, as the compiler shows it.
        &format!(" {line} |"),
    ];
    ends_saying(FAILED, &["build", text(&work)?], &words)?;
    // check compiles too.
    ends_saying(FAILED, &["check", text(&work)?], &words)?;
    Ok(())
}

#[test]
fn a_symbol_that_no_kernel_has_is_named_with_its_user() -> Result<()> {
    let (work, _lock) = work_dir()?;
    let code = "extern void novel_nowhere(void); novel_nowhere();";
    Tree::at(&work).at_entry(EDITED.0, EDITED.1, code)?;
    let before = fs::read(work.join("scheduler.ko")).ok();
    ends_saying(
        FAILED,
        &["build", text(&work)?],
        &["novel_nowhere", EDITED.1, "neither the scheduler's files nor vmlinux define"],
    )?;
    ensure!(fs::read(work.join("scheduler.ko")).ok() == before, "a module was written");
    Ok(())
}

#[test]
fn explain_says_what_it_does_not_know() -> Result<()> {
    let (work, _lock) = work_dir()?;
    ends_with(0, &["explain", text(&work)?, "schedule"])?;
    let words = ["no function or variable novel_nowhere", &kernel()?.release, "boundary.txt"];
    ends_saying(FAILED, &["explain", text(&work)?, "novel_nowhere"], &words)?;
    Ok(())
}

/// The commands, as `--help` lists them.
fn commands() -> Result<Vec<String>> {
    let help = String::from_utf8(schedswap(&["--help"])?.stdout)?;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.trim().is_empty());
    // The description of a command may continue on lines that are indented further.
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<String> =
        names.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect();
    ensure!(names.len() > 5 && names.contains(&"init".to_owned()), "{help}");
    // clap's own command; it has neither a page nor options.
    Ok(names.into_iter().filter(|name| name != "help").collect())
}

#[test]
fn wrong_usage_ends_with_2() -> Result<()> {
    for arguments in [
        &[][..],
        &["swap"],
        &["--swap"],
        &["init"],
        &["init", "release", "source"],
        &["init", "release", "source", "work", "more"],
        &["build"],
        &["build", "work", "--no-such-option"],
        &["explain", "work"],
        &["try", "work", "--cpus", "many"],
        &["completions", "no-such-shell"],
    ] {
        let said = ends_with(USAGE, arguments)?;
        ensure!(said.contains("Usage: schedswap") || said.contains("try '--help'"), "{arguments:?}: {said}");
    }
    Ok(())
}

#[test]
fn every_command_has_its_help_completion_and_manual_page() -> Result<()> {
    let commands = commands()?;
    for shell in ["bash", "zsh", "fish"] {
        let output = schedswap(&["completions", shell])?;
        let script = String::from_utf8(output.stdout)?;
        ensure!(output.status.success(), "completions {shell}: {}", output.status);
        for command in &commands {
            ensure!(script.contains(command.as_str()), "{command} is not in the completions for {shell}");
        }
    }
    let dir = tempfile::tempdir()?;
    let pages = dir.path().join("new/man1");
    ends_with(0, &["man", text(&pages)?])?;
    for command in &commands {
        let help = String::from_utf8(schedswap(&[command, "--help"])?.stdout)?;
        ensure!(help.contains(&format!("Usage: schedswap {command}")), "{help}");
        let page = fs::read_to_string(pages.join(format!("schedswap-{command}.1")))
            .with_context(|| format!("the manual page of {command}"))?;
        let summary = help.lines().next().unwrap_or_default();
        let first_word = summary.split_whitespace().next().context("a summary")?;
        ensure!(page.contains(".SH NAME") && page.contains(first_word), "{page}");
    }
    let page = fs::read_to_string(pages.join("schedswap.1"))?;
    let names = |command: &String| page.contains(&format!("schedswap\\-{}", command.replace('-', "\\-")));
    ensure!(commands.iter().all(names), "{page}");
    Ok(())
}

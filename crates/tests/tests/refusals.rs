//! What must be refused in a running kernel: each with the right words, and with nothing changed.
//!
//! One guest serves all cases, because a refusal leaves the kernel as it was, so that the next case starts from the
//! same state. Each case checks that: the kernel's text and scheduling classes byte by byte, its features, and
//! whether a module is loaded.

use anyhow::{Context, Result, bail, ensure};
use schedswap_guest::{Guest, Running, memory::Memory};
use schedswap_payload::report::{Attempt, Outcome, Report};
use schedswap_payload::sysfs::Blocker;
use schedswap_sched::boundary::{self, Boundary, BoundaryFunction, Fate};
use schedswap_tests::{Built, MODULE, guest, image, pristine};
use std::fs;
use std::time::Duration;

/// Copies of the module with one thing changed.
const WRONG_ID: &str = "/schedswap/wrong-id.ko";
const WRONG_ID_INSIDE: &str = "/schedswap/wrong-id-inside.ko";
const WRONG_RELEASE: &str = "/schedswap/wrong-release.ko";
const RENAMED: &str = "/schedswap/renamed.ko";

/// Patience for what is meant to work: on a busy host threads are in the way for long.
const PATIENT: &str = "--retries 30 --wait 1s";
/// Patience for what is not meant to work: more than one attempt, but soon over.
const IMPATIENT: &str = "--retries 2 --wait 200ms";

#[test]
fn every_refusal_says_why_and_changes_nothing() -> Result<()> {
    let module = pristine()?;
    let boundary = boundary::compute(image(), &schedswap_sched::config::Config::default())?;
    let name = module.manifest()?.module_name;
    let machine = Machine { guest: boot(&module, &name)?, boundary, name };
    machine.prepare()?;

    machine.wrong_build_id().context("a wrong build-id")?;
    machine.wrong_release().context("a wrong release")?;
    machine.kprobe_in_a_window().context("a kprobe inside a patch window")?;
    machine.parked_thread().context("a thread parked in a function to be replaced")?;

    // What was refused before now works.
    machine.install()?;
    machine.save("loaded")?;
    machine.second_load().context("a second load")?;
    machine.rmmod_while_enabled().context("rmmod while enabled")?;
    machine.kprobe_in_a_jump().context("a kprobe on a jump that unload would take away")?;
    machine.parked_thread_while_loaded().context("a thread parked in the module")?;
    machine.guest.shutdown()?;
    Ok(())
}

/// Boots with the module and the altered copies of it.
fn boot(module: &Built, name: &str) -> Result<Guest> {
    let bytes = fs::read(module.module())?;
    let id = image().build_id.clone();
    let mut other_id = id.clone();
    other_id[0] ^= 0xff;
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes();
    let (release, other_release) = (image().release.as_bytes(), image().release.replace('.', "_"));

    let wrong_id_inside = replace_all(&bytes, &id, &other_id)?;
    let wrong_id = replace_all(&wrong_id_inside, &hex(&id), &hex(&other_id))?;
    let vermagic = |release: &[u8]| [b"vermagic=", release].concat();
    let wrong_release = replace_all(&bytes, &vermagic(release), &vermagic(other_release.as_bytes()))?;
    // struct module's name, and modinfo's; both are followed by a zero.
    let other_name = other_name(name);
    let in_struct = |name: &str| format!("\0{name}\0").into_bytes();
    let in_modinfo = |name: &str| format!("name={name}\0").into_bytes();
    let renamed = replace_all(&bytes, &in_struct(name), &in_struct(&other_name))?;
    let renamed = replace_all(&renamed, &in_modinfo(name), &in_modinfo(&other_name))?;
    guest(module, |config| {
        for (path, bytes) in [
            (WRONG_ID_INSIDE, &wrong_id_inside),
            (WRONG_ID, &wrong_id),
            (WRONG_RELEASE, &wrong_release),
            (RENAMED, &renamed),
        ] {
            config.initramfs.bytes(path, bytes, 0o644);
        }
    })
}

/// A name that another version could have.
fn other_name(name: &str) -> String {
    format!("{}X", &name[..name.len() - 1])
}

/// Bytes with every `old` replaced by a `new` of the same length; there must be at least one.
fn replace_all(bytes: &[u8], old: &[u8], new: &[u8]) -> Result<Vec<u8>> {
    assert_eq!(old.len(), new.len());
    let mut bytes = bytes.to_vec();
    let mut found = 0;
    let mut at = 0;
    while let Some(next) = bytes[at..].windows(old.len()).position(|window| window == old) {
        bytes[at + next..][..new.len()].copy_from_slice(new);
        at += next + new.len();
        found += 1;
    }
    ensure!(found > 0, "the module does not hold {:?}", String::from_utf8_lossy(old));
    Ok(bytes)
}

/// What must be true of a kernel without, and with, the scheduler.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Stock,
    Loaded,
}

struct Machine {
    guest: Guest,
    boundary: Boundary,
    /// Of the module, in the kernel.
    name: String,
}

impl Machine {
    fn prepare(&self) -> Result<()> {
        let memory = Memory::of(image());
        self.guest.put("/tmp/ranges", memory.ranges.as_bytes(), 0o644)?;
        self.guest.put("/tmp/ignore", memory.ignore.as_bytes(), 0o644)?;
        self.guest.put("/tmp/anchor", memory.anchor.as_bytes(), 0o644)?;
        self.save("stock")
    }

    /// Saves the kernel's memory and its features.
    fn save(&self, name: &str) -> Result<()> {
        self.guest.sh(&format!(
            "guest-load kcore save --ranges /tmp/ranges --anchor $(cat /tmp/anchor) /tmp/memory-{name} && \
             cat /sys/kernel/debug/sched/features >/tmp/features-{name}"
        ))?;
        Ok(())
    }

    /// The kernel is as it was when that state was saved.
    fn assert_unchanged(&self, state: State) -> Result<()> {
        let (name, there) = match state {
            State::Stock => ("stock", "! [ -e /sys/kernel/schedswap ] && ! [ -e /sys/module/scheduler ]"),
            State::Loaded => ("loaded", "[ \"$(cat /sys/kernel/schedswap/state)\" = enabled ]"),
        };
        self.guest.sh(there).context("the module is not where it should be")?;
        self.save("now")?;
        let memory =
            format!("guest-load kcore compare --ignore /tmp/ignore /tmp/memory-{name} /tmp/memory-now");
        self.guest.sh(&memory).context("the kernel's memory has changed")?;
        self.guest
            .sh(&format!("diff /tmp/features-{name} /tmp/features-now"))
            .context("features have changed")?;
        Ok(())
    }

    /// Runs the loader; its exit status and its report must agree.
    fn loader(&self, arguments: &str) -> Result<Report> {
        let output = self.guest.run(&format!("loader --json {arguments}"))?;
        let report: Report = serde_json::from_str(output.stdout.trim())
            .with_context(|| format!("loader {arguments}: {}{}", output.stdout, output.stderr))?;
        let status = match report.outcome {
            Outcome::Ok => 0,
            Outcome::Failed => 1,
            Outcome::Refused => 3,
        };
        ensure!(output.status == status, "exit status {} with {report:?}", output.status);
        Ok(report)
    }

    /// Runs the loader, which must refuse with each of `words` (in its own messages or the kernel's).
    fn refused(&self, arguments: &str, words: &[&str]) -> Result<Report> {
        let report = self.loader(arguments)?;
        ensure!(report.outcome == Outcome::Refused, "{arguments}: {report:?}");
        let said = [report.errors.clone(), report.kernel_log.clone()].concat().join("\n");
        says(&said, words)?;
        Ok(report)
    }

    /// Loads a module without the loader, switching at once, which must fail; the kernel log must say why.
    fn insmod_refused(&self, path: &str, words: &[&str]) -> Result<()> {
        let lines = || self.guest.sh("dmesg | wc -l");
        let before = lines()?;
        let output = self.guest.run(&format!("insmod {path}"))?;
        ensure!(output.status != 0, "insmod {path} was not refused");
        let log = self.guest.sh(&format!("dmesg | tail -n +{before}"))?;
        says(&format!("{}{log}", output.stderr), words)
    }

    fn install(&self) -> Result<()> {
        let report = self.loader(&format!("install {MODULE} {PATIENT}"))?;
        ensure!(report.outcome == Outcome::Ok, "{report:?}");
        Ok(())
    }

    fn uninstall(&self) -> Result<()> {
        let report = self.loader(&format!("uninstall {PATIENT}"))?;
        ensure!(report.outcome == Outcome::Ok, "{report:?}");
        self.assert_unchanged(State::Stock)
    }

    fn wrong_build_id(&self) -> Result<()> {
        let running = image().build_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        self.refused(&format!("install {WRONG_ID}"), &[&running, "the module was built for", "other build"])?;
        // The loader reads modinfo; the module checks itself, whichever program loads it.
        let words = ["built for the kernel with build id", &running];
        self.refused(&format!("install {WRONG_ID_INSIDE}"), &[&words[..], &["refused to load"]].concat())?;
        self.insmod_refused(WRONG_ID, &[&words[..], &["Invalid argument"]].concat())?;
        self.assert_unchanged(State::Stock)
    }

    fn wrong_release(&self) -> Result<()> {
        self.refused(&format!("install {WRONG_RELEASE}"), &["the module is for kernel", &image().release])?;
        self.assert_unchanged(State::Stock)
    }

    /// A function with a unique name that is diverted after ftrace's nop.
    fn probed(&self) -> Result<(&BoundaryFunction, u64)> {
        let fits = |f: &&BoundaryFunction| {
            matches!(&f.fate, Fate::Divert(site) if site.after_fentry)
                && f.exported
                && image().symbols_named(&f.name).len() == 1
        };
        let function = self.boundary.functions.iter().find(fits).context("an exported function")?;
        let Fate::Divert(site) = &function.fate else { bail!("it is diverted") };
        Ok((function, site.at - function.addr))
    }

    fn kprobe_in_a_window(&self) -> Result<()> {
        let (function, window) = self.probed()?;
        let name = &function.name;
        let words = |offset: u64| {
            let held = format!("{name} is held by a kprobe at {name}+{offset:#x}");
            [held, "another patcher".to_owned(), "Remove it and try again".to_owned()]
        };
        let refused = |offset: u64| -> Result<()> {
            let words = words(offset);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            self.refused(&format!("install {MODULE}"), &words)?;
            self.insmod_refused(MODULE, &[words[0]])
        };
        // Armed, at the window's first byte.
        self.set_kprobe(&format!("{name}+{window}"))?;
        self.guest.sh("echo 1 >/sys/kernel/tracing/events/kprobes/held/enable")?;
        refused(window)?;
        self.remove_kprobe()?;
        self.assert_unchanged(State::Stock)?;
        // Only registered, so the bytes are intact; at the second instruction, whichever it is.
        for offset in window + 1..window + 5 {
            if self.set_kprobe(&format!("{name}+{offset}")).is_ok() {
                refused(window)?;
                self.remove_kprobe()?;
                return self.assert_unchanged(State::Stock);
            }
        }
        bail!("no instruction begins within {name}'s window")
    }

    fn set_kprobe(&self, place: &str) -> Result<()> {
        self.guest.sh(&format!("echo 'p:kprobes/held {place}' >/sys/kernel/tracing/kprobe_events"))?;
        Ok(())
    }

    fn remove_kprobe(&self) -> Result<()> {
        // The event exists whether enabled or not; an enabled one cannot be removed.
        self.guest.sh(
            "echo 0 >/sys/kernel/tracing/events/kprobes/held/enable && echo >/sys/kernel/tracing/kprobe_events",
        )?;
        Ok(())
    }

    /// The jump itself is an instruction that may be probed; unload must not overwrite the probe's int3.
    fn kprobe_in_a_jump(&self) -> Result<()> {
        let (function, window) = self.probed()?;
        let name = &function.name;
        self.set_kprobe(&format!("{name}+{window}"))?;
        let held = format!("{name} is held by a kprobe at {name}+{window:#x}");
        self.refused("uninstall", &[&held, "Remove it and try again"])?;
        self.remove_kprobe()?;
        self.assert_unchanged(State::Loaded)
    }

    /// Parks a thread; returns the command that holds it, the thread's id, and its stack.
    fn park(&self) -> Result<(Running, u32, String)> {
        self.guest.sh("rm -f /run/parked /run/release")?;
        let command = "exec guest-load park --ready /run/parked --until-file /run/release";
        let parked = self.guest.start(command, Duration::from_secs(300))?;
        let wait =
            "for i in $(seq 600); do [ -s /run/parked ] && exec cat /run/parked; sleep 0.05; done; exit 1";
        let Ok(thread) = self.guest.sh(wait) else { bail!("not parked: {:?}", self.guest.finish(parked)?) };
        let stack = self.guest.sh(&format!("cat /proc/{thread}/stack"))?;
        Ok((parked, thread.parse()?, stack))
    }

    fn release(&self, parked: Running) -> Result<()> {
        self.guest.sh("touch /run/release")?;
        let output = self.guest.finish(parked)?;
        ensure!(output.status == 0, "the parked system call failed: {}", output.stderr);
        Ok(())
    }

    /// Runs the loader, which must give up because of the parked thread after several attempts.
    fn refused_for(&self, arguments: &str, thread: u32, function: &str) -> Result<()> {
        let named = format!("guest-load (thread {thread}) in {function}");
        let words = ["given up after 3 attempts", &named, "Nothing was changed"];
        let report = self.refused(&format!("{arguments} {IMPATIENT}"), &words)?;
        ensure!(report.attempts.len() == 3, "{report:?}");
        let blocker = Blocker { comm: "guest-load".into(), pid: thread, function: function.into() };
        for attempt in &report.attempts {
            ensure!(
                matches!(attempt, Attempt::Busy { blockers } if blockers.contains(&blocker)),
                "{blocker} is not among {attempt:?}"
            );
        }
        Ok(())
    }

    fn parked_thread(&self) -> Result<()> {
        let (parked, thread, stack) = self.park()?;
        // The blocker by the kernel's own account: the first function on the stack that is to be diverted.
        let diverted = |name: &&str| {
            let mut functions = self.boundary.functions.iter();
            functions.any(|f| f.name == *name && matches!(f.fate, Fate::Divert(_)))
        };
        let function = functions_of(&stack).find(diverted).with_context(|| stack.clone())?;
        self.refused_for(&format!("install {MODULE}"), thread, function)?;
        self.insmod_refused(MODULE, &[&format!("busy: guest-load {thread} {function}")])?;
        self.assert_unchanged(State::Stock)?;
        self.release(parked)?;
        self.install()?;
        self.uninstall()
    }

    fn parked_thread_while_loaded(&self) -> Result<()> {
        let (parked, thread, stack) = self.park()?;
        let line = stack
            .lines()
            .find(|line| line.contains(&format!("[{}]", self.name)))
            .with_context(|| stack.clone())?;
        let function = functions_of(line).next().with_context(|| stack.clone())?;
        self.refused_for("uninstall", thread, &format!("{function} [{}]", self.name))?;
        self.assert_unchanged(State::Loaded)?;
        self.release(parked)?;
        self.uninstall()
    }

    fn second_load(&self) -> Result<()> {
        self.refused(
            &format!("install {MODULE}"),
            &["is loaded already (enabled)", "run `uninstall` first"],
        )?;
        self.insmod_refused(MODULE, &["File exists"])?;
        // Under another name the kernel would accept it; the module checks itself.
        self.insmod_refused(RENAMED, &["refused: a scheduler is already loaded", "File exists"])?;
        self.guest.sh(&format!("! [ -e /sys/module/{} ]", other_name(&self.name)))?;
        self.assert_unchanged(State::Loaded)
    }

    fn rmmod_while_enabled(&self) -> Result<()> {
        let output = self.guest.run(&format!("rmmod {}", self.name))?;
        ensure!(output.status != 0, "rmmod took away a scheduler that runs");
        says(&output.stderr, &[&self.name, "Resource temporarily unavailable"])?;
        self.assert_unchanged(State::Loaded)
    }
}

/// The functions of lines such as `[<0>] handle_userfault+0x2ca/0x6c0`.
fn functions_of(stack: &str) -> impl Iterator<Item = &str> {
    stack.lines().filter_map(|line| line.split_whitespace().nth(1)?.split('+').next())
}

/// Succeeds if the text contains each of the words.
fn says(text: &str, words: &[&str]) -> Result<()> {
    match words.iter().find(|word| !text.contains(**word)) {
        Some(missing) => bail!("{missing:?} is not said in:\n{text}"),
        None => Ok(()),
    }
}

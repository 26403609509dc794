//! `schedswap try`: boots the kernel in QEMU and swaps its scheduler there, under load.

mod json;
mod report;

use crate::outcome::Outcome;
use crate::progress::Shown;
use crate::work_dir::open;
use anyhow::{Context, bail};
use clap::Args;
use json::Measured;
use report::{cycle_line, summary};
use schedswap_guest::memory::Memory;
use schedswap_guest::scenario::{Cycle, CycleResult, Event, Findings, MODULE_PATH, Scenario};
use schedswap_guest::{Config, Guest, Initramfs, Stream, Tools, Usage};
use schedswap_host::progress::Progress;
use schedswap_kernel::vmlinux::Machine;
use schedswap_payload::manifest;
use schedswap_sdk::Workdir;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a script given with --run lies in the guest.
const SCRIPT_PATH: &str = "/schedswap/script";

/// Boot the kernel in QEMU and swap its scheduler live, under load
///
/// Without --run: puts a mixed load on the guest (CFS, FIFO, RR, DEADLINE, cgroup quotas, forks, pipes, affinity
/// changes, sleepers) and watches it on the kernel's own scheduler. Then loads and unloads the scheduler --cycles
/// times, and checks each time that every kind of load makes progress and that the scheduler's features are as they should
/// be; at the end, that the kernel's text and scheduling classes are byte for byte what they were. Any complaint of
/// the kernel on its console is a failure. The longest stand-still of each kind of load is shown beside that of the
/// same load before the first swap.
///
/// With --run: runs a script in the guest instead, with `loader` in its PATH and the module in $SCHEDSWAP_MODULE
/// (/schedswap/scheduler.ko); the script's exit status is this command's, unless the kernel complained.
///
/// The exit status is 3 if the loader's safety checks refused to load the scheduler, or threads were in the way in
/// every cycle.
#[derive(Args, Debug)]
pub struct TryArgs {
    /// The work dir, built
    work_dir: PathBuf,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: u32,
    /// The processor to emulate, as QEMU names it (`qemu-system-x86_64 -cpu help` lists them), to try what the kernel
    /// does only on one vendor's processors [default: everything that the emulator has]
    #[arg(long, value_name = "MODEL")]
    cpu: Option<String>,
    /// Memory, MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(256..))]
    memory: u32,
    /// Sleeping threads, besides those of the load
    #[arg(long, value_name = "N", default_value_t = 500)]
    threads: u64,
    /// Times to load and unload
    #[arg(long, value_name = "N", default_value_t = 3)]
    cycles: u32,
    /// Seconds for which the scheduler stays loaded in each cycle, at least
    #[arg(long, value_name = "N", default_value_t = 1)]
    seconds: u64,
    /// How long to watch the load on the kernel's own scheduler before the first swap, at least
    #[arg(long, value_name = "SECONDS", default_value_t = 15, conflicts_with = "no_load")]
    baseline: u64,
    /// No load: only the sleepers
    #[arg(long)]
    no_load: bool,
    /// Let the guest's clock count instructions, 2^N ns each: slower, but the figures then do not depend on what else
    /// this machine does
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=10))]
    icount: Option<u8>,
    /// Emulate each CPU on a thread of its own, so that they run at the same time; the emulator may hang when the
    /// kernel patches its code
    #[arg(long, conflicts_with = "icount")]
    parallel: bool,
    /// A kernel parameter, or several in one argument; may be given more than once
    #[arg(long, value_name = "PARAM", allow_hyphen_values = true)]
    append: Vec<String>,
    /// A script on this machine to run in the guest instead
    #[arg(long, value_name = "SCRIPT", conflicts_with_all = ["cycles", "threads", "no_load", "seconds", "baseline"])]
    run: Option<PathBuf>,
    /// A program on this machine to copy into the guest with its libraries: a path, a name in PATH, or a directory; may
    /// be given more than once
    #[arg(long, value_name = "PROG")]
    with: Vec<String>,
    /// Where to keep the guest's console
    #[arg(long, value_name = "FILE")]
    console: Option<PathBuf>,
    /// Write what was measured to FILE as JSON: an object whose `cycles` has one record for each cycle
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seconds after which the guest is ended; the command then fails
    #[arg(long, value_name = "N", default_value_t = 900)]
    time_limit: u64,
    /// Where to look for the static busybox that `fetch` downloads [default: as for fetch]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: TryArgs) -> anyhow::Result<Outcome> {
    let work = open(&args.work_dir)?;
    let module = work.module();
    if !module.is_file() {
        bail!("there is no {}; run `schedswap build {}` first", module.display(), args.work_dir.display());
    }
    let mut config = guest_config(&args, &work, &module)?;
    let memory = if args.run.is_none() { Some(memory_of(&work)?) } else { None };
    if let Some(memory) = &memory {
        memory.put_into(&mut config.initramfs);
    }
    let release = &work.kernel().release;
    eprintln!("booting {release} with {} CPUs and {} MiB", args.cpus, args.memory);
    let guest = Guest::launch(config)?;
    eprintln!("up after {:.1} s", guest.usage().boot.as_secs_f64());
    let (findings, script_status) = match args.run {
        Some(_) => (None, Some(run_script(&guest, Duration::from_secs(args.time_limit))?)),
        None => (Some(swap(&args, &guest, memory)?), None),
    };
    // Also after a script that failed: a complaint of the kernel explains it better.
    let usage = guest.shutdown()?;
    if let Some(path) = &args.json {
        Measured::new(&args, release, findings.as_ref(), script_status, usage).write(path)?;
    }
    if let Some(findings) = &findings {
        print!("{}", summary(findings));
    }
    show_usage(usage);
    Ok(match (script_status, &findings) {
        (Some(0), _) => Outcome::Done,
        (Some(status), _) => Outcome::Script(u8::try_from(status).unwrap_or(u8::MAX)),
        (None, Some(findings)) => outcome(findings),
        (None, None) => Outcome::Done,
    })
}

/// What no swap may leave changed.
fn memory_of(work: &Workdir) -> anyhow::Result<Memory> {
    let progress = Shown::on_stderr();
    progress.begin("reading vmlinux", None);
    let memory = Memory::of(&work.image()?);
    progress.end("");
    Ok(memory)
}

fn show_usage(usage: Usage) {
    eprintln!(
        "the guest ran for {:.0} s, took {:.0} s of processor time and at most {} MiB; the kernel did not complain",
        usage.wall.as_secs_f64(),
        usage.cpu.as_secs_f64(),
        usage.peak_rss_bytes >> 20
    );
}

/// A scheduler that could not be loaded once was refused by the loader's check of the stacks.
fn outcome(findings: &Findings) -> Outcome {
    let busy = |cycle: &Cycle| cycle.result == CycleResult::Busy;
    if findings.cycles.is_empty() || !findings.cycles.iter().all(busy) {
        return Outcome::Done;
    }
    eprintln!(
        "schedswap: the scheduler could not be loaded once: threads were in the way at every try (see above); try again \
         with more --cycles, or with less load"
    );
    Outcome::Refused
}

fn guest_config(args: &TryArgs, work: &Workdir, module: &Path) -> anyhow::Result<Config> {
    let Some(kernel) = &work.config().bzimage else {
        bail!(
            "no image of {release} to boot was found when the work dir was made; it is in the package \
             linux-image-{release} (Debian) or kernel-core-{release} (rpm): unpack it below the sysroot and run \
             `schedswap init` again",
            release = work.kernel().release
        );
    };
    let machine = Machine::named(&work.kernel().machine).or(Machine::host());
    let mut initramfs = Initramfs::new(&tools(args, machine.unwrap_or(Machine::X86_64))?)?;
    initramfs.copy(module, MODULE_PATH)?;
    let manifest = module.with_file_name(manifest::FILE_NAME);
    if manifest.is_file() {
        initramfs.copy(&manifest, &format!("/schedswap/{}", manifest::FILE_NAME))?;
    }
    for program in &args.with {
        initramfs.program(program)?;
    }
    if let Some(script) = &args.run {
        let bytes = fs::read(script).with_context(|| format!("cannot read {}", script.display()))?;
        initramfs.bytes(SCRIPT_PATH, &bytes, 0o755);
        initramfs.interpreter_of(script)?;
    }
    let mut config = Config::new(kernel, initramfs);
    config.cpus = args.cpus;
    config.memory_mib = args.memory;
    if let Some(model) = &args.cpu {
        config.cpu_model.clone_from(model);
    }
    config.icount = args.icount;
    config.parallel = args.parallel;
    config.append = args.append.clone();
    config.console = args.console.clone();
    config.time_limit = Duration::from_secs(args.time_limit);
    Ok(config)
}

/// busybox from the cache is preferred to the machine's own, because it is certainly static.
fn tools(args: &TryArgs, machine: Machine) -> anyhow::Result<Tools> {
    let cache = match &args.cache {
        Some(root) => Some(schedswap_source::Cache::at(root)),
        None => schedswap_source::Cache::from_environment().ok(),
    };
    let busybox = cache.and_then(|cache| cache.busybox_for(machine.name()));
    let tools = Tools::find_for(machine, busybox.as_deref())?;
    if tools.loader.is_none() {
        bail!(
            "schedswap-loader was not found: run `make`, or set SCHEDSWAP_LIBEXEC to the directory that holds it"
        );
    }
    Ok(tools)
}

/// Runs the script and passes its output on as it comes; returns its status.
fn run_script(guest: &Guest, limit: Duration) -> anyhow::Result<i32> {
    let command = format!("cd /root && SCHEDSWAP_MODULE={MODULE_PATH} exec {SCRIPT_PATH}");
    let running = guest.start(&command, limit)?;
    let status = guest.finish_streaming(running, |stream, bytes| {
        // If the pipe is closed, nobody wants the rest; the script continues and its status counts.
        let _ = match stream {
            Stream::Stdout => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
            Stream::Stderr => std::io::stderr().write_all(bytes),
        };
    })?;
    Ok(status)
}

fn swap(args: &TryArgs, guest: &Guest, memory: Option<Memory>) -> anyhow::Result<Findings> {
    let scenario = Scenario {
        cycles: args.cycles,
        threads: args.threads,
        load: !args.no_load,
        baseline: Duration::from_secs(if args.no_load { 0 } else { args.baseline }),
        hold: Duration::from_secs(args.seconds),
        hotplug: None,
        memory,
        limit: Duration::from_secs(args.time_limit),
    };
    let what = if args.no_load { "no load" } else { "mixed load" };
    let progress = Shown::on_stderr();
    progress.begin(&format!("{what} and {} sleeping threads", args.threads), None);
    let findings = scenario.run(guest, |event| match event {
        Event::LoadRuns(_) => progress.end(""),
        Event::BaselineBegins => progress.begin("the same on the kernel's own scheduler", None),
        Event::BaselineEnds => progress.end(""),
        Event::Cycle(cycle) => println!("{}", cycle_line(cycle, args.cycles)),
    })?;
    Ok(findings)
}

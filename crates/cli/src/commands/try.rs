//! `schedswap try`: boots the kernel in QEMU and swaps its scheduler there, under load.

use crate::outcome::Outcome;
use anyhow::{Context, bail};
use clap::Args;
use schedswap_guest::memory::Memory;
use schedswap_guest::scenario::{Cycle, CycleResult, Event, Findings, MODULE_PATH, Scenario};
use schedswap_guest::{Config, Guest, Initramfs, Stream, Tools, Usage};
use schedswap_kernel::vmlinux::Machine;
use schedswap_payload::manifest;
use schedswap_payload::sysfs::Timing;
use schedswap_sdk::workdir::Workdir;
use serde::Serialize;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a script given with --run lies in the guest.
const SCRIPT_PATH: &str = "/schedswap/script";

/// Boot the kernel in QEMU and swap its scheduler live, under load
///
/// Without --run: puts a mixed load on the guest (CFS, FIFO, RR, DEADLINE, cgroup quotas, forks, pipes,
/// affinity changes, sleepers), loads and unloads the scheduler --cycles times, checks each time that every
/// kind of load gets on and that the scheduler's features are as they should be, and at the end that the
/// kernel's text and scheduling classes are byte for byte what they were. Any complaint of the kernel on its
/// console is a failure.
///
/// With --run: runs a script in the guest instead, with `loader` in its PATH and the module in
/// $SCHEDSWAP_MODULE (/schedswap/scheduler.ko); the script's exit status is this command's, unless the kernel
/// complained.
#[derive(Args, Debug)]
pub struct TryArgs {
    /// The work dir, built
    work_dir: PathBuf,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: u32,
    /// The processor to emulate, in QEMU's words (`-cpu help` lists them): a vendor's, for what the kernel does on that
    /// vendor's only [default: all that the emulator has]
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
    /// How long the scheduler stays loaded in each cycle, at least
    #[arg(long, value_name = "N", default_value_t = 1)]
    seconds: u64,
    /// No load: only the sleepers
    #[arg(long)]
    no_load: bool,
    /// Let the guest's time count instructions, 2^N ns each: slower, but what else the host does is not in the
    /// figures
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=10))]
    icount: Option<u8>,
    /// Emulate each CPU on a thread of this machine, so that they truly run at once; the emulator may hang where the
    /// kernel patches its code
    #[arg(long, conflicts_with = "icount")]
    parallel: bool,
    /// A kernel parameter; may be given more than once, and hold several
    #[arg(long, value_name = "PARAM", allow_hyphen_values = true)]
    append: Vec<String>,
    /// A script of this machine to run in the guest instead
    #[arg(long, value_name = "SCRIPT", conflicts_with_all = ["cycles", "threads", "no_load", "seconds"])]
    run: Option<PathBuf>,
    /// A program of this machine to take along with its libraries: a path, a name in PATH, or a directory;
    /// may be given more than once
    #[arg(long, value_name = "PROG")]
    with: Vec<String>,
    /// Where to keep the guest's console
    #[arg(long, value_name = "FILE")]
    console: Option<PathBuf>,
    /// Where to write what was measured: an object whose `cycles` has a record a cycle
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seconds after which the guest is ended, and that is a failure
    #[arg(long, value_name = "N", default_value_t = 900)]
    time_limit: u64,
    /// Where to look for the static busybox that `fetch` gets [default: as for fetch]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

/// The file that --json names.
#[derive(Serialize)]
struct Measured<'a> {
    release: &'a str,
    cpus: u32,
    memory_mib: u32,
    #[serde(flatten)]
    findings: Option<&'a Findings>,
    script_status: Option<i32>,
    boot_seconds: f64,
    wall_seconds: f64,
    qemu_cpu_seconds: f64,
    qemu_peak_rss_bytes: u64,
}

/// Runs the command.
pub fn run(args: TryArgs) -> anyhow::Result<Outcome> {
    let work = Workdir::open(&args.work_dir)?;
    if let Some(warning) = work.warning() {
        eprintln!("warning: {warning}");
    }
    let module = work.module();
    if !module.is_file() {
        bail!("there is no {}; run `schedswap build {}` first", module.display(), args.work_dir.display());
    }
    let release = work.kernel().release.clone();
    let mut config = guest_config(&args, &work, &module)?;
    let memory = if args.run.is_none() { Some(Memory::of(&work.image()?)) } else { None };
    if let Some(memory) = &memory {
        memory.put_into(&mut config.initramfs);
    }

    eprintln!("booting {release} with {} CPUs and {} MiB", args.cpus, args.memory);
    let guest = Guest::launch(config)?;
    eprintln!("up after {:.1} s", guest.usage().boot.as_secs_f64());
    let (findings, script_status) = match args.run {
        Some(_) => (None, Some(run_script(&guest, Duration::from_secs(args.time_limit))?)),
        None => (Some(swap(&args, &guest, memory)?), None),
    };
    // Also after a script that failed: a complaint of the kernel is the better explanation.
    let usage = guest.shutdown()?;
    if let Some(path) = &args.json {
        write_json(path, &args, &release, findings.as_ref(), script_status, usage)?;
    }
    if let Some(findings) = &findings {
        print!("{}", summary(findings));
    }
    eprintln!(
        "the guest ran for {:.0} s, took {:.0} s of processor time and at most {} MiB; the kernel did not complain",
        usage.wall.as_secs_f64(),
        usage.cpu.as_secs_f64(),
        usage.peak_rss_bytes >> 20
    );
    match (script_status, &findings) {
        (Some(0), _) => Ok(Outcome::Done),
        (Some(status), _) => Ok(Outcome::Script(u8::try_from(status).unwrap_or(u8::MAX))),
        (None, Some(findings))
            if findings.cycles.iter().all(|c| c.result == CycleResult::Busy) && args.cycles > 0 =>
        {
            bail!("the scheduler could not be loaded once: threads were in the way each time (see above)")
        }
        _ => Ok(Outcome::Done),
    }
}

fn guest_config(args: &TryArgs, work: &Workdir, module: &Path) -> anyhow::Result<Config> {
    let Some(kernel) = &work.config().bzimage else {
        bail!(
            "the work dir knows no image to boot: it is in the package linux-image-{release} (Debian) or \
             kernel-core-{release} (rpm); unpack it below the sysroot and run `schedswap init` again",
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

/// busybox from the cache goes before the machine's own: it is static for certain.
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
        // Who closed the pipe does not want the rest; the script goes on and its status counts.
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
        hold: Duration::from_secs(args.seconds),
        hotplug: None,
        memory,
        limit: Duration::from_secs(args.time_limit),
    };
    let what = if args.no_load { "no load" } else { "mixed load" };
    let findings = scenario.run(guest, |event| match event {
        Event::LoadRuns(sleepers) => eprintln!("{what} and {sleepers} sleeping threads"),
        Event::Cycle(cycle) => println!("{}", cycle_line(cycle, args.cycles)),
    })?;
    Ok(findings)
}

fn cycle_line(cycle: &Cycle, cycles: u32) -> String {
    let head = format!("cycle {:>2}/{cycles}", cycle.cycle);
    let by = cycle.busy_by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let busy = match (cycle.busy_tries, by.as_str()) {
        (0, _) => String::new(),
        (tries, by) => format!("; in the way at {tries} tries: {by}"),
    };
    match (&cycle.load, &cycle.unload) {
        (Some(load), Some(unload)) => format!(
            "{head}: ok, {} threads, stop {} in, {} out{busy}",
            load.threads,
            milliseconds(load.stop_ns),
            milliseconds(unload.stop_ns)
        ),
        _ => format!("{head}: busy{busy}"),
    }
}

fn milliseconds(ns: u64) -> String {
    format!("{:.3} ms", ns as f64 / 1e6)
}

type Part = (&'static str, fn(&Timing) -> u64);

/// Rows of the table, in the order in which they happen.
const PARTS: [Part; 7] = [
    ("check before the stop", |t| t.check_outside_ns),
    ("stop", |t| t.stop_ns),
    ("  handler", |t| t.handler_ns),
    ("    stack check", |t| t.stack_check_ns),
    ("    dequeue", |t| t.dequeue_ns),
    ("    patch", |t| t.patch_ns),
    ("    enqueue", |t| t.enqueue_ns),
];

/// The findings as text: a table of times, and what was checked.
fn summary(findings: &Findings) -> String {
    let mut text = String::new();
    let loads: Vec<&Timing> = findings.cycles.iter().filter_map(|c| c.load.as_ref()).collect();
    let unloads: Vec<&Timing> = findings.cycles.iter().filter_map(|c| c.unload.as_ref()).collect();
    if !loads.is_empty() && !unloads.is_empty() {
        text += &format!("{:24}{:^33}  {:^33}\n", "ms", "load", "unload");
        let heads = format!("{:>11}{:>11}{:>11}", "min", "median", "max");
        text += &format!("{:24}{heads}  {heads}\n", "");
        for (name, value) in PARTS {
            text += &format!("{name:24}{}  {}\n", spread(&loads, value), spread(&unloads, value));
        }
    }
    let ok = findings.cycles.iter().filter(|c| c.result == CycleResult::Ok).count();
    let busy = findings.cycles.len() - ok;
    text += &format!("{ok} cycles done, {busy} refused because threads were in the way\n");
    if !findings.new_features.is_empty() {
        text += &format!("new features while loaded: {}\n", findings.new_features.join(" "));
    }
    if let Some(bytes) = findings.identical_bytes {
        text +=
            &format!("kernel text and scheduling classes afterwards: identical ({bytes} bytes compared)\n");
    }
    if let Some((kind, gap)) = findings.longest_gap_ms.iter().max_by_key(|(_, gap)| **gap) {
        text += &format!("every kind of load got on; the longest stand-still was {gap} ms ({kind})\n");
    }
    text
}

/// Minimum, median and maximum in ms, right-aligned.
fn spread(timings: &[&Timing], value: fn(&Timing) -> u64) -> String {
    let mut values: Vec<u64> = timings.iter().map(|timing| value(timing)).collect();
    values.sort_unstable();
    let (min, median, max) = (values[0], values[values.len() / 2], values[values.len() - 1]);
    [min, median, max].map(|ns| format!("{:>11.3}", ns as f64 / 1e6)).concat()
}

fn write_json(
    path: &Path,
    args: &TryArgs,
    release: &str,
    findings: Option<&Findings>,
    script_status: Option<i32>,
    usage: Usage,
) -> anyhow::Result<()> {
    let measured = Measured {
        release,
        cpus: args.cpus,
        memory_mib: args.memory,
        findings,
        script_status,
        boot_seconds: usage.boot.as_secs_f64(),
        wall_seconds: usage.wall.as_secs_f64(),
        qemu_cpu_seconds: usage.cpu.as_secs_f64(),
        qemu_peak_rss_bytes: usage.peak_rss_bytes,
    };
    let text = serde_json::to_string_pretty(&measured).context("cannot write JSON")?;
    fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedswap_payload::sysfs::Blocker;
    use std::collections::BTreeMap;

    fn timing(stop_ns: u64) -> Option<Timing> {
        Some(Timing { threads: 600, stop_ns, ..Timing::default() })
    }

    fn cycle(number: u32, stop_ns: Option<u64>) -> Cycle {
        let timing = stop_ns.and_then(timing);
        Cycle {
            cycle: number,
            result: if timing.is_some() { CycleResult::Ok } else { CycleResult::Busy },
            busy_by: Vec::new(),
            busy_tries: 0,
            load: timing.clone(),
            unload: timing,
        }
    }

    #[test]
    fn a_cycle_is_one_line() {
        let mut busy = cycle(2, None);
        busy.busy_tries = 6;
        busy.busy_by.push(Blocker { comm: "parked".into(), pid: 7, function: "yield_task_fair".into() });
        assert_eq!(
            cycle_line(&cycle(1, Some(1_500_000)), 3),
            "cycle  1/3: ok, 600 threads, stop 1.500 ms in, 1.500 ms out"
        );
        assert_eq!(
            cycle_line(&busy, 3),
            "cycle  2/3: busy; in the way at 6 tries: parked (thread 7) in yield_task_fair"
        );
    }

    #[test]
    fn the_table_has_minimum_median_and_maximum() {
        let findings = Findings {
            cycles: vec![
                cycle(1, Some(3_000_000)),
                cycle(2, None),
                cycle(3, Some(1_000_000)),
                cycle(4, Some(2_000_000)),
            ],
            new_features: vec!["NO_SCHEDSWAP_TEST".into()],
            identical_bytes: Some(12),
            counters: BTreeMap::new(),
            longest_gap_ms: BTreeMap::new(),
        };
        let text = summary(&findings);
        let stop = text.lines().find(|line| line.starts_with("stop")).unwrap();
        assert_eq!(
            stop.split_whitespace().collect::<Vec<_>>(),
            ["stop", "1.000", "2.000", "3.000", "1.000", "2.000", "3.000"]
        );
        assert!(text.contains("3 cycles done, 1 refused"), "{text}");
        assert!(text.contains("NO_SCHEDSWAP_TEST") && text.contains("identical (12 bytes"), "{text}");
    }

    #[test]
    fn json_has_a_record_a_cycle_with_the_times_at_its_top() {
        let value = serde_json::to_value(cycle(1, Some(5))).unwrap();
        for key in [
            "threads",
            "cpus",
            "stop_ns",
            "handler_ns",
            "stack_check_ns",
            "dequeue_ns",
            "patch_ns",
            "enqueue_ns",
        ] {
            assert!(value[key].is_u64() && value["unload"][key].is_u64(), "{key}: {value}");
        }
        assert_eq!(value["result"], "ok");
        let busy = serde_json::to_value(cycle(1, None)).unwrap();
        assert_eq!((busy["result"].as_str(), &busy["unload"]), (Some("busy"), &serde_json::Value::Null));
    }
}

//! Tests that boot a stock kernel. They need its image, `SCHEDSWAP_TEST_KERNEL=…/vmlinuz-…`; without it they pass
//! without doing anything.

use super::console::Kind;
use super::scenario::{CycleResult, Event, Scenario};
use super::{Config, Error, Guest, Initramfs, Tools};
use std::env;
use std::path::PathBuf;
use std::time::Duration;

fn stock_kernel() -> Option<Config> {
    let kernel = PathBuf::from(env::var_os("SCHEDSWAP_TEST_KERNEL")?);
    let fetched = schedswap_source::Cache::from_environment().ok().and_then(|cache| cache.busybox());
    let initramfs = Initramfs::new(&Tools::find_with(fetched.as_deref()).unwrap()).unwrap();
    Some(Config::new(&kernel, initramfs))
}

#[test]
fn commands_files_and_a_clean_end() {
    let Some(config) = stock_kernel() else { return };
    let guest = Guest::launch(config).unwrap();
    assert_eq!(guest.sh("nproc").unwrap(), "4");
    let output = guest.run("echo out; echo err >&2; exit 7").unwrap();
    assert_eq!((output.status, output.stdout.as_str(), output.stderr.as_str()), (7, "out\n", "err\n"));
    assert_eq!(guest.run("kill -9 $$").unwrap().status, 137);
    let big: Vec<u8> = (0..200_000u32).map(|n| (n * 7 / 3) as u8).collect();
    guest.put("/tmp/new/big", &big, 0o755).unwrap();
    let sum = guest.sh("ls -l /tmp/new/big | cut -c1-10; md5sum </tmp/new/big").unwrap();
    assert_eq!(sum, "-rwxr-xr-x\na4b55352857a474e534b3d3efb4da0ef  -");
    // A child left behind does not delay the answer to its parent.
    guest.run_within("sleep 1000 & echo started", Duration::from_secs(10)).unwrap();
    let usage = guest.shutdown().unwrap();
    eprintln!("boot {:?}, cpu {:?}, peak {} MiB", usage.boot, usage.cpu, usage.peak_rss_bytes >> 20);
}

#[test]
fn a_command_over_its_limit_is_killed_and_the_guest_lives_on() {
    let Some(config) = stock_kernel() else { return };
    let guest = Guest::launch(config).unwrap();
    let error = guest.run_within("echo before; sleep 1000", Duration::from_secs(1)).unwrap_err();
    assert!(matches!(error, Error::TimedOut { state: "alive", .. }), "{error}");
    assert_eq!(guest.run("pgrep sleep").unwrap().stdout, "");
    guest.shutdown().unwrap();
}

#[test]
fn a_crash_is_a_complaint_with_its_lines() {
    let Some(config) = stock_kernel() else { return };
    let guest = Guest::launch(config).unwrap();
    let error = guest.run("echo c >/proc/sysrq-trigger").unwrap_err();
    assert!(error.complains_of(Kind::Panic), "{error}");
    assert!(error.to_string().contains("sysrq_handle_crash"), "{error}");
}

#[test]
fn a_warning_is_found_at_the_end_unless_expected() {
    let Some(config) = stock_kernel() else { return };
    let warn = "echo 'WARNING: CPU: 0 PID: 1 at planted' >/dev/kmsg";
    let guest = Guest::launch(config.clone()).unwrap();
    guest.sh(warn).unwrap();
    assert!(guest.shutdown().unwrap_err().complains_of(Kind::Warning));
    let mut guest = Guest::launch(config).unwrap();
    guest.expect_on_console("at planted");
    guest.sh(warn).unwrap();
    guest.shutdown().unwrap();
}

#[test]
fn an_end_without_its_marker_is_a_failure() {
    let Some(config) = stock_kernel() else { return };
    let guest = Guest::launch(config).unwrap();
    let error = guest.run("reboot -f").unwrap_err();
    assert!(matches!(error, Error::EndedEarly { .. }), "{error}");
}

#[test]
fn a_guest_that_never_boots_times_out() {
    let Some(mut config) = stock_kernel() else { return };
    config.boot_limit = Duration::from_millis(500);
    let error = Guest::launch(config).err().unwrap();
    assert!(matches!(error, Error::TimedOut { state: "silent", .. }), "{error}");
}

#[test]
fn a_qemu_that_does_not_start_is_told_apart() {
    let Some(mut config) = stock_kernel() else { return };
    config.cpu_model = "no-such-model".into();
    let error = Guest::launch(config.clone()).err().unwrap();
    assert!(
        matches!(&error, Error::QemuFailed { stderr, .. } if stderr.contains("no-such-model")),
        "{error}"
    );
    config.qemu = "qemu-system-none".into();
    let error = Guest::launch(config).err().unwrap();
    assert!(
        matches!(error, Error::QemuMissing { .. }) && error.to_string().contains("qemu-system-x86"),
        "{error}"
    );
}

#[test]
fn the_load_gets_on_in_every_kind() {
    let Some(config) = stock_kernel() else { return };
    let guest = Guest::launch(config).unwrap();
    let limit = Duration::from_secs(180);
    let load = guest.start("guest-load run --threads 2000 --until-file /run/stop", limit).unwrap();
    guest.run_within("guest-load progress --seconds 60", limit).unwrap();
    let threads: u64 = guest.sh("ls /proc/*/task | grep -c '^[0-9]'").unwrap().parse().unwrap();
    assert!(threads > 2000, "{threads} threads");
    guest.sh("guest-load progress --seconds 30 && touch /run/stop").unwrap();
    let output = guest.finish(load).unwrap();
    eprintln!("{}", guest.sh("cat /run/guest-load.json").unwrap());
    assert_eq!((output.status, output.stderr.as_str()), (0, ""));
    let usage = guest.shutdown().unwrap();
    eprintln!("wall {:?}, cpu {:?}, peak {} MiB", usage.wall, usage.cpu, usage.peak_rss_bytes >> 20);
}

#[test]
fn memory_that_changes_is_found_and_named() {
    let Some(config) = stock_kernel() else { return };
    let guest = Guest::launch(config).unwrap();
    // No offset for KASLR is needed: the anchor is given with its running address.
    let address =
        |symbol: &str| guest.sh(&format!("grep ' {symbol}$' /proc/kallsyms | cut -d' ' -f1")).unwrap();
    let (text, watched) = (address("_text"), address("sysctl_sched_features"));
    guest
        .put("/tmp/ranges", format!("{text} 100000 text\n{watched} 4 features\n").as_bytes(), 0o644)
        .unwrap();
    let save = |name: &str| {
        guest
            .sh(&format!("guest-load kcore save --ranges /tmp/ranges --anchor _text={text} /tmp/{name}"))
            .unwrap()
    };
    save("before");
    save("same");
    guest.sh("guest-load kcore compare /tmp/before /tmp/same").unwrap();
    guest.sh("echo NO_GENTLE_FAIR_SLEEPERS >/sys/kernel/debug/sched/features || echo NO_TTWU_QUEUE >/sys/kernel/debug/sched/features").unwrap();
    save("after");
    let output = guest.run("guest-load kcore compare /tmp/before /tmp/after").unwrap();
    assert_eq!(output.status, 1);
    assert!(output.stdout.contains("features+0x0: "), "{}", output.stdout);
    guest.shutdown().unwrap();
}

#[test]
fn a_host_program_runs_with_its_libraries() {
    let Some(mut config) = stock_kernel() else { return };
    config.initramfs.program("env").unwrap();
    let guest = Guest::launch(config).unwrap();
    assert!(
        guest.sh("/usr/bin/env --version").unwrap().contains("GNU"),
        "busybox's own env does not know --version"
    );
    guest.shutdown().unwrap();
}

#[test]
fn counting_instructions_works_too() {
    let Some(mut config) = stock_kernel() else { return };
    config.icount = Some(0);
    config.cpus = 1;
    let guest = Guest::launch(config).unwrap();
    assert_eq!(guest.sh("nproc").unwrap(), "1");
    guest.shutdown().unwrap();
}

/// Takes the place of the loader: answers like it, but loads nothing. The command comes after options.
const STAND_IN_LOADER: &str = r#"#!/bin/sh
for word; do
    case $word in install|uninstall) command=$word ;; esac
done
n=$(cat /run/tries 2>/dev/null || echo 0); n=$((n + 1)); echo $n >/run/tries
t='{"op":"x","threads":600,"cpus":4,"logged":1,"checked":2,"stop_ns":3,"handler_ns":4,"stack_check_ns":5,'
t=$t'"dequeue_ns":6,"patch_ns":7,"enqueue_ns":8,"check_outside_ns":9,"total_ns":10}'
case "$command $n" in
"install 3")
    # The second cycle.
    echo '{"command":"install","outcome":"refused","version":"v","attempts":[{"result":"busy","blockers":[{"comm":"a b","pid":7,"function":"f"}]}],"errors":["busy"]}'
    exit 3 ;;
"uninstall 5")
    # The third: forgets to put a feature back.
    echo NO_TTWU_QUEUE >/sys/kernel/debug/sched/features
esac
echo '{"command":"'$command'","outcome":"ok","version":"v","attempts":[{"result":"switched","timing":'$t'}]}'
"#;

#[test]
fn the_scenario_counts_busy_cycles_and_finds_a_feature_not_put_back() {
    let Some(mut config) = stock_kernel() else { return };
    config.initramfs.bytes("/usr/sbin/loader", STAND_IN_LOADER.as_bytes(), 0o755);
    let guest = Guest::launch(config).unwrap();
    let scenario = Scenario {
        cycles: 3,
        threads: 50,
        load: false,
        baseline: Duration::ZERO,
        hold: Duration::ZERO,
        hotplug: None,
        memory: None,
        limit: Duration::from_secs(120),
    };
    let mut cycles = Vec::new();
    let error = scenario
        .run(&guest, |event| {
            if let Event::Cycle(cycle) = event {
                cycles.push(cycle.clone());
            }
        })
        .unwrap_err();
    assert_eq!(cycles.len(), 2);
    assert_eq!((cycles[0].result, cycles[0].load.as_ref().unwrap().stop_ns), (CycleResult::Ok, 3));
    assert_eq!((cycles[1].result, cycles[1].busy_tries), (CycleResult::Busy, 1));
    assert_eq!(cycles[1].busy_by[0].to_string(), "a b (thread 7) in f");
    assert!(error.to_string().contains("NO_TTWU_QUEUE") && error.to_string().contains("cycle 3"), "{error}");
}

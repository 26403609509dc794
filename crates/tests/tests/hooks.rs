//! The author's hooks around a swap: in which order they are called, and with which event. They belong to the author
//! guide's example, which writes them to the kernel log.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Guest;
use schedswap_sched::boundary::{self, Fate};
use schedswap_tests::{MODULE, build, guest, image};

const EXAMPLE: &str = "examples/hooks/heartbeat.patch";

/// What the loader does with a module that is out of use.
const RETIRE: &str = "echo 1 >/sys/kernel/schedswap/retire";

/// Events, numbered as in `enum schedswap_event`.
const LOAD: u32 = 0;
const TAKE_OVER: u32 = 1;
const UNLOAD: u32 = 2;
const HAND_OVER: u32 = 3;
const REFUSED: u32 = 4;

/// The lines written since the last call.
struct Log<'g> {
    guest: &'g Guest,
    seen: usize,
}

impl Log<'_> {
    /// The lines of the hooks, without the time, are exactly these. Deferred ones come with the next tick at the
    /// latest.
    fn says(&mut self, expected: &[(&str, u32, &str)]) -> Result<()> {
        self.guest.sh("sleep 0.3")?;
        let log = self.guest.sh("dmesg | sed -n 's/.*\\(heartbeat[^:]*: \\)/\\1/p'")?;
        let lines: Vec<&str> = log.lines().skip(self.seen).collect();
        let expected: Vec<String> =
            expected.iter().map(|(what, event, end)| format!("{what}, event {event}{end}")).collect();
        ensure!(lines == expected, "the log has {lines:#?}, expected {expected:#?}");
        self.seen += lines.len();
        Ok(())
    }
}

#[test]
fn hooks_are_called_in_order_and_undone_when_refused() -> Result<()> {
    let one = build("hooks-1", |tree| tree.patch(EXAMPLE))?;
    let two = build("hooks-2", |tree| {
        tree.patch(EXAMPLE)?;
        tree.replace("heartbeat.h", "pr_info(\"heartbeat: ready", "pr_info(\"heartbeat 2: ready")?;
        tree.replace("heartbeat.h", "pr_info(\"heartbeat: begins", "pr_info(\"heartbeat 2: begins")
    })?;
    let never = build("hooks-never", |tree| {
        tree.patch(EXAMPLE)?;
        tree.replace("heartbeat.h", "\tif (!heartbeat)\n\t\treturn -ENOMEM;\n", "\treturn -EXDEV;\n")
    })?;
    let guest = guest(&one, |config| {
        config.cpus = 2;
        for (path, built) in [("/two.ko", &two), ("/never.ko", &never)] {
            config.initramfs.bytes(path, &std::fs::read(built.module()).expect("it was built"), 0o644);
        }
    })?;
    let mut log = Log { guest: &guest, seen: 0 };
    let ready = ("heartbeat: ready", LOAD, "");

    guest.sh("insmod /never.ko enable=0")?;
    ensure!(guest.run("echo 1 >/sys/kernel/schedswap/enable")?.status != 0, "a hook says no");
    guest.sh("dmesg | grep 'refused: heartbeat_prepare.* says -18'")?;
    log.says(&[("heartbeat: forgotten", REFUSED, "")])?;
    // Hooks have run, which may have handed out anything.
    ensure!(guest.run("rmmod $(cat /sys/kernel/schedswap/module)")?.status != 0, "what has run is removed");
    guest.sh(RETIRE)?;

    guest.sh(&format!("insmod {MODULE}"))?;
    log.says(&[ready, ("heartbeat: in the stop", LOAD, ""), ("heartbeat: begins", LOAD, "")])?;

    // An unload that is not possible, because the timer still runs; then one that is.
    let probe = a_window()?;
    guest.sh(&format!("echo 'p:kprobes/held {probe}' >/sys/kernel/tracing/kprobe_events"))?;
    ensure!(guest.run("echo 0 >/sys/kernel/schedswap/enable")?.status != 0, "a kprobe is in the way");
    let beaten = ", has beaten";
    log.says(&[("heartbeat: ends", UNLOAD, beaten), ("heartbeat: begins", REFUSED, "")])?;
    guest.sh("echo >/sys/kernel/tracing/kprobe_events")?;

    // One version takes over from the other, which is out of the way before the new one begins.
    guest.sh("for try in $(seq 50); do insmod /two.ko replace=1 && break; sleep 0.2; done")?;
    log.says(&[
        ("heartbeat 2: ready", TAKE_OVER, ""),
        ("heartbeat: ends", HAND_OVER, beaten),
        ("heartbeat: out of the stop", HAND_OVER, ""),
        ("heartbeat: in the stop", TAKE_OVER, ""),
        ("heartbeat: forgotten", HAND_OVER, ""),
        ("heartbeat 2: begins", TAKE_OVER, ""),
    ])?;
    guest.sh("echo 1 >$(ls -d /sys/kernel/schedswap-scheduler_????????)/retire")?;

    guest.sh("for try in $(seq 50); do echo 0 >/sys/kernel/schedswap/enable && break; sleep 0.2; done")?;
    log.says(&[
        ("heartbeat: ends", UNLOAD, beaten),
        ("heartbeat: out of the stop", UNLOAD, ""),
        ("heartbeat: forgotten", UNLOAD, ""),
    ])?;
    guest.sh(RETIRE)?;
    guest.shutdown()?;
    Ok(())
}

/// A place inside a window, where a probe prevents undoing the swap.
fn a_window() -> Result<String> {
    let boundary = boundary::compute(image(), &Default::default())?;
    let found = boundary.functions.iter().find_map(|f| match &f.fate {
        Fate::Divert(site)
            if site.after_fentry && f.exported && image().symbols_named(&f.name).len() == 1 =>
        {
            Some(format!("{}+{}", f.name, site.at - f.addr))
        }
        _ => None,
    });
    found.context("an exported function that is diverted")
}

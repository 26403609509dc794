//! Variables that the configuration makes the module's own: one that begins as the source says, and others whose
//! value comes from vmlinux at load and goes back at unload.
//!
//! `max_load_balance_interval` follows the number of online CPUs, and `sd_llc_size` each CPU's domains, so the
//! running kernel has other values than the source. Modules show theirs in debugfs; vmlinux's are read from its
//! memory, without asking the module.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Guest;
use schedswap_tests::edit::Tree;
use schedswap_tests::{Built, MODULE, build_configured, guest, image, memory};

const INTERVAL: &str = "max_load_balance_interval";
const PER_CPU: &str = "sd_llc_size";

/// The initial value in the edited source; no number of CPUs leads to it.
const IN_SOURCE: u64 = 123_457;

fn edit(tree: &Tree) -> Result<()> {
    show(tree)?;
    tree.replace("fair.c", &format!("{INTERVAL} = HZ/10;"), &format!("{INTERVAL} = {IN_SOURCE};"))
}

fn show(tree: &Tree) -> Result<()> {
    let show = format!(
        "seq_printf(m, \"schedswap-test %d interval=%lu llc=%d\\n\", cpu, {INTERVAL}, per_cpu({PER_CPU}, cpu));"
    );
    tree.at_entry("fair.c", "print_cfs_stats", &show)
}

/// What the module shows for a CPU.
fn in_module(guest: &Guest, cpu: u32) -> Result<(u64, u64)> {
    let text = guest.sh(&format!("grep '^schedswap-test {cpu} ' /sys/kernel/debug/sched/debug"))?;
    let value = |key: &str| -> Result<u64> {
        let word = text.split_whitespace().find_map(|word| word.strip_prefix(key));
        Ok(word.with_context(|| text.clone())?.parse()?)
    };
    Ok((value("interval=")?, value("llc=")?))
}

/// vmlinux's variable, from its memory.
fn in_vmlinux(guest: &Guest) -> Result<u64> {
    let symbol = image().unique_symbol(INTERVAL).context("no such symbol")?;
    let range = format!("{:x} {:x} {INTERVAL}\n", symbol.addr.0, symbol.size);
    guest.put("/tmp/range", range.as_bytes(), 0o644)?;
    guest
        .sh(&format!("guest-load kcore save --ranges /tmp/range --anchor {} /tmp/saved", memory().anchor))?;
    let text = guest.sh(&format!("tail -c {} /tmp/saved | od -A n -t d8", symbol.size))?;
    Ok(text.trim().parse()?)
}

fn boot(module: &Built) -> Result<Guest> {
    guest(module, |_| ())
}

/// Two CPUs go offline: when the first one goes, it is still counted. Returns the resulting interval.
fn take_two_cpus(guest: &Guest) -> Result<()> {
    guest.sh("for n in 3 2; do echo 0 >/sys/devices/system/cpu/cpu$n/online || exit 1; done")?;
    Ok(())
}

#[test]
fn a_private_variable_begins_as_the_source_says_and_leaves_vmlinuxs_alone() -> Result<()> {
    let config = format!("global_var:\n  force_private:\n    - {INTERVAL}\n");
    let module = build_configured("private", &config, edit)?;
    let guest = boot(&module)?;
    let before = in_vmlinux(&guest)?;
    ensure!(before != 0 && before != IN_SOURCE, "vmlinux has {before}");

    guest.sh(&format!("loader install {MODULE}"))?;
    assert_eq!(in_module(&guest, 0)?.0, IN_SOURCE);
    assert_eq!(in_vmlinux(&guest)?, before, "loading has changed vmlinux's");
    take_two_cpus(&guest)?;
    let (now, _) = in_module(&guest, 0)?;
    ensure!(now != IN_SOURCE && now != before, "the module's does not follow the CPUs: {now}");
    assert_eq!(in_vmlinux(&guest)?, before, "the module has written vmlinux's");

    guest.sh("loader uninstall")?;
    assert_eq!(in_vmlinux(&guest)?, before, "unloading has changed vmlinux's");
    guest.shutdown()?;
    Ok(())
}

#[test]
fn a_carried_variable_has_the_running_value_and_gives_it_back() -> Result<()> {
    let config = format!(
        "global_var:\n  force_private:\n    - {{name: {INTERVAL}, carry: true}}\n    - {{name: {PER_CPU}, carry: true}}\n"
    );
    let module = build_configured("carried", &config, edit)?;
    // The next version does not carry, and shares vmlinux's variable.
    let shared = build_configured("sharing", "", |tree| {
        show(tree)?;
        tree.replace("fair.c", "schedswap-test", "schedswap-next")
    })?;
    let guest = boot(&module)?;
    guest.put("/tmp/next.ko", &std::fs::read(shared.module())?, 0o644)?;
    let before = in_vmlinux(&guest)?;
    ensure!(before != 0 && before != IN_SOURCE, "vmlinux has {before}");

    guest.sh(&format!("loader install {MODULE}"))?;
    let (interval, _) = in_module(&guest, 0)?;
    assert_eq!(interval, before, "the running value was not taken along");
    for cpu in 0..4 {
        let (_, llc) = in_module(&guest, cpu)?;
        ensure!(llc >= 1, "CPU {cpu} begins with {llc}, as the source says");
    }
    take_two_cpus(&guest)?;
    let (changed, _) = in_module(&guest, 0)?;
    ensure!(changed != before, "the module's does not follow the CPUs");
    assert_eq!(in_vmlinux(&guest)?, before, "the module has written vmlinux's");

    guest.sh("loader uninstall")?;
    assert_eq!(in_vmlinux(&guest)?, changed, "vmlinux did not get it back");

    // By way of the next version, too.
    guest.sh(&format!("loader install {MODULE}"))?;
    assert_eq!(in_module(&guest, 0)?.0, changed);
    guest.sh("for n in 2 3; do echo 1 >/sys/devices/system/cpu/cpu$n/online || exit 1; done")?;
    let (grown, _) = in_module(&guest, 0)?;
    ensure!(grown != changed, "the module's does not follow the CPUs");
    assert_eq!(in_vmlinux(&guest)?, changed);
    guest.sh("insmod /tmp/next.ko replace=1")?;
    assert_eq!(in_vmlinux(&guest)?, grown, "the one that was taken over from has kept its value");
    let shown = guest.sh("grep '^schedswap-next 0 ' /sys/kernel/debug/sched/debug")?;
    ensure!(shown.contains(&format!("interval={grown} ")), "{shown}");
    guest.shutdown()?;
    Ok(())
}

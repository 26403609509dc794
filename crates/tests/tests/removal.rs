//! A scheduler that runs cannot be removed, not even by force. One that has run cannot be either, because something may
//! have an address of its memory; it retires. `rmmod -f` is possible in kernels with CONFIG_MODULE_FORCE_UNLOAD, Debian's among them.

use anyhow::{Result, ensure};
use schedswap_guest::Guest;
use schedswap_tests::{MODULE, build, guest, kernel_module, memory, pristine};
use std::fs;
use std::time::Duration;

const SUCCESSOR: &str = "/successor.ko";
const HELD: &str = "/held.ko";

/// A module that is held as usual: by a reference alone.
const HELD_SOURCE: &str = r#"
#include <linux/module.h>
static int __init held_init(void)
{
	return try_module_get(THIS_MODULE) ? 0 : -EBUSY;
}
static void __exit held_exit(void)
{
}
module_init(held_init);
module_exit(held_exit);
MODULE_LICENSE("GPL");
"#;

const LOADED: &str = "[ \"$(cat /sys/kernel/schedswap/state)\" = enabled ]";
const TAINTED: &str = "cat /proc/sys/kernel/tainted";

fn is_not_removed(guest: &Guest, name: &str) -> Result<()> {
    for force in ["", "-f "] {
        let rmmod = guest.run(&format!("rmmod {force}{name}"))?;
        ensure!(rmmod.status != 0, "rmmod {force}took away {name}, which runs or has run");
        ensure!(rmmod.stderr.contains("Resource temporarily unavailable"), "{rmmod:?}");
    }
    Ok(())
}

/// Neither kind of removal takes away the module in charge, and nothing follows from the attempt.
fn cannot_be_removed(guest: &Guest) -> Result<()> {
    let name = guest.sh("cat /sys/kernel/schedswap/module")?;
    let tainted = guest.sh(TAINTED)?;
    memory().save(guest, "enabled")?;
    is_not_removed(guest, &name)?;
    ensure!(guest.sh(TAINTED)? == tainted, "the kernel is tainted although nothing was forced");
    guest.sh(LOADED)?;
    memory().save(guest, "still-enabled")?;
    memory().compare(guest, "enabled", "still-enabled")?;
    let used_by =
        guest.sh(&format!("sed -n 's/^{name} [0-9]* \\([0-9]* [^ ]*\\) .*/\\1/p' /proc/modules"))?;
    ensure!(used_by == format!("1 {name},"), "{name} is used by {used_by}");
    guest.sh("guest-load progress --status /run/load --seconds 2")?;
    Ok(())
}

#[test]
fn a_scheduler_that_runs_cannot_be_removed_by_force() -> Result<()> {
    let successor = fs::read(build("successor", |_| Ok(()))?.module())?;
    let held = fs::read(kernel_module("held", HELD_SOURCE)?)?;
    let mut guest = guest(&pristine()?, |config| {
        config.allowed_taints.push('R'); // of the last case
        config.initramfs.bytes(SUCCESSOR, &successor, 0o644);
        config.initramfs.bytes(HELD, &held, 0o644);
    })?;
    guest.expect_on_console("Disabling lock debugging due to kernel taint");
    memory().save(&guest, "stock")?;
    let command = "exec guest-load run --threads 50 --until-file /run/stop --status /run/load";
    let load = guest.start(command, Duration::from_secs(600))?;
    guest.sh("guest-load progress --status /run/load --seconds 2")?;

    guest.sh(&format!("loader install {MODULE} --retries 30 --wait 1s"))?;
    cannot_be_removed(&guest)?;

    guest.sh(&format!(
        "for try in $(seq 50); do insmod {SUCCESSOR} replace=1 && exit; sleep 0.2; done; exit 1"
    ))?;
    cannot_be_removed(&guest)?;
    // Nor can the one that is superseded, before and after it has retired.
    let superseded = guest.sh("cat /sys/kernel/schedswap-*/module")?;
    is_not_removed(&guest, &superseded)?;
    guest.sh("echo 1 >$(ls -d /sys/kernel/schedswap-*)/retire")?;
    is_not_removed(&guest, &format!("{superseded}_r1"))?;
    guest.sh(LOADED)?;

    // Nor the one that is disabled.
    guest.sh(
        "for try in $(seq 50); do echo 0 >/sys/kernel/schedswap/enable && exit; sleep 0.2; done; exit 1",
    )?;
    let disabled = guest.sh("cat /sys/kernel/schedswap/module")?;
    is_not_removed(&guest, &disabled)?;
    guest.sh("echo 1 >/sys/kernel/schedswap/retire && ! [ -e /sys/kernel/schedswap ]")?;
    is_not_removed(&guest, &format!("{disabled}_r1"))?;
    // Retired for good: it is neither enabled nor asked.
    guest.sh(&format!(
        "cd /sys/kernel/schedswap-{disabled}_r1 && [ $(cat state) = retired ] && ! echo 1 >enable && ! cat plan"
    ))?;
    // One that was never enabled can.
    guest.sh(&format!("insmod {SUCCESSOR} enable=0 && rmmod $(cat /sys/kernel/schedswap/module)"))?;
    guest.sh("touch /run/stop")?;
    let load = guest.finish(load)?;
    ensure!(load.status == 0, "the load failed: {load:?}");
    memory().save(&guest, "after")?;
    memory().compare(&guest, "stock", "after")?;

    // So far it was not the kernel or rmmod that cannot do it: a module that is only held by a reference is removed.
    guest.sh(&format!("insmod {HELD} && ! rmmod held && rmmod -f held && ! [ -e /sys/module/held ]"))?;
    guest.shutdown()?;
    Ok(())
}

//! The machine that the life-cycle tests use: it boots, keeps its disk, and boots again after a power cut.

use anyhow::Result;
use schedswap_guest::console::Kind;
use schedswap_guest::debian::Until;
use schedswap_tests::{machine, other_kernel};

/// What ext4 logs if it was not unmounted.
const REPLAYED: &str = "EXT4-fs (vda): recovery complete";

#[test]
#[ignore = "slow: `make soak` runs it"]
fn systemd_reaches_multi_user_and_the_disk_outlives_a_reboot() -> Result<()> {
    let mut machine = machine()?;
    machine.boot()?;
    eprintln!("boot {:?}", machine.boot_time());
    assert_eq!(machine.sh("cat /proc/1/comm; findmnt -no SOURCE,FSTYPE /")?, "systemd\n/dev/vda ext4");
    machine.sh("echo kept >/var/lib/kept; echo lost >/run/lost")?;
    let first = machine.sh("cat /proc/sys/kernel/random/boot_id")?;

    machine.config.append.push("schedswap.enable=0".into());
    machine.reboot()?;
    assert_ne!(machine.sh("cat /proc/sys/kernel/random/boot_id")?, first);
    assert_eq!(machine.sh("cat /var/lib/kept")?, "kept");
    assert!(machine.run("test -e /run/lost")?.status != 0, "what was in memory is still there");
    assert!(machine.sh("cat /proc/cmdline")?.ends_with(" schedswap.enable=0"));
    assert!(!machine.console()?.contains(REPLAYED), "the reboot did not unmount the disk");
    machine.power_off()?;
    machine.check_disk()?;
    Ok(())
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn another_kernel_boots_from_the_same_disk() -> Result<()> {
    let mut machine = machine()?;
    let other = other_kernel()?;
    let release = machine.kernel.release.clone();
    assert_ne!(release, other.release, "the other kernel is the kernel under test");
    machine.boot()?;
    assert_eq!(machine.sh("uname -r")?, release);
    machine.sh("echo kept >/var/lib/kept")?;

    machine.kernel = other.clone();
    machine.reboot()?;
    assert_eq!(machine.sh("uname -r; cat /var/lib/kept")?, format!("{}\nkept", other.release));
    // The kernel's own modules are there, and depmod has run.
    machine.sh("modprobe dummy && test -d /sys/module/dummy")?;
    machine.power_off()?;
    Ok(())
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn what_was_flushed_outlives_a_power_cut() -> Result<()> {
    let mut machine = machine()?;
    machine.boot()?;
    machine.sh(
        "head -c 3000000 /dev/urandom >/var/lib/flushed; sync; sha256sum </var/lib/flushed >/var/lib/sum",
    )?;
    machine.sh("sync /var/lib/sum; for n in $(seq 200); do echo $n >/var/lib/not-flushed-$n; done")?;
    machine.power_cut()?;

    machine.boot()?;
    assert!(
        machine.console()?.contains(REPLAYED),
        "the journal had nothing to replay: was that a power cut?"
    );
    machine.sh("sha256sum </var/lib/flushed | cmp - /var/lib/sum")?;
    machine.power_off()?;
    machine.check_disk()?;
    Ok(())
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn a_unit_that_fails_is_named() -> Result<()> {
    let mut machine = machine()?;
    machine.boot()?;
    machine
        .sh("printf '[Service]\nType=oneshot\nExecStart=/bin/sh -c \"echo told why; exit 1\"\n[Install]\n\
         WantedBy=multi-user.target\n' >/etc/systemd/system/broken.service; systemctl enable broken")?;
    let error = machine.reboot().unwrap_err().to_string();
    assert!(error.contains("broken.service") && error.contains("told why"), "{error}");
    // The machine is on anyway, and can be examined.
    assert_eq!(machine.run("systemctl is-active broken")?.stdout, "failed\n");
    Ok(())
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn what_the_kernel_complained_of_fails_a_power_cut_too() -> Result<()> {
    let mut machine = machine()?;
    machine.until = Until::Agent;
    machine.boot()?;
    machine.sh("echo 'WARNING: CPU: 0 PID: 1 at planted' >/dev/kmsg")?;
    let error = machine.power_cut().unwrap_err();
    assert!(error.complains_of(Kind::Warning), "{error}");
    Ok(())
}

//! A scheduler's packages over a machine's life: installed, upgraded, loaded at boot, removed. Two releases of one
//! scheduler, which count in their own variables, show that a switch hands the state over.

use anyhow::{Context, Result, ensure};
use schedswap_guest::debian::{Machine, Until};
use schedswap_tests::counting::{FEATURES, assert_own_runs, assert_runs, counting, reads, running, said};
use schedswap_tests::{Packages, machine, other_kernel};
use std::env;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_deb_from_installation_to_removal() -> Result<()> {
    let (one, two) = (counting("1")?, counting("2")?);
    let mut machine = machine()?;
    machine.boot()?;

    machine.dpkg_install(&one.deb)?;
    assert_runs(&machine, &one)?;
    machine.sh(&format!("echo NO_TTWU_QUEUE >{FEATURES}"))?;
    assert_eq!(reads(&machine)?, "release=1 reads=1,1,1");
    machine.sh("test $(readlink /usr/sbin/schedswap-loader) = /var/lib/schedswap/loader")?;
    machine.sh("systemctl is-enabled schedswap.service")?;

    // Upgraded: one stop, and the count continues.
    machine.dpkg_install(&two.deb)?;
    assert_runs(&machine, &two)?;
    assert_eq!(reads(&machine)?, "release=2 reads=2,2,2");
    machine.sh(&format!("grep -q NO_TTWU_QUEUE {FEATURES}"))?;
    machine.sh("grep -q ^op=switch /sys/kernel/schedswap/timing")?;
    machine.sh(&format!("test ! -e {}", one.payload()))?;

    machine.reboot()?;
    assert_runs(&machine, &two)?;
    machine.sh("systemctl is-active schedswap.service schedswap-healthy.service")?;
    machine.sh("systemctl restart schedswap.service")?;
    assert_runs(&machine, &two)?;

    // Downgraded, which dpkg does if it is given the file.
    machine.dpkg_install(&one.deb)?;
    assert_runs(&machine, &one)?;

    machine.dpkg_remove(&one.deb_name())?;
    assert_own_runs(&machine)?;
    machine.sh("! systemctl is-enabled schedswap.service")?;
    machine.reboot()?;
    assert_own_runs(&machine)?;
    machine.power_off()?;
    machine.check_disk()?;
    Ok(())
}

/// Runs a shell command as rpm's plugin `unshare` runs scripts where a distribution has enabled it (rpm 4.20 and
/// later): without network, and with private directories for temporary files and homes.
const NAMESPACES: &str = "unshare --mount --net sh -c 'mount -t tmpfs own /tmp && mount -t tmpfs own /home && \
                          exec sh -c \"$0\" \"$1\"'";

#[test]
#[ignore = "slow: `make soak` runs it"]
fn an_rpm_from_installation_to_removal() -> Result<()> {
    let (one, two) = (counting("1")?, counting("2")?);
    let mut machine = machine()?;
    machine.boot()?;
    machine.rpm_install(&one.rpm)?;
    assert_runs(&machine, &one)?;
    assert_eq!(reads(&machine)?, "release=1 reads=1,1,1");
    let upgrade = machine.with_package(&format!("{NAMESPACES} 'rpm -U --nodeps $0'"), &two.rpm)?;
    ensure!(upgrade.status == 0, "rpm -U: {}{}", upgrade.stdout, upgrade.stderr);
    assert_runs(&machine, &two)?;
    assert_eq!(reads(&machine)?, "release=2 reads=2,2,2");
    let downgrade = machine.with_package("rpm -U --nodeps --oldpackage", &one.rpm)?;
    ensure!(downgrade.status == 0, "rpm -U --oldpackage: {}{}", downgrade.stdout, downgrade.stderr);
    assert_runs(&machine, &one)?;
    assert_eq!(reads(&machine)?, "release=1 reads=3,3,3");
    machine.rpm_erase(&one.rpm_name())?;
    assert_own_runs(&machine)?;
    machine.power_off()?;
    Ok(())
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn of_two_rpms_side_by_side_either_may_go() -> Result<()> {
    let (one, two) = (counting("1")?, counting("2")?);
    let mut machine = machine()?;
    machine.boot()?;
    let install = |packages: &Packages| -> Result<()> {
        let output = machine.with_package("rpm -i --nodeps", &packages.rpm)?;
        ensure!(output.status == 0, "rpm -i: {}{}", output.stdout, output.stderr);
        Ok(())
    };
    // Both have the same name, so the version is needed as well.
    let erase = |packages: &Packages| -> Result<()> {
        let label = machine.with_package("rpm -qp", &packages.rpm)?.stdout;
        machine.rpm_erase(label.trim())?;
        machine.sh(&format!("test ! -e {}", packages.payload()))?;
        Ok(())
    };
    install(&one)?;
    assert_eq!(reads(&machine)?, "release=1 reads=1,1,1");
    install(&two)?;
    assert_runs(&machine, &two)?;
    assert_eq!(reads(&machine)?, "release=2 reads=2,2,2");
    machine.sh(&format!("test -d {} && test -d {}", one.payload(), two.payload()))?;

    // Removing the one that runs: the kernel's own scheduler comes back, because nobody asked for the other.
    erase(&two)?;
    assert_own_runs(&machine)?;
    machine.sh("test ! -e /var/lib/schedswap/$(uname -r)/active")?;
    machine.sh(&format!("schedswap-loader switch {}", one.version()))?;
    assert_runs(&machine, &one)?;

    // Removing the one that does not run: nothing changes.
    install(&two)?;
    assert_eq!(reads(&machine)?, "release=2 reads=1,1,1");
    erase(&one)?;
    assert_runs(&machine, &two)?;
    assert_eq!(reads(&machine)?, "release=2 reads=2,2,2");
    machine.sh(&format!("test $(readlink /var/lib/schedswap/$(uname -r)/active) = {}", two.version()))?;

    erase(&two)?;
    assert_own_runs(&machine)?;
    // Nothing is left either of what the loader itself installed.
    machine.sh("test ! -e /var/lib/schedswap/loader && test ! -e /etc/systemd/system/schedswap.service")?;
    machine.power_off()?;
    Ok(())
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn other_kernels_and_the_kill_switch() -> Result<()> {
    let one = counting("1")?;
    let mut machine = machine()?;
    machine.boot()?;
    machine.dpkg_install(&one.deb)?;
    let home = machine.kernel.clone();

    machine.kernel = other_kernel()?;
    machine.reboot()?;
    assert_own_runs(&machine)?;
    machine.sh("systemctl is-active schedswap.service")?;

    machine.kernel = home;
    machine.reboot()?;
    assert_runs(&machine, &one)?;

    machine.config.append.push("schedswap.enable=0".into());
    machine.reboot()?;
    assert_own_runs(&machine)?;
    machine.config.append.pop();
    machine.reboot()?;
    assert_runs(&machine, &one)?;
    machine.power_off()?;
    Ok(())
}

#[test]
fn a_boot_that_did_not_come_up_well_is_not_tried_again() -> Result<()> {
    let one = counting("1")?;
    let mut machine = machine()?;
    machine.boot()?;
    machine.dpkg_install(&one.deb)?;
    // The power is cut after loading and before the boot is known to be healthy.
    machine.sh("systemctl disable --quiet schedswap-healthy.service && sync")?;
    machine.reboot()?;
    assert_runs(&machine, &one)?;
    machine.power_cut()?;

    machine.boot()?;
    assert_own_runs(&machine)?;
    let status = machine.sh("/var/lib/schedswap/loader status")?;
    ensure!(
        status.contains("blocked") || status.contains("not loaded"),
        "status says nothing of it: {status}"
    );
    machine.sh(
        "systemctl enable --quiet --now schedswap-healthy.service && /var/lib/schedswap/loader start --force",
    )?;
    assert_runs(&machine, &one)?;
    machine.reboot()?;
    assert_runs(&machine, &one)?;
    machine.power_off()?;
    Ok(())
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn an_upgrade_that_is_refused_leaves_the_old_one_running() -> Result<()> {
    let (one, two) = (counting("1")?, counting("2")?);
    let mut machine = machine()?;
    machine.boot()?;
    machine.dpkg_install(&one.deb)?;
    assert_eq!(reads(&machine)?, "release=1 reads=1,1,1");
    // A probe of another program, inside a window that the switch would have to write.
    machine.sh("echo 'p:held try_to_wake_up+5' >/sys/kernel/debug/tracing/kprobe_events || echo 'p:held try_to_wake_up+9' >/sys/kernel/debug/tracing/kprobe_events")?;
    let output = machine.with_package("dpkg -i", &two.deb)?;
    ensure!(output.status != 0, "the upgrade was not refused: {}", output.stdout);
    ensure!(
        format!("{}{}", output.stdout, output.stderr).contains("try_to_wake_up"),
        "the function is not named: {}{}",
        output.stdout,
        output.stderr
    );
    assert_runs(&machine, &one)?;
    assert_eq!(reads(&machine)?, "release=1 reads=2,2,2");
    machine.sh("echo >/sys/kernel/debug/tracing/kprobe_events; dpkg --configure -a")?;
    assert_runs(&machine, &two)?;
    assert_eq!(reads(&machine)?, "release=2 reads=3,3,3");
    machine.power_off()?;
    Ok(())
}

/// What is interrupted: the command, and what runs before and after it.
struct Step {
    command: String,
    before: String,
    after: String,
}

impl Step {
    /// How long it takes, by the host's clock: that of a guest on a busy host may be wrong, differently in each boot.
    fn timed(&self, machine: &Machine) -> Result<u64> {
        let begun = Instant::now();
        machine.sh(&format!("({}) >/dev/null 2>&1", self.command))?;
        Ok(begun.elapsed().as_millis() as u64)
    }
}

/// The power is cut at some moment of an installation, an upgrade or a removal: the next boot is clean, and the same
/// command, run again, succeeds. As often as `SCHEDSWAP_TEST_CUTS` says.
#[test]
#[ignore = "slow: `make soak` runs it"]
fn a_power_cut_in_the_middle() -> Result<()> {
    let cuts: u64 = env::var("SCHEDSWAP_TEST_CUTS").map_or(Ok(6), |cuts| cuts.parse())?;
    let (one, two) = (counting("1")?, counting("2")?);
    let install = |release: &str| format!("dpkg --configure -a; dpkg -i /var/cache/{release}.deb");
    let steps = [
        Step { command: install("1"), before: String::new(), after: one.version() },
        Step { command: install("2"), before: one.version(), after: two.version() },
        Step { command: format!("dpkg -r {}", one.deb_name()), before: two.version(), after: String::new() },
    ];
    let mut machine = machine()?;
    machine.boot()?;
    machine.hand_over(&one.deb, "/var/cache/1.deb")?;
    machine.hand_over(&two.deb, "/var/cache/2.deb")?;
    let mut takes_ms = Vec::new();
    for step in &steps {
        takes_ms.push(step.timed(&machine)?);
    }
    machine.until = Until::MultiUser;
    for cut in 0..cuts {
        let kind = cut as usize % steps.len();
        let Step { command, before, after } = &steps[kind];
        // Spread over the whole time that it takes, and a little beyond.
        let after_ms = 20 + cut * 7919 % (takes_ms[kind] * 11 / 10);
        let context = format!("`{command}`, which takes {} ms, cut off after {after_ms} ms", takes_ms[kind]);
        let version = running(&machine)?;
        ensure!(version == *before, "before {context}: {version:?} runs: {}", said(&machine)?);
        machine.sh(&format!("sync; ({command}) >/dev/null 2>&1 &"))?;
        thread::sleep(Duration::from_millis(after_ms));
        let at_the_cut = running(&machine)?;
        machine.power_cut()?;
        if cut % 10 == 9 {
            // For that, a journal must have been replayed.
            machine.boot().context(context.clone())?;
            machine.power_off()?;
            machine.check_disk().context(context.clone())?;
        }
        machine.boot().context(context.clone())?;
        // Clean: what runs is complete, and belongs to before or after; or the kernel's own scheduler runs, if
        // neither is complete.
        let version = running(&machine)?;
        ensure!(
            [before.as_str(), after.as_str(), ""].contains(&version.as_str()),
            "{context}: {version} runs: {}",
            said(&machine)?
        );
        machine.sh("test -z \"$(systemctl --failed --quiet --no-legend)\"").context(context.clone())?;
        let dpkg = machine
            .sh(&format!("dpkg-query -W -f '${{Status}}, ${{Version}}' {} || true", one.deb_name()))?;
        eprintln!("{context}: {at_the_cut:?} ran then, {version:?} at the next boot; dpkg: {dpkg}");
        let again = machine.run(&format!("({command}) 2>&1"))?;
        ensure!(again.status == 0, "{context}: again: {}{}", again.stdout, said(&machine)?);
    }
    machine.power_off()?;
    machine.check_disk()?;
    Ok(())
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn two_installations_at_once() -> Result<()> {
    let (one, two) = (counting("1")?, counting("2")?);
    let mut machine = machine()?;
    machine.boot()?;
    // Both payloads are installed, as from packages; the loaders compete for the lock.
    machine.rpm_install(&one.rpm)?;
    let output = machine.with_package("rpm -i --nodeps --noscripts", &two.rpm)?;
    ensure!(output.status == 0, "{}", output.stderr);
    let race = format!(
        "for n in 1 2 3; do {0}/schedswap-loader install {0} & {1}/schedswap-loader install {1} & wait; done",
        one.payload(),
        two.payload()
    );
    machine.sh(&race)?;
    let version = running(&machine)?;
    ensure!([one.version(), two.version()].contains(&version), "{version} runs: {}", said(&machine)?);
    machine.sh("test $(ls -d /sys/module/scheduler_???????? | wc -l) = 1")?;
    machine.sh(
        "test $(readlink /var/lib/schedswap/$(uname -r)/active) = $(cat /sys/kernel/schedswap/version)",
    )?;
    machine.power_off()?;
    Ok(())
}

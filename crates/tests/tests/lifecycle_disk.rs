//! A disk that is full when a package is installed: dpkg or the loader says so, what ran goes on running, no
//! registration is left half done, and with more space the same package is installed.

use anyhow::{Result, ensure};
use schedswap_guest::debian::Machine;
use schedswap_tests::counting::{assert_own_runs, assert_runs, counting, reads, running, said};
use schedswap_tests::{Packages, machine};

const STATE: &str = "/var/lib/schedswap";
const FILLER: &str = "/var/filler";
const FULL: &str = "No space left on device";
/// Where the packages are: in memory, which has space.
const ONE: &str = "/run/one.deb";
const TWO: &str = "/run/two.deb";

fn number(machine: &Machine, command: &str) -> Result<u64> {
    Ok(machine.sh(command)?.parse()?)
}

/// Runs `dpkg -i`, which must fail; returns its output.
fn refused(machine: &Machine, package: &str) -> Result<String> {
    let output = machine.run(&format!("dpkg -i {package} 2>&1"))?;
    ensure!(output.status != 0, "{package} was installed: {}", output.stdout);
    Ok(output.stdout)
}

/// Everything that is registered belongs to this payload, or nothing is registered; there is no temporary file.
fn assert_whole(machine: &Machine, active: Option<&Packages>) -> Result<()> {
    let registered = machine.sh(&format!("readlink {STATE}/$(uname -r)/active || true"))?;
    let expected = active.map(Packages::version).unwrap_or_default();
    ensure!(registered == expected, "{registered:?} is registered: {}", said(machine)?);
    let left =
        machine.sh(&format!("find {STATE} /etc/systemd/system -name '*.new' -o -name '*.dpkg-new'"))?;
    ensure!(left.is_empty(), "left over: {left}");
    Ok(())
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn no_room_where_payloads_lie() -> Result<()> {
    let (one, two) = (counting("1")?, counting("2")?);
    let mut machine = machine()?;
    machine.boot()?;
    machine.hand_over(&one.deb, ONE)?;
    machine.hand_over(&two.deb, TWO)?;
    machine.sh(&format!(
        "mkdir {STATE} && mount -t tmpfs -o mode=755,size=64k tmpfs {STATE} && dpkg -x {ONE} /run/x"
    ))?;
    let payload_kib = number(&machine, &format!("du -sk /run/x{STATE} | cut -f1"))?;
    let loader_kib = number(&machine, &format!("du -k /run/x{}/schedswap-loader | cut -f1", one.payload()))?;
    let give = |kib: u64| machine.sh(&format!("mount -o remount,size={kib}k {STATE}"));

    // dpkg finds no space for the payload.
    give(payload_kib / 2)?;
    let output = refused(&machine, ONE)?;
    ensure!(output.contains(FULL), "{output}");
    assert_own_runs(&machine)?;
    assert_whole(&machine, None)?;
    // The loader finds no space for its own files beside it.
    give(payload_kib + loader_kib / 2)?;
    let output = refused(&machine, ONE)?;
    ensure!(output.contains(FULL) && output.contains("nothing half-written is left"), "{output}");
    assert_own_runs(&machine)?;
    assert_whole(&machine, None)?;
    machine.sh("! systemctl is-enabled schedswap.service")?;
    // More space is all that is needed.
    give(64 << 10)?;
    machine.sh("dpkg --configure -a")?;
    assert_runs(&machine, &one)?;
    assert_whole(&machine, Some(&one))?;
    assert_eq!(reads(&machine)?, "release=1 reads=1,1,1");

    // An upgrade.
    let installed = format!("dpkg-query -W -f '${{Status}} ${{Version}}' {}", one.deb_name());
    let before = machine.sh(&installed)?;
    let used_kib = number(&machine, &format!("df --output=used -k {STATE} | tail -n 1 | tr -d ' '"))?;
    give(used_kib + payload_kib / 2)?;
    let output = refused(&machine, TWO)?;
    ensure!(output.contains(FULL), "{output}");
    assert_runs(&machine, &one)?;
    assert_whole(&machine, Some(&one))?;
    assert_eq!(machine.sh(&installed)?, before);
    assert_eq!(reads(&machine)?, "release=1 reads=2,2,2");
    give(64 << 10)?;
    machine.sh(&format!("dpkg -i {TWO}"))?;
    assert_runs(&machine, &two)?;
    assert_whole(&machine, Some(&two))?;
    assert_eq!(reads(&machine)?, "release=2 reads=3,3,3");
    machine.sh(&format!("dpkg -r {}", two.deb_name()))?;
    assert_own_runs(&machine)?;
    machine.power_off()?;
    Ok(())
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn an_rpm_upgrade_without_room_leaves_the_old_one() -> Result<()> {
    let (one, two) = (counting("1")?, counting("2")?);
    let mut machine = machine()?;
    machine.boot()?;
    machine.sh(&format!("mkdir {STATE} && mount -t tmpfs -o mode=755,size=64m tmpfs {STATE}"))?;
    machine.rpm_install(&one.rpm)?;
    assert_runs(&machine, &one)?;
    // rpm itself makes sure that there is space for the package's content, with a twentieth to spare, but not for
    // what the loader writes beside it.
    let payload_kib = number(&machine, &format!("du -sk {} | cut -f1", one.payload()))?;
    let loader_kib = number(&machine, &format!("du -k {STATE}/loader | cut -f1"))?;
    machine.sh(&format!("rm {STATE}/loader"))?;
    let used_kib = number(&machine, &format!("df --output=used -k {STATE} | tail -n 1 | tr -d ' '"))?;
    let room_kib = used_kib + payload_kib + payload_kib / 20 + loader_kib / 2;
    machine.sh(&format!("mount -o remount,size={room_kib}k {STATE}"))?;
    let output = machine.with_package("rpm -U --nodeps", &two.rpm)?;
    let output = format!("{}{}", output.stdout, output.stderr);
    ensure!(output.contains(FULL) && output.contains("nothing half-written is left"), "{output}");
    // rpm went on anyway, and removed the files of the old one.
    assert_runs(&machine, &one)?;
    assert_eq!(reads(&machine)?, "release=1 reads=1,1,1");

    machine.sh(&format!(
        "mount -o remount,size=64m {STATE} && {0}/schedswap-loader install {0}",
        two.payload()
    ))?;
    assert_runs(&machine, &two)?;
    assert_whole(&machine, Some(&two))?;
    assert_eq!(reads(&machine)?, "release=2 reads=2,2,2");
    machine.power_off()?;
    Ok(())
}

/// Uses up the whole root file system, including what is reserved for root.
fn fill(machine: &Machine) -> Result<()> {
    // Most of it without writing it; the rest is found by trying.
    machine.sh(&format!(
        "sync; fallocate -l $(( $(stat -f -c '%f * %S' /) - (48 << 20) )) {FILLER}
         dd if=/dev/zero of={FILLER} oflag=append conv=notrunc bs=64k 2>/dev/null
         dd if=/dev/zero of={FILLER} oflag=append conv=notrunc bs=4k 2>/dev/null
         sync; ! cp /proc/cpuinfo /var/probe 2>/dev/null && rm -f /var/probe"
    ))?;
    Ok(())
}

/// Installs a package on a full disk again and again, each time with a little more space, until it is installed. It
/// fails wherever it happens to, in dpkg or in the loader. Until then, `what_ran` goes on running.
fn install_with_ever_more_room(machine: &Machine, package: &str, what_ran: &str) -> Result<u32> {
    fill(machine)?;
    for refusals in 0..40 {
        let output = machine.run(&format!("dpkg -i {package} 2>&1"))?;
        if output.status == 0 {
            machine.sh(&format!("rm {FILLER} && sync"))?;
            return Ok(refusals);
        }
        let runs = running(machine)?;
        ensure!(runs == what_ran, "{runs:?} runs after {}{}", output.stdout, said(machine)?);
        ensure!(output.stdout.contains(FULL), "{}", output.stdout);
        eprintln!("with {} KiB: {}", refusals * 512, output.stdout.lines().last().unwrap_or_default());
        machine.sh(&format!("truncate -s -512K {FILLER} && sync"))?;
    }
    anyhow::bail!("20 MiB are not enough for {package}");
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn no_room_anywhere() -> Result<()> {
    let (one, two) = (counting("1")?, counting("2")?);
    let mut machine = machine()?;
    machine.boot()?;
    machine.hand_over(&one.deb, ONE)?;
    machine.hand_over(&two.deb, TWO)?;

    let refusals = install_with_ever_more_room(&machine, ONE, "")?;
    ensure!(refusals > 3, "it was never full: {refusals} refusals");
    assert_runs(&machine, &one)?;
    assert_whole(&machine, Some(&one))?;
    assert_eq!(reads(&machine)?, "release=1 reads=1,1,1");

    let refusals = install_with_ever_more_room(&machine, TWO, &one.version())?;
    ensure!(refusals > 3, "it was never full: {refusals} refusals");
    assert_runs(&machine, &two)?;
    assert_whole(&machine, Some(&two))?;
    assert_eq!(reads(&machine)?, "release=2 reads=2,2,2");

    machine.reboot()?;
    assert_runs(&machine, &two)?;
    machine.power_off()?;
    machine.check_disk()?;
    Ok(())
}

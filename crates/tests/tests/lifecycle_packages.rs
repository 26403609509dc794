//! Packages of both kinds on a machine with a disk: the real dpkg and rpm install, upgrade and remove them.

use anyhow::Result;
use schedswap_tests::machine;
use schedswap_tests::packages::Small;

#[test]
#[ignore = "slow: `make soak` runs it"]
fn dpkg_installs_upgrades_and_removes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut machine = machine()?;
    machine.boot()?;
    machine.dpkg_install(&Small { name: "small", version: "1" }.deb(dir.path())?)?;
    assert_eq!(machine.sh("cat /usr/share/small/greeting")?, "hello from 1");
    machine.dpkg_install(&Small { name: "small", version: "2" }.deb(dir.path())?)?;
    machine.reboot()?;
    assert_eq!(machine.sh("cat /usr/share/small/greeting")?, "hello from 2");
    assert_eq!(machine.sh("dpkg-query -W small")?, "small\t2");
    machine.dpkg_remove("small")?;
    assert!(machine.run("test -e /usr/share/small")?.status != 0, "its file is still there");
    let scripts = "postinst configure\nprerm upgrade\npostinst configure\nprerm remove";
    assert_eq!(machine.sh("cat /var/log/small")?, scripts);
    machine.power_off()?;
    Ok(())
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn rpm_installs_and_erases() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut machine = machine()?;
    machine.boot()?;
    machine.rpm_install(&Small { name: "small", version: "1" }.rpm(dir.path())?)?;
    assert_eq!(machine.sh("cat /usr/share/small/greeting; rpm -q small")?, "hello from 1\nsmall-1-1.noarch");
    // Like any two rpms with the same name and file, they conflict.
    let second = Small { name: "small", version: "2" }.rpm(dir.path())?;
    assert!(machine.with_package("rpm -i", &second)?.status != 0, "a file of two packages");
    assert_eq!(machine.with_package("rpm -U", &second)?.status, 0);
    machine.rpm_erase("small")?;
    assert!(machine.run("test -e /usr/share/small")?.status != 0, "its file is still there");
    assert_eq!(machine.sh("cat /var/log/small")?, "post 1\npost 2\npreun 1\npreun 0");
    machine.power_off()?;
    Ok(())
}

//! Installed by the real package managers, below a directory.

use super::made::{fresh, made, payload_dir, rpm_at, run};
use anyhow::{Context, Result, ensure};
use schedswap_payload::Manifest;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether a payload is there completely.
fn is_whole(root: &Path, version: &str) -> Result<bool> {
    let dir = root.join(payload_dir(version)?);
    if !dir.exists() {
        return Ok(false);
    }
    let manifest = Manifest::parse(&fs::read(dir.join("manifest.json"))?)?;
    for file in manifest.digests.keys() {
        ensure!(manifest.knows(file, &fs::read(dir.join(file))?), "{file} of {version} is not what it was");
    }
    Ok(true)
}

#[test]
fn rpm_installs_versions_side_by_side_and_upgrades() -> Result<()> {
    let (made, root) = (made(), fresh("rpm-root")?);
    let rpm = |arguments: &[&str], package: &Path| run(rpm_at(&root).args(arguments).arg(package));
    let install = ["--install", "--nodeps", "--noscripts"];
    for package in [&made.first.rpm, &made.second.rpm, &made.other.rpm] {
        rpm(&install, package)?;
    }
    for version in ["demo-1", "demo-2", "other-1"] {
        ensure!(is_whole(&root, version)?, "{version} is not there");
    }
    run(rpm_at(&root).args(["--verify", "--all", "--nodeps"]))?;
    // One of them is removed; the others stay complete, in directories that they share with it.
    let full = run(Command::new("rpm").args(["-qp", "--qf", "%{NVRA}"]).arg(&made.second.rpm))?;
    rpm(&["--erase", "--noscripts"], Path::new(&full))?;
    ensure!(is_whole(&root, "demo-1")? && !is_whole(&root, "demo-2")? && is_whole(&root, "other-1")?);
    // The newer release replaces the older one.
    rpm(&["--upgrade", "--nodeps", "--noscripts"], &made.second.rpm)?;
    ensure!(!is_whole(&root, "demo-1")? && is_whole(&root, "demo-2")?);
    Ok(())
}

/// The same deb without scripts: they would run programs of the scratch root, which has none.
fn without_scripts(deb: &Path, name: &str) -> Result<PathBuf> {
    let tree = fresh(name)?;
    run(Command::new("dpkg-deb").arg("--raw-extract").arg(deb).arg(tree.join("tree")))?;
    for script in ["postinst", "prerm"] {
        fs::remove_file(tree.join("tree/DEBIAN").join(script)).context(script)?;
    }
    let package = tree.join("package.deb");
    let tree = tree.join("tree");
    run(Command::new("dpkg-deb").args(["--build", "--root-owner-group"]).arg(tree).arg(&package))?;
    Ok(package)
}

#[test]
fn dpkg_installs_schedulers_side_by_side_and_upgrades() -> Result<()> {
    let (made, root) = (made(), fresh("deb-root")?);
    for dir in ["info", "updates"] {
        fs::create_dir_all(root.join("var/lib/dpkg").join(dir))?;
    }
    fs::write(root.join("var/lib/dpkg/status"), "")?;
    let dpkg = || {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", root.display())).args(["--force-not-root", "--force-bad-path"]);
        dpkg
    };
    let packages = [&made.first.deb, &made.other.deb, &made.second.deb];
    let names = ["deb-demo-1", "deb-other-1", "deb-demo-2"];
    let [first, other, second] = [0, 1, 2].map(|i| without_scripts(packages[i], names[i]));
    run(dpkg().arg("--install").arg(first?).arg(other?))?;
    ensure!(is_whole(&root, "demo-1")? && is_whole(&root, "other-1")?);
    run(dpkg().args(["--verify"]))?;
    run(dpkg().arg("--install").arg(second?))?;
    ensure!(!is_whole(&root, "demo-1")? && is_whole(&root, "demo-2")? && is_whole(&root, "other-1")?);
    let name = run(Command::new("dpkg-deb").arg("--field").arg(&made.other.deb).arg("Package"))?;
    run(dpkg().args(["--remove", name.trim()]))?;
    ensure!(is_whole(&root, "demo-2")? && !is_whole(&root, "other-1")?);
    Ok(())
}

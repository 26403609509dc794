//! Packages to examine, built in their own work dir, whose commits have a known date.

use anyhow::{Context, Result, ensure};
use schedswap_tests::edit::Tree;
use schedswap_tests::{kernel, own, work_dir};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Date of the last commit.
pub const DATE: u32 = 1_700_000_000;
/// … as `tar -tv` shows it.
pub const DATE_TEXT: &str = "2023-11-14 22:13";
/// Message of the last commit.
pub const CHANGE: &str = "fair: a feature that shows which scheduler runs";

/// What was built of one edit.
pub struct Made {
    /// The work dir.
    pub work: PathBuf,
    /// `demo-1` as deb and rpm.
    pub first: Pair,
    /// `demo-2`.
    pub second: Pair,
    /// `other-1`.
    pub other: Pair,
}

/// One scheduler in both formats.
pub struct Pair {
    /// The `.deb`.
    pub deb: PathBuf,
    /// The `.rpm`.
    pub rpm: PathBuf,
}

/// They are built once for all tests.
pub fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| make().expect("packages of the edited scheduler"))
}

fn make() -> Result<Made> {
    let work = dir()?.join("work");
    copy(&work_dir()?.0, &work)?;
    Tree::at(&work).patch("examples/demo/schedswap_test.patch")?;
    let who = ["-c", "user.name=Ann Author", "-c", "user.email=ann@example.org"];
    let date = format!("@{DATE} +0000");
    let mut git = Command::new("git");
    git.arg("-C").arg(&work).args(who).args(["commit", "-q", "-a", "-m", CHANGE]);
    run(git.env("GIT_AUTHOR_DATE", &date).env("GIT_COMMITTER_DATE", &date))?;
    let first = build(&work, "demo", "1", &["--summary", "shows which scheduler runs"])?;
    let second = build(&work, "demo", "2", &[])?;
    let other = build(&work, "other", "1", &[])?;
    // The tests look at what belongs to this one.
    build(&work, "demo", "1", &["--summary", "shows which scheduler runs"])?;
    Ok(Made { work, first, second, other })
}

/// A directory of these tests.
pub fn dir() -> Result<PathBuf> {
    own()
}

/// A directory that is empty.
pub fn fresh(name: &str) -> Result<PathBuf> {
    let dir = dir()?.join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Copies a work dir, without what `build` would not do again.
pub fn copy(work: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    run(Command::new("cp").arg("-a").arg(work).arg(to))?;
    for made in ["build/runtime", "build/link"] {
        let dir = to.join(".schedswap").join(made);
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
    }
    Ok(())
}

/// Runs `schedswap build`; returns the packages that it says it made.
pub fn build(work: &Path, name: &str, release: &str, more: &[&str]) -> Result<Pair> {
    build_at(work, name, release, more, None)
}

/// The same with `SOURCE_DATE_EPOCH`.
pub fn build_at(work: &Path, name: &str, release: &str, more: &[&str], epoch: Option<u32>) -> Result<Pair> {
    let program = env::var("SCHEDSWAP").context("SCHEDSWAP is not set; run the tests through `make test`")?;
    let mut build = Command::new(program);
    build.arg("build").arg(work).args(["--name", name, "--release", release, "--divert", "all", "--json"]);
    build.args(more);
    build.env_remove("SOURCE_DATE_EPOCH");
    if let Some(epoch) = epoch {
        build.env("SOURCE_DATE_EPOCH", epoch.to_string());
    }
    let said: serde_json::Value = serde_json::from_str(&run(&mut build)?)?;
    let package = |ending: &str| -> Result<PathBuf> {
        let mut packages = said["packages"].as_array().context("a list")?.iter().filter_map(|p| p.as_str());
        Ok(packages.find(|path| path.ends_with(ending)).context("not in --json")?.into())
    };
    Ok(Pair { deb: package(".deb")?, rpm: package(".rpm")? })
}

/// Runs it and returns its output; an error contains what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where `demo-1` is installed.
pub fn payload_dir(version: &str) -> Result<String> {
    Ok(format!("var/lib/schedswap/{}/{version}", kernel()?.release))
}

/// Unpacks a deb's files.
pub fn unpack_deb(deb: &Path, to: &Path) -> Result<()> {
    run(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(to)).map(drop)
}

/// Unpacks an rpm's files, as rpm itself installs them.
pub fn unpack_rpm(rpm: &Path, to: &Path) -> Result<()> {
    run(rpm_at(to).args(["--install", "--nodeps", "--noscripts"]).arg(rpm)).map(drop)
}

/// rpm on another root. Debian's rpm has to be told that this is intended.
pub fn rpm_at(root: &Path) -> Command {
    let mut rpm = Command::new("rpm");
    rpm.arg("--root").arg(root).args(["--dbpath", "/var/lib/rpm"]);
    if Path::new("/etc/debian_version").exists() {
        rpm.arg("--force-debian");
    }
    rpm
}

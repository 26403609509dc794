//! `init`, `build` and `build` again, as a user runs them, and the room that a work dir takes.

use crate::figures::{Findings, Target};
use anyhow::{Context, Result, ensure};
use schedswap_tests::{edit::Tree, kernel, schedswap};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

/// Measures into `findings`.
pub fn measure(findings: &mut Findings) -> Result<()> {
    let kernel = kernel()?;
    fs::read(&kernel.vmlinux)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let work = root.join("out/bench-work");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    }
    fs::create_dir_all(&work)?;
    let work = work.canonicalize()?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path is not UTF-8");
    let (dir, source, sysroot) = (text(&work)?, text(&kernel.source)?, text(&kernel.sysroot)?);

    let init = ["init", &kernel.release, &source, &dir, "--sysroot", &sysroot];
    timed("init", &init, 25.0, findings)?;

    let patch = fs::File::open(root.join("examples/demo/schedswap_test.patch"))?;
    let mut command = Command::new("patch");
    let status = command.args(["--quiet", "--strip=1", "--directory", &dir]).stdin(patch).status()?;
    ensure!(status.success(), "the demo's patch does not apply");
    timed("build after the demo's edit", &["build", &dir], 20.0, findings)?;

    let before = objects(&work)?;
    Tree::at(&work).at_entry("rt.c", "task_tick_rt", "if (unlikely(!p)) return;")?;
    timed("build after a line more in rt.c", &["build", &dir], 8.0, findings)?;
    let again: Vec<_> =
        objects(&work)?.into_iter().filter(|(path, at)| before.get(path) != Some(at)).collect();
    findings.note("  units compiled again", again.len() as f64, "", Target::AtMost(1.0));
    findings.note("  of", before.len() as f64, "", None);

    findings.note("size of the work dir", disk_bytes(&work)? as f64 / 1e6, "MB", Target::AtMost(60.0));
    Ok(())
}

/// Runs the command and notes its time, and its processor time: that one is the same on a busy machine.
fn timed(what: &str, arguments: &[&str], limit_seconds: f64, findings: &mut Findings) -> Result<()> {
    let (begun, before) = (Instant::now(), processor_seconds()?);
    let output = schedswap(arguments)?;
    findings.note(what, begun.elapsed().as_secs_f64(), "s", Target::AtMost(limit_seconds));
    findings.note("  processor time of that", processor_seconds()? - before, "s", None);
    ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Of all children that have ended, with theirs: fields 16 and 17 of `man 5 proc_pid_stat`.
fn processor_seconds() -> Result<f64> {
    /// USER_HZ, the same on every architecture that Linux still has for servers.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(13).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS_PER_SECOND)
}

/// The units' objects and when each was written.
fn objects(work: &Path) -> Result<BTreeMap<PathBuf, SystemTime>> {
    let mut found = BTreeMap::new();
    let dir = work.join(".schedswap/build/sched");
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "o") {
            found.insert(path.clone(), fs::metadata(&path)?.modified()?);
        }
    }
    Ok(found)
}

/// What `du` says; links are not followed.
fn disk_bytes(path: &Path) -> Result<u64> {
    let meta = fs::symlink_metadata(path)?;
    let mut bytes = meta.blocks() * 512;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += disk_bytes(&entry?.path())?;
        }
    }
    Ok(bytes)
}

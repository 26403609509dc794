//! Modules built from the kernel under test, each with the edit of one test.
//!
//! All tests share one work dir, `$SCHEDSWAP_TEST_WORK`, which is put back to the pristine state before each edit: so
//! `init` runs once, and a build compiles only what its edit touches.

use crate::edit::Tree;
use crate::kernel::kernel;
use anyhow::{Context, Result, ensure};
use schedswap_payload::Manifest;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A module for a guest.
#[derive(Clone, Debug)]
pub struct Built {
    /// Directory with `scheduler.ko` and `manifest.json`.
    pub dir: PathBuf,
}

impl Built {
    /// `scheduler.ko`
    pub fn module(&self) -> PathBuf {
        self.dir.join("scheduler.ko")
    }

    /// What its manifest says.
    pub fn manifest(&self) -> Result<Manifest> {
        Ok(Manifest::parse(&fs::read(self.dir.join("manifest.json"))?)?)
    }
}

fn out() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../out/test")
}

/// Runs the command under test; `$SCHEDSWAP` is where `make` built it.
pub fn schedswap(arguments: &[&str]) -> Result<Output> {
    let program = env::var("SCHEDSWAP").context("SCHEDSWAP is not set; run the tests through `make test`")?;
    Command::new(&program).args(arguments).output().with_context(|| format!("running {program}"))
}

/// Runs it and wants success; the error has what it printed.
fn done(arguments: &[&str]) -> Result<()> {
    let output = schedswap(arguments)?;
    ensure!(
        output.status.success(),
        "schedswap {} ended with {}:\n{}{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

fn git(work: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("git").arg("-C").arg(work).args(arguments).output().context("running git")?;
    ensure!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The shared work dir, pristine, for as long as the lock that comes with it is held.
pub fn work_dir() -> Result<(PathBuf, File)> {
    let kernel = kernel()?;
    fs::create_dir_all(out())?;
    let lock = File::create(out().join("lock"))?;
    lock.lock().context("locking out/test/lock")?;
    let work = match env::var_os("SCHEDSWAP_TEST_WORK") {
        Some(work) => PathBuf::from(work),
        None => out().canonicalize()?.join(&kernel.release),
    };
    let (source, sysroot) = (text(&kernel.source)?, text(&kernel.sysroot)?);
    // Steps that are complete take no time, so this costs little when there is one.
    done(&["init", &kernel.release, source, text(&work)?, "--sysroot", sysroot])?;
    git(&work, &["reset", "-q", "--hard"])?;
    git(&work, &["clean", "-qfd"])?;
    Ok((work, lock))
}

/// Builds a module with an edit.
pub fn build(name: &str, edit: impl FnOnce(&Tree) -> Result<()>) -> Result<Built> {
    let (work, _lock) = work_dir()?;
    edit(&Tree::at(&work))?;
    done(&["build", text(&work)?, "--name", name, "--format", "none"])?;
    let dir = out().join("modules").join(name);
    fs::create_dir_all(&dir)?;
    for file in ["scheduler.ko", "manifest.json"] {
        fs::copy(work.join(file), dir.join(file)).with_context(|| format!("keeping {file} of {name}"))?;
    }
    Ok(Built { dir })
}

/// The module of the unmodified scheduler.
pub fn pristine() -> Result<Built> {
    build("pristine", |_| Ok(()))
}

//! Modules built from the kernel under test, each with the edit of one test.
//!
//! All tests share one work dir, `$SCHEDSWAP_TEST_WORK`, which is put back to the pristine state before each edit: so
//! `init` runs once, and a build compiles only what its edit touches. `init` is the command's, because the work dir
//! remembers which program has made it, and another one would do all steps again; builds are the library's.

use crate::edit::Tree;
use crate::kept::{out, own};
use crate::kernel::kernel;
use anyhow::{Context, Result, anyhow, ensure};
use schedswap_host::progress::Silent;
use schedswap_package::Format;
use schedswap_payload::Manifest;
use schedswap_sched::config::Divert;
use schedswap_sched::module::sign::Signer;
use schedswap_sdk::{self as sdk, BuildOptions, Key, Workdir};
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
    configured_work_dir(None)
}

/// The same with a boundary that is overridden; without it the next one to ask has the computed one again.
pub fn configured_work_dir(config: Option<&str>) -> Result<(PathBuf, File)> {
    let kernel = kernel()?;
    fs::create_dir_all(out())?;
    let lock = File::create(out().join("lock"))?;
    lock.lock().context("locking out/test/lock")?;
    let work = match env::var_os("SCHEDSWAP_TEST_WORK") {
        Some(work) => PathBuf::from(work),
        None => out().canonicalize()?.join(&kernel.release),
    };
    let (source, sysroot) = (text(&kernel.source)?, text(&kernel.sysroot)?);
    let mut arguments = vec!["init", &kernel.release, source, text(&work)?, "--sysroot", sysroot];
    let file = out().canonicalize()?.join("boundary.yaml");
    if let Some(config) = config {
        fs::write(&file, config)?;
        arguments.extend(["--config", text(&file)?]);
    }
    // Steps that are complete take no time, so this costs little when there is one.
    done(&arguments)?;
    git(&work, &["reset", "-q", "--hard"])?;
    git(&work, &["clean", "-qfd"])?;
    Ok((work, lock))
}

/// Builds a module with an edit, which replaces all that can be: what a test sees of a function then does not depend on
/// what its edit happens to touch.
pub fn build(name: &str, edit: impl FnOnce(&Tree) -> Result<()>) -> Result<Built> {
    build_with(name, None, edit)
}

/// The same, but only what the edit changes is replaced, as `schedswap build` does unless it is told otherwise.
pub fn build_changed(name: &str, edit: impl FnOnce(&Tree) -> Result<()>) -> Result<Built> {
    let (work, _lock) = work_dir()?;
    build_in_with(&work, BuildOptions { divert: None, ..all(name) }, edit)
}

fn all(name: &str) -> BuildOptions {
    BuildOptions { divert: Some(Divert::All), ..BuildOptions::named(name, "1") }
}

/// The module of the unmodified scheduler, signed.
pub fn signed(name: &str, signer: &Signer) -> Result<Built> {
    let key = Key { file: signer.key.clone(), certificate: signer.certificate.clone() };
    build_with(name, Some(key), |_| Ok(()))
}

fn build_with(name: &str, key: Option<Key>, edit: impl FnOnce(&Tree) -> Result<()>) -> Result<Built> {
    let (work, _lock) = work_dir()?;
    build_in_with(&work, BuildOptions { key, ..all(name) }, edit)
}

/// The same, with a configuration that overrides the boundary.
pub fn build_configured(name: &str, config: &str, edit: impl FnOnce(&Tree) -> Result<()>) -> Result<Built> {
    let (work, _lock) = configured_work_dir(Some(config))?;
    build_in(&work, name, edit)
}

/// The same in a work dir of the test's own.
pub fn build_in(work: &Path, name: &str, edit: impl FnOnce(&Tree) -> Result<()>) -> Result<Built> {
    build_in_with(work, all(name), edit)
}

fn build_in_with(
    work: &Path,
    options: BuildOptions,
    edit: impl FnOnce(&Tree) -> Result<()>,
) -> Result<Built> {
    edit(&Tree::at(work))?;
    build_work_dir(work, &options)?;
    let name = &options.name;
    let dir = own()?.join("modules").join(name);
    fs::create_dir_all(&dir)?;
    for file in ["scheduler.ko", "manifest.json"] {
        fs::copy(work.join(file), dir.join(file)).with_context(|| format!("keeping {file} of {name}"))?;
    }
    Ok(Built { dir })
}

fn build_work_dir(work: &Path, options: &BuildOptions) -> Result<sdk::Built> {
    let work = Workdir::open(work)?;
    // All causes in one text, as the command shows them.
    sdk::build(&work, options, &Silent)
        .map_err(|error| anyhow!("building {}: {:#}", options.name, anyhow::Error::from(error)))
}

/// One release of a scheduler, as packages.
#[derive(Clone, Debug)]
pub struct Packages {
    /// `scheduler-….deb`
    pub deb: PathBuf,
    /// `scheduler-….rpm`
    pub rpm: PathBuf,
    /// What their manifest says.
    pub manifest: Manifest,
}

impl Packages {
    /// What dpkg calls it.
    pub fn deb_name(&self) -> String {
        format!("scheduler-{}-{}", self.manifest.name, self.manifest.kernel_release)
    }

    /// What rpm calls it.
    pub fn rpm_name(&self) -> String {
        format!("scheduler-{}", self.manifest.name)
    }

    /// Where it lies when it is installed.
    pub fn payload(&self) -> String {
        let Manifest { name, release, kernel_release, .. } = &self.manifest;
        format!("/var/lib/schedswap/{kernel_release}/{name}-{release}")
    }

    /// As the loader and sysfs name it.
    pub fn version(&self) -> String {
        format!("{}-{}", self.manifest.name, self.manifest.release)
    }
}

/// Builds a release of a scheduler with an edit, and packages of it.
pub fn package(name: &str, release: &str, edit: impl FnOnce(&Tree) -> Result<()>) -> Result<Packages> {
    let (work, _lock) = work_dir()?;
    edit(&Tree::at(&work))?;
    let options = BuildOptions {
        divert: Some(Divert::All),
        formats: vec![Format::Deb, Format::Rpm],
        source_date_epoch: env::var("SOURCE_DATE_EPOCH").ok(),
        ..BuildOptions::named(name, release)
    };
    let built = build_work_dir(&work, &options)?;
    let dir = own()?.join("packages").join(format!("{name}-{release}"));
    fs::create_dir_all(&dir)?;
    let mut kept = Vec::new();
    for package in &built.packages {
        let to = dir.join(package.file_name().context("a file name")?);
        fs::copy(package, &to).with_context(|| format!("keeping {}", package.display()))?;
        kept.push(to);
    }
    let of_kind = |kind: &str| {
        let found = kept.iter().find(|path| path.extension().is_some_and(|e| e == kind));
        found.cloned().with_context(|| format!("no .{kind} among {kept:?}"))
    };
    Ok(Packages { deb: of_kind("deb")?, rpm: of_kind("rpm")?, manifest: built.manifest })
}

/// The module of the unmodified scheduler.
pub fn pristine() -> Result<Built> {
    build("pristine", |_| Ok(()))
}

/// Compiles a module of one file against the headers of the kernel under test.
pub fn kernel_module(name: &str, source: &str) -> Result<PathBuf> {
    let kbuild = env::var("SCHEDSWAP_TEST_KBUILD")
        .context("SCHEDSWAP_TEST_KBUILD is not set; run the tests through `make test`")?;
    let dir = own()?.join("kernel-modules").join(name);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(format!("{name}.c")), source)?;
    fs::write(dir.join("Kbuild"), format!("obj-m := {name}.o\n"))?;
    let mut make = Command::new("make");
    make.args(["-C", &kbuild, &format!("M={}", dir.display()), "modules", "CONFIG_DEBUG_INFO_BTF_MODULES="])
        .env_remove("MAKEFLAGS");
    let (work, _lock) = work_dir()?;
    let commands = Workdir::open(&work)?.commands()?;
    // The compiler that built the kernel may not be this machine's own.
    if let Some(programs) = &commands.compiler.programs {
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([programs.clone()].into_iter().chain(env::split_paths(&path)))?;
        make.env("PATH", path);
    }
    let output = make.envs(&commands.env).output().context("running make")?;
    ensure!(
        output.status.success(),
        "{name}.ko: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(dir.join(format!("{name}.ko")))
}

//! A kernel's source as a distribution publishes it, made of the source of the kernel under test by the programs that
//! distributions use: the upstream release, with a patch that makes it the distribution's.

use crate::edit::Tree;
use crate::kernel::kernel;
use anyhow::{Context, Result, ensure};
use schedswap_sdk::workdir;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Version of the source packages.
const RELEASE: &str = "1";

/// An upstream release, and what a distribution changes about it.
pub struct Published {
    dir: PathBuf,
    /// `6.1.192`
    pub version: String,
    /// The release with the patch applied: the source of the kernel under test, as far as a scheduler needs it.
    pub patched: PathBuf,
}

impl Published {
    /// Makes both in a directory. Upstream's tick is another one; the patch makes it that of the kernel under test.
    pub fn new(dir: &Path) -> Result<Published> {
        let source = kernel()?.source;
        let version = workdir::source_version(&source)?;
        let top = format!("linux-{version}");
        let (patched, upstream) = (dir.join("patched"), dir.join(&top));
        fs::create_dir_all(&patched)?;
        let wanted = "find Makefile kernel io_uring -name '*.h' -o -name Makefile -o -path 'kernel/sched/*' -type f | \
                      tar --create --files-from=- | tar --extract --directory \"$0\"";
        sh(&source, wanted, &[&patched])?;
        sh(dir, "cp -a patched \"$0\"", &[&upstream])?;
        Tree::at(&upstream).at_entry("fair.c", "task_tick_fair", "queued++;")?;
        let diff = "! diff -ru \"$0\" patched >scheduler.patch && test -s scheduler.patch";
        sh(dir, diff, &[Path::new(&top)])?;
        Ok(Published { dir: dir.to_owned(), version, patched })
    }

    fn top(&self) -> String {
        format!("linux-{}", self.version)
    }

    /// The release, compressed as the name's ending says.
    pub fn tarball(&self, name: &str) -> Result<PathBuf> {
        let tarball = self.dir.join(name);
        sh(
            &self.dir,
            "tar --create --auto-compress --file \"$0\" \"$1\"",
            &[&tarball, Path::new(&self.top())],
        )?;
        Ok(tarball)
    }

    /// A source rpm whose `%prep` patches the release, and lays it out as those of rpm distributions' kernels do. Like
    /// theirs it is written for bash, which Debian's `/bin/sh` is not.
    pub fn source_rpm(&self) -> Result<PathBuf> {
        self.source_rpm_with("")
    }

    /// The same, with more to be done at the end of `%prep`.
    pub fn source_rpm_with(&self, more: &str) -> Result<PathBuf> {
        let (top, version) = (self.top(), &self.version);
        let sources = self.dir.join("rpm/SOURCES");
        fs::create_dir_all(&sources)?;
        fs::rename(self.tarball(&format!("{top}.tar.gz"))?, sources.join(format!("{top}.tar.gz")))?;
        fs::copy(self.dir.join("scheduler.patch"), sources.join("scheduler.patch"))?;
        let spec = format!(
            "Name: kernel\nVersion: {version}\nRelease: {RELEASE}.test\nSummary: The Linux kernel\nLicense: GPL-2.0\n\
             BuildRequires: nothing-that-any-machine-has\n\
             Source0: {top}.tar.gz\nPatch0: scheduler.patch\n\
             %description\nFor a test.\n\
             %prep\n%setup -q -c\nmv {top} {top}-{RELEASE}.test.x86_64\n\
             pushd {top}-{RELEASE}.test.x86_64\npatch -p1 -F1 -s <%{{PATCH0}}\n{more}\npopd\n\
             %build\nexit 1\n"
        );
        fs::write(self.dir.join("kernel.spec"), spec)?;
        let define = format!("_topdir {}", self.dir.join("rpm").display());
        sh(&self.dir, "rpmbuild -bs --nodeps --define \"$0\" kernel.spec", &[Path::new(&define)])?;
        Ok(self.dir.join(format!("rpm/SRPMS/kernel-{version}-{RELEASE}.test.src.rpm")))
    }

    /// Debian's: the release as it is, and `debian/` with the patch.
    pub fn dsc(&self) -> Result<PathBuf> {
        let version = &self.version;
        self.tarball(&format!("linux_{version}.orig.tar.xz"))?;
        let tree = self.dir.join(self.top());
        let put = |name: &str, text: &str| -> Result<()> {
            let path = tree.join("debian").join(name);
            fs::create_dir_all(path.parent().context("it has one")?)?;
            Ok(fs::write(path, text)?)
        };
        put("source/format", "3.0 (quilt)\n")?;
        put(
            "control",
            "Source: linux\nMaintainer: Test <test@localhost>\nStandards-Version: 4.6.2\n\n\
                        Package: linux-image\nArchitecture: any\nDescription: for a test\n",
        )?;
        let date = "Sun, 22 Nov 2026 00:00:00 +0000";
        put(
            "changelog",
            &format!(
                "linux ({version}-{RELEASE}) unstable; urgency=low\n\n  * Test.\n\n -- Test <test@localhost>  {date}\n"
            ),
        )?;
        put("rules", "#!/usr/bin/make -f\n")?;
        put("patches/series", "scheduler.patch\n")?;
        put("patches/scheduler.patch", &fs::read_to_string(self.dir.join("scheduler.patch"))?)?;
        sh(&self.dir, "dpkg-source --build \"$0\"", &[&tree])?;
        fs::remove_dir_all(tree.join("debian"))?;
        fs::remove_dir_all(tree.join(".pc")).or_else(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(e),
        })?;
        Ok(self.dir.join(format!("linux_{version}-{RELEASE}.dsc")))
    }
}

/// Runs a shell's command with `$0`, `$1`, … being paths.
pub fn sh(dir: &Path, command: &str, arguments: &[&Path]) -> Result<()> {
    let output = Command::new("sh")
        .arg("-ec")
        .arg(command)
        .args(arguments)
        .current_dir(dir)
        .output()
        .context("running sh")?;
    ensure!(
        output.status.success(),
        "{command}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

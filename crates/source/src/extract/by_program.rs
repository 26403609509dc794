//! The program that handles each form.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::SourceError;
use super::super::apt::{failed, spawn_error};

/// How many lines of a program's messages an error shows: the `%prep` of a distribution's kernel prints thousands.
const LINES_SHOWN: usize = 30;
const BASH: &str = "/bin/bash";

/// Runs the real `%prep` of the package's spec in private directories. Nothing is built, so the build's own
/// requirements need not be installed.
pub(super) fn rpmbuild(package: &Path, dir: &Path) -> Result<(), SourceError> {
    let mut command = Command::new("rpmbuild");
    command.args(["-rp", "--nodeps"]);
    // Each is set, because ~/.rpmmacros may set each.
    for (name, place) in [
        ("_topdir", "."),
        ("_builddir", "BUILD"),
        ("_sourcedir", "SOURCES"),
        ("_specdir", "SPECS"),
        ("_rpmdir", "RPMS"),
        ("_srcrpmdir", "SRPMS"),
        ("_buildrootdir", "BUILDROOT"),
        ("_tmppath", "tmp"),
    ] {
        let place = dir.join(place);
        fs::create_dir_all(&place).map_err(SourceError::io(&place))?;
        command.arg("--define").arg(format!("{name} {}", place.display()));
    }
    // Where these packages come from, /bin/sh is bash, and their specs rely on it.
    if Path::new(BASH).is_file() {
        command.arg("--define").arg(format!("_buildshell {BASH}"));
    }
    run(command.arg(package), "rpm (Debian) or rpm-build (elsewhere)", package, dir)
}

/// Unpacking also applies Debian's patches: the kernel's source package has the format 3.0 (quilt).
pub(super) fn dpkg_source(package: &Path, dir: &Path) -> Result<(), SourceError> {
    let mut command = Command::new("dpkg-source");
    run(command.arg("--extract").arg(package).arg(dir.join("tree")), "dpkg-dev", package, dir)
}

pub(super) fn tar(package: &Path, dir: &Path) -> Result<(), SourceError> {
    let mut command = Command::new("tar");
    command.arg("--extract").arg("--no-same-owner").arg("--directory").arg(dir);
    if package.extension().is_some_and(|extension| extension == "xz") {
        // tar itself would run it on one CPU.
        command.arg("--use-compress-program=xz --threads=0");
    }
    run(command.arg("--file").arg(package), "tar", package, dir)
}

fn run(
    command: &mut Command,
    its_package: &'static str,
    package: &Path,
    dir: &Path,
) -> Result<(), SourceError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .current_dir(dir)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| spawn_error(&program, its_package, error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("No space left on device") || said.contains("Disk quota exceeded") {
        return Err(SourceError::NoRoomForSource { directory: dir.to_owned() });
    }
    let mut lines: Vec<&str> = said.lines().collect();
    lines.drain(..lines.len().saturating_sub(LINES_SHOWN));
    let end = std::process::Output { stderr: lines.join("\n").into_bytes(), ..output };
    Err(failed(&format!("preparing {}", package.display()), &program, &end))
}

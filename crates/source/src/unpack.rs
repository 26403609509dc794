//! Unpacking only what is needed of each package: a debug package holds two gigabytes of modules' symbols beside the
//! vmlinux, a source package a gigabyte of drivers.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::SourceError;
use super::apt::{failed, spawn_error};

/// Left out of a source tree; compared with the path below the tree.
const NOT_THE_SCHEDULERS: [&str; 11] = [
    "Documentation",
    "arch",
    "crypto",
    "drivers",
    "fs",
    "net",
    "rust",
    "samples",
    "security",
    "sound",
    "tools",
];

/// The whole package.
pub(super) fn whole(deb: &Path, root: &Path) -> Result<(), SourceError> {
    create(root)?;
    let output = run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(root), "dpkg")?;
    succeeded(output, &format!("unpacking {}", name(deb)), "dpkg-deb", root)
}

/// Where debug packages have the vmlinux: newer ones have it beside the modules, with a link in the older place.
const VMLINUX: [&str; 2] = ["*/usr/lib/debug/boot/vmlinux-*", "*/usr/lib/debug/lib/modules/*/vmlinux"];

/// The vmlinux of a debug package. If it is not in one of Debian's usual places, the whole package.
pub(super) fn vmlinux(deb: &Path, root: &Path) -> Result<(), SourceError> {
    create(root)?;
    let [named, linked] = VMLINUX;
    if member(deb, root, named)? && (!is_dangling(root)? || member(deb, root, linked)?) {
        return Ok(());
    }
    whole(deb, root)
}

/// The emulator that runs programs of `machine`, from a package of emulators. Its name, one of two, depends on the
/// suite; a package that has neither only depends on the one that has it.
pub(super) fn emulator(deb: &Path, root: &Path, machine: &str) -> Result<(), SourceError> {
    create(root)?;
    for name in emulator_names(machine) {
        member(deb, root, &format!("*/usr/bin/{name}"))?;
    }
    Ok(())
}

/// The possible names of a statically linked user-mode emulator.
pub(super) fn emulator_names(machine: &str) -> [String; 2] {
    [format!("qemu-{machine}-static"), format!("qemu-{machine}")]
}

/// Whether what has been unpacked so far is a link to a file that has not.
fn is_dangling(root: &Path) -> Result<bool, SourceError> {
    let boot = root.join("usr/lib/debug/boot");
    let mut entries = fs::read_dir(&boot).map_err(SourceError::io(&boot))?.flatten();
    Ok(entries.any(|entry| !entry.path().exists()))
}

/// The first file that matches; false if there is none.
fn member(deb: &Path, root: &Path, pattern: &str) -> Result<bool, SourceError> {
    let mut members = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // tar exits as soon as it has the file, and dpkg-deb complains about that.
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| spawn_error("dpkg-deb", "dpkg", error))?;
    let pipe = members.stdout.take().expect("stdout is piped");
    let extracted = Command::new("tar")
        .arg("--extract")
        .arg("--directory")
        .arg(root)
        .args(["--no-same-owner", "--occurrence=1", "--wildcards", pattern])
        .env("LC_ALL", "C")
        .stdin(pipe)
        .output();
    let _ = members.wait();
    let extracted = extracted.map_err(|error| spawn_error("tar", "tar", error))?;
    if !extracted.status.success() && says(&extracted, "Not found in archive") {
        return Ok(false);
    }
    succeeded(extracted, &format!("unpacking {}", name(deb)), "tar", root)?;
    Ok(true)
}

/// Unpacks the tree inside a source package into `source`.
pub(super) fn source_tree(deb: &Path, source: &Path) -> Result<(), SourceError> {
    let outer = source.with_extension("deb");
    whole(deb, &outer)?;
    let packed = outer.join("usr/src");
    let tarball = fs::read_dir(&packed)
        .map_err(SourceError::io(&packed))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| name(path).contains(".tar"))
        .ok_or_else(|| SourceError::ProgramFailed {
            doing: format!("unpacking {}", name(deb)),
            program: "dpkg-deb".into(),
            status: "success".into(),
            said: format!("but there is no tar file in {}", packed.display()),
        })?;
    create(source)?;
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(&tarball).arg("--directory").arg(source);
    tar.args(["--strip-components=1", "--no-same-owner", "--anchored", "--wildcards"]);
    // Otherwise `*` would match slashes, and `*/net` would match include/net too.
    tar.arg("--no-wildcards-match-slash");
    if name(&tarball).ends_with(".xz") {
        tar.arg("--use-compress-program=xz --threads=0");
    }
    tar.args(NOT_THE_SCHEDULERS.map(|directory| format!("--exclude=*/{directory}")));
    let output = run(&mut tar, "tar")?;
    succeeded(output, &format!("unpacking {}", name(deb)), "tar", source)?;
    fs::remove_dir_all(&outer).map_err(SourceError::io(&outer))
}

fn create(directory: &Path) -> Result<(), SourceError> {
    fs::create_dir_all(directory).map_err(SourceError::io(directory))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn run(command: &mut Command, package: &'static str) -> Result<Output, SourceError> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| spawn_error(&program, package, error))
}

pub(super) fn says(output: &Output, words: &str) -> bool {
    String::from_utf8_lossy(&output.stderr).contains(words)
}

/// Tells a full disk from all other reasons for which a program may have failed.
pub(super) fn succeeded(
    output: Output,
    doing: &str,
    program: &str,
    directory: &Path,
) -> Result<(), SourceError> {
    if output.status.success() {
        return Ok(());
    }
    if says(&output, "No space left on device") || says(&output, "Disk quota exceeded") {
        return Err(SourceError::DiskFull { doing: doing.into(), directory: directory.into() });
    }
    Err(failed(doing, program, &output))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A debug package of these files; the value of one is its content, or where it links to.
    fn package(dir: &Path, files: &[(&str, Result<&str, &str>)]) -> std::path::PathBuf {
        let tree = dir.join("tree");
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        let control = "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n";
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        for (file, content) in files {
            let path = tree.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match content {
                Ok(text) => fs::write(path, text).unwrap(),
                Err(target) => symlink(target, path).unwrap(),
            }
        }
        let deb = dir.join("x.deb");
        let output = run(Command::new("dpkg-deb").arg("--build").arg(&tree).arg(&deb), "dpkg").unwrap();
        succeeded(output, "making a package", "dpkg-deb", dir).unwrap();
        deb
    }

    #[test]
    fn of_a_debug_package_the_vmlinux_comes_out_wherever_it_is() {
        let module = ("usr/lib/debug/lib/modules/1-x/kernel/x.ko.debug", Ok("symbols"));
        let by_link = Err("../lib/modules/1-x/vmlinux");
        for files in [
            vec![("usr/lib/debug/boot/vmlinux-1-x", Ok("vmlinux")), module],
            vec![
                ("usr/lib/debug/boot/vmlinux-1-x", by_link),
                module,
                ("usr/lib/debug/lib/modules/1-x/vmlinux", Ok("vmlinux")),
            ],
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (deb, root) = (package(dir.path(), &files), dir.path().join("root"));
            vmlinux(&deb, &root).unwrap();
            assert_eq!(fs::read_to_string(root.join("usr/lib/debug/boot/vmlinux-1-x")).unwrap(), "vmlinux");
            assert!(!root.join(module.0).exists(), "the modules' symbols are two gigabytes");
        }
    }
}

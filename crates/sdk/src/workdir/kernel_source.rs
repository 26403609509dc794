//! The kernel's source: a directory or a tarball of it. `init` copies `kernel/sched/`, the headers outside `include/`
//! that it includes, and the files of sidecars.

use super::store::{copy_file, read_text, remove_dir};
use super::{Error, Result};
use schedswap_kernel::vmlinux::Sidecars;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// The version that the top Makefile of a kernel's source states: `6.1.192`.
///
/// # Errors
/// The Makefile cannot be read, or states no version.
pub fn version(source: &Path) -> Result<String> {
    let text = read_text(&source.join("Makefile"))?;
    let value = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('=')))?;
        Some(line.split_once('=')?.1.trim().to_owned())
    };
    let parts = [value("VERSION"), value("PATCHLEVEL"), value("SUBLEVEL")];
    let parts: Option<Vec<String>> = parts.into_iter().collect();
    parts.map(|parts| parts.join(".")).ok_or_else(|| Error::NotASource {
        path: source.to_owned(),
        missing: "VERSION, PATCHLEVEL and SUBLEVEL in its Makefile",
    })
}

/// Debian's own version of an unpacked source package (`6.1.192-2`), from its changelog.
pub(super) fn debian_version(source: &Path) -> Option<String> {
    let changelog = fs::read_to_string(source.join("debian/changelog")).ok()?;
    let (_, rest) = changelog.lines().next()?.split_once('(')?;
    Some(rest.split_once(')')?.0.to_owned())
}

/// Whether a kernel of that release and banner is built from source of that version. Debian's release names
/// an ABI (`6.1.0-56`) and its banner the version (`Debian 6.1.192-2`); elsewhere the release begins with it.
pub(super) fn is_version_of(version: &str, release: &str, banner: &str) -> bool {
    let whole = |text: &str, at: usize| {
        let before = text[..at].chars().next_back();
        let after = text[at + version.len()..].chars().next();
        !before.is_some_and(|c| c.is_ascii_digit() || c == '.') && !after.is_some_and(|c| c.is_ascii_digit())
    };
    // The compiler's version is in the banner too; it stands in parentheses.
    let mut depth = 0usize;
    let outside: String = banner
        .chars()
        .filter(|c| {
            depth = if *c == '(' { depth + 1 } else { depth };
            let keep = depth == 0;
            depth = if *c == ')' { depth.saturating_sub(1) } else { depth };
            keep
        })
        .collect();
    // `uname -r` of 6.12.0 is 6.12.0-…, of mainline's first release 6.12.0 too.
    [release, &outside].iter().any(|text| text.match_indices(version).any(|(at, _)| whole(text, at)))
}

/// Where the source's root is: `path` itself, or the one directory or tarball in it (Debian's package has a
/// tarball in `/usr/src`).
pub(super) fn find(path: &Path) -> Result<Found> {
    let is_root = |dir: &Path| dir.join("kernel/sched").is_dir();
    if path.is_file() {
        return Ok(Found::Tarball(path.to_owned()));
    }
    if is_root(path) {
        return Ok(Found::Dir(path.to_owned()));
    }
    let entries = fs::read_dir(path).map_err(|e| Error::io("read", path, e))?;
    let entries: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let one = |wanted: &dyn Fn(&Path) -> bool| {
        let mut found = entries.iter().filter(|entry| wanted(entry));
        found.next().filter(|_| found.next().is_none()).cloned()
    };
    let is_tarball = |entry: &Path| {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("linux") && name.contains(".tar") && entry.is_file()
    };
    if let Some(dir) = one(&is_root) {
        return Ok(Found::Dir(dir));
    }
    one(&is_tarball)
        .map(Found::Tarball)
        .ok_or_else(|| Error::NotASource { path: path.to_owned(), missing: "kernel/sched" })
}

/// A kernel source.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Found {
    Dir(PathBuf),
    Tarball(PathBuf),
}

/// Unpacks what may be needed of a tarball into `dest` and returns the source's root in there.
///
/// The headers that `kernel/sched` includes are not known before it is unpacked, and going through the tarball takes
/// seconds; so this also unpacks every header that lies at most two directories deep, or below `kernel/`.
pub(super) fn unpack(tarball: &Path, dest: &Path, sidecars: &Sidecars) -> Result<PathBuf> {
    remove_dir(dest)?;
    fs::create_dir_all(dest).map_err(|e| Error::io("create", dest, e))?;
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(dest).args(["--wildcards", "--no-wildcards-match-slash", "--no-same-owner"]);
    if tarball.extension().is_some_and(|e| e == "xz") {
        // tar would run it on one CPU.
        tar.args(["-I", "xz -T0"]);
    }
    tar.arg("-xf").arg(tarball);
    tar.args(["*/kernel/sched", "*/Makefile", "*/debian/changelog"]);
    tar.args(["*/*/*.h", "*/kernel/*/*.h", "*/kernel/*/*/*.h"]);
    for unit in sidecars.keys() {
        tar.arg(format!("*/{unit}")).arg(format!("*/{}/Makefile", directory(unit)));
        tar.arg(format!("*/{}/*.h", directory(unit)));
    }
    let output = tar.env("LC_ALL", "C").output().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::ProgramMissing { program: "tar" },
        _ => Error::io("run tar on", tarball, e),
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("No space left on device") {
        return Err(Error::DiskFull { path: dest.to_owned() });
    }
    if said.contains("xz: Cannot exec") || said.contains("xz: not found") {
        return Err(Error::ProgramMissing { program: "xz" });
    }
    // A pattern without a match (no debian/changelog) makes tar fail; what counts is what came out.
    let entries = fs::read_dir(dest).map_err(|e| Error::io("read", dest, e))?;
    let root = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .chain([dest.to_owned()])
        .find(|dir| dir.join("kernel/sched").is_dir());
    let unexpected: Vec<&str> = said
        .lines()
        .filter(|line| {
            !line.contains("Not found in archive") && !line.contains("Exiting with failure status")
        })
        .collect();
    match root {
        Some(root) if unexpected.is_empty() => Ok(root),
        _ => Err(Error::BadTarball { path: tarball.to_owned(), said: unexpected.join("\n") }),
    }
}

/// `kernel/cgroup` of `kernel/cgroup/cpuset.c`.
fn directory(unit: &str) -> &str {
    unit.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// Copies `kernel/sched`, the files of sidecars, and the private headers that these include, from `source` to
/// `tree`. Returns how many private headers there were.
pub(super) fn copy_scheduler(source: &Path, tree: &Path, sidecars: &Sidecars) -> Result<usize> {
    remove_dir(tree)?;
    copy_sources(&source.join("kernel/sched"), &tree.join("kernel/sched"))?;
    let link = tree.join("kernel/sched/mod");
    std::os::unix::fs::symlink(".", &link).map_err(|e| Error::io("create", &link, e))?;
    let copy = |file: &Path| -> Result<()> {
        let target = tree.join(file);
        let dir = target.parent().unwrap_or(tree);
        fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        copy_file(&source.join(file), &target)
    };
    for unit in sidecars.keys() {
        let makefile = format!("{}/Makefile", directory(unit));
        for file in [unit, &makefile] {
            if !source.join(file).is_file() {
                return Err(Error::NoSidecar { path: source.to_owned(), missing: file.clone() });
            }
            copy(Path::new(file))?;
        }
    }
    let headers = private_headers(source, sidecars)?;
    headers.iter().try_for_each(|header| copy(header))?;
    Ok(headers.len())
}

/// Copies what was not made by a build in that tree.
fn copy_sources(from: &Path, dest: &Path) -> Result<()> {
    fs::create_dir_all(dest).map_err(|e| Error::io("create", dest, e))?;
    for path in sources_in(from)? {
        let target = dest.join(path.file_name().unwrap_or_default());
        if path.is_dir() && !path.is_symlink() {
            copy_sources(&path, &target)?;
        } else {
            copy_file(&path, &target)?;
        }
    }
    Ok(())
}

/// What is in a directory of a kernel's source, except what Kbuild has made there. Kbuild keeps the command of each file
/// that it makes: that of `core.o` in `.core.o.cmd`.
pub(super) fn sources_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(|e| Error::io("read", dir, e))?;
    let names: BTreeSet<OsString> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    let is_made = |name: &OsString| {
        let name = name.to_string_lossy();
        let is_command = name.starts_with('.') && name.ends_with(".cmd");
        is_command || names.contains(&OsString::from(format!(".{name}.cmd")))
    };
    Ok(names.iter().filter(|name| !is_made(name)).map(|name| dir.join(name)).collect())
}

/// Headers outside `kernel/sched` that it includes by a path relative to the includer, and those that they
/// include in turn; relative to the source's root.
fn private_headers(source: &Path, sidecars: &Sidecars) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut todo = files_below(source, Path::new("kernel/sched"))?;
    todo.extend(sidecars.keys().map(PathBuf::from));
    while let Some(file) = todo.pop() {
        let bytes = fs::read(source.join(&file)).map_err(|e| Error::io("read", source.join(&file), e))?;
        let dir = file.parent().unwrap_or(Path::new(""));
        for name in quoted_includes(&String::from_utf8_lossy(&bytes)) {
            let Some(header) = normalised(&dir.join(name)) else { continue };
            // What is not there is found through an include path, or compiled for another architecture only.
            if !header.starts_with("kernel/sched")
                && source.join(&header).is_file()
                && found.insert(header.clone())
            {
                todo.push(header);
            }
        }
    }
    Ok(found)
}

fn files_below(root: &Path, dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let full = root.join(dir);
    for entry in fs::read_dir(&full).map_err(|e| Error::io("read", &full, e))? {
        let entry = entry.map_err(|e| Error::io("read", &full, e))?;
        let path = dir.join(entry.file_name());
        let kind = entry.file_type().map_err(|e| Error::io("read", &full, e))?;
        if kind.is_dir() {
            files.extend(files_below(root, &path)?);
        } else if kind.is_file() && path.extension().is_some_and(|e| e == "c" || e == "h") {
            files.push(path);
        }
    }
    Ok(files)
}

fn quoted_includes(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let directive = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?;
        directive.trim_start().strip_prefix('"')?.split_once('"').map(|(name, _)| name)
    })
}

/// A path without `.` and `..`; `None` when it leads out of the root.
fn normalised(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir if !out.pop() => return None,
            Component::Normal(name) => out.push(name),
            _ => {}
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_headers_are_followed_and_ordinary_ones_left() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "kernel/sched/core.c",
            "#include <linux/mm.h>\n #  include \"../smpboot.h\"\n#include \"sched.h\"\n",
        );
        write(
            "kernel/sched/sched.h",
            "#include \"../../io_uring/io-wq.h\"\n#include \"../../../etc/passwd\"\n",
        );
        write("kernel/smpboot.h", "#include \"locking/mutex.h\"\n#include \"absent.h\"\n");
        write("kernel/locking/mutex.h", "");
        write("kernel/unrelated.h", "");
        write("io_uring/io-wq.h", "#include \"../kernel/smpboot.h\"\n");
        let tree = dir.path().join("tree");
        assert_eq!(copy_scheduler(dir.path(), &tree, &Sidecars::new()).unwrap(), 3);
        for name in
            ["kernel/smpboot.h", "kernel/locking/mutex.h", "io_uring/io-wq.h", "kernel/sched/mod/core.c"]
        {
            assert!(tree.join(name).is_file(), "{name}");
        }
        assert!(!tree.join("kernel/unrelated.h").exists());
    }

    #[test]
    fn what_a_build_left_is_not_source() {
        let dir = tempfile::tempdir().unwrap();
        let sched = dir.path().join("source/kernel/sched");
        fs::create_dir_all(&sched).unwrap();
        for name in
            ["core.c", "core.o", ".core.o.cmd", "built-in.a", ".built-in.a.cmd", ".gitignore", "Makefile"]
        {
            fs::write(sched.join(name), "").unwrap();
        }
        let tree = dir.path().join("tree");
        copy_scheduler(&dir.path().join("source"), &tree, &Sidecars::new()).unwrap();
        let mut names: Vec<_> = fs::read_dir(tree.join("kernel/sched"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, [".gitignore", "Makefile", "core.c", "mod"]);
    }

    #[test]
    fn a_source_is_told_by_release_or_banner() {
        let debian = "Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld 2.40) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)";
        assert!(is_version_of("6.1.192", "6.1.0-56-cloud-amd64", debian));
        assert!(!is_version_of("6.1.19", "6.1.0-56-cloud-amd64", debian));
        assert!(!is_version_of("6.1.190", "6.1.0-56-cloud-amd64", debian));
        assert!(!is_version_of("12.2.0", "6.1.0-56-cloud-amd64", debian), "the compiler's version");
        let el = "Linux version 5.14.0-503.11.1.el9_5.x86_64 (mock@host) (gcc (GCC) 11.5.0) #1 SMP";
        assert!(is_version_of("5.14.0", "5.14.0-503.11.1.el9_5.x86_64", el));
        assert!(!is_version_of("4.0", "5.14.0-503.11.1.el9_5.x86_64", el));
    }

    #[test]
    fn the_version_is_the_makefiles() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("Makefile"),
            "# x\nVERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 192\nEXTRAVERSION =\n",
        )
        .unwrap();
        assert_eq!(version(dir.path()).unwrap(), "6.1.192");
        fs::write(dir.path().join("Makefile"), "all:\n").unwrap();
        assert!(version(dir.path()).is_err());
    }
}

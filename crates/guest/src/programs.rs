//! What a program of this machine needs to run in a guest: its interpreter and libraries.

use super::{Error, Result};
use object::LittleEndian;
use object::elf::{ET_DYN, ET_EXEC, ET_REL, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The ELF interpreter that a program names; `None` for a static one.
pub(super) fn interpreter(bytes: &[u8]) -> std::result::Result<Option<PathBuf>, String> {
    let reason = |error: object::read::Error| error.to_string();
    let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(reason)?;
    let endian = header.endian().map_err(reason)?;
    // A kernel module is copied as it is, like any other file of a directory.
    if header.e_type(endian) == ET_REL {
        return Ok(None);
    }
    if !matches!(header.e_type(endian), ET_EXEC | ET_DYN) {
        return Err("it is not an executable program".to_string());
    }
    for segment in header.program_headers(endian, bytes).map_err(reason)? {
        if segment.p_type(endian) == PT_INTERP {
            let name = segment
                .data(endian, bytes)
                .map_err(|()| "the name of its interpreter lies outside the file")?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or(name);
            return Ok(Some(PathBuf::from(OsStr::from_bytes(name))));
        }
    }
    Ok(None)
}

/// Finds a program: a path, or a name in PATH.
pub(super) fn find(name: &str) -> Result<PathBuf> {
    let missing = || Error::ProgramMissing { name: name.to_string() };
    let found = if name.contains('/') {
        Some(PathBuf::from(name)).filter(|path| path.exists())
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).map(|dir| dir.join(name)).find(|path| is_executable(path))
    };
    std::path::absolute(found.ok_or_else(missing)?).map_err(|_| missing())
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Every other file that `program` needs: interpreter and libraries; for a script, the program that runs it, with the
/// files that this one needs.
pub(super) fn needs(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let unusable = |reason: String| Error::ProgramUnusable { program: program.to_path_buf(), reason };
    let bytes = fs::read(program).map_err(Error::io(format!("cannot read {}", program.display())))?;
    if let Some(runner) = shebang(&bytes) {
        // Every guest has busybox's shell.
        if runner == "/bin/sh" {
            return Ok(BTreeSet::new());
        }
        let path = find(&runner)?;
        let mut files = needs(&path)?;
        files.insert(path);
        return Ok(files);
    }
    if !bytes.starts_with(b"\x7fELF") {
        return Ok(BTreeSet::new());
    }
    let Some(interpreter) = interpreter(&bytes).map_err(unusable)? else { return Ok(BTreeSet::new()) };
    // The interpreter knows about rpath, ld.so.conf and hardware variants; `--list` does not run the program.
    let output = Command::new(&interpreter)
        .arg("--list")
        .arg(program)
        .output()
        .map_err(Error::io(format!("cannot run {}", interpreter.display())))?;
    if !output.status.success() {
        return Err(unusable(String::from_utf8_lossy(&output.stderr).trim().to_string()));
    }
    let mut files = listed(&String::from_utf8_lossy(&output.stdout)).map_err(unusable)?;
    // glibc loads this library by name when a thread is cancelled or ends with pthread_exit.
    let unwinder =
        files.iter().filter_map(|file| Some(file.parent()?.join("libgcc_s.so.1"))).find(|f| f.exists());
    files.extend(unwinder);
    files.insert(interpreter);
    Ok(files)
}

/// The program after `#!`; for `/usr/bin/env x`, x.
fn shebang(bytes: &[u8]) -> Option<String> {
    let line = bytes.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace();
    let runner = words.next()?;
    if runner.ends_with("/env") {
        return words.find(|word| !word.starts_with('-') && !word.contains('=')).map(str::to_string);
    }
    Some(runner.to_string())
}

/// The files in the output of `ld.so --list`: `libm.so.6 => /lib/libm.so.6 (0x…)`, `/lib64/ld.so (0x…)`,
/// `linux-vdso.so.1 (0x…)`, `libx.so => not found`.
fn listed(text: &str) -> std::result::Result<BTreeSet<PathBuf>, String> {
    let mut files = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        let (name, path) = line.split_once(" => ").unwrap_or((line, line));
        if path.starts_with("not found") {
            return Err(format!("its library {name} is not installed"));
        }
        let path = path.split(" (0x").next().unwrap_or(path).trim();
        if path.starts_with('/') {
            files.insert(PathBuf::from(path));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_the_interpreters_list() {
        let text = "\tlinux-vdso.so.1 (0x00007ffe)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let files: Vec<_> = listed(text).unwrap().into_iter().collect();
        let expected = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(files, expected.map(PathBuf::from));
        assert_eq!(
            listed("\tlibx.so.1 => not found\n").unwrap_err(),
            "its library libx.so.1 is not installed"
        );
        assert!(listed("\tstatically linked\n").unwrap().is_empty());
    }

    #[test]
    fn a_scripts_runner_is_found() {
        assert_eq!(shebang(b"#!/bin/bash -e\nx").unwrap(), "/bin/bash");
        assert_eq!(shebang(b"#! /usr/bin/env -S A=1 python3\n").unwrap(), "python3");
        assert_eq!(shebang(b"\x7fELF"), None);
    }

    #[test]
    fn the_shell_needs_its_libc() {
        let files = needs(Path::new("/bin/sh")).unwrap();
        assert!(files.iter().any(|file| file.to_string_lossy().contains("libc.so")), "{files:?}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = find("no-such-program-here").unwrap_err().to_string();
        assert!(error.contains("no-such-program-here"), "{error}");
    }

    #[test]
    fn damaged_programs_are_errors() {
        assert!(interpreter(b"\x7fELF").is_err());
        let mut bytes = fs::read(env::current_exe().unwrap()).unwrap();
        bytes.truncate(70);
        assert!(interpreter(&bytes).is_err());
    }
}

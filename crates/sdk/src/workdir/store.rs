//! Files of the work dir: written whole or not at all.

use super::{Error, Result};
use schedswap_kernel::objects::{self, Object};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes a file so that an interruption leaves the old one or the new one.
pub(super) fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    fs::write(&unfinished, content).map_err(|e| Error::io("write", &unfinished, e))?;
    fs::rename(&unfinished, path).map_err(|e| Error::io("write", path, e))
}

pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|e| Error::io("write", path, e.into()))?;
    json.push(b'\n');
    write_atomically(path, &json)
}

/// Writes a value on one line: few people read such a file.
pub(super) fn write_compact_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_vec(value).map_err(|e| Error::io("write", path, e.into()))?;
    write_atomically(path, &json)
}

pub(super) fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| Error::io("read", path, e))
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Damaged { path: path.to_owned(), source })
}

pub(super) fn read_object(unit: &str, path: &Path) -> Result<(String, Object)> {
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    Ok((unit.to_owned(), objects::read(&path.to_string_lossy(), &bytes)?))
}

/// Makes `dest` a copy of the directory `from`: files, directories and links, with their modes.
pub(super) fn copy_dir(from: &Path, dest: &Path) -> Result<()> {
    fs::create_dir_all(dest).map_err(|e| Error::io("create", dest, e))?;
    for entry in fs::read_dir(from).map_err(|e| Error::io("read", from, e))? {
        let entry = entry.map_err(|e| Error::io("read", from, e))?;
        let (path, target) = (entry.path(), dest.join(entry.file_name()));
        let kind = entry.file_type().map_err(|e| Error::io("read", &path, e))?;
        if kind.is_dir() {
            copy_dir(&path, &target)?;
        } else {
            copy_file(&path, &target)?;
        }
    }
    Ok(())
}

/// Copies one file, or the link itself, over what may be there.
pub(super) fn copy_file(from: &Path, target: &Path) -> Result<()> {
    if target.symlink_metadata().is_ok() {
        fs::remove_file(target).map_err(|e| Error::io("replace", target, e))?;
    }
    if from.is_symlink() {
        let to = fs::read_link(from).map_err(|e| Error::io("read", from, e))?;
        return std::os::unix::fs::symlink(to, target).map_err(|e| Error::io("create", target, e));
    }
    fs::copy(from, target).map(drop).map_err(|e| Error::io("write", target, e))
}

/// Removes a directory with all in it, if it is there.
pub(super) fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Names in a directory; none of one that is not there.
fn names(dir: &Path) -> Result<BTreeSet<OsString>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(e) => Err(Error::io("read", dir, e)),
    }
}

/// Copies what is in `from` and not in `dest`, except below `except`; returns those files, relative to `dest`.
pub(super) fn add_missing(from: &Path, dest: &Path, except: &Path) -> Result<Vec<PathBuf>> {
    let mut added = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        for name in names(&from.join(&dir))? {
            let path = dir.join(name);
            if path == except {
                continue;
            }
            let (source, target) = (from.join(&path), dest.join(&path));
            if source.is_dir() && !source.is_symlink() {
                fs::create_dir_all(&target).map_err(|e| Error::io("create", &target, e))?;
                todo.push(path);
            } else if target.symlink_metadata().is_err() {
                copy_file(&source, &target)?;
                added.push(path);
            }
        }
    }
    Ok(added)
}

/// Whether the files that two directories both have are the same.
pub(super) fn agree(one: &Path, other: &Path) -> Result<bool> {
    for name in names(one)?.intersection(&names(other)?) {
        let (a, b) = (one.join(name), other.join(name));
        let same = if a.is_symlink() || b.is_symlink() {
            fs::read_link(&a).ok() == fs::read_link(&b).ok()
        } else if a.is_dir() && b.is_dir() {
            agree(&a, &b)?
        } else {
            fs::read(&a).ok() == fs::read(&b).ok()
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

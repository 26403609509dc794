//! What is written of the boundary, for people and for programs.

use super::boundary_text::boundary_text;
use super::paths::Paths;
use super::store::{write_atomically, write_json};
use super::{Error, Result};
use schedswap_kernel::vmlinux::{self, Image};
use schedswap_sched::boundary::{self, Boundary, Extract};
use schedswap_sched::config::{Config, SCHEDULER};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes `boundary.json`, which is what later phases read, and the same for people.
pub(super) fn write(paths: &Paths, boundary: &Boundary, config: &Config) -> Result<()> {
    write_json(&paths.boundary(), boundary)?;
    write_atomically(&paths.boundary_text(), boundary_text(boundary).as_bytes())?;
    let effective = boundary::effective(boundary, config, scheduler_files(&paths.tree())?);
    write_json(&paths.boundary_config(), &effective)?;
    let of = &boundary.release;
    let head = format!(
        "# The effective configuration of {of}: what was configured, and what was computed where nothing was.\n\
         # As `schedswap init --config` it leads to the same boundary. Written by init; docs/configuration.md explains it.\n"
    );
    write_yaml(&paths.root.join("boundary.yaml"), &head, &effective)?;
    let head = format!(
        "# Every function and variable of the scheduler of {of}: its class, what becomes of it, and why.\n\
         # .schedswap/boundary.json has the same with addresses.\n"
    );
    write_yaml(&paths.root.join("boundary_extract.yaml"), &head, &Extract::of(boundary))
}

/// Writes which members of the scheduler's structures code outside may use. `source`: the kernel's, if it is there
/// unpacked.
pub(super) fn write_doc(paths: &Paths, image: &Image, source: Option<&Path>) -> Result<()> {
    let structures = vmlinux::structures(image)?;
    let source = source.unwrap_or(Path::new(""));
    let files = if source.as_os_str().is_empty() { Vec::new() } else { files_outside(source)? };
    let read = |file: &str| {
        let path = source.join(file);
        fs::read(&path).map_err(|e| Error::io("read", path, e))
    };
    let doc = boundary::document(&image.release, &structures, &files, read)?;
    write_json(&paths.boundary_doc(), &doc)?;
    let head = format!(
        "# Every structure of the scheduler of {}: all its members, and which of them are used from outside, by whom.\n",
        image.release
    );
    write_yaml(&paths.root.join("boundary_doc.yaml"), &head, &doc)
}

/// The C files of the kernel's source that are not the scheduler's.
fn files_outside(source: &Path) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    c_files_below(source, &mut paths)?;
    paths.retain(|path| !path.starts_with(source.join(SCHEDULER)));
    paths.sort();
    let name = |path: &PathBuf| path.strip_prefix(source).unwrap_or(path).display().to_string();
    Ok(paths.iter().map(name).collect())
}

fn c_files_below(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(|e| Error::io("read", dir, e))? {
        let entry = entry.map_err(|e| Error::io("read", dir, e))?;
        let kind = entry.file_type().map_err(|e| Error::io("read", entry.path(), e))?;
        let path = entry.path();
        if kind.is_dir() {
            c_files_below(&path, found)?;
        } else if kind.is_file() && path.extension().is_some_and(|e| e == "c" || e == "h") {
            found.push(path);
        }
    }
    Ok(())
}

pub(super) fn write_yaml(path: &Path, head: &str, value: &impl Serialize) -> Result<()> {
    let yaml = serde_saphyr::to_string(value)
        .map_err(|e| Error::io("write", path, std::io::Error::other(e.to_string())))?;
    write_atomically(path, format!("{head}{yaml}").as_bytes())
}

/// The scheduler's sources and headers in the pristine tree, as `mod_files` names them.
fn scheduler_files(tree: &Path) -> Result<Vec<String>> {
    let dir = tree.join(SCHEDULER);
    let entries = fs::read_dir(&dir).map_err(|e| Error::io("read", &dir, e))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut files: Vec<String> = names
        .filter(|name| name.ends_with(".c") || name.ends_with(".h"))
        .map(|name| format!("{SCHEDULER}{name}"))
        .collect();
    files.sort();
    Ok(files)
}

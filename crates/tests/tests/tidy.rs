//! A house rule that no compiler checks: nothing in the tree is tied to one machine. (The crates enforce the order of
//! the phases.)

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

fn files_below(dir: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_symlink() {
            continue;
        } else if path.is_dir() {
            if !matches!(name.as_str(), "target" | "out" | "vendor" | ".git" | "corpus" | "artifacts") {
                files_below(&path, endings, found);
            }
        } else if endings.iter().any(|e| name.ends_with(e)) {
            found.push(path);
        }
    }
}

#[test]
fn no_file_is_tied_to_one_machine_or_left_unfinished() {
    let mut files = Vec::new();
    files_below(
        &root(),
        &[".rs", ".c", ".h", ".S", ".sh", ".md", "Makefile", "Containerfile", ".patch"],
        &mut files,
    );
    let here = root().display().to_string();
    // Spelled so that this file does not find itself.
    let marks = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["todo", "!("].concat(),
        ["unimple", "mented!("].concat(),
    ];
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if text.contains(&format!("{here}/")) {
            wrong.push(format!("{} holds this checkout's path", file.display()));
        }
        for mark in &marks {
            if text.contains(mark.as_str()) {
                wrong.push(format!("{} holds {mark}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

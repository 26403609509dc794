//! The house rules that a machine can hold: phases import only earlier ones, and nothing in the tree is tied
//! to one machine.

use std::fs;
use std::path::{Path, PathBuf};

/// The phases of `lib/src`, in order. A phase may import those before it, and what stands beside it: what is
/// of one machine's making is part of reading vmlinux.
const PHASES: &[&[&str]] = &[
    &["source"],
    &["objects"],
    &["arch", "vmlinux"],
    &["layout"],
    &["springboard"],
    &["config"],
    &["boundary"],
    &["compile"],
    &["identity"],
    &["binding"],
    &["check"],
    &["workdir"],
    &["module"],
    &["package"],
    &["guest"],
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
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
fn phases_import_only_earlier_ones() {
    let lib = root().join("lib/src");
    let mut wrong = Vec::new();
    let places =
        PHASES.iter().enumerate().flat_map(|(index, names)| names.iter().map(move |name| (index, name)));
    for (index, phase) in places {
        let mut files = Vec::new();
        files_below(&lib.join(phase), &[".rs"], &mut files);
        assert!(!files.is_empty(), "lib/src/{phase} has no sources: is the list of phases out of date?");
        for file in files {
            let text = fs::read_to_string(&file).expect("a source file");
            // Tests inside a phase may use what they like.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for later in PHASES[index + 1..].iter().copied().flatten() {
                if code.contains(&format!("crate::{later}::")) || code.contains(&format!("crate::{later};")) {
                    wrong.push(format!("{} imports {later}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "a phase imports a later one:\n{}", wrong.join("\n"));
}

#[test]
fn every_folder_of_the_library_is_a_known_phase() {
    for entry in fs::read_dir(root().join("lib/src")).expect("lib/src").flatten() {
        if entry.path().is_dir() {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(
                PHASES.iter().any(|names| names.contains(&name.as_str())),
                "lib/src/{name} is no phase of DESIGN.md"
            );
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

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

/// The folders from which documents name files.
fn starts_of_paths(root: &Path) -> Vec<PathBuf> {
    let mut starts = vec![root.to_owned(), root.join("crates"), root.join("crates/kernel/src/vmlinux")];
    for entry in fs::read_dir(root.join("crates")).expect("crates").flatten() {
        starts.extend([entry.path(), entry.path().join("src")]);
    }
    starts
}

/// Whether a word in backquotes is the path of a file of the project: it has a slash and one of its endings. Placeholders
/// (`NAME.rs`, `SSnnn.md`, `<machine>`) and paths of other trees do not count.
fn is_path_of_ours(word: &str) -> bool {
    let endings = [".rs", ".c", ".h", ".S", ".sh", ".md"];
    let is_placeholder = word.contains(['<', '*', ' ']) || word.contains("NAME") || word.contains("nnn");
    let is_elsewhere = word.starts_with(['/', '.', '~']) || word.contains("kernel/sched/");
    word.contains('/')
        && endings.iter().any(|ending| word.ends_with(ending))
        && !is_placeholder
        && !is_elsewhere
}

#[test]
fn every_file_that_the_design_names_exists() {
    let root = root();
    let mut pages = vec![root.join("DESIGN.md"), root.join("CONTRIBUTING.md")];
    files_below(&root.join("docs/design"), &[".md"], &mut pages);
    let starts = starts_of_paths(&root);
    let (mut missing, mut found) = (Vec::new(), 0);
    for page in &pages {
        let text = fs::read_to_string(page).expect("a document");
        for word in text.split('`').skip(1).step_by(2).filter(|word| is_path_of_ours(word)) {
            match starts.iter().any(|start| start.join(word).exists()) {
                true => found += 1,
                false => missing.push(format!("{}: {word}", page.display())),
            }
        }
    }
    assert!(missing.is_empty(), "documents name files that do not exist:\n{}", missing.join("\n"));
    assert!(
        found > 20,
        "only {found} paths were found: does this test still read what the documents look like?"
    );
}

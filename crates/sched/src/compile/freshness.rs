//! Whether an object is still what its inputs would make. Contents are compared, not times: `git checkout` and unpacking
//! change a file's time and not its content, or its content and not its time.

use super::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What an object was made from. Kept beside it.
#[derive(PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Stamp {
    /// The command lines and the compiler's version.
    command: u64,
    /// Source and headers → hash of their content. Those in the tree are relative to it, so that an object
    /// made in one copy of the tree serves another of the same content.
    inputs: BTreeMap<PathBuf, u64>,
    /// What the compiler said.
    diagnostics: String,
}

/// What an object has just been made from.
pub(super) struct Made<'a> {
    pub command: u64,
    pub inputs: &'a [PathBuf],
    pub diagnostics: &'a str,
}

/// Hashes of files, each read once a run: units share most headers.
#[derive(Default)]
pub(super) struct FileHashes(Mutex<HashMap<PathBuf, Option<u64>>>);

impl FileHashes {
    /// The hash of a file's content; `None` when it cannot be read.
    pub fn of(&self, path: &Path) -> Option<u64> {
        if let Some(known) = self.0.lock().expect("no holder of this lock panics").get(path) {
            return *known;
        }
        let hash = fs::read(path).ok().map(|bytes| hash_of(&bytes));
        self.0.lock().expect("no holder of this lock panics").insert(path.to_owned(), hash);
        hash
    }
}

/// A later version of Rust may compute another hash; then every object is compiled again, and nothing worse happens.
pub(super) fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The stamp's diagnostics if the object is there and nothing it was made from has changed.
pub(super) fn still_fresh(
    object: &Path,
    stamp: &Path,
    command: u64,
    tree: &Path,
    hashes: &FileHashes,
) -> Option<String> {
    let stamp: Stamp = serde_json::from_slice(&fs::read(stamp).ok()?).ok()?;
    let fresh = stamp.command == command
        && object.exists()
        && stamp.inputs.iter().all(|(path, hash)| hashes.of(&tree.join(path)) == Some(*hash));
    fresh.then_some(stamp.diagnostics)
}

/// Whether an object was made from files of the same content as those in `tree`. `false` if it is not known what it was
/// made from.
pub fn is_made_from(object: &Path, tree: &Path) -> bool {
    let mut stamp = object.to_owned().into_os_string();
    stamp.push(".json");
    let Some(stamp) =
        fs::read(PathBuf::from(stamp)).ok().and_then(|json| serde_json::from_slice::<Stamp>(&json).ok())
    else {
        return false;
    };
    let hashes = FileHashes::default();
    stamp.inputs.iter().all(|(path, hash)| hashes.of(&tree.join(path)) == Some(*hash))
}

/// Writes the stamp of an object just made.
pub(super) fn write_stamp(stamp: &Path, made: Made, tree: &Path, hashes: &FileHashes) -> Result<()> {
    let relative = |path: &'_ PathBuf| path.strip_prefix(tree).unwrap_or(path).to_owned();
    let inputs = made.inputs.iter().filter_map(|path| Some((relative(path), hashes.of(path)?))).collect();
    let value = Stamp { command: made.command, inputs, diagnostics: made.diagnostics.to_owned() };
    let json = serde_json::to_vec(&value).map_err(|e| Error::io("write", stamp, e.into()))?;
    fs::write(stamp, json).map_err(|e| Error::io("write", stamp, e))
}

/// The prerequisites in a depfile, relative ones taken from `cwd`.
pub(super) fn prerequisites(depfile: &str, cwd: &Path) -> Vec<PathBuf> {
    let Some((_, list)) = depfile.split_once(": ") else { return Vec::new() };
    let mut paths = Vec::new();
    let mut word = String::new();
    let mut chars = list.chars().peekable();
    let mut finish = |word: &mut String| {
        if !word.is_empty() {
            paths.push(cwd.join(std::mem::take(word)));
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&'\n') => finish(&mut word),
            '\\' if matches!(chars.peek(), Some(' ' | '#' | '\\')) => word.extend(chars.next()),
            '$' if chars.peek() == Some(&'$') => word.extend(chars.next()),
            // The list ends with its line; what follows are phony targets.
            '\n' if !word.is_empty() || chars.peek() == Some(&'\n') => break,
            c if c.is_whitespace() => finish(&mut word),
            c => word.push(c),
        }
    }
    finish(&mut word);
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depfile_is_read_as_make_reads_it() {
        let text = "core.o: /w/core.c \\\n ./include/a.h /x/with\\ space.h \\\n /y/$$.h\n\n./include/a.h:\n";
        let paths = prerequisites(text, Path::new("/k"));
        let expected = ["/w/core.c", "/k/./include/a.h", "/x/with space.h", "/y/$.h"];
        assert_eq!(paths, expected.map(PathBuf::from));
    }

    #[test]
    fn an_object_is_stale_once_any_input_the_command_or_the_object_changed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["a.c", "a.h", "a.o"] {
            fs::write(at(name), name).unwrap();
        }
        let made = Made { command: 7, inputs: &[at("a.c"), at("a.h")], diagnostics: "a warning" };
        write_stamp(&at("stamp"), made, dir.path(), &FileHashes::default()).unwrap();
        let fresh =
            |command| still_fresh(&at("a.o"), &at("stamp"), command, dir.path(), &FileHashes::default());
        assert_eq!(fresh(7).as_deref(), Some("a warning"));
        assert_eq!(fresh(8), None);
        fs::write(at("a.h"), "other").unwrap();
        assert_eq!(fresh(7), None);
        fs::write(at("a.h"), "a.h").unwrap();
        assert!(fresh(7).is_some(), "the same content again is the same input");
        fs::remove_file(at("a.h")).unwrap();
        assert_eq!(fresh(7), None);
        fs::write(at("a.h"), "a.h").unwrap();
        fs::remove_file(at("a.o")).unwrap();
        assert_eq!(fresh(7), None);
    }
}

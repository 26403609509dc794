//! Objects that work dirs share. The runtime is the same for every module of a kernel, unless an edit changes the private
//! headers that it includes. What one work dir has compiled serves another, if the command and the content of every input are
//! the same.
//!
//! ```text
//! <command>/<content>.o        the object; both are hashes
//! <command>/<content>.o.json   what it was made from
//! ```

use super::freshness::{FileHashes, hash_of, still_fresh};
use super::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How many objects of one command are kept: as many versions of the private headers.
const KEPT: usize = 8;

/// Where the objects of one command are.
pub(super) struct Shared(PathBuf);

impl Shared {
    pub fn of(store: &Path, command: u64) -> Shared {
        Shared(store.join(format!("{command:016x}")))
    }

    /// Puts an object and its stamp in their places, if there is one that was made from what `tree` holds. Returns the
    /// compiler's messages.
    pub fn take(
        &self,
        command: u64,
        tree: &Path,
        hashes: &FileHashes,
        object: &Path,
        stamp: &Path,
    ) -> Option<String> {
        self.objects().into_iter().find_map(|(_, shared)| {
            let said = still_fresh(&shared, &stamp_of(&shared), command, tree, hashes)?;
            let bytes = fs::read(&shared).ok()?;
            // A file cut short by a full disk or a lost machine.
            if shared.file_stem()?.to_str()? != content_name(&bytes) {
                return None;
            }
            write_whole(object, &bytes).ok()?;
            fs::copy(stamp_of(&shared), stamp).ok()?;
            Some(said)
        })
    }

    /// Keeps an object that was just made. The oldest make room for it.
    pub fn put(&self, object: &Path, stamp: &Path) -> Result<()> {
        let bytes = fs::read(object).map_err(|e| Error::io("read", object, e))?;
        let said = fs::read(stamp).map_err(|e| Error::io("read", stamp, e))?;
        fs::create_dir_all(&self.0).map_err(|e| Error::io("create", &self.0, e))?;
        let shared = self.0.join(content_name(&bytes)).with_extension("o");
        write_whole(&shared, &bytes)?;
        write_whole(&stamp_of(&shared), &said)?;
        let mut objects = self.objects();
        objects.sort();
        for (_, old) in objects.iter().rev().skip(KEPT) {
            // Another process may have removed them already.
            let _ = fs::remove_file(stamp_of(old));
            let _ = fs::remove_file(old);
        }
        Ok(())
    }

    fn objects(&self) -> Vec<(SystemTime, PathBuf)> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let objects = entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "o"));
        objects.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect()
    }
}

fn content_name(bytes: &[u8]) -> String {
    format!("{:016x}", hash_of(bytes))
}

fn stamp_of(object: &Path) -> PathBuf {
    object.with_extension("o.json")
}

/// Others see the whole file or none.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    fs::write(&partial, bytes).map_err(|e| Error::io("write", &partial, e))?;
    fs::rename(&partial, path).map_err(|e| Error::io("write", path, e))
}

#[cfg(test)]
mod tests {
    use super::super::freshness::{Made, write_stamp};
    use super::*;

    const COMMAND: u64 = 7;

    /// A work dir in which `header` and an object made from it are.
    fn work_dir(header: &str, object: &str) -> tempfile::TempDir {
        let work = tempfile::tempdir().unwrap();
        fs::write(work.path().join("a.h"), header).unwrap();
        fs::write(work.path().join("a.o"), object).unwrap();
        let inputs = [work.path().join("a.h")];
        let made = Made { command: COMMAND, inputs: &inputs, diagnostics: "a warning" };
        write_stamp(&work.path().join("a.o.json"), made, work.path(), &FileHashes::default()).unwrap();
        work
    }

    fn put(store: &Path, work: &Path) {
        Shared::of(store, COMMAND).put(&work.join("a.o"), &work.join("a.o.json")).unwrap();
    }

    /// What a work dir with this header gets.
    fn taken(store: &Path, header: &str) -> Option<Vec<u8>> {
        let work = tempfile::tempdir().unwrap();
        fs::write(work.path().join("a.h"), header).unwrap();
        let (object, stamp) = (work.path().join("a.o"), work.path().join("a.o.json"));
        let hashes = FileHashes::default();
        let said = Shared::of(store, COMMAND).take(COMMAND, work.path(), &hashes, &object, &stamp)?;
        assert_eq!(said, "a warning");
        let hashes = FileHashes::default();
        assert!(still_fresh(&object, &stamp, COMMAND, work.path(), &hashes).is_some());
        Some(fs::read(object).unwrap())
    }

    #[test]
    fn an_object_serves_another_work_dir_of_the_same_content_and_no_other() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(taken(store.path(), "one"), None);
        put(store.path(), work_dir("one", "object of one").path());
        put(store.path(), work_dir("two", "object of two").path());
        assert_eq!(taken(store.path(), "one").as_deref(), Some(&b"object of one"[..]));
        assert_eq!(taken(store.path(), "two").as_deref(), Some(&b"object of two"[..]));
        assert_eq!(taken(store.path(), "three"), None);
    }

    #[test]
    fn a_damaged_object_serves_nobody() {
        let store = tempfile::tempdir().unwrap();
        put(store.path(), work_dir("one", "object of one").path());
        let (_, object) = Shared::of(store.path(), COMMAND).objects().pop().unwrap();
        fs::write(object, "object of").unwrap();
        assert_eq!(taken(store.path(), "one"), None);
    }

    #[test]
    fn only_so_many_are_kept() {
        let store = tempfile::tempdir().unwrap();
        for version in 0..KEPT + 3 {
            put(store.path(), work_dir(&format!("{version}"), &format!("object of {version}")).path());
        }
        assert_eq!(Shared::of(store.path(), COMMAND).objects().len(), KEPT);
        assert_eq!(fs::read_dir(store.path().join(format!("{COMMAND:016x}"))).unwrap().count(), 2 * KEPT);
    }
}

//! Large files that are made once and kept in the cache.

use crate::{Error, Result};
use schedswap_source::Cache;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The place of one file; while it is held, no other process makes one.
pub(super) struct CachedFile {
    file: PathBuf,
    staging: PathBuf,
    // The kernel releases it when the process ends, however it ends.
    _lock: File,
}

impl CachedFile {
    /// Waits until no other process makes a file.
    pub(super) fn lock(cache: &Cache, name: &str) -> Result<CachedFile> {
        let dir = cache.guests();
        let unwritable = || Error::io(format!("cannot write to {}", dir.display()));
        fs::create_dir_all(&dir).map_err(unwritable())?;
        let lock = File::create(dir.join("lock")).map_err(unwritable())?;
        lock.lock().map_err(unwritable())?;
        Ok(CachedFile { file: dir.join(name), staging: dir.join(format!("{name}.partial")), _lock: lock })
    }

    /// Returns the file, after making it if needed. `make` gets an empty directory, which is removed afterwards, and
    /// the name of the file to make. A file appears under its own name only once `make` has succeeded.
    pub(super) fn get_or_make(&self, make: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<PathBuf> {
        if self.file.exists() {
            return Ok(self.file.clone());
        }
        let unwritable = || Error::io(format!("cannot write {}", self.staging.display()));
        // Left by an earlier run that was interrupted.
        if self.staging.exists() {
            fs::remove_dir_all(&self.staging).map_err(unwritable())?;
        }
        let tree = self.staging.join("tree");
        fs::create_dir_all(&tree).map_err(unwritable())?;
        let made = self.staging.join("image");
        make(&tree, &made)?;
        fs::rename(&made, &self.file).map_err(unwritable())?;
        fs::remove_dir_all(&self.staging).map_err(unwritable())?;
        Ok(self.file.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_and_only_whole() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        let get = |make: &dyn Fn(&Path) -> Result<()>| {
            CachedFile::lock(&cache, "x").unwrap().get_or_make(|tree, image| {
                assert_eq!(fs::read_dir(tree).unwrap().count(), 0);
                fs::write(tree.join("half"), "").unwrap();
                make(image)
            })
        };
        get(&|_| Err(Error::Scenario("broken off".into()))).unwrap_err();
        let write = |text: &'static str| {
            move |image: &Path| {
                fs::write(image, text).unwrap();
                Ok(())
            }
        };
        let file = get(&write("first")).unwrap();
        assert_eq!(get(&write("second")).unwrap(), file);
        assert_eq!(fs::read_to_string(&file).unwrap(), "first");
        assert!(!dir.path().join("guests/x.partial").exists());
    }
}

//! What the cache takes on the disk, and removing things from it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::{Cache, SourceError};
use schedswap_host::progress::Progress;

/// Directories of the cache in which every file or directory is one item of the cache.
const COLLECTIONS: [&str; 6] = ["kernels", "images", "toolchains", "objects", "guests", "chroots"];
/// Directories that a fetch leaves behind and can make again.
const LEFTOVERS: [&str; 2] = ["apt", "debs"];
/// The names of incomplete files and directories end in this.
const PARTIAL: &str = "partial";
/// The unit of `st_blocks`, which does not depend on the file system.
const BLOCK_BYTES: u64 = 512;

/// One item in the cache.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CacheEntry {
    /// Its path below the cache, which is its name: `kernels/6.1.0-56-cloud-amd64`.
    pub name: String,
    /// What it takes on the disk.
    pub bytes: u64,
    /// It is left over from an interrupted fetch, or the next fetch makes it again quickly.
    pub is_leftover: bool,
    /// When it was put there.
    #[serde(skip)]
    pub since: SystemTime,
}

impl CacheEntry {
    fn of(cache: &Cache, name: String, is_leftover: bool) -> Result<CacheEntry, SourceError> {
        let path = cache.root().join(&name);
        let metadata = path.symlink_metadata().map_err(SourceError::io(&path))?;
        let since = metadata.modified().map_err(SourceError::io(&path))?;
        Ok(CacheEntry { bytes: disk_bytes(&path)?, name, is_leftover, since })
    }
}

/// Names of the items that have to go so that the rest take no more than `bound_bytes`: first leftovers, then the
/// oldest.
pub fn over(bound_bytes: u64, mut entries: Vec<CacheEntry>) -> Vec<String> {
    entries.sort_by_key(|entry| (!entry.is_leftover, entry.since));
    let mut left: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let mut gone = Vec::new();
    for entry in entries {
        if left <= bound_bytes {
            break;
        }
        left -= entry.bytes;
        gone.push(entry.name);
    }
    gone
}

/// Everything in the cache, the largest first.
///
/// # Errors
/// When a directory cannot be read.
pub fn usage(cache: &Cache) -> Result<Vec<CacheEntry>, SourceError> {
    let mut found = Vec::new();
    for collection in COLLECTIONS {
        for name in names_in(&cache.root().join(collection))? {
            // Kept for the next time; not worth showing.
            if name != "lock" {
                found.push((format!("{collection}/{name}"), name.ends_with(&format!(".{PARTIAL}"))));
            }
        }
    }
    for name in names_in(cache.root())? {
        if !COLLECTIONS.contains(&name.as_str()) && name != "lock" {
            let is_leftover = LEFTOVERS.contains(&name.as_str());
            found.push((name, is_leftover));
        }
    }
    let mut entries = found
        .into_iter()
        .map(|(name, is_leftover)| CacheEntry::of(cache, name, is_leftover))
        .collect::<Result<Vec<_>, SourceError>>()?;
    entries.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    Ok(entries)
}

/// Removes items from the cache, after waiting for a fetch that is under way. Returns what was removed.
///
/// # Errors
/// If a name is not that of an item, nothing is removed. Otherwise an error names the file that could not be removed.
pub fn remove(
    cache: &Cache,
    wanted: &dyn Fn(&CacheEntry) -> bool,
    progress: &dyn Progress,
) -> Result<Vec<CacheEntry>, SourceError> {
    let _lock = cache.lock(progress)?;
    let entries: Vec<CacheEntry> = usage(cache)?.into_iter().filter(|entry| wanted(entry)).collect();
    for entry in &entries {
        let path = cache.root().join(&entry.name);
        let is_directory = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        // A kernel without its record counts as absent, so a process that comes meanwhile does not use half of it.
        let aside = path.with_file_name(format!(".removed.{PARTIAL}"));
        let removed = match is_directory {
            true => fs::rename(&path, &aside).and_then(|()| fs::remove_dir_all(&aside)),
            false => fs::remove_file(&path),
        };
        removed.map_err(SourceError::io(&path))?;
    }
    Ok(entries)
}

fn names_in(directory: &Path) -> Result<Vec<String>, SourceError> {
    let names = match fs::read_dir(directory) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    names.map_err(SourceError::io(directory))
}

/// Counts only the blocks of a sparse file that exist.
fn disk_bytes(path: &Path) -> Result<u64, SourceError> {
    let metadata = path.symlink_metadata().map_err(SourceError::io(path))?;
    let mut bytes = metadata.blocks() * BLOCK_BYTES;
    if metadata.is_dir() {
        let entries = fs::read_dir(path).map_err(SourceError::io(path))?;
        let entries: Vec<PathBuf> = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<_>>()
            .map_err(SourceError::io(path))?;
        for entry in entries {
            bytes += disk_bytes(&entry)?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedswap_host::progress::Silent;

    #[test]
    fn what_is_there_is_shown_and_what_is_named_goes() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: usize| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![1; bytes]).unwrap();
        };
        put("kernels/1-x/root/vmlinux", 300_000);
        put("kernels/2-x.partial/root/vmlinux", 200_000);
        put("guests/root.ext4", 100_000);
        put("guests/lock", 0);
        put("debs/a.deb", 10);
        put("lock", 0);
        let cache = Cache::at(dir.path());
        let names = |entries: Vec<CacheEntry>| entries.into_iter().map(|e| e.name).collect::<Vec<_>>();
        let before = usage(&cache).unwrap();
        assert!(before[0].bytes >= 300_000 && before[0].bytes < 400_000, "{before:?}");
        assert_eq!(names(before), ["kernels/1-x", "kernels/2-x.partial", "guests/root.ext4", "debs"]);
        let gone = remove(&cache, &|entry| entry.is_leftover, &Silent).unwrap();
        assert_eq!(names(gone), ["kernels/2-x.partial", "debs"]);
        let gone = remove(&cache, &|entry| entry.name == "guests/root.ext4", &Silent).unwrap();
        assert_eq!(names(gone), ["guests/root.ext4"]);
        assert_eq!(names(usage(&cache).unwrap()), ["kernels/1-x"]);
        assert!(dir.path().join("guests/lock").exists());
    }

    #[test]
    fn the_oldest_goes_until_the_rest_is_small_enough() {
        let entry = |name: &str, bytes, is_leftover, age_s: u64| CacheEntry {
            name: name.into(),
            bytes,
            is_leftover,
            since: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 - age_s),
        };
        let entries = || {
            vec![
                entry("kernels/new", 50, false, 1),
                entry("kernels/old", 40, false, 300),
                entry("toolchains/older", 5, false, 400),
                entry("debs", 10, true, 2),
            ]
        };
        assert_eq!(over(105, entries()), Vec::<String>::new());
        assert_eq!(over(104, entries()), ["debs"]);
        assert_eq!(over(60, entries()), ["debs", "toolchains/older", "kernels/old"]);
        assert_eq!(over(0, entries()).len(), 4);
    }
}

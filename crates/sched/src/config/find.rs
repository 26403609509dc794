//! Where a kernel's configuration is: in one of the directories of configurations, under the longest beginning of
//! the kernel's release.

use super::{Config, Error, parse};
use schedswap_host::libexec;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// What a configuration is called inside a directory that is named after kernels.
pub const FILE_NAME: &str = "boundary.yaml";

/// `$SCHEDSWAP_KERNELS` alone, where it is set; else `kernels/` in the directories of the programs that this project
/// brings along.
pub fn directories() -> Vec<PathBuf> {
    match env::var_os("SCHEDSWAP_KERNELS") {
        Some(dir) => vec![PathBuf::from(dir)],
        None => libexec::directories().into_iter().map(|dir| dir.join("kernels")).collect(),
    }
}

/// The configuration for a release: `<dir>/<prefix>/boundary.yaml` or `<dir>/<prefix>.yaml`, of the longest prefix
/// that the release begins with; of equals, the first.
pub fn find(release: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    let mut best: Option<(usize, PathBuf)> = None;
    for dir in directories {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
        entries.sort();
        for entry in entries {
            let Some((prefix, file)) = prefix_of(&entry) else { continue };
            let is_longer = best.as_ref().is_none_or(|(length, _)| prefix.len() > *length);
            if is_prefix(&prefix, release) && is_longer {
                best = Some((prefix.len(), file));
            }
        }
    }
    best.map(|(_, file)| file)
}

/// Reads a configuration.
///
/// # Errors
/// When the file cannot be read, or everything that is wrong with it on every kernel.
pub fn read(path: &Path) -> Result<Config, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(&path.display().to_string(), &text)
}

/// The kernels that an entry of a directory of configurations is for, and its file.
fn prefix_of(entry: &Path) -> Option<(String, PathBuf)> {
    let name = entry.file_name()?.to_str()?;
    if entry.is_dir() {
        let file = entry.join(FILE_NAME);
        return file.is_file().then(|| (name.to_owned(), file));
    }
    Some((name.strip_suffix(".yaml")?.to_owned(), entry.to_owned()))
}

/// Whether a release begins with a prefix that ends where a part of the release ends: `6.1` is for 6.1.192, not for
/// 6.12.
fn is_prefix(prefix: &str, release: &str) -> bool {
    let next = release.strip_prefix(prefix).map(|rest| rest.chars().next());
    !prefix.is_empty() && next.is_some_and(|next| next.is_none_or(|c| !c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        path
    }

    #[test]
    fn the_longest_prefix_wins() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let of = |release| find(release, &[dir.path().to_owned(), other.path().to_owned()]);
        assert_eq!(of("6.1.0-56-cloud-amd64"), None);
        let major = put(dir.path(), "6.1.yaml");
        let abi = put(other.path(), "6.1.0-56/boundary.yaml");
        put(dir.path(), "6.1.0-5.yaml");
        put(dir.path(), "6.1.0-56-cloud-amd64/other.yaml");
        put(dir.path(), "README.md");
        assert_eq!(of("6.1.0-56-cloud-amd64"), Some(abi.clone()));
        assert_eq!(of("6.1.0-56"), Some(abi));
        assert_eq!(of("6.1.0-57-amd64"), Some(major.clone()));
        assert_eq!(of("6.1"), Some(major));
        assert_eq!(of("6.12.9-amd64"), None, "6.1 is another kernel");
    }
}

//! Paths below a sysroot. Unpacked packages contain absolute links (`/lib/modules/R/build` → `/usr/src/…`) that are
//! meant below the sysroot, not on the host.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel itself follows in one path before it returns ELOOP.
const MAX_LINKS: usize = 40;

/// The file that `inside` names if `root` is the root directory: every symbolic link on the way is followed below
/// `root`, and `..` never leaves it. `None` if there is no such file.
pub(super) fn resolve(root: &Path, inside: &Path) -> Option<PathBuf> {
    let mut resolved: Vec<OsString> = Vec::new();
    let mut rest: VecDeque<OsString> = names(inside).collect();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        let here = below(root, &resolved).join(&name);
        let metadata = here.symlink_metadata().ok()?;
        if !metadata.is_symlink() {
            resolved.push(name);
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return None;
        }
        let target = here.read_link().ok()?;
        if target.is_absolute() {
            resolved.clear();
        }
        for part in names(&target).collect::<Vec<_>>().into_iter().rev() {
            rest.push_front(part);
        }
    }
    Some(below(root, &resolved))
}

fn below(root: &Path, names: &[OsString]) -> PathBuf {
    let mut path = root.to_path_buf();
    path.extend(names);
    path
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn absolute_links_mean_the_sysroot() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("usr/src/headers/include")).unwrap();
        fs::create_dir_all(root.join("lib/modules/R")).unwrap();
        symlink("/usr/src/headers", root.join("lib/modules/R/build")).unwrap();
        assert_eq!(
            resolve(root, Path::new("/lib/modules/R/build/include")),
            Some(root.join("usr/src/headers/include"))
        );
    }

    #[test]
    fn parent_directories_stop_at_the_sysroot() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("etc")).unwrap();
        symlink("../../../../etc", root.join("link")).unwrap();
        assert_eq!(resolve(root, Path::new("link")), Some(root.join("etc")));
    }

    #[test]
    fn missing_files_and_loops_are_none() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/loop", dir.path().join("loop")).unwrap();
        assert_eq!(resolve(dir.path(), Path::new("loop")), None);
        assert_eq!(resolve(dir.path(), Path::new("nothing/there")), None);
    }
}

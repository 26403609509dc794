//! Preparing a kernel's source from the form in which a distribution publishes it. What its package does to the
//! pristine source (dozens of patches, in an order, some for one architecture only) is done by the distribution's own
//! tools: a source rpm's `%prep` by `rpmbuild`, a Debian source package's patches by `dpkg-source`.

mod by_program;
mod packed;

use std::fs;
use std::path::{Path, PathBuf};

use super::SourceError;
use super::headers::remove_if_there;
pub use packed::Packed;
use schedswap_host::progress::Progress;

/// How deep below the build directory an rpm may have its tree: `BUILD/kernel-5.14.0/linux-5.14.0/`; rpm 4.20 added
/// one level.
const RPM_DEPTH: usize = 4;

/// Prepares the kernel's source that `package` holds in `dest`, which must be empty or not exist. `dest` appears only
/// once it is complete; until then the tree grows beside it, in a directory that the next call removes.
///
/// # Errors
/// [`SourceError::NotPackedSource`] says what `package` is instead of a kernel's source;
/// [`SourceError::ProgramFailed`] carries the end of what `rpmbuild`, `dpkg-source` or `tar` printed.
pub fn extract(package: &Path, dest: &Path, progress: &dyn Progress) -> Result<Packed, SourceError> {
    let package = std::path::absolute(package).map_err(SourceError::io(package))?;
    let dest = std::path::absolute(dest).map_err(SourceError::io(dest))?;
    let packed = Packed::of(&package)?;
    refuse_taken(&dest)?;
    let partial = partial(&dest);
    remove_if_there(&partial).map_err(SourceError::io(&partial))?;
    let made = prepare(packed, &package, &dest, &partial, progress);
    // After success only rpmbuild's own files are left there; after a failure, what is left must not be taken for a
    // source.
    let removed = remove_if_there(&partial).map_err(SourceError::io(&partial));
    made.and(removed).map(|()| packed)
}

fn prepare(
    packed: Packed,
    package: &Path,
    dest: &Path,
    partial: &Path,
    progress: &dyn Progress,
) -> Result<(), SourceError> {
    fs::create_dir_all(partial).map_err(SourceError::io(partial))?;
    let name = package.file_name().unwrap_or_default().to_string_lossy();
    progress.begin(&format!("{} {name}", packed.doing()), None);
    match packed {
        Packed::SourceRpm => by_program::rpmbuild(package, partial)?,
        Packed::Dsc => by_program::dpkg_source(package, partial)?,
        Packed::Tarball => by_program::tar(package, partial)?,
    }
    let root = the_tree(package, partial)?;
    if dest.is_dir() {
        fs::remove_dir(dest).map_err(SourceError::io(dest))?;
    }
    fs::rename(&root, dest).map_err(SourceError::io(dest))?;
    progress.end("");
    Ok(())
}

fn refuse_taken(dest: &Path) -> Result<(), SourceError> {
    let taken = match fs::read_dir(dest) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => dest.symlink_metadata().is_ok(),
    };
    match taken {
        true => Err(SourceError::DestinationTaken { path: dest.to_owned() }),
        false => Ok(()),
    }
}

/// Beside `dest`, because a rename cannot cross file systems; with a name that no other program uses, so that no
/// other program's files are removed.
fn partial(dest: &Path) -> PathBuf {
    let mut name = dest.as_os_str().to_owned();
    name.push(".schedswap-partial");
    name.into()
}

/// The one kernel source below `dir`.
fn the_tree(package: &Path, dir: &Path) -> Result<PathBuf, SourceError> {
    let mut found = Vec::new();
    trees_below(dir, RPM_DEPTH, &mut found)?;
    match found.len() {
        1 => Ok(found.remove(0)),
        _ => Err(SourceError::NotOneSource {
            package: package.to_owned(),
            names: found.iter().map(|tree| tree.strip_prefix(dir).unwrap_or(tree).to_owned()).collect(),
        }),
    }
}

fn trees_below(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), SourceError> {
    if dir.join("kernel/sched").is_dir() && dir.join("Makefile").is_file() {
        found.push(dir.to_owned());
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(dir).map_err(SourceError::io(dir))? {
        let entry = entry.map_err(SourceError::io(dir))?;
        // A link to a tree is not a second one.
        if entry.file_type().map_err(SourceError::io(dir))?.is_dir() {
            trees_below(&entry.path(), depth - 1, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(dir: &Path) {
        fs::create_dir_all(dir.join("kernel/sched")).unwrap();
        fs::write(dir.join("Makefile"), "").unwrap();
    }

    #[test]
    fn the_tree_is_found_wherever_a_spec_puts_it_and_must_be_the_only_one() {
        let package = Path::new("kernel.src.rpm");
        for place in
            ["", "linux-5.14.0", "BUILD/kernel-5.14.0/linux-5.14.0", "BUILD/kernel-build/kernel/linux"]
        {
            let dir = tempfile::tempdir().unwrap();
            tree(&dir.path().join(place));
            assert_eq!(the_tree(package, dir.path()).unwrap(), dir.path().join(place));
        }
        let dir = tempfile::tempdir().unwrap();
        let error = the_tree(package, dir.path()).unwrap_err().to_string();
        assert!(error.contains("holds no source of a kernel"), "{error}");
        tree(&dir.path().join("BUILD/vanilla"));
        tree(&dir.path().join("BUILD/linux"));
        let error = the_tree(package, dir.path()).unwrap_err().to_string();
        assert!(error.contains("BUILD/vanilla") && error.contains("BUILD/linux"), "{error}");
    }

    #[test]
    fn a_directory_that_holds_something_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(refuse_taken(dir.path()).is_ok());
        assert!(refuse_taken(&dir.path().join("new")).is_ok());
        fs::write(dir.path().join("mine"), "").unwrap();
        for taken in [dir.path().to_owned(), dir.path().join("mine")] {
            let error = refuse_taken(&taken).unwrap_err();
            assert!(matches!(error, SourceError::DestinationTaken { .. }), "{error}");
        }
    }
}

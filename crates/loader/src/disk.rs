//! Writes to the disk so that at every moment either the old or the new content is there, never a part of it.
//!
//! A temporary file in the same directory, fsync, rename, fsync of the directory. Every step that reaches the disk
//! calls [`Disk::step`], where tests cut the power.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// All writing goes through this.
#[derive(Default)]
pub struct Disk {
    /// Called before every step; only tests set it.
    #[cfg(test)]
    pub gate: Option<Gate>,
}

/// Lets a step pass, or returns the error with which it fails.
#[cfg(test)]
pub type Gate = std::rc::Rc<dyn Fn(&str) -> io::Result<()>>;

/// Ready beside its place: [`Staged::commit`] needs no more space.
#[must_use]
pub struct Staged<'a> {
    disk: &'a Disk,
    temporary: PathBuf,
    place: PathBuf,
}

impl Disk {
    #[cfg(not(test))]
    fn step(&self, _what: &str) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn step(&self, what: &str) -> io::Result<()> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate(what))
    }

    /// Puts `content` at `place`, replacing what may be there.
    pub fn write(&self, place: &Path, content: &[u8], mode: u32) -> io::Result<()> {
        self.stage(place, content, mode)?.commit()
    }

    /// Puts a symbolic link at `place`, replacing what may be there.
    pub fn link(&self, place: &Path, target: &Path) -> io::Result<()> {
        self.stage_link(place, target)?.commit()
    }

    /// The first half of [`Disk::write`]: after it there is enough space.
    pub fn stage(&self, place: &Path, content: &[u8], mode: u32) -> io::Result<Staged<'_>> {
        let staged = self.begin(place)?;
        staged.or_discard((|| {
            self.step("create")?;
            // A new file, so no process has it open and no link leads elsewhere.
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(mode).open(&staged.temporary)?;
            let (first, second) = content.split_at(content.len() / 2);
            file.write_all(first)?;
            self.step("write")?;
            file.write_all(second)?;
            // Set explicitly, because the umask does not apply here.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            self.step("fsync")?;
            file.sync_all()
        })())?;
        Ok(staged)
    }

    /// The first half of [`Disk::link`].
    pub fn stage_link(&self, place: &Path, target: &Path) -> io::Result<Staged<'_>> {
        let staged = self.begin(place)?;
        staged.or_discard((|| {
            self.step("symlink")?;
            symlink(target, &staged.temporary)?;
            self.sync(parent(place))
        })())?;
        Ok(staged)
    }

    fn begin(&self, place: &Path) -> io::Result<Staged<'_>> {
        self.create_dir(parent(place))?;
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        // The same name for every try: a file that a power cut left is replaced, and none accumulate.
        let temporary = parent(place).join(format!(".{name}.new"));
        self.unlink(&temporary)?;
        Ok(Staged { disk: self, temporary, place: place.to_owned() })
    }

    /// Makes the directory and its parents.
    pub fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        self.create_dir(parent(dir))?;
        self.step("mkdir")?;
        fs::create_dir(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
        self.sync(parent(dir))
    }

    /// Removes a file or link, and what a power cut may have left of writing it.
    pub fn remove(&self, place: &Path) -> io::Result<()> {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        self.unlink(&parent(place).join(format!(".{name}.new")))?;
        if self.unlink(place)? {
            self.sync(parent(place))?;
        }
        Ok(())
    }

    /// Removes a directory if it is empty.
    pub fn remove_dir_if_empty(&self, dir: &Path) -> io::Result<()> {
        self.step("rmdir")?;
        match fs::remove_dir(dir) {
            Err(error)
                if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the file existed.
    fn unlink(&self, path: &Path) -> io::Result<bool> {
        if path.symlink_metadata().is_err() {
            return Ok(false);
        }
        self.step("unlink")?;
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            result => result.map(|()| true),
        }
    }

    fn sync(&self, dir: &Path) -> io::Result<()> {
        self.step("fsync of the directory")?;
        File::open(dir)?.sync_all()
    }
}

impl Staged<'_> {
    /// Puts it in its place.
    pub fn commit(self) -> io::Result<()> {
        self.or_discard((|| {
            self.disk.step("rename")?;
            fs::rename(&self.temporary, &self.place)
        })())?;
        self.disk.sync(parent(&self.place))
    }

    /// Discards it.
    pub fn discard(self) {
        let _ = self.disk.unlink(&self.temporary);
    }

    fn or_discard<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|_| {
            // If it cannot be removed now, the next write replaces it.
            let _ = self.disk.unlink(&self.temporary);
        })
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    /// A disk that lets `steps` steps pass; after that none (a power cut), or all but one (a full disk).
    fn failing(steps: usize, for_ever: bool) -> Disk {
        let left = Cell::new(steps as isize);
        let gate = move |_: &str| {
            left.set(left.get() - 1);
            let fails = if for_ever { left.get() < 0 } else { left.get() == -1 };
            if fails { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
        };
        Disk { gate: Some(Rc::new(gate)) }
    }

    #[test]
    fn whatever_step_fails_the_old_or_the_new_is_there_whole() {
        for for_ever in [true, false] {
            for steps in 0.. {
                let dir = tempfile::tempdir().unwrap();
                let place = dir.path().join("file");
                Disk::default().write(&place, b"the old one", 0o600).unwrap();
                let result = failing(steps, for_ever).write(&place, b"the new", 0o644);
                let content = fs::read(&place).unwrap();
                assert!(
                    [&b"the old one"[..], b"the new"].contains(&&content[..]),
                    "after {steps}: {content:?}"
                );
                if !for_ever {
                    assert_eq!(
                        fs::read_dir(dir.path()).unwrap().count(),
                        1,
                        "after {steps}: something is left"
                    );
                }
                if result.is_ok() {
                    assert_eq!(content, b"the new");
                    assert!(steps >= 4, "a write of {steps} steps is not safe");
                    break;
                }
                // And the next try finds no obstacle.
                Disk::default().write(&place, b"the new", 0o644).unwrap();
                assert_eq!(fs::read(&place).unwrap(), b"the new");
                assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
            }
        }
    }

    #[test]
    fn a_link_is_replaced_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a/b/active");
        let disk = Disk::default();
        disk.link(&place, Path::new("one-1")).unwrap();
        disk.stage_link(&place, Path::new("two-2")).unwrap().discard();
        assert_eq!(fs::read_link(&place).unwrap(), Path::new("one-1"));
        disk.link(&place, Path::new("two-2")).unwrap();
        assert_eq!(fs::read_link(&place).unwrap(), Path::new("two-2"));
        disk.remove(&place).unwrap();
        disk.remove(&place).unwrap();
        disk.remove_dir_if_empty(&dir.path().join("a")).unwrap();
        assert!(dir.path().join("a/b").is_dir());
        disk.remove_dir_if_empty(&dir.path().join("a/b")).unwrap();
        assert!(!dir.path().join("a/b").exists());
    }

    #[test]
    fn the_mode_is_as_asked() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("program");
        Disk::default().write(&place, b"", 0o755).unwrap();
        assert_eq!(place.metadata().unwrap().permissions().mode() & 0o7777, 0o755);
    }
}

//! The files that a guest sees, as an archive that the kernel unpacks at boot.

use super::{Error, Result, Tools, programs};
use cpio::newc::{Builder, ModeFileType, trailer};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// Runs at boot as PID 1.
const INIT: &str = include_str!("init.sh");
/// Sourced by init before the agent starts.
const SETUP: &str = "/etc/schedswap-setup";

#[derive(Clone, Debug)]
enum InitramfsEntry {
    Directory,
    Symlink(PathBuf),
    Bytes(Vec<u8>, u32),
    /// Copied when the archive is written.
    HostFile(PathBuf, u32),
}

/// The content of a guest's root directory.
#[derive(Clone, Debug, Default)]
pub struct Initramfs {
    entries: BTreeMap<PathBuf, InitramfsEntry>,
    setup: String,
}

impl Initramfs {
    /// busybox, the agent and load program, and the loader if there is one; `/bin`, `/sbin`, `/lib` and `/lib64` are
    /// links into `/usr`, as on today's distributions.
    ///
    /// # Errors
    /// If a program of `tools`, or a library that it needs, cannot be read.
    pub fn new(tools: &Tools) -> Result<Initramfs> {
        let mut initramfs = Initramfs::default();
        for name in ["bin", "sbin", "lib", "lib64"] {
            initramfs.directory(&format!("/usr/{name}"));
            initramfs.symlink(&format!("/{name}"), &format!("usr/{name}"));
        }
        // Mount points that must exist before init can make any.
        for name in ["/dev", "/proc", "/sys", "/root", "/etc"] {
            initramfs.directory(name);
        }
        initramfs.bytes("/init", INIT.as_bytes(), 0o755);
        initramfs.bytes(
            "/etc/passwd",
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
            0o644,
        );
        initramfs.bytes("/etc/group", b"root:x:0:\nnogroup:x:65534:\n", 0o644);
        initramfs.copy(&tools.busybox, "/usr/bin/busybox")?;
        initramfs.symlink("/usr/bin/sh", "busybox");
        initramfs.copy_program(&tools.guest_load, "/usr/bin/guest-load")?;
        if let Some(loader) = &tools.loader {
            initramfs.copy_program(loader, "/usr/sbin/schedswap-loader")?;
            initramfs.symlink("/usr/sbin/loader", "schedswap-loader");
        }
        Ok(initramfs)
    }

    /// A directory, with its parents.
    pub fn directory(&mut self, path: &str) -> &mut Self {
        self.insert(Path::new(path), InitramfsEntry::Directory);
        self
    }

    /// A symbolic link at `path` to `target`.
    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.insert(Path::new(path), InitramfsEntry::Symlink(target.into()));
        self
    }

    /// A file with these bytes.
    pub fn bytes(&mut self, path: &str, bytes: &[u8], mode: u32) -> &mut Self {
        self.insert(Path::new(path), InitramfsEntry::Bytes(bytes.to_vec(), mode));
        self
    }

    /// A file of this machine, or a whole directory.
    ///
    /// # Errors
    /// [`Error::Io`] if the file or directory cannot be read.
    pub fn copy(&mut self, from: &Path, to: &str) -> Result<&mut Self> {
        self.copy_tree(from, Path::new(to))?;
        Ok(self)
    }

    /// A program of this machine with its interpreter and libraries, under its own path; if that is not one of the
    /// usual places, in `/usr/local/bin` too. `name` is a path or a name in PATH; a directory is copied completely,
    /// with what its programs need.
    ///
    /// # Errors
    /// [`Error::ProgramMissing`] if there is no such program, [`Error::ProgramUnusable`] if its libraries cannot be
    /// determined, and [`Error::Io`] if a file cannot be read.
    pub fn program(&mut self, name: &str) -> Result<&mut Self> {
        let path = programs::find(name)?;
        let place = path.to_string_lossy().into_owned();
        self.copy_program(&path, &place)?;
        let in_path = ["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];
        if let (Some(dir), Some(base)) = (path.parent(), path.file_name())
            && !in_path.iter().any(|known| Path::new(known) == dir)
        {
            self.symlink(&format!("/usr/local/bin/{}", base.to_string_lossy()), &place);
        }
        Ok(self)
    }

    /// What a script of this machine needs to run: the program that its first line names, with the libraries of that
    /// program.
    ///
    /// # Errors
    /// [`Error::ProgramMissing`] if the interpreter is not installed, [`Error::ProgramUnusable`] if its libraries
    /// cannot be determined.
    pub fn interpreter_of(&mut self, script: &Path) -> Result<&mut Self> {
        for needed in programs::needs(script)? {
            self.insert(&needed, InitramfsEntry::HostFile(needed.clone(), 0o755));
        }
        Ok(self)
    }

    /// Shell lines to run at boot, before the guest counts as up.
    pub fn setup(&mut self, lines: &str) -> &mut Self {
        self.setup.push_str(lines);
        self.setup.push('\n');
        self
    }

    fn copy_program(&mut self, from: &Path, to: &str) -> Result<()> {
        for file in self.copy_tree(from, Path::new(to))? {
            for needed in programs::needs(&file)? {
                self.insert(&needed, InitramfsEntry::HostFile(needed.clone(), 0o755));
            }
        }
        Ok(())
    }

    /// Returns the regular files that were copied.
    fn copy_tree(&mut self, from: &Path, to: &Path) -> Result<Vec<PathBuf>> {
        let unreadable = || Error::io(format!("cannot read {}", from.display()));
        let metadata = fs::metadata(from).map_err(unreadable())?;
        if !metadata.is_dir() {
            self.insert(
                to,
                InitramfsEntry::HostFile(from.to_path_buf(), metadata.permissions().mode() & 0o7777),
            );
            return Ok(vec![from.to_path_buf()]);
        }
        self.insert(to, InitramfsEntry::Directory);
        let mut files = Vec::new();
        for entry in fs::read_dir(from).map_err(unreadable())? {
            let entry = entry.map_err(unreadable())?;
            let place = to.join(entry.file_name());
            if entry.file_type().map_err(unreadable())?.is_symlink() {
                let target = fs::read_link(entry.path()).map_err(unreadable())?;
                self.insert(&place, InitramfsEntry::Symlink(target));
            } else {
                files.extend(self.copy_tree(&entry.path(), &place)?);
            }
        }
        Ok(files)
    }

    fn insert(&mut self, path: &Path, entry: InitramfsEntry) {
        let path = self.resolve(path);
        if matches!(entry, InitramfsEntry::Directory) && self.entries.contains_key(&path) {
            return;
        }
        let parents: Vec<PathBuf> =
            path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).map(Path::to_path_buf).collect();
        for parent in parents {
            self.entries.entry(parent).or_insert(InitramfsEntry::Directory);
        }
        self.entries.insert(path, entry);
    }

    /// The path relative to the root, with `.` and `..` resolved and the links of [`Initramfs::new`] followed: the
    /// archive must not contain both a link `lib` and a directory `lib`.
    fn resolve(&self, path: &Path) -> PathBuf {
        let mut resolved = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => resolved.push(name),
                Component::ParentDir => {
                    resolved.pop();
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        let mut components = resolved.components();
        let first = components.next().map(|c| PathBuf::from(c.as_os_str())).unwrap_or_default();
        match self.entries.get(&first) {
            Some(InitramfsEntry::Symlink(target)) if components.clone().next().is_some() => {
                target.join(components.as_path())
            }
            _ => resolved,
        }
    }

    /// Writes the archive (`newc`, not compressed: the kernel unpacks it faster than QEMU could any other).
    pub(super) fn write(&self, to: &Path) -> Result<()> {
        let unwritable = || Error::io(format!("cannot write {}", to.display()));
        let mut out = BufWriter::new(File::create(to).map_err(unwritable())?);
        let setup = (!self.setup.is_empty()).then(|| {
            let path = Path::new(SETUP).strip_prefix("/").expect("an absolute path").to_path_buf();
            (path, InitramfsEntry::Bytes(self.setup.clone().into_bytes(), 0o644))
        });
        let entries = self.entries.iter().chain(setup.as_ref().map(|(path, entry)| (path, entry)));
        // The order of the map puts a directory before its contents.
        for (number, (path, entry)) in entries.enumerate() {
            let header = Builder::new(&path.to_string_lossy()).ino(number as u32 + 1).nlink(1);
            out = write_entry(out, header, entry)?.map_err(unwritable())?;
        }
        trailer(out).and_then(|mut out| out.flush()).map_err(unwritable())
    }
}

/// The outer error is one of reading a file, the inner one of writing the archive.
fn write_entry<W: Write>(out: W, header: Builder, entry: &InitramfsEntry) -> Result<io::Result<W>> {
    let (kind, mode, bytes) = match entry {
        InitramfsEntry::Directory => (ModeFileType::Directory, 0o755, Vec::new()),
        InitramfsEntry::Symlink(target) => {
            (ModeFileType::Symlink, 0o777, target.as_os_str().as_bytes().to_vec())
        }
        InitramfsEntry::Bytes(bytes, mode) => (ModeFileType::Regular, *mode, bytes.clone()),
        InitramfsEntry::HostFile(path, mode) => {
            let bytes = fs::read(path).map_err(Error::io(format!("cannot read {}", path.display())))?;
            (ModeFileType::Regular, *mode, bytes)
        }
    };
    let size = match u32::try_from(bytes.len()) {
        Ok(size) => size,
        Err(_) => {
            return Ok(Err(io::Error::other(
                "a file of 4 GiB or more does not fit into the archive's \
            format",
            )));
        }
    };
    let mut writer = header.mode(mode).set_mode_file_type(kind).write(out, size);
    Ok(writer.write_all(&bytes).and_then(|()| writer.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;

    /// Name → (mode, bytes) of an archive.
    fn listing(initramfs: &Initramfs) -> Vec<(String, u32, Vec<u8>)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("initramfs");
        initramfs.write(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let mut rest = bytes.as_slice();
        let mut entries = Vec::new();
        loop {
            let reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                return entries;
            }
            let (name, mode) = (reader.entry().name().to_string(), reader.entry().mode());
            let mut bytes = Vec::new();
            rest = reader.to_writer(&mut bytes).unwrap();
            entries.push((name, mode, bytes));
        }
    }

    #[test]
    fn parents_come_first_and_links_are_followed() {
        let mut initramfs = Initramfs::default();
        initramfs.directory("/usr/lib").symlink("/lib", "usr/lib");
        initramfs.bytes("/lib/x/libc.so", b"elf", 0o755).bytes("/a/../b//c", b"c", 0o600);
        initramfs.setup("echo hello");
        let listing = listing(&initramfs);
        let names: Vec<&str> = listing.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(
            names,
            ["b", "b/c", "lib", "usr", "usr/lib", "usr/lib/x", "usr/lib/x/libc.so", "etc/schedswap-setup"]
        );
        assert_eq!(listing[1].1, 0o100_600);
        assert_eq!((listing[2].1, listing[2].2.as_slice()), (0o120_777, &b"usr/lib"[..]));
    }

    #[test]
    fn a_program_brings_its_libraries() {
        let mut initramfs = Initramfs::default();
        // Not this program, which may be static.
        let dir = tempfile::tempdir().unwrap();
        let shell = dir.path().join("shell");
        fs::copy("/bin/sh", &shell).unwrap();
        initramfs.program(shell.to_str().unwrap()).unwrap();
        let names: Vec<String> = listing(&initramfs).into_iter().map(|(name, ..)| name).collect();
        assert!(names.iter().any(|name| name.contains("libc.so")), "{names:?}");
        assert!(names.contains(&"usr/local/bin/shell".to_owned()), "{names:?}");
    }

    #[test]
    fn a_directory_is_copied_whole() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), "x").unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("sub/link")).unwrap();
        let mut initramfs = Initramfs::default();
        initramfs.copy(dir.path(), "/top").unwrap();
        let names: Vec<String> = listing(&initramfs).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["top", "top/sub", "top/sub/file", "top/sub/link"]);
    }
}

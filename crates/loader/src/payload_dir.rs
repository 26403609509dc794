//! An installed payload, `/var/lib/schedswap/<kernel release>/<name>-<release>/`, and whether root may trust it.

use crate::error::LoaderError;
use crate::host::Machine;
use crate::module_file::{self, ModuleFile};
use schedswap_payload::Sha256;
use schedswap_payload::manifest::{self, Manifest};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A payload that was read and found to be complete, and that belongs only to root.
#[derive(Debug)]
pub struct Payload {
    /// Its directory.
    pub dir: PathBuf,
    /// `uname -r` of the kernel for which it was built.
    pub kernel: String,
    /// `<name>-<release>`.
    pub name: String,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its module, open.
    pub module: ModuleFile,
}

/// Why a payload is not used.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    #[error(
        "{} is not an installed scheduler: expected a directory {}/<kernel release>/<name>-<release>",
        path.display(), state.display()
    )]
    Place { path: PathBuf, state: PathBuf },

    #[error("{} does not exist: install its package again", path.display())]
    Missing { path: PathBuf },

    #[error("{} is a symbolic link, which could be made to lead elsewhere: replace it with the file or \
        directory it leads to", path.display())]
    Link { path: PathBuf },

    #[error("{} is not {expected}: install its package again", path.display())]
    Kind { path: PathBuf, expected: &'static str },

    #[error(
        "{} belongs to user {found}, expected {expected}: its owner could run code in the kernel; \
         install its package again, or check its content and then `chown` it",
        path.display()
    )]
    Owner { path: PathBuf, found: u32, expected: u32 },

    #[error(
        "{} has mode {mode:04o}: users other than root may write to it and so could run code in the kernel; \
         check its content, then `chmod go-w` it",
        path.display()
    )]
    Writable { path: PathBuf, mode: u32 },

    #[error("the manifest of {} has no digest for {file}: build its package again", dir.display())]
    NoDigest { dir: PathBuf, file: String },

    #[error(
        "{} is damaged: its SHA-256 is {found}, the manifest says {expected}; install its package again",
        path.display()
    )]
    Digest { path: PathBuf, found: Sha256, expected: Sha256 },

    #[error(
        "{} is for kernel {found}, but is in the directory for {expected}: install its package again",
        dir.display()
    )]
    OtherKernel { dir: PathBuf, found: String, expected: String },
}

/// Opens the payload in `dir` and checks everything that can be checked without the kernel.
pub fn open(machine: &Machine, dir: &Path) -> Result<Payload, LoaderError> {
    let state = machine.paths.state();
    let Some((kernel, name)) = machine.paths.payload_place(dir) else {
        return Err(PayloadError::Place { path: dir.to_owned(), state }.into());
    };
    for directory in [&state, &machine.paths.kernel(&kernel), dir] {
        let found = look(directory, machine.owner)?;
        if !found.is_dir() {
            return Err(PayloadError::Kind { path: directory.to_owned(), expected: "a directory" }.into());
        }
    }
    check_file(&dir.join(manifest::FILE_NAME), machine.owner)?;
    let manifest = module_file::read_manifest(dir)?;
    if manifest.kernel_release != kernel {
        let found = manifest.kernel_release;
        return Err(PayloadError::OtherKernel { dir: dir.to_owned(), found, expected: kernel }.into());
    }
    check_file(&dir.join(&manifest.module), machine.owner)?;
    let module = module_file::open_of(dir, &manifest)?;
    // The module's bytes are those that are loaded: the file is opened once, and the kernel gets the same open file.
    let expected = digest_of(&manifest, &manifest.module, dir)?;
    check_digest(&module.path, module.sha256, expected)?;
    for (file, expected) in manifest.digests.iter().filter(|(file, _)| **file != manifest.module) {
        let path = dir.join(file);
        if file.contains('/') || file.starts_with('.') {
            return Err(PayloadError::Kind { path, expected: "a file of the payload" }.into());
        }
        check_file(&path, machine.owner)?;
        let bytes =
            std::fs::read(&path).map_err(|source| LoaderError::Unreadable { path: path.clone(), source })?;
        check_digest(&path, Sha256::of(&bytes), expected)?;
    }
    Ok(Payload { dir: dir.to_owned(), kernel, name, manifest, module })
}

/// The check of a module that is not an installed payload: nobody but its owner may have put another file in its
/// place, and if the manifest beside it has a digest, it must match.
pub fn check_loose(manifest: Option<&Manifest>, module: &ModuleFile) -> Result<(), PayloadError> {
    let directory = module.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for (path, is_directory) in [(module.path.as_path(), false), (directory, true)] {
        let missing = |_| PayloadError::Missing { path: path.to_owned() };
        let mode = path.metadata().map_err(missing)?.mode();
        // In a sticky directory, only the file's owner can replace it.
        let is_sticky = is_directory && mode & 0o1000 != 0;
        if mode & 0o002 != 0 && !is_sticky {
            return Err(PayloadError::Writable { path: path.to_owned(), mode: mode & 0o7777 });
        }
    }
    match manifest.and_then(|manifest| manifest.digests.get(&manifest.module)) {
        Some(expected) => check_digest(&module.path, module.sha256, expected),
        None => Ok(()),
    }
}

fn digest_of<'a>(manifest: &'a Manifest, file: &str, dir: &Path) -> Result<&'a Sha256, PayloadError> {
    let missing = || PayloadError::NoDigest { dir: dir.to_owned(), file: file.to_owned() };
    manifest.digests.get(file).ok_or_else(missing)
}

fn check_digest(path: &Path, found: Sha256, expected: &Sha256) -> Result<(), PayloadError> {
    if found == *expected {
        return Ok(());
    }
    Err(PayloadError::Digest { path: path.to_owned(), found, expected: *expected })
}

fn check_file(path: &Path, owner: u32) -> Result<(), PayloadError> {
    if look(path, owner)?.is_file() {
        return Ok(());
    }
    Err(PayloadError::Kind { path: path.to_owned(), expected: "a plain file" })
}

/// The file's metadata, if the file belongs to `owner` and no other user can write to it.
fn look(path: &Path, owner: u32) -> Result<Metadata, PayloadError> {
    let found = path.symlink_metadata().map_err(|_| PayloadError::Missing { path: path.to_owned() })?;
    if found.is_symlink() {
        return Err(PayloadError::Link { path: path.to_owned() });
    }
    if found.uid() != owner {
        return Err(PayloadError::Owner { path: path.to_owned(), found: found.uid(), expected: owner });
    }
    if found.mode() & 0o022 != 0 {
        return Err(PayloadError::Writable { path: path.to_owned(), mode: found.mode() & 0o7777 });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, Fake};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// Opens a payload after `change`, which gets its directory; returns the text of the refusal.
    fn refusal(change: impl FnOnce(&Path)) -> String {
        let fake = Fake::new();
        let dir = fake.payload("demo-1");
        change(&dir);
        open(&fake.machine(), &dir).unwrap_err().to_string()
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_payload_as_packages_lay_it_out_is_taken() {
        let fake = Fake::new();
        let dir = fake.payload("demo-1");
        let payload = open(&fake.machine(), &dir).unwrap();
        assert_eq!((payload.name.as_str(), payload.kernel.as_str()), ("demo-1", fake::RELEASE));
    }

    #[test]
    fn what_others_may_write_to_is_refused() {
        assert!(
            refusal(|dir| chmod(&dir.join("scheduler.ko"), 0o646)).contains("scheduler.ko has mode 0646")
        );
        assert!(
            refusal(|dir| chmod(&dir.join("manifest.json"), 0o664)).contains("manifest.json has mode 0664")
        );
        assert!(refusal(|dir| chmod(dir, 0o777)).contains("demo-1 has mode 0777"));
        assert!(refusal(|dir| chmod(dir.parent().unwrap(), 0o775)).contains("has mode 0775"));
        let above = |dir: &Path| chmod(dir.parent().unwrap().parent().unwrap(), 0o1777);
        assert!(refusal(above).contains("schedswap has mode 1777"));
    }

    #[test]
    fn what_is_not_root_s_is_refused() {
        let fake = Fake::new();
        let dir = fake.payload("demo-1");
        let mut machine = fake.machine();
        machine.owner += 1;
        let error = open(&machine, &dir).unwrap_err().to_string();
        assert!(error.contains(&format!(
            "belongs to user {}, expected {}",
            machine.owner - 1,
            machine.owner
        )));
    }

    #[test]
    fn what_differs_from_its_digest_is_refused() {
        let longer = |file: &'static str| {
            move |dir: &Path| {
                let mut bytes = fs::read(dir.join(file)).unwrap();
                bytes.push(0);
                fs::write(dir.join(file), bytes).unwrap();
            }
        };
        assert!(refusal(longer("scheduler.ko")).contains("scheduler.ko is damaged"));
        assert!(refusal(longer("schedswap-loader")).contains("schedswap-loader is damaged"));
        assert!(
            refusal(|dir| fs::remove_file(dir.join("schedswap-loader")).unwrap()).contains("does not exist")
        );
        let undigested = |dir: &Path| {
            let mut manifest = module_file::read_manifest(dir).unwrap();
            manifest.digests.clear();
            fs::write(dir.join("manifest.json"), manifest.to_json()).unwrap();
        };
        assert!(refusal(undigested).contains("manifest"));
    }

    #[test]
    fn links_are_refused() {
        let into_link = |path: &Path| {
            let moved = path.with_extension("moved");
            fs::rename(path, &moved).unwrap();
            symlink(&moved, path).unwrap();
        };
        assert!(refusal(into_link).contains("demo-1 is a symbolic link"));
        assert!(
            refusal(|dir| into_link(&dir.join("scheduler.ko"))).contains("scheduler.ko is a symbolic link")
        );
        assert!(
            refusal(|dir| into_link(&dir.join("manifest.json"))).contains("manifest.json is a symbolic link")
        );
        assert!(refusal(|dir| into_link(dir.parent().unwrap())).contains("is a symbolic link"));
    }

    #[test]
    fn other_places_kernels_and_formats_are_refused() {
        let fake = Fake::new();
        let machine = fake.machine();
        let error = open(&machine, &fake.root().join("tmp/x")).unwrap_err().to_string();
        assert!(error.contains("is not an installed scheduler: expected a directory"), "{error}");

        let edit = |from: &'static str, to: &'static str| {
            move |dir: &Path| {
                let path = dir.join("manifest.json");
                let text = fs::read_to_string(&path).unwrap();
                assert!(text.contains(from));
                fs::write(&path, text.replace(from, to)).unwrap();
            }
        };
        let release = format!("\"kernel_release\": \"{}\"", fake::RELEASE);
        assert!(refusal(edit(release.leak(), "\"kernel_release\": \"5.0\"")).contains("is for kernel 5.0"));
        let error = refusal(edit("\"format\": 2", "\"format\": 99"));
        assert!(error.contains("manifest.json cannot be used"), "{error}");
        assert!(
            refusal(|dir| fs::write(dir.join("manifest.json"), b"{").unwrap()).contains("cannot be used")
        );
    }

    #[test]
    fn a_loose_module_may_lie_anywhere_but_where_everybody_writes() {
        let fake = Fake::new();
        let dir = fake.payload("demo-1");
        let (manifest, module) = module_file::open(&dir).unwrap();
        assert!(check_loose(manifest.as_ref(), &module).is_ok());
        chmod(&module.path, 0o666);
        assert!(matches!(check_loose(None, &module), Err(PayloadError::Writable { .. })));
        chmod(&module.path, 0o664);
        assert!(check_loose(None, &module).is_ok());
        chmod(&dir, 0o777);
        assert!(matches!(check_loose(None, &module), Err(PayloadError::Writable { .. })));
        chmod(&dir, 0o1777);
        assert!(check_loose(None, &module).is_ok());
        let mut manifest = manifest.unwrap();
        manifest.digests.insert("scheduler.ko".into(), Sha256::of(b"another"));
        assert!(matches!(check_loose(Some(&manifest), &module), Err(PayloadError::Digest { .. })));
    }
}

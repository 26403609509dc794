//! The cache of fetched kernels.
//!
//! ```text
//! kernels/<release>/root/         sysroot: image, debug vmlinux, headers, kbuild as their packages place them
//! kernels/<release>/src/          the kernel's source, without what no scheduler needs
//! kernels/<release>/fetched.json  which packages; its presence says that all are there
//! kernels/<release>.partial/      the same while it grows
//! images/<release>/               the same of kernels of which only the image package was wanted
//! toolchains/<compiler>/root/     a compiler that is not installed on this machine, with what it needs
//! toolchains/<compiler>/bin/      scripts that run its programs with the libraries they came with
//! toolchains/<compiler>/native/   for another machine's compiler: what runs on this machine, including the emulator
//! objects/<command>/              objects of the runtime, which work dirs share
//! guests/                         root file systems and module disks of test guests
//! chroots/                        root file systems in which the steps of the SDK's container are tested
//! tools/                          sysroot of what a guest needs: static busybox
//! tools-<architecture>/           the same for guests that are other machines
//! debs/                           packages on their way; deleted once unpacked
//! apt/                            apt's state, separate from the machine's own
//! lock                            held while anything above is written
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::SourceError;
use super::architecture::Architecture;
use schedswap_host::progress::Progress;

/// Where fetched kernels are kept.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache in `root`, which need not exist yet.
    pub fn at(root: impl Into<PathBuf>) -> Cache {
        let root = root.into();
        Cache { root: std::path::absolute(&root).unwrap_or(root) }
    }

    /// `$SCHEDSWAP_CACHE`, else `$XDG_CACHE_HOME/schedswap`, else `~/.cache/schedswap`.
    ///
    /// # Errors
    /// [`SourceError::NoCacheDirectory`] if none of these variables is set.
    pub fn from_environment() -> Result<Cache, SourceError> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = set("SCHEDSWAP_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|base| base.join("schedswap")))
            .or_else(|| set("HOME").map(|home| home.join(".cache/schedswap")))
            .ok_or(SourceError::NoCacheDirectory)?;
        Ok(Cache::at(root))
    }

    /// The directory it is in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The place of one kernel, whether fetched or not.
    pub fn kernel(&self, release: &str) -> CachedKernel {
        CachedKernel { directory: self.root.join("kernels").join(release) }
    }

    /// The place of one kernel's image package, whether fetched or not.
    pub fn image(&self, release: &str) -> CachedKernel {
        CachedKernel { directory: self.root.join("images").join(release) }
    }

    /// The place of one compiler, whether fetched or not: `gcc-12_12.2.0-14`, or for another machine
    /// `gcc-12_12.2.0-14_arm64`.
    pub(super) fn toolchain(&self, name: &str) -> CachedKernel {
        CachedKernel { directory: self.root.join("toolchains").join(name) }
    }

    /// Objects of the runtime that work dirs share.
    pub fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// Root file systems and module disks of test guests.
    pub fn guests(&self) -> PathBuf {
        self.root.join("guests")
    }

    /// Sysroot of the programs that a guest needs; if `foreign` is given, of a guest that is that machine.
    pub(super) fn tools(&self, foreign: Option<Architecture>) -> PathBuf {
        match foreign {
            None => self.root.join("tools"),
            Some(foreign) => self.root.join(format!("tools-{}", foreign.name())),
        }
    }

    /// The static busybox for this machine, once fetched.
    pub fn busybox(&self) -> Option<PathBuf> {
        self.busybox_in(&self.tools(None))
    }

    /// The static busybox for a machine, named as `uname -m` prints it there.
    pub fn busybox_for(&self, machine: &str) -> Option<PathBuf> {
        let architecture = Architecture::of_machine_named(machine);
        let foreign = architecture.filter(|_| architecture != Architecture::of_machine());
        self.busybox_in(&self.tools(foreign))
    }

    fn busybox_in(&self, tools: &Path) -> Option<PathBuf> {
        ["usr/bin/busybox", "bin/busybox"]
            .map(|place| tools.join(place))
            .into_iter()
            .find(|path| path.is_file())
    }

    pub(super) fn debs(&self) -> PathBuf {
        self.root.join("debs")
    }

    pub(super) fn apt(&self) -> PathBuf {
        self.root.join("apt")
    }

    /// Waits until no other process writes to the cache. The kernel releases the lock when the process ends, however
    /// it ends.
    pub(super) fn lock(&self, progress: &dyn Progress) -> Result<Lock, SourceError> {
        fs::create_dir_all(&self.root).map_err(SourceError::io(&self.root))?;
        let path = self.root.join("lock");
        let file = File::create(&path).map_err(SourceError::io(&path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                progress.begin("waiting for another fetch to finish", None);
                flock(&file, FlockOperation::LockExclusive)
                    .map_err(|error| SourceError::io(&path)(error.into()))?;
                progress.end("");
            }
            Err(error) => return Err(SourceError::io(&path)(error.into())),
        }
        Ok(Lock { _file: file })
    }
}

/// Held while the cache is written to.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// One kernel's place in the cache.
#[derive(Clone, Debug)]
pub struct CachedKernel {
    directory: PathBuf,
}

impl CachedKernel {
    /// The unpacked packages.
    pub fn sysroot(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// The unpacked source.
    pub fn source(&self) -> PathBuf {
        self.directory.join("src")
    }

    /// Its name in the cache.
    pub(super) fn name(&self) -> String {
        self.directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where it grows until it is complete.
    pub(super) fn partial(&self) -> PathBuf {
        let mut name = self.directory.as_os_str().to_owned();
        name.push(".partial");
        name.into()
    }

    /// This kernel, if everything has been fetched.
    pub fn complete(self) -> Option<CachedKernel> {
        self.record().is_some().then_some(self)
    }

    /// The record of what was fetched, once it is complete.
    pub(super) fn record(&self) -> Option<Record> {
        let text = fs::read_to_string(self.directory.join(RECORD)).ok()?;
        serde_json::from_str(&text).ok()
    }
}

pub(super) const RECORD: &str = "fetched.json";

/// What a complete kernel of the cache was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub release: String,
    /// The version of the packages, which says more than the release: `6.1.0-13` was built more than once.
    pub version: String,
    /// The suite that was named for it; `None` if it was looked for in the suites of this machine.
    #[serde(default)]
    pub suite: Option<String>,
    /// Names of the packages.
    pub packages: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedswap_host::progress::Silent;

    #[test]
    fn a_kernel_counts_only_when_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        fs::create_dir_all(cache.kernel("1-x").sysroot()).unwrap();
        assert!(cache.kernel("1-x").complete().is_none());
        let record = Record { release: "1-x".into(), version: "1".into(), suite: None, packages: vec![] };
        fs::write(cache.kernel("1-x").directory().join(RECORD), serde_json::to_string(&record).unwrap())
            .unwrap();
        assert_eq!(cache.kernel("1-x").complete().unwrap().record(), Some(record));
    }

    #[test]
    fn the_second_to_lock_waits() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        let first = cache.lock(&Silent).unwrap();
        let other = File::open(dir.path().join("lock")).unwrap();
        assert_eq!(flock(&other, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK));
        drop(first);
        flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
    }
}

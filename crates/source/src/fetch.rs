//! Getting the packages of a [`Plan`] into the cache.
//!
//! An interrupted fetch continues where it stopped: apt continues a partial file, and each unpacked package leaves a
//! stamp. A kernel appears under its name only once it is complete.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::apt::Apt;
use super::cache::{Cache, RECORD, Record};
use super::plan::{Content, Extent, Plan, PlannedPackage, plan_extent};
use super::release::{Request, others_of_flavour};
use super::{Bootable, Search, SourceError, locate, unpack};
use schedswap_host::progress::Progress;

/// A kernel that is now in the cache.
#[derive(Clone, Debug, Serialize)]
pub struct Fetched {
    /// The kernel's release.
    pub release: String,
    /// The version of its packages.
    pub version: String,
    /// The unpacked packages.
    pub sysroot: PathBuf,
    /// The kernel's source.
    pub source: PathBuf,
    /// Its debug vmlinux.
    pub vmlinux: PathBuf,
    /// Its boot image.
    pub bzimage: PathBuf,
    /// The compiler that built it, in the kernel's own words. The same one must be installed.
    pub compiler: Option<String>,
    /// How many bytes were downloaded this time.
    pub downloaded_bytes: u64,
}

/// Gets the packages of `plan` into the cache.
///
/// # Errors
/// When apt or an unpacking program fails, or a disk is full. What was fetched until then is kept, and the next fetch
/// continues from it.
pub fn fetch(plan: &Plan, cache: &Cache, progress: &dyn Progress) -> Result<Fetched, SourceError> {
    let downloaded = fill(plan, cache, progress)?;
    fetched(plan, cache, downloaded)
}

/// Gets the bootable part of a kernel into the cache: its image and its modules. A kernel that is there completely is
/// not fetched again.
///
/// # Errors
/// Those of [`super::plan`] and [`fetch`].
pub fn fetch_image(
    request: &Request,
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<Bootable, SourceError> {
    let plan = plan_extent(request, Extent::Image, cache, progress)?;
    let whole = cache.kernel(&plan.release);
    if whole.record().is_some_and(|record| record.version == plan.version) {
        return Bootable::below(&whole.sysroot(), &plan.release);
    }
    fill(&plan, cache, progress)?;
    Bootable::below(&plan.place(cache).sysroot(), &plan.release)
}

/// Returns how many bytes were downloaded.
pub(super) fn fill(plan: &Plan, cache: &Cache, progress: &dyn Progress) -> Result<u64, SourceError> {
    let _lock = cache.lock(progress)?;
    // Another process may have fetched it after the plan was made.
    if plan.place(cache).record().is_some_and(|record| record.version == plan.version) {
        return Ok(0);
    }
    let Some(lists) = &plan.lists else {
        return Ok(0);
    };
    let partial = Partial::open(plan, cache)?;
    let missing: Vec<&PlannedPackage> =
        plan.packages.iter().filter(|package| !partial.has(package)).collect();
    let downloaded = get_all(lists, &plan.release, &missing, &partial, cache, progress);
    if matches!(downloaded, Err(SourceError::Gone { .. })) {
        // This kernel can never become complete.
        fs::remove_dir_all(&partial.directory).map_err(SourceError::io(&partial.directory))?;
    }
    let downloaded = downloaded?;
    partial.finish(plan, cache)?;
    Ok(downloaded)
}

/// Looked up in the way in which `init` will look it up, so `init` is sure to find a kernel that was fetched.
fn fetched(plan: &Plan, cache: &Cache, downloaded_bytes: u64) -> Result<Fetched, SourceError> {
    let place = cache.kernel(&plan.release);
    let search = Search { sysroot: Some(place.sysroot()), ..Search::default() };
    let kernel = locate(&plan.release, &search)?;
    kernel.loadable()?;
    let config = fs::read_to_string(&kernel.config).map_err(SourceError::io(&kernel.config))?;
    Ok(Fetched {
        release: plan.release.clone(),
        version: plan.version.clone(),
        sysroot: place.sysroot(),
        source: place.source(),
        vmlinux: kernel.vmlinux.clone(),
        bzimage: kernel.bootable()?.to_path_buf(),
        compiler: compiler_of(&config),
        downloaded_bytes,
    })
}

/// What `CONFIG_CC_VERSION_TEXT` says.
pub(super) fn compiler_of(config: &str) -> Option<String> {
    let line = config.lines().find_map(|line| line.strip_prefix("CONFIG_CC_VERSION_TEXT="))?;
    Some(line.trim_matches('"').to_owned())
}

/// A kernel that is not complete yet.
struct Partial {
    directory: PathBuf,
}

impl Partial {
    /// The one that an earlier fetch left, unless it was for another version.
    fn open(plan: &Plan, cache: &Cache) -> Result<Partial, SourceError> {
        let directory = plan.place(cache).partial();
        let version = directory.join("version");
        let same = fs::read_to_string(&version).is_ok_and(|text| text == plan.version);
        if directory.exists() && !same {
            fs::remove_dir_all(&directory).map_err(SourceError::io(&directory))?;
        }
        let stamps = directory.join("unpacked");
        fs::create_dir_all(&stamps).map_err(SourceError::io(&stamps))?;
        fs::write(&version, &plan.version).map_err(SourceError::io(&version))?;
        Ok(Partial { directory })
    }

    fn stamp(&self, package: &PlannedPackage) -> PathBuf {
        // Its file tells one architecture's from the other's.
        self.directory.join("unpacked").join(&package.file)
    }

    fn has(&self, package: &PlannedPackage) -> bool {
        self.stamp(package).exists()
    }

    fn unpack(&self, package: &PlannedPackage, deb: &Path, cache: &Cache) -> Result<(), SourceError> {
        let root = self.directory.join("root");
        match package.content {
            Content::Whole => unpack::whole(deb, &root)?,
            Content::Vmlinux => unpack::vmlinux(deb, &root)?,
            Content::Source => unpack::source_tree(deb, &self.directory.join("src"))?,
            Content::Tool(foreign) => unpack::whole(deb, &cache.tools(foreign))?,
            Content::Native => unpack::whole(deb, &self.directory.join("native"))?,
            Content::Emulator(machine) => unpack::emulator(deb, &self.directory.join("native"), machine)?,
        }
        let stamp = self.stamp(package);
        fs::write(&stamp, &package.version).map_err(SourceError::io(&stamp))?;
        fs::remove_file(deb).map_err(SourceError::io(deb))
    }

    /// Gives the kernel its name, replacing an older version.
    fn finish(self, plan: &Plan, cache: &Cache) -> Result<(), SourceError> {
        let record = Record {
            release: plan.release.clone(),
            version: plan.version.clone(),
            suite: plan.suite.clone(),
            packages: plan.packages.iter().map(|package| package.name.clone()).collect(),
        };
        let path = self.directory.join(RECORD);
        let text = serde_json::to_string_pretty(&record).expect("a record of strings is JSON");
        fs::write(&path, text).map_err(SourceError::io(&path))?;
        let stamps = self.directory.join("unpacked");
        fs::remove_dir_all(&stamps).map_err(SourceError::io(&stamps))?;
        let place = plan.place(cache).directory().to_path_buf();
        if place.exists() {
            fs::remove_dir_all(&place).map_err(SourceError::io(&place))?;
        }
        fs::rename(&self.directory, &place).map_err(SourceError::io(&place))
    }
}

/// Downloads one package after another, and unpacks each while others are downloaded.
fn get_all(
    lists: &Path,
    release: &str,
    packages: &[&PlannedPackage],
    partial: &Partial,
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<u64, SourceError> {
    let apt = Apt::open(lists);
    let debs = cache.debs();
    fs::create_dir_all(&debs).map_err(SourceError::io(&debs))?;
    let total: u64 = packages.iter().map(|package| package.bytes).sum();
    let unpacking_failed = AtomicBool::new(false);
    let (arrived, to_unpack) = mpsc::channel::<(&PlannedPackage, PathBuf)>();
    let to_unpack = Mutex::new(to_unpack);
    let unpack = || {
        while let Some((package, deb)) = next(&to_unpack) {
            if let Err(error) = partial.unpack(package, &deb, cache) {
                unpacking_failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let unpackers: Vec<_> = (0..UNPACKERS).map(|_| scope.spawn(unpack)).collect();
        progress.begin(&format!("downloading {} packages", packages.len()), Some(total));
        let mut before = 0;
        let mut downloaded = Ok(());
        for package in packages {
            let at = |bytes: u64| progress.at(before + bytes);
            downloaded = download(&apt, release, package, &debs, &unpacking_failed, &at);
            if downloaded.is_err() || unpacking_failed.load(Ordering::Relaxed) {
                break;
            }
            before += package.bytes;
            arrived.send((package, debs.join(&package.file))).expect("the queue lives as long as the scope");
        }
        drop(arrived);
        progress.end("");
        progress.begin("unpacking", None);
        let ends = unpackers.into_iter().map(|unpacker| unpacker.join().expect("an unpacker does not panic"));
        let unpacked = ends.collect::<Result<Vec<()>, _>>();
        progress.end("");
        // If unpacking fails, the download is given up. The reason to report is that of the unpacking.
        unpacked?;
        downloaded?;
        Ok(total)
    })
}

/// The two that take longest, a kernel's source and its symbols, are each compressed as one stream, so that no program
/// unpacks one of them with more than one thread.
const UNPACKERS: usize = 2;

/// What has arrived next; waits for it. `None` once nothing more will.
fn next<T>(queue: &Mutex<mpsc::Receiver<T>>) -> Option<T> {
    queue.lock().expect("no holder of this lock panics").recv().ok()
}

/// How often the file's size is read: often enough for a bar, rarely enough to cost nothing.
const POLL: Duration = Duration::from_millis(100);

fn download(
    apt: &Apt,
    release: &str,
    package: &PlannedPackage,
    debs: &Path,
    give_up: &AtomicBool,
    at: &dyn Fn(u64),
) -> Result<(), SourceError> {
    let file = debs.join(&package.file);
    let mut child = apt.start_download(&package.spec, debs)?;
    let io = SourceError::io;
    while child.try_wait().map_err(io(&file))?.is_none() {
        if give_up.load(Ordering::Relaxed) {
            child.kill().and_then(|()| child.wait()).map_err(io(&file))?;
            return Ok(());
        }
        at(fs::metadata(&file).map_or(0, |metadata| metadata.len()));
        thread::sleep(POLL);
    }
    let output = child.wait_with_output().map_err(io(&file))?;
    if !output.status.success() && unpack::says(&output, "404 ") {
        return Err(SourceError::Gone {
            package: package.name.clone(),
            version: package.version.clone(),
            others: others_of_flavour(apt, release)?,
        });
    }
    let doing = format!("downloading {}", package.name);
    unpack::succeeded(output, &doing, "apt-get", debs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_in_the_kernels_words() {
        let config = "#\nCONFIG_CC_VERSION_TEXT=\"gcc-12 (Debian 12.2.0-14) 12.2.0\"\nCONFIG_X=y\n";
        assert_eq!(compiler_of(config).as_deref(), Some("gcc-12 (Debian 12.2.0-14) 12.2.0"));
    }
}

//! Which packages of the Debian archive make up a kernel.

use std::path::PathBuf;

use serde::Serialize;

use super::SourceError;
use super::apt::{Apt, Listed, machine_sources};
use super::architecture::{Architecture, foreign, runs_here};
use super::archive::Archives;
use super::cache::{Cache, CachedKernel, Record};
use super::headers::refuse_what_make_cannot_take;
use super::release::{Request, Suites, read_lists, wanted};
use schedswap_host::progress::Progress;

/// What a fetch would get.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The kernel's release.
    pub release: String,
    /// The version of its packages.
    pub version: String,
    /// The suites in which it was looked for.
    pub suites: Vec<String>,
    /// Suites that could not be read, with apt's messages: they may have a newer kernel.
    pub unread: Vec<String>,
    /// The packages, the largest first.
    pub packages: Vec<PlannedPackage>,
    /// The cache has this kernel in this version: there is nothing to do.
    pub cached: bool,
    #[serde(skip)]
    pub(super) suite: Option<String>,
    #[serde(skip)]
    pub(super) lists: Option<PathBuf>,
    #[serde(skip)]
    pub(super) extent: Extent,
}

/// How much of a kernel is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Extent {
    /// Everything that is needed to build a scheduler.
    #[default]
    Whole,
    /// Only what boots: image and modules.
    Image,
    /// Not a kernel but a compiler.
    Toolchain,
}

impl Extent {
    /// Where the cache has it.
    pub fn place(self, cache: &Cache, release: &str) -> CachedKernel {
        match self {
            Extent::Whole => cache.kernel(release),
            Extent::Image => cache.image(release),
            Extent::Toolchain => cache.toolchain(release),
        }
    }
}

impl Plan {
    /// The size of all downloads.
    pub fn bytes(&self) -> u64 {
        self.packages.iter().map(|package| package.bytes).sum()
    }

    pub(super) fn place(&self, cache: &Cache) -> CachedKernel {
        self.extent.place(cache, &self.release)
    }
}

/// One package of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The file's size.
    pub bytes: u64,
    /// The package as an argument of apt-get.
    #[serde(skip)]
    pub(super) spec: String,
    #[serde(skip)]
    pub(super) file: String,
    #[serde(skip)]
    pub(super) content: Content,
}

/// Which part of a package is unpacked, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// All of it, into the kernel's sysroot.
    Whole,
    /// The debug vmlinux, into the kernel's sysroot.
    Vmlinux,
    /// The source tree.
    Source,
    /// All of it, to the cache's tools for that architecture.
    Tool(Option<Architecture>),
    /// All of it, beside the sysroot: programs for this machine, where those of the sysroot are for another one.
    Native,
    /// In the same place, but only the emulator for that machine: the package holds thirty.
    Emulator(&'static str),
}

/// Finds out which packages make up the wanted kernel. A release that is in the cache is not looked up again.
///
/// # Errors
/// [`SourceError::NoSuite`], [`SourceError::NoKernel`] or [`SourceError::NoPackage`], each with what is available
/// instead; [`SourceError::NoArchive`] if the machine's apt sources name no Debian archive.
pub fn plan(request: &Request, cache: &Cache, progress: &dyn Progress) -> Result<Plan, SourceError> {
    plan_extent(request, Extent::Whole, cache, progress)
}

pub(super) fn plan_extent(
    request: &Request,
    extent: Extent,
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<Plan, SourceError> {
    refuse_what_make_cannot_take(cache.root())?;
    let lock = cache.lock(progress)?;
    if let Request::Release { release, .. } = request
        && let Some(record) = extent.place(cache, release).record()
    {
        return Ok(already_cached(record, extent));
    }
    let archive = ask_archive(request, cache, progress)?;
    drop(lock);
    let record = extent.place(cache, &archive.release).record();
    let cached = record.is_some_and(|record| record.version == archive.version);
    let packages = if cached { vec![] } else { packages_of(archive.lookup(), extent, cache)? };
    Ok(Plan {
        release: archive.release,
        version: archive.version,
        suites: archive.suites.read,
        unread: archive.suites.unread,
        packages,
        cached,
        suite: match request {
            Request::Newest { suite, .. } => Some(suite.clone()),
            Request::Release { suite, .. } => suite.clone(),
        },
        lists: Some(archive.lists),
        extent,
    })
}

/// The plan for a kernel that the cache has: there is nothing to do.
fn already_cached(record: Record, extent: Extent) -> Plan {
    Plan {
        release: record.release,
        version: record.version,
        suites: vec![],
        unread: vec![],
        packages: vec![],
        cached: true,
        suite: record.suite,
        lists: None,
        extent,
    }
}

/// What the archive's lists say about a request.
struct Answer {
    apt: Apt,
    /// The directory of the lists.
    lists: PathBuf,
    suites: Suites,
    foreign: Option<Architecture>,
    release: String,
    version: String,
}

impl Answer {
    fn lookup(&self) -> Lookup<'_> {
        Lookup {
            apt: &self.apt,
            release: &self.release,
            version: &self.version,
            suites: &self.suites.read,
            foreign: self.foreign,
            listed: Vec::new(),
        }
    }
}

/// Reads the lists of the suites in question, and finds out which release is meant. The caller holds the cache's lock.
fn ask_archive(request: &Request, cache: &Cache, progress: &dyn Progress) -> Result<Answer, SourceError> {
    let (sources_list, sources_parts) = machine_sources()?;
    let archives = Archives::of_machine(&sources_list, &sources_parts)?;
    let (name, derived) = match request {
        Request::Newest { suite, .. } | Request::Release { suite: Some(suite), .. } => {
            (suite.as_str(), archives.for_suite(suite))
        }
        Request::Release { suite: None, .. } => ("machine", archives.for_machine()),
    };
    let foreign = foreign(request.kernel());
    let mut directory = name.replace('/', "_");
    if let Some(foreign) = foreign {
        directory = format!("{directory}-{}", foreign.name());
    }
    let lists = cache.apt().join(directory);
    let apt = Apt::prepare(&lists, &derived, foreign)?;
    let suites = read_lists(&apt, name, &derived, progress)?;
    let (release, version) = wanted(&apt, request, &suites.read)?;
    Ok(Answer { apt, lists, suites, foreign, release, version })
}

/// The kernel's packages in its exact version, and the tools that the cache lacks.
fn packages_of(
    mut lookup: Lookup<'_>,
    extent: Extent,
    cache: &Cache,
) -> Result<Vec<PlannedPackage>, SourceError> {
    let wanted = match extent {
        Extent::Whole => whole_kernel(&mut lookup, cache)?,
        Extent::Image => image_only(&mut lookup)?,
        Extent::Toolchain => unreachable!("the packages of a compiler are planned by `toolchain`"),
    };
    let (listed, contents): (Vec<Listed>, Vec<Content>) = wanted.into_iter().unzip();
    let downloads = lookup.apt.downloads(&listed)?;
    let mut packages: Vec<PlannedPackage> = listed
        .into_iter()
        .zip(contents)
        .zip(downloads)
        .map(|((listed, content), download)| PlannedPackage {
            spec: listed.spec(),
            name: listed.name,
            version: listed.version,
            bytes: download.bytes,
            file: download.file,
            content,
        })
        .collect();
    // The largest first: it takes longest to unpack, which goes on during the other downloads.
    packages.sort_by_key(|package| std::cmp::Reverse(package.bytes));
    Ok(packages)
}

/// The image, and the packages into which newer kernels split it.
fn image_only(lookup: &mut Lookup<'_>) -> Result<Vec<(Listed, Content)>, SourceError> {
    let image = format!("linux-image-{}", lookup.release);
    lookup.read(&[&image])?;
    let image = lookup.exact(&image)?;
    let further = companions(lookup.release, &image, &image);
    if !further.is_empty() {
        lookup.read(&further.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    let mut wanted = vec![(image, Content::Whole)];
    for name in &further {
        wanted.push((lookup.exact(name)?, Content::Whole));
    }
    Ok(wanted)
}

fn whole_kernel(lookup: &mut Lookup<'_>, cache: &Cache) -> Result<Vec<(Listed, Content)>, SourceError> {
    let release = lookup.release;
    let image = format!("linux-image-{release}");
    let headers = format!("linux-headers-{release}");
    let debug = format!("linux-image-{release}-dbg");
    let source = source_package(lookup.version);
    lookup.read(&[&image, &headers, &debug, &source])?;
    let image = lookup.exact(&image)?;
    let headers = lookup.exact(&headers)?;
    let further = companions(release, &image, &headers);
    lookup.read(&further.iter().map(String::as_str).collect::<Vec<_>>())?;

    let mut wanted = vec![
        (lookup.exact(&debug)?, Content::Vmlinux),
        (lookup.exact(&source)?, Content::Source),
        (image, Content::Whole),
        (headers, Content::Whole),
    ];
    for name in &further {
        wanted.push((lookup.exact(name)?, Content::Whole));
    }
    // Programs for the guest must be for the kernel's architecture.
    let machine = lookup.foreign.or_else(Architecture::of_machine).map_or("", Architecture::machine);
    if cache.busybox_for(machine).is_none() {
        let busybox = lookup.apt.candidate("busybox-static")?;
        let busybox = busybox.ok_or_else(|| lookup.missing("busybox-static", vec![]))?;
        wanted.push((busybox, Content::Tool(lookup.foreign)));
    }
    Ok(wanted)
}

/// What image and headers need in addition: newer kernels split the image into several packages of its release, and
/// the headers of all flavours share a part.
fn companions(release: &str, image: &Listed, headers: &Listed) -> Vec<String> {
    let of_release = format!("-{release}");
    let mut names: Vec<String> = Vec::new();
    for dependency in image.depends.iter().chain(&headers.depends) {
        let name = &dependency.name;
        let shared = ["linux-headers-", "linux-kbuild-"].iter().any(|start| name.starts_with(start));
        let split = name.starts_with("linux-") && name.ends_with(&of_release);
        let new = *name != image.name && *name != headers.name && !names.contains(name);
        if (shared || split) && new {
            names.push(name.clone());
        }
    }
    names
}

struct Lookup<'a> {
    apt: &'a Apt,
    release: &'a str,
    version: &'a str,
    suites: &'a [String],
    /// The kernel's architecture, if it is not that of this machine.
    foreign: Option<Architecture>,
    listed: Vec<Listed>,
}

impl Lookup<'_> {
    /// Reads what apt lists for these packages. Each query takes a while, so ask for several packages at once.
    fn read(&mut self, names: &[&str]) -> Result<(), SourceError> {
        self.listed.extend(self.apt.show(names)?);
        Ok(())
    }

    /// The package in exactly the kernel's version.
    fn exact(&self, name: &str) -> Result<Listed, SourceError> {
        let named = || self.listed.iter().filter(|package| package.name == name);
        // For all architectures, the archive has a kernel's packages in the same version.
        let machine = self.foreign.and(Architecture::of_machine()).filter(|_| runs_here(name));
        let found = named().find(|package| package.version == self.version).cloned();
        found
            .map(|package| Listed { architecture: machine.map(Architecture::name), ..package })
            .ok_or_else(|| self.missing(name, named().map(|package| package.version.clone()).collect()))
    }

    fn missing(&self, name: &str, versions: Vec<String>) -> SourceError {
        SourceError::NoPackage {
            release: self.release.into(),
            package: name.into(),
            version: self.version.into(),
            suites: self.suites.join(", "),
            available: match versions.is_empty() {
                true => "they have no version of it".into(),
                false => format!("versions there: {}", versions.join(", ")),
            },
        }
    }
}

/// The source of 6.1.192-2 is in linux-source-6.1.
fn source_package(version: &str) -> String {
    let upstream = version.split(['-', '~', '+']).next().unwrap_or(version);
    let series: Vec<&str> = upstream.split('.').take(2).collect();
    format!("linux-source-{}", series.join("."))
}

#[cfg(test)]
mod tests {
    use super::super::apt::Dependency;
    use super::*;

    #[test]
    fn the_source_package_is_the_series() {
        assert_eq!(source_package("6.1.192-2"), "linux-source-6.1");
        assert_eq!(source_package("6.12.95-1~bpo12+1"), "linux-source-6.12");
        assert_eq!(source_package("7.0-1"), "linux-source-7.0");
        assert_eq!(source_package("7.0~rc4-1~exp1"), "linux-source-7.0");
    }

    #[test]
    fn companions_of_split_and_unsplit_kernels() {
        let listed = |name: &str, depends: &[&str]| Listed {
            name: name.into(),
            version: "1".into(),
            architecture: None,
            depends: depends
                .iter()
                .map(|name| Dependency { name: (*name).into(), exact_version: None })
                .collect(),
        };
        let image = listed("linux-image-1-x", &["kmod", "linux-base", "linux-base-1-x", "linux-modules-1-x"]);
        let headers = listed(
            "linux-headers-1-x",
            &["gcc-14", "linux-base-1-x", "linux-headers-1-common", "linux-image-1-x", "linux-kbuild-1"],
        );
        assert_eq!(
            companions("1-x", &image, &headers),
            ["linux-base-1-x", "linux-modules-1-x", "linux-headers-1-common", "linux-kbuild-1"]
        );
    }
}

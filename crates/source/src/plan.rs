//! Which packages of the Debian archive make up a kernel.

use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

use super::SourceError;
use super::apt::{Apt, Listed, machine_sources};
use super::architecture::{Architecture, foreign, runs_here};
use super::archive::{Archives, Derived};
use super::cache::{Cache, CachedKernel};
use super::headers::refuse_what_make_cannot_take;
use schedswap_host::progress::Progress;

/// Which kernel is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The newest kernel of a flavour in a suite, its updates and its security archive: `bookworm/cloud-amd64`.
    Newest {
        /// Debian's name of it.
        suite: String,
        /// What follows the version in a release's name.
        flavour: String,
    },
    /// One release, `6.1.0-13-cloud-amd64`, looked for in `suite` if given (`bookworm/6.1.0-13-cloud-amd64`),
    /// else in every suite that this machine uses and its backports.
    Release {
        /// Where it is, if not where this machine gets its packages.
        suite: Option<String>,
        /// As `uname -r` prints it.
        release: String,
    },
}

impl Request {
    /// What its architecture is told by.
    fn kernel(&self) -> &str {
        match self {
            Request::Newest { flavour, .. } => flavour,
            Request::Release { release, .. } => release,
        }
    }
}

impl FromStr for Request {
    type Err = SourceError;

    fn from_str(spec: &str) -> Result<Request, SourceError> {
        let bad = || SourceError::BadSpec { spec: spec.to_owned() };
        // These names become file names and arguments of other programs.
        let sound = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "-+.~_".contains(c))
        };
        let is_release = |name: &str| name.starts_with(|c: char| c.is_ascii_digit()) && name.contains('.');
        let (suite, name) = match spec.rsplit_once('/') {
            Some((suite, name)) => (Some(suite), name),
            None => (None, spec),
        };
        if !sound(name) || suite.is_some_and(|suite| !suite.split('/').all(sound)) {
            return Err(bad());
        }
        match (suite.map(str::to_owned), name.to_owned()) {
            (suite, release) if is_release(&release) => Ok(Request::Release { suite, release }),
            (Some(suite), flavour) => Ok(Request::Newest { suite, flavour }),
            (None, _) => Err(bad()),
        }
    }
}

/// What a fetch would get.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The kernel's release.
    pub release: String,
    /// The version of its packages.
    pub version: String,
    /// Where it was looked for.
    pub suites: Vec<String>,
    /// Suites that were asked for and could not be read, with apt's words: a newer kernel may be there.
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
    /// All that building a scheduler takes.
    #[default]
    Whole,
    /// What boots: image and modules.
    Image,
    /// No kernel: a compiler.
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
    /// All downloads together.
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
    /// As apt-get takes it.
    #[serde(skip)]
    pub(super) spec: String,
    #[serde(skip)]
    pub(super) file: String,
    #[serde(skip)]
    pub(super) content: Content,
}

/// What of a package is unpacked, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// All of it, into the kernel's sysroot.
    Whole,
    /// The debug vmlinux, into the kernel's sysroot.
    Vmlinux,
    /// The source tree.
    Source,
    /// All of it, among the cache's tools, those of the architecture.
    Tool(Option<Architecture>),
    /// All of it, beside the sysroot: programs of this machine's where the sysroot's are another's.
    Native,
    /// There too, but of the emulators only the one of that name, since there are thirty.
    Emulator(&'static str),
}

/// Finds out which packages make up the wanted kernel. A release that is in the cache is not looked up again.
///
/// # Errors
/// A suite, kernel or package that is not there is named, with what there is instead.
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
        return Ok(Plan {
            release: record.release,
            version: record.version,
            suites: vec![],
            unread: vec![],
            packages: vec![],
            cached: true,
            suite: record.suite,
            lists: None,
            extent,
        });
    }
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
    let (release, version) = match request {
        Request::Newest { suite, flavour } => newest(&apt, suite, flavour, &suites.read)?,
        Request::Release { release, .. } => exactly(&apt, release, &suites.read)?,
    };
    drop(lock);
    let place = extent.place(cache, &release);
    let cached = place.record().is_some_and(|record| record.version == version);
    let packages = match cached {
        true => vec![],
        false => {
            let lookup = Lookup {
                apt: &apt,
                release: &release,
                version: &version,
                suites: &suites.read,
                foreign,
                listed: Vec::new(),
            };
            packages_of(lookup, extent, cache)?
        }
    };
    Ok(Plan {
        release,
        version,
        suites: suites.read,
        unread: suites.unread,
        packages,
        cached,
        suite: match request {
            Request::Newest { suite, .. } => Some(suite.clone()),
            Request::Release { suite, .. } => suite.clone(),
        },
        lists: Some(lists),
        extent,
    })
}

/// Which suites answered, and which did not.
pub(super) struct Suites {
    pub read: Vec<String>,
    pub unread: Vec<String>,
}

/// Brings the lists up to date. `name` must be among what was read, if it is a suite.
pub(super) fn read_lists(
    apt: &Apt,
    name: &str,
    derived: &Derived,
    progress: &dyn Progress,
) -> Result<Suites, SourceError> {
    progress.begin("reading the archive's package lists", None);
    let updated = apt.update()?;
    let (read, missing): (Vec<String>, Vec<String>) =
        derived.suites.iter().cloned().partition(|suite| updated.suites.contains(suite));
    progress.end(&read.join(", "));
    if read.is_empty()
        || (derived.suites.iter().any(|suite| suite == name) && !read.iter().any(|s| s == name))
    {
        return Err(SourceError::NoSuite { suite: name.to_owned(), said: updated.said });
    }
    // Not every suite has each companion, so a missing one is no error. But it is told: a security archive
    // out of reach would else mean an older kernel, silently.
    let unread = missing
        .into_iter()
        .map(|suite| {
            let why = updated.said.lines().find(|line| line.contains(&format!(" {suite} ")));
            why.map_or(suite.clone(), |why| format!("{suite} ({why})"))
        })
        .collect();
    Ok(Suites { read, unread })
}

/// Follows the meta package of the flavour to the image it depends on.
fn newest(apt: &Apt, suite: &str, flavour: &str, suites: &[String]) -> Result<(String, String), SourceError> {
    let meta = format!("linux-image-{flavour}");
    let no_kernel = |available: String| SourceError::NoKernel {
        package: meta.clone(),
        suites: suites.join(", "),
        available,
    };
    let Some(listed) = apt.candidate(&meta)? else {
        let flavours = flavours(&apt.names("linux-image-")?);
        return Err(no_kernel(match flavours.is_empty() {
            true => format!("{suite} has no kernels at all"),
            false => format!("flavours there: {}", flavours.join(", ")),
        }));
    };
    followed(&listed).ok_or_else(|| no_kernel(format!("{meta} {} depends on no image", listed.version)))
}

/// Release and version of the image that a meta package depends on.
fn followed(meta: &Listed) -> Option<(String, String)> {
    meta.depends.iter().find_map(|dependency| {
        let release = dependency.name.strip_prefix("linux-image-").filter(|rest| is_versioned(rest))?;
        Some((release.to_owned(), dependency.exact_version.clone().unwrap_or_else(|| meta.version.clone())))
    })
}

/// `linux-image-cloud-amd64` is a flavour's; `linux-image-6.1.0-13-cloud-amd64` a release's.
fn flavours(names: &[String]) -> Vec<String> {
    names
        .iter()
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter(|rest| !is_versioned(rest) && !is_variant(rest))
        .map(str::to_owned)
        .collect()
}

fn is_versioned(rest: &str) -> bool {
    let mut parts = rest.split(['.', '-']);
    let mut number = || parts.next().is_some_and(|part| part.parse::<u32>().is_ok());
    number() && number()
}

fn is_variant(rest: &str) -> bool {
    ["-dbg", "-unsigned", "-signed-template"].iter().any(|end| rest.ends_with(end))
}

/// The release, as it was named; or what a meta package of that name (`6.12-cloud-amd64`) depends on.
fn exactly(apt: &Apt, release: &str, suites: &[String]) -> Result<(String, String), SourceError> {
    let image = format!("linux-image-{release}");
    if let Some(listed) = apt.candidate(&image)? {
        return Ok(followed(&listed).unwrap_or_else(|| (release.to_owned(), listed.version)));
    }
    let mut releases = releases(apt)?;
    // A suite may hold a hundred releases; those of the same flavour are what was most likely meant.
    let same = |other: &String| flavour_of(other) == flavour_of(release);
    if releases.iter().any(same) {
        releases.retain(same);
    }
    let available = match releases.is_empty() {
        true => "they have no kernels at all".to_owned(),
        false => format!(
            "releases there: {}. Archives drop old releases; another suite is asked with SUITE/{release}",
            releases.join(", ")
        ),
    };
    Err(SourceError::NoKernel { package: image, suites: suites.join(", "), available })
}

fn releases(apt: &Apt) -> Result<Vec<String>, SourceError> {
    let names = apt.names("linux-image-")?;
    let releases = names
        .iter()
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter(|rest| is_versioned(rest) && !is_variant(rest));
    Ok(releases.map(str::to_owned).collect())
}

/// The other releases of the same flavour and series in the lists, the newest first.
pub(super) fn others_of_flavour(apt: &Apt, release: &str) -> Result<Vec<String>, SourceError> {
    let mut others = releases(apt)?;
    others.retain(|other| {
        flavour_of(other) == flavour_of(release)
            && numbers(other).iter().take(2).eq(numbers(release).iter().take(2))
            && other != release
    });
    others.sort_by_key(|other| std::cmp::Reverse(numbers(other)));
    Ok(others)
}

/// The numbers in a release, by which releases of one flavour follow each other.
fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// What follows the version and its ABI number: `cloud-amd64` of `6.1.0-13-cloud-amd64`.
fn flavour_of(release: &str) -> &str {
    let mut rest = release.split_once('-').map_or("", |(_, rest)| rest);
    while let Some((number, after)) = rest.split_once('-')
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        rest = after;
    }
    rest
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
        Extent::Toolchain => unreachable!("a compiler's packages are planned beside it"),
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
    // The largest takes longest to unpack, which goes on beside the other downloads.
    packages.sort_by_key(|package| std::cmp::Reverse(package.bytes));
    Ok(packages)
}

/// The image, and what newer kernels split from it.
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
    // What runs in a guest is of the kernel's architecture.
    let machine = lookup.foreign.or_else(Architecture::of_machine).map_or("", Architecture::machine);
    if cache.busybox_for(machine).is_none() {
        let busybox = lookup.apt.candidate("busybox-static")?;
        let busybox = busybox.ok_or_else(|| lookup.missing("busybox-static", vec![]))?;
        wanted.push((busybox, Content::Tool(lookup.foreign)));
    }
    Ok(wanted)
}

/// What image and headers need beside themselves: newer kernels split the image into packages of its release,
/// and headers share a part between flavours.
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
    /// Set where this machine's architecture is not the kernel's.
    foreign: Option<Architecture>,
    listed: Vec<Listed>,
}

impl Lookup<'_> {
    /// Each question to apt takes a while: ask for several packages at once.
    fn read(&mut self, names: &[&str]) -> Result<(), SourceError> {
        self.listed.extend(self.apt.show(names)?);
        Ok(())
    }

    /// The package in the kernel's version.
    fn exact(&self, name: &str) -> Result<Listed, SourceError> {
        let named = || self.listed.iter().filter(|package| package.name == name);
        // A kernel's packages are in the archive for all architectures in one version.
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
                true => "no version of it is there".into(),
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
    fn requests() {
        let newest =
            |suite: &str, flavour: &str| Request::Newest { suite: suite.into(), flavour: flavour.into() };
        assert_eq!("bookworm/cloud-amd64".parse::<Request>().unwrap(), newest("bookworm", "cloud-amd64"));
        assert_eq!("sid/686".parse::<Request>().unwrap(), newest("sid", "686"));
        assert_eq!(
            "6.12.9+deb13-amd64".parse::<Request>().unwrap(),
            Request::Release { suite: None, release: "6.12.9+deb13-amd64".into() }
        );
        assert_eq!(
            "trixie/6.12.9+deb13-amd64".parse::<Request>().unwrap(),
            Request::Release { suite: Some("trixie".into()), release: "6.12.9+deb13-amd64".into() }
        );
        for bad in ["", "cloud-amd64", "bookworm/", "/x", "../6.1", "a b/c", "-x/6.1", "bookworm/../x"] {
            let error = bad.parse::<Request>().unwrap_err();
            assert!(matches!(error, SourceError::BadSpec { .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn the_source_package_is_the_series() {
        assert_eq!(source_package("6.1.192-2"), "linux-source-6.1");
        assert_eq!(source_package("6.12.95-1~bpo12+1"), "linux-source-6.12");
        assert_eq!(source_package("7.0-1"), "linux-source-7.0");
        assert_eq!(source_package("7.0~rc4-1~exp1"), "linux-source-7.0");
    }

    #[test]
    fn releases_follow_each_other_by_their_numbers() {
        assert!(numbers("6.1.0-9-amd64") < numbers("6.1.0-10-amd64"));
        assert!(numbers("6.12.95+deb12-amd64") < numbers("6.12.117+deb13-amd64"));
    }

    #[test]
    fn the_flavour_of_a_release() {
        assert_eq!(flavour_of("6.1.0-13-cloud-amd64"), "cloud-amd64");
        assert_eq!(flavour_of("6.12.9+deb13-amd64"), "amd64");
        assert_eq!(flavour_of("6.1.0"), "");
    }

    #[test]
    fn a_meta_package_leads_to_its_image() {
        let depends = |name: &str, version: Option<&str>| Dependency {
            name: name.into(),
            exact_version: version.map(str::to_owned),
        };
        let meta = |depends| Listed {
            name: "linux-image-x".into(),
            version: "9-1".into(),
            depends,
            ..Listed::default()
        };
        assert_eq!(
            followed(&meta(vec![
                depends("linux-base-x", None),
                depends("linux-image-6.12.9-x", Some("6.12.9-1"))
            ])),
            Some(("6.12.9-x".into(), "6.12.9-1".into()))
        );
        assert_eq!(followed(&meta(vec![depends("kmod", None)])), None);
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

    #[test]
    fn flavours_are_neither_releases_nor_debug_symbols() {
        let names = [
            "linux-image-6.1.0-13-cloud-amd64",
            "linux-image-6.1.0-13-cloud-amd64-dbg",
            "linux-image-6.12.9+deb13-amd64",
            "linux-image-686",
            "linux-image-cloud-amd64",
            "linux-image-cloud-amd64-dbg",
        ]
        .map(str::to_owned);
        assert_eq!(flavours(&names), ["686", "cloud-amd64"]);
    }
}

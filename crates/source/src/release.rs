//! Which release of a kernel is meant: a flavour's newest, or one that is named.

use std::str::FromStr;

use super::SourceError;
use super::apt::{Apt, Listed};
use super::archive::Derived;
use schedswap_host::progress::Progress;

/// Which kernel is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The newest kernel of a flavour in a suite, its updates and its security archive: `bookworm/cloud-amd64`.
    Newest {
        /// Debian's name for it.
        suite: String,
        /// The part of a release's name after the version.
        flavour: String,
    },
    /// One release, `6.1.0-13-cloud-amd64`. It is looked for in `suite` if given (`bookworm/6.1.0-13-cloud-amd64`), else
    /// in every suite that this machine uses and its backports.
    Release {
        /// The suite that has it, if not one from which this machine gets its packages.
        suite: Option<String>,
        /// As `uname -r` prints it.
        release: String,
    },
}

impl Request {
    /// The part that ends with the architecture.
    pub(super) fn kernel(&self) -> &str {
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

/// Which suites answered, and which did not.
pub(super) struct Suites {
    pub read: Vec<String>,
    pub unread: Vec<String>,
}

/// Brings the lists up to date. If `name` is a suite, it must be among those that were read.
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
    // Not every suite has each companion, so a missing one is not an error. But it is reported: otherwise an
    // unreachable security archive would silently mean an older kernel.
    let unread = missing
        .into_iter()
        .map(|suite| {
            let why = updated.said.lines().find(|line| line.contains(&format!(" {suite} ")));
            why.map_or(suite.clone(), |why| format!("{suite} ({why})"))
        })
        .collect();
    Ok(Suites { read, unread })
}

/// The release that `request` means, and the version of its packages.
pub(super) fn wanted(
    apt: &Apt,
    request: &Request,
    suites: &[String],
) -> Result<(String, String), SourceError> {
    match request {
        Request::Newest { suite, flavour } => newest(apt, suite, flavour, suites),
        Request::Release { release, .. } => exactly(apt, release, suites),
    }
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
    followed(&listed)
        .ok_or_else(|| no_kernel(format!("{meta} {} does not depend on an image", listed.version)))
}

/// Release and version of the image that a meta package depends on.
fn followed(meta: &Listed) -> Option<(String, String)> {
    meta.depends.iter().find_map(|dependency| {
        let release = dependency.name.strip_prefix("linux-image-").filter(|rest| is_versioned(rest))?;
        Some((release.to_owned(), dependency.exact_version.clone().unwrap_or_else(|| meta.version.clone())))
    })
}

/// The flavours among the names of packages: `linux-image-cloud-amd64` belongs to one,
/// `linux-image-6.1.0-13-cloud-amd64` to a release.
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

/// The release that was named, or the one on which a meta package of that name (`6.12-cloud-amd64`) depends.
fn exactly(apt: &Apt, release: &str, suites: &[String]) -> Result<(String, String), SourceError> {
    let image = format!("linux-image-{release}");
    if let Some(listed) = apt.candidate(&image)? {
        return Ok(followed(&listed).unwrap_or_else(|| (release.to_owned(), listed.version)));
    }
    let mut releases = releases(apt)?;
    // A suite may hold a hundred releases; the user most likely meant one of the same flavour.
    let same = |other: &String| flavour_of(other) == flavour_of(release);
    if releases.iter().any(same) {
        releases.retain(same);
    }
    let available = match releases.is_empty() {
        true => "they have no kernels at all".to_owned(),
        false => format!(
            "releases there: {}. Archives drop old releases; to look in another suite, use SUITE/{release}",
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

/// The numbers in a release, by which the releases of one flavour are ordered.
fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// The part after the version and its ABI number: `cloud-amd64` of `6.1.0-13-cloud-amd64`.
fn flavour_of(release: &str) -> &str {
    let mut rest = release.split_once('-').map_or("", |(_, rest)| rest);
    while let Some((number, after)) = rest.split_once('-')
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        rest = after;
    }
    rest
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

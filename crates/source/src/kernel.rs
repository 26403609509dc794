//! Finding the files of one kernel where the packages of Debian and of the rpm distributions put them.

use std::path::{Path, PathBuf};

use super::sysroot;
use super::{Cache, SourceError};

/// Where the files of one kernel release are.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `uname -r` of the kernel, e.g. `6.1.0-13-cloud-amd64`.
    pub release: String,
    /// The root below which absolute paths inside these files are to be read; `/` on the host.
    pub sysroot: PathBuf,
    /// vmlinux with symbols and debug information.
    pub vmlinux: PathBuf,
    /// The kernel's `.config`.
    pub config: PathBuf,
    /// What `/lib/modules/R/build` points to. For `make -C`, ask [`super::shadow_headers`].
    pub headers: PathBuf,
    /// The image that boots. Only a guest needs it: [`Kernel::bootable`].
    pub bzimage: Option<PathBuf>,
    /// `/lib/modules/R`. Only a guest needs it: [`Kernel::loadable`].
    pub modules: Option<PathBuf>,
    /// The kernel's source, with `kernel/sched/`, if it is known.
    pub source: Option<PathBuf>,
}

impl Kernel {
    /// The boot image.
    ///
    /// # Errors
    /// [`SourceError::NotFound`] if it was not found; the error names the package that holds it.
    pub fn bootable(&self) -> Result<&Path, SourceError> {
        self.bzimage.as_deref().ok_or_else(|| self.missing(Part::Bzimage))
    }

    /// The directory of the kernel's own modules.
    ///
    /// # Errors
    /// [`SourceError::NotFound`] if it was not found; the error names the package that holds it.
    pub fn loadable(&self) -> Result<&Path, SourceError> {
        self.modules.as_deref().ok_or_else(|| self.missing(Part::Modules))
    }

    fn missing(&self, part: Part) -> SourceError {
        not_found(part, &self.release, part.candidates(&self.sysroot, &self.release))
    }
}

/// The bootable part of a kernel, which its image package alone provides.
#[derive(Clone, Debug)]
pub struct Bootable {
    /// `uname -r`
    pub release: String,
    /// The image.
    pub bzimage: PathBuf,
    /// `/lib/modules/R`
    pub modules: PathBuf,
}

impl Bootable {
    /// Finds it below a root of unpacked packages.
    ///
    /// # Errors
    /// [`SourceError::NotFound`] with every path tried.
    pub fn below(root: &Path, release: &str) -> Result<Bootable, SourceError> {
        let find = |part: Part| {
            part.find(root, release).ok_or_else(|| not_found(part, release, part.candidates(root, release)))
        };
        Ok(Bootable {
            release: release.to_owned(),
            bzimage: find(Part::Bzimage)?,
            modules: find(Part::Modules)?,
        })
    }
}

/// Files named by the user; they take precedence over files that are found.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// In place of the debug vmlinux that would be found.
    pub vmlinux: Option<PathBuf>,
    /// In place of the `.config` that would be found.
    pub config: Option<PathBuf>,
    /// In place of `/lib/modules/R/build`.
    pub headers: Option<PathBuf>,
    /// In place of `/boot/vmlinuz-R`.
    pub bzimage: Option<PathBuf>,
    /// In place of `/lib/modules/R`.
    pub modules: Option<PathBuf>,
    /// The kernel's source.
    pub source: Option<PathBuf>,
}

/// Where [`locate`] looks.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Files named one by one.
    pub overrides: Overrides,
    /// Unpacked packages. If given, neither the cache nor the host is searched: a vmlinux from one and headers from
    /// the other would be two builds of one release.
    pub sysroot: Option<PathBuf>,
    /// What [`super::fetch`] filled.
    pub cache: Option<Cache>,
}

/// One of the files that make up a [`Kernel`].
#[derive(Clone, Copy, Debug)]
enum Part {
    Vmlinux,
    Config,
    Headers,
    Bzimage,
    Modules,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Vmlinux => "debug vmlinux",
            Part::Config => "configuration",
            Part::Headers => "headers",
            Part::Bzimage => "boot image",
            Part::Modules => "modules",
        }
    }

    /// The packages that hold it, Debian's first.
    fn package(self, release: &str) -> String {
        match self {
            Part::Vmlinux => {
                format!("linux-image-{release}-dbg (Debian) or kernel-debuginfo-{release} (rpm)")
            }
            Part::Headers => format!("linux-headers-{release} (Debian) or kernel-devel-{release} (rpm)"),
            Part::Config | Part::Bzimage => {
                format!("linux-image-{release} (Debian) or kernel-core-{release} (rpm)")
            }
            Part::Modules => format!("linux-image-{release} (Debian) or kernel-modules-{release} (rpm)"),
        }
    }

    /// Its places below a root: Debian's, then those of the rpm distributions, and those of a merged /usr.
    fn places(self, release: &str) -> Vec<String> {
        match self {
            Part::Vmlinux => vec![
                format!("usr/lib/debug/boot/vmlinux-{release}"),
                format!("usr/lib/debug/lib/modules/{release}/vmlinux"),
                format!("usr/lib/debug/usr/lib/modules/{release}/vmlinux"),
            ],
            Part::Config => vec![
                format!("boot/config-{release}"),
                format!("lib/modules/{release}/config"),
                format!("usr/lib/modules/{release}/config"),
                format!("usr/src/linux-headers-{release}/.config"),
                format!("usr/src/kernels/{release}/.config"),
                format!("lib/modules/{release}/build/.config"),
            ],
            Part::Headers => vec![
                format!("usr/src/linux-headers-{release}"),
                format!("usr/src/kernels/{release}"),
                format!("lib/modules/{release}/build"),
                format!("usr/lib/modules/{release}/build"),
            ],
            Part::Bzimage => vec![
                format!("boot/vmlinuz-{release}"),
                format!("lib/modules/{release}/vmlinuz"),
                format!("usr/lib/modules/{release}/vmlinuz"),
            ],
            Part::Modules => {
                vec![format!("lib/modules/{release}"), format!("usr/lib/modules/{release}")]
            }
        }
    }

    fn candidates(self, root: &Path, release: &str) -> Vec<PathBuf> {
        self.places(release).into_iter().map(|place| root.join(place)).collect()
    }

    fn find(self, root: &Path, release: &str) -> Option<PathBuf> {
        self.places(release)
            .into_iter()
            .filter_map(|place| sysroot::resolve(root, Path::new(&place)))
            .find(|path| self.looks_right(path))
    }

    /// Directories of that name may exist without their content: a headers or dbg package alone leaves an almost
    /// empty `/lib/modules/R` behind.
    fn looks_right(self, path: &Path) -> bool {
        match self {
            Part::Vmlinux | Part::Config | Part::Bzimage => path.is_file(),
            Part::Headers => path.join("Makefile").is_file(),
            Part::Modules => path.join("kernel").is_dir() || path.join("modules.order").is_file(),
        }
    }
}

/// Finds the files of `release`: those that the user named, and all others in one place: the given sysroot, else the
/// cache, else the host.
///
/// # Errors
/// [`SourceError::NotFound`] with every path tried and the package that holds the file.
pub fn locate(release: &str, search: &Search) -> Result<Kernel, SourceError> {
    refuse_missing(&search.overrides)?;
    let roots = roots(release, search);
    let needed = needed_parts(&search.overrides);
    let held = |root: &PathBuf| needed.iter().filter(|part| part.find(root, release).is_some()).count();
    // Take the root that holds most of the files, the first of equals: what it lacks is what to tell the user.
    let best = roots.iter().rev().max_by_key(|root| held(root)).expect("there is always a root to look at");
    if held(best) == 0
        && let Some(part) = needed.first()
    {
        let tried = roots.iter().flat_map(|root| part.candidates(root, release)).collect();
        return Err(not_found(*part, release, tried));
    }
    let mut kernel = locate_below(best, release, &search.overrides)?;
    if kernel.source.is_none() {
        kernel.source = cached_source(release, search);
    }
    Ok(kernel)
}

/// If a file that the user named is wrong, report that before any file that was not found.
fn refuse_missing(overrides: &Overrides) -> Result<(), SourceError> {
    let named = [
        (Part::Vmlinux, &overrides.vmlinux),
        (Part::Headers, &overrides.headers),
        (Part::Config, &overrides.config),
        (Part::Bzimage, &overrides.bzimage),
        (Part::Modules, &overrides.modules),
    ];
    named
        .into_iter()
        .filter_map(|(part, path)| Some((part, path.as_ref()?)))
        .try_for_each(|(part, path)| existing(part, path).map(drop))
}

/// A file that the user did not name and that is not part of what the user named.
fn needed_parts(overrides: &Overrides) -> Vec<Part> {
    let mut parts = Vec::new();
    if overrides.vmlinux.is_none() {
        parts.push(Part::Vmlinux);
    }
    if overrides.headers.is_none() {
        parts.push(Part::Headers);
        if overrides.config.is_none() {
            parts.push(Part::Config);
        }
    }
    parts
}

fn roots(release: &str, search: &Search) -> Vec<PathBuf> {
    if let Some(root) = &search.sysroot {
        // Kbuild is run in these directories later, so they must not be relative to this one.
        return vec![std::path::absolute(root).unwrap_or_else(|_| root.clone())];
    }
    let cached = search.cache.as_ref().and_then(|cache| cache.kernel(release).complete());
    cached.map(|kernel| kernel.sysroot()).into_iter().chain([PathBuf::from("/")]).collect()
}

fn cached_source(release: &str, search: &Search) -> Option<PathBuf> {
    if search.sysroot.is_some() {
        return None;
    }
    search.cache.as_ref()?.kernel(release).complete().map(|kernel| kernel.source())
}

fn locate_below(root: &Path, release: &str, overrides: &Overrides) -> Result<Kernel, SourceError> {
    let required = |part: Part, named: &Option<PathBuf>| match named {
        Some(path) => existing(part, path),
        None => {
            part.find(root, release).ok_or_else(|| not_found(part, release, part.candidates(root, release)))
        }
    };
    let optional = |part: Part, named: &Option<PathBuf>| match named {
        Some(path) => existing(part, path).map(Some),
        None => Ok(part.find(root, release)),
    };
    let vmlinux = required(Part::Vmlinux, &overrides.vmlinux)?;
    let headers = required(Part::Headers, &overrides.headers)?;
    // The headers carry the configuration with which they were made; it takes precedence over that of another
    // package.
    let beside = headers.join(".config");
    let config = match &overrides.config {
        None if overrides.headers.is_some() && beside.is_file() => beside,
        named => required(Part::Config, named)?,
    };
    let sysroot = match &overrides.headers {
        Some(headers) => sysroot_of_headers(headers).unwrap_or_else(|| root.to_path_buf()),
        None => root.to_path_buf(),
    };
    Ok(Kernel {
        release: release.to_owned(),
        vmlinux,
        config,
        headers,
        bzimage: optional(Part::Bzimage, &overrides.bzimage)?,
        modules: optional(Part::Modules, &overrides.modules)?,
        source: overrides.source.clone(),
        sysroot,
    })
}

/// Headers named by the user may lie in unpacked packages: the sysroot is the part of the path before `usr/src`.
fn sysroot_of_headers(headers: &Path) -> Option<PathBuf> {
    let headers = std::path::absolute(headers).ok()?;
    let src = headers.parent()?;
    src.ends_with("usr/src").then(|| src.parent()?.parent().map(Path::to_path_buf)).flatten()
}

fn existing(part: Part, path: &Path) -> Result<PathBuf, SourceError> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    if part.looks_right(&absolute) {
        return Ok(absolute);
    }
    Err(SourceError::NamedFileMissing { part: part.name(), path: path.to_path_buf() })
}

fn not_found(part: Part, release: &str, tried: Vec<PathBuf>) -> SourceError {
    SourceError::NotFound {
        part: part.name(),
        release: release.to_owned(),
        tried,
        package: part.package(release),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const RELEASE: &str = "5.14.0-1.el9.x86_64";

    fn put(root: &Path, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }

    fn below(root: &Path) -> Search {
        Search { sysroot: Some(root.to_path_buf()), ..Search::default() }
    }

    #[test]
    fn debian_layout() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        put(root, &format!("usr/lib/debug/boot/vmlinux-{RELEASE}"));
        put(root, &format!("usr/src/linux-headers-{RELEASE}/Makefile"));
        put(root, &format!("boot/config-{RELEASE}"));
        put(root, &format!("boot/vmlinuz-{RELEASE}"));
        put(root, &format!("lib/modules/{RELEASE}/modules.order"));
        let kernel = locate(RELEASE, &below(root)).unwrap();
        assert_eq!(kernel.vmlinux, root.join(format!("usr/lib/debug/boot/vmlinux-{RELEASE}")));
        assert_eq!(kernel.headers, root.join(format!("usr/src/linux-headers-{RELEASE}")));
        assert_eq!(kernel.bootable().unwrap(), root.join(format!("boot/vmlinuz-{RELEASE}")));
        assert_eq!(kernel.loadable().unwrap(), root.join(format!("lib/modules/{RELEASE}")));
    }

    #[test]
    fn rpm_layout() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        put(root, &format!("usr/lib/debug/lib/modules/{RELEASE}/vmlinux"));
        put(root, &format!("usr/src/kernels/{RELEASE}/Makefile"));
        put(root, &format!("lib/modules/{RELEASE}/config"));
        put(root, &format!("lib/modules/{RELEASE}/vmlinuz"));
        let kernel = locate(RELEASE, &below(root)).unwrap();
        assert_eq!(kernel.headers, root.join(format!("usr/src/kernels/{RELEASE}")));
        assert_eq!(kernel.config, root.join(format!("lib/modules/{RELEASE}/config")));
        assert!(kernel.bootable().is_ok());
        let error = kernel.loadable().unwrap_err().to_string();
        assert!(error.contains(&format!("kernel-modules-{RELEASE}")), "{error}");
    }

    #[test]
    fn a_missing_package_is_named_with_every_path_tried() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        put(root, &format!("usr/lib/debug/boot/vmlinux-{RELEASE}"));
        let error = locate(RELEASE, &below(root)).unwrap_err().to_string();
        assert!(error.contains(&format!("linux-headers-{RELEASE}")), "{error}");
        for place in Part::Headers.candidates(root, RELEASE) {
            assert!(error.contains(place.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn an_empty_modules_directory_is_no_kernel() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(format!("lib/modules/{RELEASE}"))).unwrap();
        assert_eq!(Part::Modules.find(dir.path(), RELEASE), None);
    }

    #[test]
    fn a_file_named_by_hand_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let mut search = below(dir.path());
        search.overrides.vmlinux = Some(dir.path().join("not-here"));
        let error = locate(RELEASE, &search).unwrap_err();
        assert!(matches!(error, SourceError::NamedFileMissing { .. }), "{error}");
    }

    #[test]
    fn headers_named_by_hand_bring_their_sysroot() {
        assert_eq!(sysroot_of_headers(Path::new("/a/usr/src/linux-headers-1")), Some("/a".into()));
        assert_eq!(sysroot_of_headers(Path::new("/usr/src/linux-headers-1")), Some("/".into()));
        assert_eq!(sysroot_of_headers(Path::new("/home/me/linux")), None);
    }
}

//! What can go wrong while a kernel's files are looked for or fetched.

use std::io;
use std::path::{Path, PathBuf};

/// An error of [`super::locate`], [`super::shadow_headers`] or [`super::fetch`].
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No place that distributions use holds the file.
    #[error(
        "no {part} of kernel {release}; looked for\n{}\nInstall {package}, or run `schedswap fetch {release}` \
         (Debian), or name the place with --sysroot or the file itself",
        indented(tried.iter().map(|path| path.display().to_string()))
    )]
    NotFound {
        /// Which of the kernel's files.
        part: &'static str,
        /// The kernel's release.
        release: String,
        /// Every path that was looked at.
        tried: Vec<PathBuf>,
        /// The packages that hold the file.
        package: String,
    },
    /// A file named on the command line is not there, or is not what it should be.
    #[error("{} was named as the {part}, and is not there or is something else", path.display())]
    NamedFileMissing {
        /// Which of the kernel's files.
        part: &'static str,
        /// As it was named.
        path: PathBuf,
    },
    /// Unpacked headers refer to a package that was not unpacked beside them.
    #[error(
        "{} refers to {}, which is not below {}: unpack the package that holds it there (dpkg-deb -x), or run \
         `schedswap fetch`",
        path.display(), target.display(), sysroot.display()
    )]
    DanglingLink {
        /// The link, or the directory whose makefile has the path.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
        /// Below this.
        sysroot: PathBuf,
    },
    /// Kbuild cannot work in a directory of this name.
    #[error("make cannot work in {} because of the character {character:?}: choose another directory", path.display())]
    PathUnfitForMake {
        /// The directory.
        path: PathBuf,
        /// The first character that make would take for something else.
        character: char,
    },
    /// Neither variable nor home says where the cache is.
    #[error("no place for the cache: set SCHEDSWAP_CACHE, XDG_CACHE_HOME or HOME")]
    NoCacheDirectory,
    /// The argument of `fetch` is neither a suite and flavour nor a release.
    #[error(
        "{spec:?} is neither SUITE/FLAVOUR (such as bookworm/cloud-amd64) nor a kernel release (such as \
         6.1.0-13-cloud-amd64)"
    )]
    BadSpec {
        /// As it was given.
        spec: String,
    },
    /// The machine has no apt sources of Debian's.
    #[error(
        "no Debian archive in {}: fetch works on Debian with its package sources configured; elsewhere unpack the \
         packages yourself and use --sysroot",
        files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NoArchive {
        /// The files read.
        files: Vec<PathBuf>,
    },
    /// None of the machine's archives has the suite, or none could be reached.
    #[error("none of this machine's Debian archives has the suite {suite}; apt said\n{}", indented(said.lines()))]
    NoSuite {
        /// As asked for.
        suite: String,
        /// The messages of apt.
        said: String,
    },
    /// The archive's lists have a package whose file is not there any more.
    #[error(
        "{package} {version} is in the archive's lists, but its file is not in the archive; {}",
        match others.as_slice() {
            [] => "the suite has no other to take instead, so try another suite".to_owned(),
            others => format!("others of this flavour and series: {}", others.join(", ")),
        }
    )]
    Gone {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// The other releases of the flavour and series in the lists, the newest first.
        others: Vec<String>,
    },
    /// The suite has no such kernel.
    #[error("there is no package {package} in {suites}; {available}")]
    NoKernel {
        /// Named so that the user can look for it.
        package: String,
        /// Where it was looked for.
        suites: String,
        /// What there is instead.
        available: String,
    },
    /// A package belonging to the kernel is missing, or there in another version only.
    #[error(
        "kernel {release} needs {package} in version {version}, which is not in {suites}; {available}. Debug symbols, \
         headers and source must be those of the image's exact version"
    )]
    NoPackage {
        /// The kernel's release.
        release: String,
        /// The package.
        package: String,
        /// The image's version.
        version: String,
        /// Where it was looked for.
        suites: String,
        /// What there is instead.
        available: String,
    },
    /// The kernel's compiler is not of Debian's making.
    #[error(
        "the kernel was built by {text:?}, which names no package of Debian's: install that compiler yourself, so \
         that the first line of its --version is this"
    )]
    UnknownCompiler {
        /// The compiler, in its own words.
        text: String,
    },
    /// The archive has not the compiler in that revision.
    #[error(
        "the kernel was built by {wanted:?}, and {package} is not to be had from {suites}: {said}\nName the suite \
         that has it with --suite"
    )]
    NoCompiler {
        /// The compiler, in its own words.
        wanted: String,
        /// Package and version.
        package: String,
        /// Where it was looked for.
        suites: String,
        /// The messages of apt.
        said: String,
    },
    /// What came out of the packages is another compiler.
    #[error(
        "the compiler in {} does not say that it is {wanted:?}: remove that directory's parent and try again",
        directory.display()
    )]
    OtherCompiler {
        /// The compiler, in its own words.
        wanted: String,
        /// Where its programs are.
        directory: PathBuf,
    },
    /// Programs of another machine cannot be run.
    #[error(
        "no emulator came out of its package, which was looked for at {}: remove the toolchain's directory and try \
         again, or name another suite",
        places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(" and ")
    )]
    NoEmulator {
        /// Where it was looked for.
        places: Vec<PathBuf>,
    },
    /// A program of a toolchain cannot be run.
    #[error(
        "{} asks for the loader {}, which is not below {}: it is no program of the same suite",
        program.display(), loader.display(), root.display()
    )]
    NoLoader {
        /// The program.
        program: PathBuf,
        /// The loader it names.
        loader: PathBuf,
        /// Where it was looked for.
        root: PathBuf,
    },
    /// A program of the host is missing.
    #[error("{program} is not installed: install the package {package}")]
    NoProgram {
        /// Its name.
        program: String,
        /// The Debian package it is in.
        package: &'static str,
    },
    /// A program of the host failed.
    #[error("{doing} failed ({program} ended with {status}); it said\n{}", indented(said.lines()))]
    ProgramFailed {
        /// What it was run for.
        doing: String,
        /// Its name.
        program: String,
        /// Its exit status.
        status: String,
        /// Its error output.
        said: String,
    },
    /// No room for the packages.
    #[error(
        "the disk is full: {doing} in {} found no room. A kernel takes about 1.5 GB while it is fetched and 1 GB \
         after; free some, or put the cache elsewhere with SCHEDSWAP_CACHE. What is there is kept, and the fetch \
         goes on from it",
        directory.display()
    )]
    DiskFull {
        /// What was written.
        doing: String,
        /// Where.
        directory: PathBuf,
    },
    /// Not a package of a kernel's source.
    #[error(
        "{} {found}. A kernel's source comes as a source rpm (kernel-….src.rpm), a Debian source package (linux_….dsc, \
         with the files that it names beside it) or a tar file",
        path.display()
    )]
    NotPackedSource {
        /// What was given.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
    },
    /// What came out is no kernel, or there are several.
    #[error(
        "{} {}",
        package.display(),
        match names.as_slice() {
            [] => "has no source of a kernel in it: there is no directory with a Makefile and kernel/sched".to_owned(),
            names => format!(
                "has {} sources of a kernel in it, and which is meant cannot be told: {}; unpack it yourself",
                names.len(),
                names.iter().map(|name| name.display().to_string()).collect::<Vec<_>>().join(", ")
            ),
        }
    )]
    NotOneSource {
        /// What was given.
        package: PathBuf,
        /// Where they are in it.
        names: Vec<PathBuf>,
    },
    /// The directory is in use.
    #[error("{} is there already and is not empty; name a directory that does not exist or is empty", path.display())]
    DestinationTaken {
        /// The directory.
        path: PathBuf,
    },
    /// No room for a source.
    #[error(
        "the disk that holds {} is full; a kernel's source takes about 1.5 GB, and one from a source rpm half a GB more \
         while it is prepared. What was unpacked has been removed: free some space and run the same command again",
        directory.display()
    )]
    NoRoomForSource {
        /// Where it was unpacked.
        directory: PathBuf,
    },
    /// Not a tree that a kernel was built in, or not all of it was built.
    #[error(
        "{} is not there, so {} is no tree in which a kernel has been built: {todo}",
        path.display(), tree.display()
    )]
    NotBuilt {
        /// The tree.
        tree: PathBuf,
        /// What it lacks.
        path: PathBuf,
        /// What makes it.
        todo: &'static str,
    },
    /// Configured anew and not built since.
    #[error(
        "{} is newer than what was built in {}: run make there, so that kernel and configuration are of one build",
        config.display(), tree.display()
    )]
    ConfiguredAnew {
        /// The tree.
        tree: PathBuf,
        /// Its configuration.
        config: PathBuf,
    },
    /// A file of the cache or the headers could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SourceError {
    /// For `map_err`: says which file an I/O error is about.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> SourceError {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SourceError::DiskFull {
                doing: "writing".into(),
                directory: path.parent().map(Path::to_path_buf).unwrap_or(path),
            },
            _ => SourceError::Io { path, source },
        }
    }
}

fn indented<S: AsRef<str>>(lines: impl Iterator<Item = S>) -> String {
    lines.map(|line| format!("  {}", line.as_ref())).collect::<Vec<_>>().join("\n")
}

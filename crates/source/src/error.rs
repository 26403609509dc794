//! What can go wrong while the files of a kernel are looked for or fetched.

use std::io;
use std::path::{Path, PathBuf};

/// An error of [`super::locate`], [`super::shadow_headers`] or [`super::fetch`].
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// None of the places that distributions use holds the file.
    #[error(
        "no {part} of kernel {release}; looked for\n{}\nInstall {package}, run `schedswap fetch {release}` \
         (on Debian), name a root of unpacked packages with --sysroot, or name the file itself",
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
    #[error("{} was named as the {part}, but does not exist or is not one: name another file", path.display())]
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
        /// The first character that has a special meaning to make.
        character: char,
    },
    /// No environment variable says where the cache is.
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
    /// The machine's apt sources name no Debian archive.
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
    #[error("none of this machine's Debian archives has the suite {suite}; apt said:\n{}", indented(said.lines()))]
    NoSuite {
        /// As asked for.
        suite: String,
        /// The messages of apt.
        said: String,
    },
    /// The archive's lists contain a package whose file was deleted.
    #[error(
        "{package} {version} is in the archive's lists, but its file has been deleted from the archive; {}",
        match others.as_slice() {
            [] => "the suite has no other kernel of this series, so try another suite".to_owned(),
            others => format!("try another release of this flavour and series: {}", others.join(", ")),
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
    #[error("the package {package} was not found in {suites}; {available}")]
    NoKernel {
        /// Named so that the user can look for it.
        package: String,
        /// Where it was looked for.
        suites: String,
        /// What is available instead.
        available: String,
    },
    /// A package that belongs to the kernel is missing, or exists only in another version.
    #[error(
        "kernel {release} needs {package} in version {version}, which was not found in {suites}; \
         {available}. Debug symbols, headers and source must have exactly the image's version"
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
        /// What is available instead.
        available: String,
    },
    /// The kernel's compiler is not one of Debian's.
    #[error(
        "the kernel was built by {text:?}, which is not a compiler of Debian's: install that compiler yourself, so \
         that this is the first line that it prints with --version"
    )]
    UnknownCompiler {
        /// The compiler, in its own words.
        text: String,
    },
    /// The archive does not have the compiler in that revision.
    #[error(
        "the kernel was built by {wanted:?}, but {package} is not available from {suites}: {said}\nName the suite \
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
    /// The packages held another compiler.
    #[error(
        "the compiler in {} does not say that it is {wanted:?}: remove its parent directory and try again",
        directory.display()
    )]
    OtherCompiler {
        /// The compiler, in its own words.
        wanted: String,
        /// Where its programs are.
        directory: PathBuf,
    },
    /// There is no emulator for the programs of another machine.
    #[error(
        "the emulator's package holds no emulator at {}: remove the toolchain's directory and try \
         again, or name another suite",
        places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(" and ")
    )]
    NoEmulator {
        /// Where it was looked for.
        places: Vec<PathBuf>,
    },
    /// A program of a toolchain cannot be run.
    #[error(
        "{} asks for the loader {}, which is not below {}: the program is not from the same suite. Remove the \
         toolchain's directory and try again",
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
    #[error("{doing} failed ({program} ended with {status}); it said:\n{}", indented(said.lines()))]
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
    /// There is no space for the packages.
    #[error(
        "the disk is full: {doing} in {} failed. A kernel takes about 1.5 GB while it is fetched and 1 GB \
         afterwards; free some space, or put the cache elsewhere with SCHEDSWAP_CACHE. What was fetched is kept; \
         run the same command again to continue",
        directory.display()
    )]
    DiskFull {
        /// What was written.
        doing: String,
        /// Where.
        directory: PathBuf,
    },
    /// The file is not a packed kernel source.
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
    /// The package holds no kernel source, or several.
    #[error(
        "{} {}",
        package.display(),
        match names.as_slice() {
            [] => "holds no source of a kernel: no directory in it has a Makefile and kernel/sched".to_owned(),
            names => format!(
                "holds {} sources of a kernel, expected one: {}; unpack it yourself and use the one you want",
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
    #[error("{} exists and is not empty; name a directory that does not exist or is empty", path.display())]
    DestinationTaken {
        /// The directory.
        path: PathBuf,
    },
    /// There is no space for a source.
    #[error(
        "the disk that holds {} is full; a kernel's source takes about 1.5 GB, and one from a source rpm half a GB more \
         while it is prepared. What was unpacked has been removed: free some space and run the same command again",
        directory.display()
    )]
    NoRoomForSource {
        /// Where it was unpacked.
        directory: PathBuf,
    },
    /// The tree is not one in which a kernel was built, or was not built completely.
    #[error(
        "{} does not exist, so {} is not a tree in which a kernel was built: {todo}",
        path.display(), tree.display()
    )]
    NotBuilt {
        /// The tree.
        tree: PathBuf,
        /// The missing file.
        path: PathBuf,
        /// What to do.
        todo: &'static str,
    },
    /// The tree was configured again and not built since.
    #[error(
        "{} is newer than the kernel that was built in {}: run make there, so that kernel and configuration belong together",
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

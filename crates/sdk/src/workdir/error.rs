//! Why there is no work dir, or not a complete one.

use super::report;
use super::steps::Step;
use crate::git;
use schedswap_kernel::{objects, vmlinux};
use schedswap_sched::compile;
use std::path::PathBuf;

/// Why there is no work dir, or not a complete one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {doing} {path}")]
    Io {
        /// `read`, `write`, …
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No room on the disk.
    #[error(
        "the disk that holds {path} is full; a work dir takes about 60 MB: free some space and run the same command again, it continues where it stopped"
    )]
    DiskFull {
        /// A file that could not be written.
        path: PathBuf,
    },
    /// A generated file is not what was written.
    #[error(
        "{path} is damaged: it is not the JSON that schedswap writes; delete it and the stamps in .schedswap/steps, and run `schedswap init` again"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A program is not installed.
    #[error("`{program}` was not found; install the package that has it (Debian: `apt install {}`)", package_of(.program))]
    ProgramMissing {
        /// What was to be run.
        program: &'static str,
    },
    /// It holds files that `init` did not write.
    #[error(
        "{path} is not empty and is not a schedswap work dir; give a directory that does not exist or is empty"
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Not a work dir.
    #[error(
        "{path} is not a schedswap work dir (.schedswap/config.json is missing); make one with `schedswap init`"
    )]
    NotAWorkDir {
        /// The directory.
        path: PathBuf,
    },
    /// It was made for another kernel.
    #[error("{path} is a work dir for {found}, not for {wanted}; use one work dir for each kernel")]
    OtherRelease {
        /// The directory.
        path: PathBuf,
        /// Its release.
        found: String,
        /// The release asked for.
        wanted: String,
    },
    /// `init` did not get to its end.
    #[error("{path} is not complete: step {} ({}) is missing; run `schedswap init` again, it continues where it stopped", *.step as usize, .step.name())]
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// The first step that is missing.
        step: Step,
    },
    /// The pristine state changed under an edited tree.
    #[error(
        "the kernel's source in {source_path} is not the one that {path} was made from, and the tree there may hold your changes; give the source that it was made from, or use a new work dir and carry your changes over (`git format-patch`)"
    )]
    SourceChanged {
        /// The work dir.
        path: PathBuf,
        /// The source.
        source_path: PathBuf,
    },
    /// No kernel source.
    #[error(
        "{path} is not the source of a kernel: {missing} is missing; give the source's top directory, or a tarball of it"
    )]
    NotASource {
        /// What was given.
        path: PathBuf,
        /// What is missing.
        missing: &'static str,
    },
    /// A sidecar's file is not in the kernel's source.
    #[error(
        "the configuration names the sidecar {missing}, which is not in {path}; expected the path of a file below the source's top directory, such as kernel/cgroup/cpuset.c"
    )]
    NoSidecar {
        /// The source.
        path: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// The tarball cannot be unpacked, or has no kernel in it.
    #[error("{path} cannot be unpacked to a kernel's source{}", if .said.is_empty() { ": kernel/sched is not in it; give the tarball of the whole kernel".to_owned() } else { format!("; tar said:\n{said}") })]
    BadTarball {
        /// The tarball.
        path: PathBuf,
        /// tar's messages.
        said: String,
    },
    /// The vmlinux is of another release.
    #[error("{vmlinux} is the kernel {found}, not {wanted}; give the debug vmlinux of {wanted}")]
    WrongRelease {
        /// The file.
        vmlinux: PathBuf,
        /// Its release.
        found: String,
        /// The release asked for.
        wanted: String,
    },
    /// The source is of another version.
    #[error(
        "the source is version {found}, but the kernel is {banner:?}; take the source package of the same version, or use --allow-different to continue anyway"
    )]
    WrongSource {
        /// The source's version.
        found: String,
        /// The kernel's banner.
        banner: String,
    },
    /// The gate is closed.
    #[error("{0}")]
    Different(Box<report::Refusal>),
    /// The proof of the binding failed.
    #[error("the unmodified scheduler, bound to vmlinux, does not give vmlinux again: schedswap misreads this kernel, or has a bug. Nothing can be built for it; please report these differences:\n{}", .0.join("\n"))]
    WrongBinding(Vec<String>),
    /// An object cannot be bound.
    #[error(transparent)]
    Binding(#[from] schedswap_sched::binding::Error),
    /// git failed.
    #[error(transparent)]
    Git(git::Error),
    /// Reading the kernel failed.
    #[error(transparent)]
    Vmlinux(#[from] vmlinux::Error),
    /// The headers cannot be used.
    #[error(transparent)]
    Headers(#[from] schedswap_source::SourceError),
    /// Compiling failed.
    #[error(transparent)]
    Compile(#[from] compile::Error),
    /// An object could not be read.
    #[error(transparent)]
    Objects(#[from] objects::Error),
    /// Comparing failed.
    #[error(transparent)]
    Identity(#[from] schedswap_sched::identity::Error),
    /// The configuration does not fit the kernel.
    #[error(transparent)]
    Config(#[from] schedswap_sched::config::Error),
    /// The boundary cannot be computed.
    #[error(transparent)]
    Boundary(#[from] schedswap_sched::boundary::Error),
    /// The springboard cannot be derived.
    #[error(transparent)]
    Springboard(#[from] Box<schedswap_sched::springboard::Error>),
}

impl Error {
    /// Whether a safety check refused, as opposed to something that failed: the source, the compiler or the binding was
    /// found not to be the kernel's.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Error::Different(_) | Error::WrongSource { .. } | Error::WrongBinding(_))
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Error {
        let path = path.into();
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::DiskFull { path },
            _ => Error::Io { doing, path, source },
        }
    }
}

impl From<git::Error> for Error {
    fn from(error: git::Error) -> Error {
        match error {
            git::Error::Failed { root, said, .. } if said.contains("No space left on device") => {
                Error::DiskFull { path: root }
            }
            other => Error::Git(other),
        }
    }
}

/// Result of this phase.
pub type Result<T> = std::result::Result<T, Error>;

fn package_of(program: &str) -> &str {
    match program {
        "xz" => "xz-utils",
        other => other,
    }
}

//! Why there is no module.

use crate::{git, workdir};
use schedswap_sched::check::{CheckError, Finding, Severity};
use schedswap_sched::module::{self, extension, sign};
use std::path::PathBuf;

/// Why `check` or `build` did not get to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `check` refuses the edit.
    #[error(
        "`check` refuses the edit: {}. `schedswap explain CODE` says what to do about each",
        refusals(.0)
    )]
    Refused(Vec<Finding>),
    /// The edit changes no code.
    #[error(
        "the edit changes nothing that runs, so there is nothing to replace and no module was built. `--divert all` builds one \
         that replaces the whole scheduler all the same"
    )]
    NothingChanged,
    /// `__schedule` is to be replaced, and cannot be.
    #[error(
        "the edit changes {function}, which cannot be replaced on this kernel: {why}. Leave it as it is, and what is \
         inlined in it; edits of all other functions can be built"
    )]
    NoSpringboard {
        /// Its name.
        function: String,
        /// What in the kernel's code is in the way.
        why: String,
    },
    /// The work dir is not complete, or a unit does not compile.
    #[error(transparent)]
    Workdir(#[from] workdir::Error),
    /// The work dir's git repository.
    #[error(transparent)]
    Git(#[from] git::Error),
    /// The check could not be made.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The edited scheduler cannot be bound to vmlinux, or not be linked.
    #[error(transparent)]
    Module(#[from] module::Error),
    /// Variables cannot be carried as the configuration says.
    #[error(transparent)]
    State(#[from] module::StateError),
    /// What the author declares to the runtime cannot be had on this kernel.
    #[error(transparent)]
    Extension(#[from] extension::Error),
    /// The module cannot be signed.
    #[error(transparent)]
    Sign(#[from] sign::Error),
    /// There is no package.
    #[error(transparent)]
    Package(#[from] schedswap_package::Error),
    /// The kernel cannot be named in the manifest.
    #[error(
        "{vmlinux} has no build-id, which the loader tells kernels apart by; expected the debug vmlinux of the kernel's \
         package, or one linked with --build-id"
    )]
    NoBuildId {
        /// The kernel's file.
        vmlinux: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot {doing} {path}")]
    Io {
        /// `read`, `write`.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Result of `check` and `build`.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether a safety check refused, as opposed to something that failed: the edit, or the module itself, was found
    /// not to be what may be loaded into this kernel.
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::Refused(_) | Error::NoSpringboard { .. } => true,
            Error::Workdir(error) => error.is_refusal(),
            Error::Module(error) => matches!(error, module::Error::Verify(_) | module::Error::Stub(_)),
            _ => false,
        }
    }

    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { doing, path, source }
    }
}

fn refusals(findings: &[Finding]) -> String {
    let refused = findings.iter().filter(|finding| finding.severity == Severity::Refused);
    let named = refused.map(|finding| format!("{} {}", finding.code, finding.symbol).trim_end().to_owned());
    named.collect::<Vec<_>>().join(", ")
}

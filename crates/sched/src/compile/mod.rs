//! Compiling the scheduler as the distribution compiled it: as built-in code, with the kernel build's own
//! command lines and objtool run the same way.
//!
//! Kbuild is asked once for the commands ([`commands`]); from then on the compiler is run directly, so a
//! build needs no `make`, and an object is compiled again only when something it was made from has changed.

mod build;
mod commands;
mod compiler;
mod cross;
mod file_names;
mod freshness;
mod shared;
mod shell_words;

pub use build::{Build, Compiled, Job, compile, object_path, scheduler_jobs};
pub(crate) use commands::OBJTOOL_ON_EACH_OBJECT;
pub use commands::{Commands, Slots, Template, commands};
pub use compiler::Compiler;
pub(crate) use compiler::look_first_in;
pub use freshness::is_made_from;

use std::path::PathBuf;

/// Why compiling failed.
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
    /// The disk is full.
    #[error("the disk that holds {path} is full; free some space and run the same command again")]
    DiskFull {
        /// A file that could not be written.
        path: PathBuf,
    },
    /// A program is not installed.
    #[error("`{program}` was not found, and the kernel's build needs it; install the package that has it{}", hint(.program))]
    ProgramMissing {
        /// What was to be run.
        program: String,
    },
    /// A program could not be run.
    #[error("cannot run `{program}`; make sure that it can be executed")]
    Spawn {
        /// What was to be run.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// Kbuild refused to tell its commands.
    #[error(
        "the kernel's build system in {kbuild} does not say how {directory} is compiled; check that the headers package is complete. make said:\n{output}"
    )]
    Kbuild {
        /// The directory given to `make -C`.
        kbuild: PathBuf,
        /// The directory of the kernel's source that was asked for.
        directory: PathBuf,
        /// What make printed.
        output: String,
    },
    /// Kbuild's command is of a form that is not understood.
    #[error(
        "Kbuild's command for {object} has {found}, expected {expected}. schedswap does not understand how this kernel is compiled; please report the command: {command}"
    )]
    OddCommand {
        /// Object.
        object: String,
        /// What is odd.
        found: String,
        /// What should be there.
        expected: &'static str,
        /// The command line.
        command: String,
    },
    /// The compiler, or objtool, rejected sources. The message is the tools' own, unchanged.
    #[error("{}", failures(.failed))]
    Rejected {
        /// Source and what the tools printed.
        failed: Vec<(String, String)>,
    },
    /// A unit that Kbuild was not asked about.
    #[error("no compile command is known for {unit}; run `schedswap init` again. There are commands for: {}", .known.join(", "))]
    UnknownUnit {
        /// Unit.
        unit: String,
        /// Units with commands.
        known: Vec<String>,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Error {
        let path = path.into();
        match source.kind() {
            std::io::ErrorKind::StorageFull => Error::DiskFull { path },
            _ => Error::Io { doing, path, source },
        }
    }
}

/// Result of this phase.
pub type Result<T> = std::result::Result<T, Error>;

fn hint(program: &str) -> String {
    match program {
        p if p.contains("gcc") => " (for a Debian kernel, `schedswap toolchain` gets it)".to_owned(),
        p if p.contains("objtool") => " (the kernel's kbuild or headers package)".to_owned(),
        p => format!(" (Debian: `apt install {p}`)"),
    }
}

fn failures(failed: &[(String, String)]) -> String {
    let texts: Vec<&str> = failed.iter().map(|(_, text)| text.trim_end()).collect();
    texts.join("\n")
}

fn spawn_error(program: &str, source: std::io::Error) -> Error {
    match source.kind() {
        std::io::ErrorKind::NotFound => Error::ProgramMissing { program: program.to_owned() },
        _ => Error::Spawn { program: program.to_owned(), source },
    }
}

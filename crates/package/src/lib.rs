//! Packages: what a host needs to run a scheduler, as `.deb` and `.rpm`.
//!
//! ```text
//! module, loader, licences -> Payload (with its manifest) -> Recipe -> .deb, .rpm
//! ```
//!
//! Both formats are made of one [`Recipe`], so they cannot differ in what they install. The same input yields
//! the same bytes: every date in a package is the recipe's, every owner root, every list in order.
//!
//! [`sdk`] makes packages of schedswap itself the same way.

mod changelog;
mod date;
mod deb;
mod name;
mod payload;
mod recipe;
mod rpm;
mod scripts;
pub mod sdk;

pub use changelog::{Change, Changelog, Commit};
pub use date::Date;
pub use name::Name;
pub use payload::{Input, Payload, find_loader};
pub use recipe::{Content, Entry, Recipe, Role, check_summary};

use std::fs;
use std::path::{Path, PathBuf};

/// Why there is no package.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that one of the formats does not take.
    #[error(
        "the {what} {found:?} cannot be part of a package's name: it has to begin with {begin} and to go on with \
         {rest}, at most {limit} characters in all"
    )]
    Name {
        /// `name`, `release` or `kernel release`.
        what: &'static str,
        /// As given.
        found: String,
        /// What it may begin with.
        begin: &'static str,
        /// What may follow.
        rest: &'static str,
        /// How long it may be.
        limit: usize,
    },
    /// A summary that one of the formats does not take.
    #[error("the summary {found:?} does not serve: it has to be one line of 1 to {limit} characters")]
    Summary {
        /// As given.
        found: String,
        /// How long it may be.
        limit: usize,
    },
    /// The date that goes into the package.
    #[error("{from} is {found:?}, expected {expected}")]
    Date {
        /// Where it is from.
        from: &'static str,
        /// As found.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// No loader to put into the package.
    #[error(
        "schedswap-loader was not found in {}: run `{make}`, or set SCHEDSWAP_LIBEXEC to the directory that holds it \
         (`--format none` builds the module without packages)", list(.looked_in)
    )]
    NoLoader {
        /// Where it was looked for.
        looked_in: Vec<PathBuf>,
        /// What makes it.
        make: &'static str,
    },
    /// A program that needs files of the machine it was built on.
    #[error(
        "{path} needs {interpreter}, which other machines may have another version of or none: it has to be linked \
         statically (`make` builds it so)"
    )]
    NotStatic {
        /// The program.
        path: PathBuf,
        /// The dynamic linker it asks for.
        interpreter: String,
    },
    /// The module does not say what it is called.
    #[error("the module has no name in .modinfo; it is not what Kbuild links. Build it again")]
    NoModuleName,
    /// The module is for no machine that there are packages for.
    #[error("the module is for a machine that is neither x86_64 nor aarch64. Build it again")]
    UnknownMachine,
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
    /// An archive could not be put together.
    #[error("cannot put {what} together")]
    Archive {
        /// Which.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// The rpm could not be put together.
    #[error("cannot put {file} together: {source}")]
    Rpm {
        /// Which.
        file: String,
        /// Why.
        source: Box<::rpm::Error>,
    },
}

/// Result of this phase.
pub type Result<T> = std::result::Result<T, Error>;

/// A format of packages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Debian's and its descendants'.
    Deb,
    /// Of the distributions that use rpm.
    Rpm,
}

/// A package, whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Package {
    /// As its format names such files.
    pub file_name: String,
    /// The file.
    pub bytes: Vec<u8>,
}

impl Package {
    /// Puts the recipe's files into a package.
    pub fn build(recipe: &Recipe, format: Format) -> Result<Package> {
        match format {
            Format::Deb => deb::build(recipe),
            Format::Rpm => rpm::build(recipe),
        }
    }

    /// Writes it into a directory; an interruption leaves no half of it under its name.
    pub fn write(&self, dir: &Path) -> Result<PathBuf> {
        let path = dir.join(&self.file_name);
        let unfinished = dir.join(format!(".{}.new", self.file_name));
        let written = fs::write(&unfinished, &self.bytes).and_then(|()| fs::rename(&unfinished, &path));
        written.map_err(|source| Error::Io { doing: "write", path: path.clone(), source })?;
        Ok(path)
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

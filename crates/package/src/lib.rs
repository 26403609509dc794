//! Makes the packages that a host needs to run a scheduler, as `.deb` and `.rpm`.
//!
//! ```text
//! module, loader, licences -> Payload (with its manifest) -> Recipe -> .deb, .rpm
//! ```
//!
//! Both formats are made from one [`Recipe`], so they install the same files. The same input gives the same bytes:
//! every date in a package is the recipe's, every owner is root, every list is sorted.
//!
//! ```no_run
//! use schedswap_package::{Changelog, Date, Format, Package, sdk};
//! use std::path::Path;
//!
//! # fn main() -> schedswap_package::Result<()> {
//! // Packages of schedswap itself, from what `make install DESTDIR=out/tree PREFIX=/usr` has installed.
//! let date = Date::of_sources(Some("1700000000"), None)?;
//! let recipe = sdk::recipe(Path::new("out/tree"), Changelog::new(&[], None, date))?;
//! for format in [Format::Deb, Format::Rpm] {
//!     let file = Package::build(&recipe, format)?.write(Path::new("out"))?;
//!     println!("{}", file.display());
//! }
//! # Ok(())
//! # }
//! ```

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
pub use recipe::{Content, PackageEntry, Recipe, Role, check_summary};

use std::fs;
use std::path::{Path, PathBuf};

/// Why no package was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of the formats does not allow this name.
    #[error(
        "the {what} {found:?} cannot be part of a package's name: it has to begin with {begin}, followed by \
         {rest}, with at most {limit} characters in all. Choose another {what}"
    )]
    Name {
        /// `name`, `release` or `kernel release`.
        what: &'static str,
        /// As given.
        found: String,
        /// The characters with which it may begin.
        begin: &'static str,
        /// The characters that may follow.
        rest: &'static str,
        /// The longest length.
        limit: usize,
    },
    /// One of the formats does not allow this summary.
    #[error(
        "the summary {found:?} cannot be used: give one line of 1 to {limit} characters, without blanks \
        at its ends"
    )]
    Summary {
        /// As given.
        found: String,
        /// The longest length.
        limit: usize,
    },
    /// The date that goes into the package cannot be used.
    #[error("{from} is {found:?}, expected {expected}")]
    Date {
        /// Its source.
        from: &'static str,
        /// As found.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// There is no loader to put into the package.
    #[error(
        "schedswap-loader was not found in {}: run `{make}`, or set SCHEDSWAP_LIBEXEC to the directory that holds it \
         (`--format none` builds the module without packages)", list(.looked_in)
    )]
    NoLoader {
        /// Where it was looked for.
        looked_in: Vec<PathBuf>,
        /// The command that makes it.
        make: &'static str,
    },
    /// A program needs files of the machine on which it was built.
    #[error(
        "{path} needs {interpreter}, which other machines may have in another version or not at all: link it \
         statically (as `make` does)"
    )]
    NotStatic {
        /// The program.
        path: PathBuf,
        /// The dynamic linker that it asks for.
        interpreter: String,
    },
    /// The module does not contain its name.
    #[error("the module's .modinfo has no name, so Kbuild did not link it: build it again")]
    NoModuleName,
    /// There are no packages for the module's architecture.
    #[error("the module is built neither for x86_64 nor for aarch64: build it again")]
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
    /// An archive could not be made.
    #[error("cannot make {what}")]
    Archive {
        /// Which.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// The rpm could not be made.
    #[error("cannot make {file}: {source}")]
    Rpm {
        /// Which.
        file: String,
        /// Why.
        source: Box<::rpm::Error>,
    },
}

/// Result of this phase.
pub type Result<T> = std::result::Result<T, Error>;

/// A package format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The format of Debian and its descendants.
    Deb,
    /// The format of the distributions that use rpm.
    Rpm,
}

/// A complete package.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Package {
    /// Its file name, following the rules of its format.
    pub file_name: String,
    /// The file's bytes.
    pub bytes: Vec<u8>,
}

impl Package {
    /// Puts the recipe's files into a package.
    ///
    /// # Errors
    /// [`Error::Archive`] or [`Error::Rpm`] if the package cannot be made, for example because a file name is too
    /// long for its format.
    pub fn build(recipe: &Recipe, format: Format) -> Result<Package> {
        match format {
            Format::Deb => deb::build(recipe),
            Format::Rpm => rpm::build(recipe),
        }
    }

    /// Writes it into a directory. After an interruption there is no incomplete file under the package's name.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
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

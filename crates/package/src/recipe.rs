//! What a package consists of, in either format.

use super::changelog::Changelog;
use super::scripts::Scripts;
use super::{Error, Result};
use schedswap_kernel::vmlinux::Machine;

/// The whole content of a package.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The deb's package name and version, and the name of its file.
    pub deb: DebName,
    /// The rpm's name, version and release.
    pub rpm: RpmName,
    /// The architecture on which it runs.
    pub architecture: Architecture,
    /// A summary of one line.
    pub summary: String,
    /// Paragraphs.
    pub description: Vec<String>,
    /// SPDX expression.
    pub licence: &'static str,
    /// Debian's copyright file.
    pub copyright: String,
    /// Debian's section.
    pub section: &'static str,
    /// The group, by which older rpm distributions sort packages.
    pub rpm_group: &'static str,
    /// Packages that it needs, by Debian's names.
    pub deb_requires: Vec<&'static str>,
    /// Packages that it needs, by the names of the rpm distributions.
    pub rpm_requires: Vec<&'static str>,
    /// Files, and those directories that belong to this package or are shared with similar ones.
    pub entries: Vec<PackageEntry>,
    /// What runs when the package is installed and removed.
    pub scripts: Scripts,
    /// Maintainer, date and changes.
    pub changelog: Changelog,
}

/// The names of a deb.
#[derive(Clone, Debug)]
pub struct DebName {
    /// `Package`
    pub package: String,
    /// `Version`
    pub version: String,
    /// The file's name.
    pub file_name: String,
}

/// The names of an rpm.
#[derive(Clone, Debug)]
pub struct RpmName {
    /// `Name`
    pub name: String,
    /// `Version`
    pub version: String,
    /// `Release`
    pub release: String,
}

/// A processor architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl From<Machine> for Architecture {
    fn from(machine: Machine) -> Architecture {
        match machine {
            Machine::X86_64 => Architecture::X86_64,
            Machine::Aarch64 => Architecture::Aarch64,
        }
    }
}

impl Architecture {
    /// Debian's name for it.
    pub fn deb(self) -> &'static str {
        match self {
            Architecture::X86_64 => "amd64",
            Architecture::Aarch64 => "arm64",
        }
    }

    /// The name that rpm and `uname -m` use.
    pub fn rpm(self) -> &'static str {
        match self {
            Architecture::X86_64 => "x86_64",
            Architecture::Aarch64 => "aarch64",
        }
    }
}

/// A file or directory to install. All belong to root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackageEntry {
    /// An absolute path.
    pub path: String,
    /// File or directory.
    pub content: Content,
}

/// A file or a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A directory, with mode 0755.
    Dir,
    /// A file, with mode 0755 if it can be run, else 0644.
    File {
        /// Its bytes.
        bytes: Vec<u8>,
        /// May be run.
        executable: bool,
        /// What the package manager knows about it.
        role: Role,
    },
}

/// What the package manager knows about a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Nothing special.
    Plain,
    /// A licence: rpm keeps it even if documentation is left out.
    Licence,
    /// Documentation.
    Documentation,
}

impl PackageEntry {
    /// A directory.
    pub fn dir(path: impl Into<String>) -> PackageEntry {
        PackageEntry { path: path.into(), content: Content::Dir }
    }

    /// A file.
    pub fn file(path: impl Into<String>, bytes: Vec<u8>, executable: bool, role: Role) -> PackageEntry {
        PackageEntry { path: path.into(), content: Content::File { bytes, executable, role } }
    }

    /// A file's bytes; none for a directory.
    pub fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Dir => &[],
            Content::File { bytes, .. } => bytes,
        }
    }

    /// Permission bits.
    pub fn mode(&self) -> u16 {
        match self.content {
            Content::Dir | Content::File { executable: true, .. } => 0o755,
            Content::File { .. } => 0o644,
        }
    }
}

/// Longest summary that `dpkg -l` and package lists show.
const SUMMARY_LIMIT: usize = 79;

/// Checks a summary that a user gave.
///
/// # Errors
/// [`Error::Summary`] if it is empty, too long, or not one line: in a deb's control file a second line would be
/// another field.
pub fn check_summary(summary: &str) -> Result<()> {
    let good = !summary.trim().is_empty()
        && summary.trim() == summary
        && summary.chars().count() <= SUMMARY_LIMIT
        && !summary.contains(char::is_control);
    good.then_some(()).ok_or_else(|| Error::Summary { found: summary.to_owned(), limit: SUMMARY_LIMIT })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_one_line() {
        assert!(check_summary("wakes the right one").is_ok());
        for wrong in ["", " ", " x", "x\nDepends: y", "a\tb", &"x".repeat(80)] {
            assert!(check_summary(wrong).is_err(), "{wrong:?} was taken");
        }
    }
}

//! What a package is made of, whatever its format.

use super::changelog::Changelog;
use super::scripts::Scripts;
use super::{Error, Result};
use schedswap_kernel::vmlinux::Machine;

/// All of a package.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The deb's package name and version, and its file's name.
    pub deb: DebName,
    /// The rpm's.
    pub rpm: RpmName,
    /// On what machines it runs.
    pub architecture: Architecture,
    /// One line.
    pub summary: String,
    /// Paragraphs.
    pub description: Vec<String>,
    /// SPDX expression.
    pub licence: &'static str,
    /// Debian's copyright file.
    pub copyright: String,
    /// Debian's section.
    pub section: &'static str,
    /// … and the group, which older rpm distributions sort by.
    pub rpm_group: &'static str,
    /// Packages that must be there, as Debian calls them.
    pub deb_requires: Vec<&'static str>,
    /// … and as rpm distributions do.
    pub rpm_requires: Vec<&'static str>,
    /// Files, and those directories that belong to the package alone or with its like.
    pub entries: Vec<Entry>,
    /// What runs when it is installed and removed.
    pub scripts: Scripts,
    /// Maintainer, date and changes.
    pub changelog: Changelog,
}

/// How a deb is called.
#[derive(Clone, Debug)]
pub struct DebName {
    /// `Package`
    pub package: String,
    /// `Version`
    pub version: String,
    /// The file.
    pub file_name: String,
}

/// How an rpm is called.
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
    /// As Debian calls it.
    pub fn deb(self) -> &'static str {
        match self {
            Architecture::X86_64 => "amd64",
            Architecture::Aarch64 => "arm64",
        }
    }

    /// As rpm and `uname -m` call it.
    pub fn rpm(self) -> &'static str {
        match self {
            Architecture::X86_64 => "x86_64",
            Architecture::Aarch64 => "aarch64",
        }
    }
}

/// One thing that is installed. All belong to root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Absolute.
    pub path: String,
    /// What it is.
    pub content: Content,
}

/// What an entry is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A directory, 0755.
    Dir,
    /// A file, 0755 if it can be run, else 0644.
    File {
        /// Its bytes.
        bytes: Vec<u8>,
        /// May be run.
        executable: bool,
        /// What it is to the package manager.
        role: Role,
    },
}

/// What a file is to the package manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// No matter.
    Plain,
    /// A licence: rpm keeps it even where documentation is left out.
    Licence,
    /// Documentation.
    Documentation,
}

impl Entry {
    /// A directory.
    pub fn dir(path: impl Into<String>) -> Entry {
        Entry { path: path.into(), content: Content::Dir }
    }

    /// A file.
    pub fn file(path: impl Into<String>, bytes: Vec<u8>, executable: bool, role: Role) -> Entry {
        Entry { path: path.into(), content: Content::File { bytes, executable, role } }
    }

    /// A file's bytes; none of a directory.
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

/// Longest summary: what `dpkg -l` and package lists show of it.
const SUMMARY_LIMIT: usize = 79;

/// Checks a summary as given by a user.
///
/// # Errors
/// [`Error::Summary`]: in a deb's control file a second line would be another field.
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

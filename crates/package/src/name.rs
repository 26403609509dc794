//! The names of a scheduler's packages and of its payload.

use super::{Error, Result};

/// Name and release of a scheduler for one kernel, in characters that both formats allow.
///
/// | | deb | rpm |
/// |---|---|---|
/// | name | `scheduler-demo-6.1.0-56-cloud-amd64` | `scheduler-demo` |
/// | version | `1` | `6.1.0-56.cloud.amd64.1` |
/// | several with one name | no, so the kernel's release is in the name, as with linux-image | yes, by `rpm -i` |
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    name: String,
    release: String,
    kernel_release: String,
}

/// The longest name, and the longest release of a kernel (`__NEW_UTS_LEN`).
const NAME_LIMIT: usize = 64;
const RELEASE_LIMIT: usize = 32;

impl Name {
    /// Checks all parts.
    ///
    /// # Errors
    /// [`Error::Name`] if one of the formats does not allow a part: Debian's names have no capitals and no underscore
    /// (policy 5.6.1), its versions begin with a digit (5.6.12); the release part of an rpm has no hyphen.
    pub fn new(name: &str, release: &str, kernel_release: &str) -> Result<Name> {
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        check(
            ("name", name, NAME_LIMIT),
            (lower, "a lower-case letter or a digit"),
            (&|c| lower(c) || "+-.".contains(c), "lower-case letters, digits, + - and ."),
        )?;
        check(
            ("release", release, RELEASE_LIMIT),
            (|c| c.is_ascii_digit(), "a digit"),
            (&|c| c.is_ascii_alphanumeric() || "+.~".contains(c), "letters, digits, + . and ~"),
        )?;
        check(
            ("kernel release", kernel_release, NAME_LIMIT),
            (|c| c.is_ascii_alphanumeric(), "a letter or a digit"),
            (&|c| c.is_ascii_alphanumeric() || "+-._~".contains(c), "letters, digits, + - . _ and ~"),
        )?;
        Ok(Name {
            name: name.to_owned(),
            release: release.to_owned(),
            kernel_release: kernel_release.to_owned(),
        })
    }

    /// The scheduler's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The scheduler's release.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// `uname -r` of the kernel for which it is built.
    pub fn kernel_release(&self) -> &str {
        &self.kernel_release
    }

    /// `<name>-<release>`: the version that the module shows, and the last directory of the payload's path.
    pub fn version(&self) -> String {
        format!("{}-{}", self.name, self.release)
    }

    /// Where the payload is installed.
    pub fn payload_dir(&self) -> String {
        format!("/var/lib/schedswap/{}/{}", self.kernel_release, self.version())
    }

    /// The deb's package name. A kernel's release may have capitals and underscores, but a package's name may not.
    pub fn deb_name(&self) -> String {
        let kernel = self.kernel_release.to_ascii_lowercase().replace(['_', '~'], "-");
        format!("scheduler-{}-{kernel}", self.name)
    }

    /// The rpm's package name.
    pub fn rpm_name(&self) -> String {
        format!("scheduler-{}", self.name)
    }

    /// The rpm's version: the kernel's version.
    pub fn rpm_version(&self) -> &str {
        self.kernel_release.split_once('-').map_or(self.kernel_release.as_str(), |(version, _)| version)
    }

    /// The rpm's release: the rest of the kernel's release, then the scheduler's release.
    pub fn rpm_release(&self) -> String {
        match self.kernel_release.split_once('-') {
            Some((_, rest)) => format!("{}.{}", rest.replace('-', "."), self.release),
            None => self.release.clone(),
        }
    }
}

/// Which characters may come first, and which after that; also in words.
type Begin = (fn(char) -> bool, &'static str);
type Rest<'a> = (&'a dyn Fn(char) -> bool, &'static str);

fn check((what, found, limit): (&'static str, &str, usize), begin: Begin, rest: Rest) -> Result<()> {
    let good = found.starts_with(begin.0) && found.chars().all(rest.0) && found.len() <= limit;
    if good {
        return Ok(());
    }
    Err(Error::Name { what, found: found.to_owned(), begin: begin.1, rest: rest.1, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_distributions_name_what_belongs_to_one_kernel() {
        let name = Name::new("demo", "1", "6.1.0-56-cloud-amd64").unwrap();
        assert_eq!(name.deb_name(), "scheduler-demo-6.1.0-56-cloud-amd64");
        let rpm = format!("{}-{}-{}", name.rpm_name(), name.rpm_version(), name.rpm_release());
        assert_eq!(rpm, "scheduler-demo-6.1.0-56.cloud.amd64.1");
        assert_eq!(name.payload_dir(), "/var/lib/schedswap/6.1.0-56-cloud-amd64/demo-1");
        let plain = Name::new("demo", "2~rc1", "6.9.0").unwrap();
        assert_eq!((plain.rpm_version(), plain.rpm_release().as_str()), ("6.9.0", "2~rc1"));
        let fedora = Name::new("demo", "1", "5.14.0-362.el9_3.x86_64").unwrap();
        assert_eq!(fedora.deb_name(), "scheduler-demo-5.14.0-362.el9-3.x86-64");
        assert_eq!((fedora.rpm_version(), fedora.rpm_release().as_str()), ("5.14.0", "362.el9_3.x86_64.1"));
    }

    #[test]
    fn what_a_format_does_not_take_is_refused_by_what_it_is() {
        let long = "x".repeat(65);
        for name in ["", "Demo", "my_demo", "-demo", "de mo", "de/mo", "..", "démo", "demo\n", &long] {
            let error = Name::new(name, "1", "6.1.0").unwrap_err().to_string();
            assert!(error.contains("the name ") && error.contains("lower-case"), "{name:?}: {error}");
        }
        for release in ["", "rc1", "1-2", "1_2", "1/2", "1 ", "1^2"] {
            let error = Name::new("demo", release, "6.1.0").unwrap_err().to_string();
            assert!(error.contains("the release ") && error.contains("a digit"), "{release:?}: {error}");
        }
        for kernel in ["", "../6", "6.1 0"] {
            let error = Name::new("demo", "1", kernel).unwrap_err().to_string();
            assert!(error.contains("the kernel release "), "{kernel:?}: {error}");
        }
    }
}

//! Which architecture's packages make up a kernel, and which of them run on this machine.

/// Debian's name of an architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    /// The one that a flavour (`cloud-arm64`) or a release (`6.1.0-13-arm64`) ends with; if the name does not say,
    /// that of this machine.
    pub fn of_kernel(name: &str) -> Option<Architecture> {
        match name.rsplit('-').next()? {
            "amd64" => Some(Architecture::Amd64),
            "arm64" => Some(Architecture::Arm64),
            _ => Architecture::of_machine(),
        }
    }

    /// That of this machine; `None` if this program does not know it.
    pub fn of_machine() -> Option<Architecture> {
        Architecture::of_machine_named(std::env::consts::ARCH)
    }

    /// As `uname -m` prints it.
    pub fn of_machine_named(name: &str) -> Option<Architecture> {
        [Architecture::Amd64, Architecture::Arm64].into_iter().find(|known| known.machine() == name)
    }

    /// The one that a kernel's configuration is for.
    pub fn of_config(config: &str) -> Option<Architecture> {
        let is_set = |option: &str| config.lines().any(|line| line.strip_prefix(option) == Some("=y"));
        match () {
            () if is_set("CONFIG_X86_64") => Some(Architecture::Amd64),
            () if is_set("CONFIG_ARM64") => Some(Architecture::Arm64),
            () => None,
        }
    }

    /// As compilers and emulators spell it.
    pub fn machine(self) -> &'static str {
        match self {
            Architecture::Amd64 => "x86_64",
            Architecture::Arm64 => "aarch64",
        }
    }

    /// The prefix of the names of its compilers and binutils.
    pub fn triplet(self) -> String {
        format!("{}-linux-gnu", self.machine())
    }

    /// As packages spell it.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Amd64 => "amd64",
            Architecture::Arm64 => "arm64",
        }
    }
}

/// The kernel's architecture, if it is not that of this machine.
pub(super) fn foreign(kernel: &str) -> Option<Architecture> {
    Architecture::of_kernel(kernel).filter(|found| Some(*found) != Architecture::of_machine())
}

/// Whether this package of a kernel holds programs that run during a build, whatever the build is for.
pub(super) fn runs_here(package: &str) -> bool {
    package.starts_with("linux-kbuild-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flavours_and_releases_end_with_their_architecture() {
        for (name, expected) in [
            ("cloud-amd64", Some(Architecture::Amd64)),
            ("arm64", Some(Architecture::Arm64)),
            ("6.12.9+deb13-cloud-arm64", Some(Architecture::Arm64)),
            ("6.1.0-13-rt-arm64", Some(Architecture::Arm64)),
            ("6.1.0", Architecture::of_machine()),
        ] {
            assert_eq!(Architecture::of_kernel(name), expected, "{name}");
        }
    }

    #[test]
    fn configurations_say_what_they_are_for() {
        let config = "# CONFIG_ARM64_64K_PAGES is not set\nCONFIG_ARM64=y\nCONFIG_X=m\n";
        assert_eq!(Architecture::of_config(config), Some(Architecture::Arm64));
        assert_eq!(Architecture::of_config("CONFIG_X86_64=y\n"), Some(Architecture::Amd64));
        assert_eq!(Architecture::of_config("CONFIG_ARM64_PAGES=y\n# CONFIG_X86_64 is not set\n"), None);
    }

    #[test]
    fn of_two_architectures_one_is_foreign() {
        let foreign: Vec<&str> =
            ["amd64", "arm64"].into_iter().filter(|name| foreign(name).is_some()).collect();
        match std::env::consts::ARCH {
            "x86_64" => assert_eq!(foreign, ["arm64"]),
            "aarch64" => assert_eq!(foreign, ["amd64"]),
            _ => assert_eq!(foreign.len(), 2),
        }
    }
}

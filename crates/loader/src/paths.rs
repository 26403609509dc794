//! Where things are. Everything below one root, so that tests and image building can have their own.

use schedswap_payload::sysfs;
use std::path::{Path, PathBuf};

/// The loader's own name for itself on the machine.
pub const COMMAND: &str = "usr/sbin/schedswap-loader";

/// Paths of one machine.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// Of the machine whose root directory is `root`.
    pub fn below(root: impl Into<PathBuf>) -> Paths {
        Paths { root: root.into() }
    }

    /// A path of the machine, given without its leading slash.
    pub fn of(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// What payloads and the registration lie below.
    pub fn state(&self) -> PathBuf {
        self.of("var/lib/schedswap")
    }

    /// Payloads and registration of one kernel.
    pub fn kernel(&self, release: &str) -> PathBuf {
        self.state().join(release)
    }

    /// The copy of the loader that units and the command run: it outlives every single payload.
    pub fn loader(&self) -> PathBuf {
        self.state().join("loader")
    }

    /// Where an administrator's units lie.
    pub fn units(&self) -> PathBuf {
        self.of("etc/systemd/system")
    }

    /// Exists where systemd is the init that runs (`sd_booted(3)`).
    pub fn systemd_runs(&self) -> PathBuf {
        self.of("run/systemd/system")
    }

    /// Says that this boot came up well; gone with the next.
    pub fn healthy(&self) -> PathBuf {
        self.of("run/schedswap.healthy")
    }

    /// Says which payload was not installed in this boot, see [`crate::refusal`].
    pub fn refused(&self) -> PathBuf {
        self.of("run/schedswap.refused")
    }

    /// The scheduler in charge.
    pub fn scheduler(&self) -> PathBuf {
        self.of(sysfs::DIR)
    }

    /// The scheduler of that module name, loaded beside the one in charge.
    pub fn scheduler_beside(&self, module: &str) -> PathBuf {
        self.of(&format!("{}{module}", sysfs::DIR_BESIDE))
    }

    /// Whether `path` is a payload's place: `<state>/<kernel release>/<name>-<release>`, and which kernel's and
    /// which payload's. Lexical: links are for the check of the payload to refuse.
    pub fn payload_place(&self, path: &Path) -> Option<(String, String)> {
        let rest = path.strip_prefix(self.state()).ok()?;
        let mut parts = rest.components().map(|part| match part {
            std::path::Component::Normal(name) => name.to_str().map(str::to_owned),
            _ => None,
        });
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Some(kernel)), Some(Some(payload)), None) => Some((kernel, payload)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_s_place_is_two_below_the_state() {
        let paths = Paths::below("/x");
        let place = |path: &str| paths.payload_place(Path::new(path));
        assert_eq!(place("/x/var/lib/schedswap/6.1/demo-1"), Some(("6.1".into(), "demo-1".into())));
        for path in
            ["/x/var/lib/schedswap/6.1", "/var/lib/schedswap/6.1/demo-1", "/x/var/lib/schedswap/6.1/d/e"]
        {
            assert_eq!(place(path), None, "{path}");
        }
        assert_eq!(place("/x/var/lib/schedswap/6.1/../demo-1"), None);
    }
}

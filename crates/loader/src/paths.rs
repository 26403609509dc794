//! Where files are. All paths are below one root, so that tests and image builders can use their own.

use schedswap_payload::sysfs;
use std::path::{Path, PathBuf};

/// The name of the loader's command on the machine.
pub const COMMAND: &str = "usr/sbin/schedswap-loader";

/// Paths of one machine.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// The paths of the machine whose root directory is `root`.
    pub fn below(root: impl Into<PathBuf>) -> Paths {
        Paths { root: root.into() }
    }

    /// A path of the machine, given without its leading slash.
    pub fn of(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The directory of all payloads and registrations.
    pub fn state(&self) -> PathBuf {
        self.of("var/lib/schedswap")
    }

    /// The payloads and the registration of one kernel.
    pub fn kernel(&self, release: &str) -> PathBuf {
        self.state().join(release)
    }

    /// The copy of the loader that the units and the command run: it outlives every payload.
    pub fn loader(&self) -> PathBuf {
        self.state().join("loader")
    }

    /// The directory of an administrator's units.
    pub fn units(&self) -> PathBuf {
        self.of("etc/systemd/system")
    }

    /// Exists if systemd is the running init (`sd_booted(3)`).
    pub fn systemd_runs(&self) -> PathBuf {
        self.of("run/systemd/system")
    }

    /// Says that this boot came up healthy; gone after the next boot.
    pub fn healthy(&self) -> PathBuf {
        self.of("run/schedswap.healthy")
    }

    /// Says which payload was not installed in this boot, see [`crate::refusal`].
    pub fn refused(&self) -> PathBuf {
        self.of("run/schedswap.refused")
    }

    /// The directory of the scheduler in charge.
    pub fn scheduler(&self) -> PathBuf {
        self.of(sysfs::DIR)
    }

    /// The directory of the scheduler with that module name, which is loaded beside the one in charge.
    pub fn scheduler_beside(&self, module: &str) -> PathBuf {
        self.of(&format!("{}{module}", sysfs::DIR_BESIDE))
    }

    /// If `path` is the place of a payload, `<state>/<kernel release>/<name>-<release>`: of which kernel and which
    /// payload. Purely lexical: the payload's own check refuses links.
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

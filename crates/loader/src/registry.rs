//! Which payload is to run on which kernel, kept below `/var/lib/schedswap/<kernel release>/`.
//!
//! | file | content |
//! |---|---|
//! | `active` | link to the payload that is to run on this kernel; if it does not exist or leads nowhere, the kernel's own |
//! | `attempt` | JSON, see [`Attempt`]: exists from before a load at boot until the machine is up and healthy |
//! | `history` | JSON lines: the times of the last swaps, see [`Swap`] |

use crate::disk::{Disk, Staged};
use crate::error::LoaderError;
use crate::paths::Paths;
use schedswap_payload::manifest;
use schedswap_payload::report::Blocked;
use schedswap_payload::sysfs::Timing;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// The registration of one kernel.
pub struct Registry<'a> {
    disk: &'a Disk,
    dir: PathBuf,
}

/// The content of `attempt`.
pub type Attempt = Blocked;

/// A line of `history`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Swap {
    /// Seconds since 1970.
    pub at: u64,
    /// Name and version of the scheduler.
    pub version: String,
    /// What the module measured.
    pub timing: Timing,
}

/// How many swaps are remembered.
const HISTORY: usize = 20;

impl<'a> Registry<'a> {
    /// The registration of that kernel.
    pub fn of(paths: &Paths, disk: &'a Disk, kernel: &str) -> Registry<'a> {
        Registry { disk, dir: paths.kernel(kernel) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What `active` says, whether or not that payload exists.
    pub fn registered(&self) -> Option<String> {
        let target = fs::read_link(self.file("active")).ok()?;
        let name = target.to_str()?;
        // The loader appends it to a directory: accept only a name in this directory, not another path.
        let is_plain = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
        is_plain.then(|| name.to_owned())
    }

    /// The payload that is to run, if it exists.
    pub fn active(&self) -> Option<String> {
        self.registered().filter(|name| self.dir.join(name).join(manifest::FILE_NAME).is_file())
    }

    /// Writes `active`, except for the last step.
    pub fn stage_active(&self, payload: &str) -> Result<Staged<'a>, LoaderError> {
        let place = self.file("active");
        self.disk.stage_link(&place, Path::new(payload)).map_err(cannot("register it in", &place))
    }

    /// Unregisters: nothing is to run.
    pub fn drop_active(&self) -> Result<(), LoaderError> {
        let place = self.file("active");
        self.disk.remove(&place).map_err(cannot("remove", &place))
    }

    /// The load at boot after which the machine has not come up healthy. A record that cannot be read counts as one
    /// of an unknown boot.
    pub fn attempt(&self) -> Option<Attempt> {
        let text = fs::read(self.file("attempt")).ok()?;
        let unknown = || Attempt { payload: String::new(), boot_id: String::new(), at: 0 };
        Some(serde_json::from_slice(&text).unwrap_or_else(|_| unknown()))
    }

    /// Called before a load at boot.
    pub fn write_attempt(&self, attempt: &Attempt) -> Result<(), LoaderError> {
        let place = self.file("attempt");
        let json = serde_json::to_vec(attempt).expect("strings and numbers always become JSON");
        self.disk.write(&place, &json, 0o644).map_err(cannot("write", &place))
    }

    /// The machine is healthy, or a user wants the scheduler anyway.
    pub fn clear_attempt(&self) -> Result<(), LoaderError> {
        let place = self.file("attempt");
        self.disk.remove(&place).map_err(cannot("remove", &place))
    }

    /// The last swaps, oldest first. Lines that cannot be read are left out.
    pub fn history(&self) -> Vec<Swap> {
        let text = fs::read_to_string(self.file("history")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Adds a swap to the history.
    pub fn add_to_history(&self, swap: Swap) -> Result<(), LoaderError> {
        let mut swaps = self.history();
        swaps.push(swap);
        let last = &swaps[swaps.len().saturating_sub(HISTORY)..];
        let line = |swap| serde_json::to_string(swap).expect("strings and numbers always become JSON") + "\n";
        let text: String = last.iter().map(line).collect();
        let place = self.file("history");
        self.disk.write(&place, text.as_bytes(), 0o644).map_err(cannot("write", &place))
    }

    /// The payloads of this kernel, by name.
    pub fn payloads(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let is_payload = |entry: &fs::DirEntry| {
            // Without following links: `active` is one.
            entry.file_type().is_ok_and(|kind| kind.is_dir())
                && entry.path().join(manifest::FILE_NAME).is_file()
        };
        let mut names: Vec<String> =
            entries.filter(is_payload).filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Removes the loader's own files for this kernel.
    pub fn remove(&self) -> Result<(), LoaderError> {
        for name in ["active", "attempt", "history"] {
            let place = self.file(name);
            self.disk.remove(&place).map_err(cannot("remove", &place))?;
        }
        self.disk.remove_dir_if_empty(&self.dir).map_err(cannot("remove", &self.dir))
    }
}

/// The kernels that have a directory.
pub fn kernels(paths: &Paths) -> Vec<String> {
    let entries = fs::read_dir(paths.state()).into_iter().flatten().flatten();
    let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let mut names: Vec<String> =
        entries.filter(is_dir).filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Converts an error of the disk into one of the loader.
pub fn cannot<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> LoaderError + 'a {
    move |source| LoaderError::State { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, RELEASE};
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_registered_is_a_name_and_active_only_while_it_is_there() {
        let fake = Fake::new();
        let (machine, dir) = (fake.machine(), fake.payload("demo-1"));
        let registry = Registry::of(&machine.paths, &machine.disk, RELEASE);
        assert_eq!(registry.active(), None);
        registry.stage_active("demo-1").unwrap().commit().unwrap();
        assert_eq!(registry.active().as_deref(), Some("demo-1"));
        assert_eq!(registry.payloads(), ["demo-1"]);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(registry.registered().as_deref(), Some("demo-1"));
        assert_eq!(registry.active(), None);
        for target in ["/etc", "../other/demo-1", ".hidden", "a/b"] {
            registry.drop_active().unwrap();
            symlink(target, dir.parent().unwrap().join("active")).unwrap();
            assert_eq!(registry.registered(), None, "{target}");
        }
    }

    #[test]
    fn an_attempt_both_ways_and_a_broken_one_is_still_one() {
        let fake = Fake::new();
        let machine = fake.machine();
        let registry = Registry::of(&machine.paths, &machine.disk, RELEASE);
        assert_eq!(registry.attempt(), None);
        let attempt = Attempt { payload: "demo-1".into(), boot_id: "b".into(), at: 7 };
        registry.write_attempt(&attempt).unwrap();
        assert_eq!(registry.attempt(), Some(attempt));
        fs::write(machine.paths.kernel(RELEASE).join("attempt"), b"{").unwrap();
        assert_eq!(registry.attempt().unwrap().payload, "");
        registry.clear_attempt().unwrap();
        assert_eq!(registry.attempt(), None);
    }

    #[test]
    fn the_last_twenty_swaps_are_remembered() {
        let fake = Fake::new();
        let machine = fake.machine();
        let registry = Registry::of(&machine.paths, &machine.disk, RELEASE);
        for at in 0..25 {
            let timing = Timing { op: "load".into(), ..Timing::default() };
            registry.add_to_history(Swap { at, version: "demo-1".into(), timing }).unwrap();
        }
        let history = registry.history();
        assert_eq!((history.len(), history[0].at, history[19].at), (20, 5, 24));
    }
}

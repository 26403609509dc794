//! The running kernel: its identity, and its scheduler modules.

use crate::error::LoaderError;
use crate::module_file::{is_a_retired_scheduler_s_name, is_a_scheduler_s_name};
use crate::paths::Paths;
use schedswap_payload::report::LoadedScheduler;
use schedswap_payload::sysfs::{self, State, SysfsError};
use schedswap_payload::{BuildId, MODULE_NAME};
use std::path::{Path, PathBuf};

/// The GNU build-id of the running kernel.
pub fn build_id(paths: &Paths) -> Result<BuildId, LoaderError> {
    let path = paths.of("sys/kernel/notes");
    let path = path.display();
    let notes = std::fs::read(paths.of("sys/kernel/notes"))
        .map_err(|error| LoaderError::NoBuildId { detail: format!("reading {path}: {error}") })?;
    gnu_build_id(&notes)
        .ok_or_else(|| LoaderError::NoBuildId { detail: format!("{path} holds no GNU note of type 3") })
}

/// NT_GNU_BUILD_ID
const BUILD_ID_NOTE: u32 = 3;

/// Finds the build-id among ELF notes. Each consists of name size, descriptor size and type (4 bytes each), then name
/// and descriptor, both padded to 4 bytes. Others may come first: Xen's, and Linux's own with the same type number.
fn gnu_build_id(notes: &[u8]) -> Option<BuildId> {
    let mut rest = notes;
    let word = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    loop {
        let name_size = word(rest, 0)? as usize;
        let descriptor_size = word(rest, 4)? as usize;
        let kind = word(rest, 8)?;
        let name = rest.get(12..12usize.checked_add(name_size)?)?;
        let descriptor_at = 12 + name_size.checked_next_multiple_of(4)?;
        let descriptor = rest.get(descriptor_at..descriptor_at.checked_add(descriptor_size)?)?;
        if kind == BUILD_ID_NOTE && name == b"GNU\0" {
            return BuildId::from_bytes(descriptor);
        }
        let next = descriptor_at.checked_add(descriptor_size.checked_next_multiple_of(4)?)?;
        rest = rest.get(next..)?;
    }
}

/// Whether a module of that name is loaded, a scheduler or another one.
pub fn module_is_loaded(paths: &Paths, name: &str) -> bool {
    paths.of("sys/module").join(name).is_dir()
}

/// A loaded scheduler module.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its directory, which changes when another module takes over from it, or it from another.
    pub dir: PathBuf,
    /// What it says about itself.
    pub says: LoadedScheduler,
}

impl Loaded {
    /// Whether it is this scheduler. Modules of the same name differ in their version.
    pub fn is(&self, module: &str, version: &str) -> bool {
        self.says.module == module && (module != MODULE_NAME || self.says.version == version)
    }

    /// Whether vmlinux's functions lead into it.
    pub fn is_in_use(&self) -> bool {
        !matches!(self.says.state, State::Disabled | State::Superseded | State::Retired)
    }

    /// Whether the kernel refuses to remove it, because it has run. A module of an earlier version does not say.
    pub fn is_kept(&self) -> bool {
        read(&self.dir, "kept").is_ok_and(|kept| kept.trim() == "1")
    }

    /// Why its memory must not be freed.
    pub fn unproved(&self) -> Vec<String> {
        read(&self.dir, "unproved").unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// The content of a file of a loaded scheduler.
pub fn read(dir: &Path, name: &str) -> Result<String, LoaderError> {
    let path = dir.join(name);
    std::fs::read_to_string(&path).map_err(|source| LoaderError::Sysfs { path, source })
}

/// The scheduler with that directory, or `None`.
fn scheduler_in(dir: PathBuf) -> Result<Option<Loaded>, LoaderError> {
    if !dir.is_dir() {
        return Ok(None);
    }
    let functions = read(&dir, "functions")?;
    let expected = "a number of functions";
    let line = |_| SysfsError::Line { file: "functions", line: functions.trim().to_owned(), expected };
    let says = LoadedScheduler {
        version: read(&dir, "version")?.trim().to_owned(),
        // Modules that were built before they had their own names do not have this file.
        module: read(&dir, "module").map_or(MODULE_NAME.to_owned(), |name| name.trim().to_owned()),
        state: State::from(read(&dir, "state")?.as_str()),
        since: read(&dir, "since").ok().and_then(|seconds| seconds.trim().parse().ok()),
        functions: functions.trim().parse().map_err(line)?,
        // Before the first switch, both are empty or do not exist.
        timing: read(&dir, "timing").ok().and_then(|text| text.parse().ok()),
        blockers: read(&dir, "blocker").ok().map_or(Ok(Vec::new()), |text| sysfs::parse_blockers(&text))?,
    };
    Ok(Some(Loaded { dir, says }))
}

/// The scheduler in charge, or `None`.
pub fn scheduler(paths: &Paths) -> Result<Option<Loaded>, LoaderError> {
    scheduler_in(paths.scheduler())
}

/// Schedulers beside the one in charge that are still loaded and can be used.
pub fn beside(paths: &Paths) -> Result<Vec<Loaded>, LoaderError> {
    named(paths, is_a_scheduler_s_name)
}

/// Schedulers that have retired.
pub fn retired(paths: &Paths) -> Result<Vec<Loaded>, LoaderError> {
    named(paths, is_a_retired_scheduler_s_name)
}

/// Schedulers whose directories have such a name, not counting the one in charge.
fn named(paths: &Paths, is_such: fn(&str) -> bool) -> Result<Vec<Loaded>, LoaderError> {
    let names = std::fs::read_dir(paths.of("sys/kernel")).into_iter().flatten().flatten();
    let mut names: Vec<_> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.strip_prefix("schedswap-").is_some_and(is_such));
    names.sort();
    let found = names.iter().filter_map(|name| scheduler_in(paths.of("sys/kernel").join(name)).transpose());
    found.collect()
}

/// The scheduler module of that name, in charge or beside it.
pub fn of_module(paths: &Paths, module: &str) -> Result<Option<Loaded>, LoaderError> {
    if let Some(beside) = scheduler_in(paths.scheduler_beside(module))? {
        return Ok(Some(beside));
    }
    Ok(scheduler(paths)?.filter(|loaded| loaded.says.module == module))
}

/// The id of this boot.
pub fn boot_id(paths: &Paths) -> String {
    let id = std::fs::read_to_string(paths.of("proc/sys/kernel/random/boot_id")).unwrap_or_default();
    id.trim().to_owned()
}

/// Whether the kernel command line forbids loading at boot.
pub fn is_disabled_on_the_command_line(paths: &Paths) -> bool {
    let line = std::fs::read_to_string(paths.of("proc/cmdline")).unwrap_or_default();
    // The last one counts, as for every option of the kernel.
    let last = line.split_whitespace().filter_map(|word| word.strip_prefix("schedswap.enable=")).next_back();
    last.is_some_and(|value| matches!(value.trim_matches('"'), "0" | "n" | "N" | "off" | "no"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn note(name: &[u8], kind: u32, descriptor: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [name.len() as u32, descriptor.len() as u32, kind] {
            note.extend(word.to_ne_bytes());
        }
        for part in [name, descriptor] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn the_build_id_is_found_after_other_notes() {
        let notes = [
            note(b"Xen\0", 6, b"linux\0"),
            note(b"Xen\0", 3, &[0xbb; 8]),
            note(b"Linux\0", 3, &[0xaa; 20]),
            note(b"GNU\0", 5, &[1, 2, 3]),
            note(b"GNU\0", 3, &[0x12, 0x34, 0x56]),
        ]
        .concat();
        assert_eq!(gnu_build_id(&notes).unwrap().to_string(), "123456");
    }

    #[test]
    fn notes_without_a_build_id() {
        assert_eq!(gnu_build_id(&[]), None);
        assert_eq!(gnu_build_id(&note(b"Xen\0", 3, &[1; 4])), None);
        let cut = note(b"GNU\0", 3, &[1; 20]);
        assert_eq!(gnu_build_id(&cut[..cut.len() - 1]), None);
    }

    #[test]
    fn this_machine_has_a_build_id_or_says_why_not() {
        match build_id(&Paths::below("/")) {
            Ok(id) => assert!(id.as_bytes().len() >= 8),
            Err(error) => assert!(error.to_string().contains("/sys/kernel/notes")),
        }
    }

    #[test]
    fn the_kill_switch() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        assert!(!is_disabled_on_the_command_line(&paths));
        std::fs::create_dir(root.path().join("proc")).unwrap();
        for (line, disabled) in [
            ("BOOT_IMAGE=/vmlinuz root=/dev/vda1 quiet", false),
            ("quiet schedswap.enable=0", true),
            ("schedswap.enable=0 quiet schedswap.enable=1", false),
            ("xschedswap.enable=0", false),
            ("schedswap.enable=1", false),
        ] {
            std::fs::write(root.path().join("proc/cmdline"), format!("{line}\n")).unwrap();
            assert_eq!(is_disabled_on_the_command_line(&paths), disabled, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = gnu_build_id(&bytes);
        }
    }
}

//! The running kernel: which it is, and which scheduler module it has.

use crate::error::LoaderError;
use schedswap_payload::report::{LoadedScheduler, Status};
use schedswap_payload::sysfs::{self, State, SysfsError};
use schedswap_payload::{BuildId, MODULE_NAME};
use std::path::{Path, PathBuf};

/// `uname -r`.
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The GNU build-id of the running kernel.
pub fn build_id() -> Result<BuildId, LoaderError> {
    let path = "/sys/kernel/notes";
    let notes = std::fs::read(path)
        .map_err(|error| LoaderError::NoBuildId { detail: format!("reading {path}: {error}") })?;
    gnu_build_id(&notes)
        .ok_or_else(|| LoaderError::NoBuildId { detail: format!("{path} holds no note GNU of type 3") })
}

/// NT_GNU_BUILD_ID
const BUILD_ID_NOTE: u32 = 3;

/// Finds the build-id among ELF notes: name size, descriptor size and type (4 bytes each), then name and
/// descriptor, each padded to 4 bytes. Others come first: Xen's, and Linux's own of the same type number.
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

/// Whether any module of the scheduler's name is loaded, a scheduler or not.
pub fn module_is_loaded() -> bool {
    Path::new("/sys/module").join(MODULE_NAME).is_dir()
}

/// A file of the loaded scheduler.
pub fn sysfs_file(name: &str) -> PathBuf {
    Path::new(sysfs::DIR).join(name)
}

/// The content of a file of the loaded scheduler.
pub fn read(name: &str) -> Result<String, LoaderError> {
    let path = sysfs_file(name);
    std::fs::read_to_string(&path).map_err(|source| LoaderError::Sysfs { path, source })
}

/// Where the loaded scheduler stands.
pub fn state() -> Result<State, LoaderError> {
    Ok(State::from(read("state")?.as_str()))
}

fn function_count() -> Result<u32, LoaderError> {
    let text = read("functions")?;
    let expected = "a number of functions";
    let line = |_| SysfsError::Line { file: "functions", line: text.trim().to_owned(), expected };
    Ok(text.trim().parse().map_err(line)?)
}

/// The scheduler module that is loaded, or `None`.
pub fn scheduler() -> Result<Option<LoadedScheduler>, LoaderError> {
    if !Path::new(sysfs::DIR).is_dir() {
        return Ok(None);
    }
    Ok(Some(LoadedScheduler {
        version: read("version")?.trim().to_owned(),
        state: state()?,
        functions: function_count()?,
        // Both are empty, or not there, before the first switch.
        timing: read("timing").ok().and_then(|text| text.parse().ok()),
        blockers: read("blocker").ok().map_or(Ok(Vec::new()), |text| sysfs::parse_blockers(&text))?,
    }))
}

/// What `status` shows.
pub fn status() -> Result<Status, LoaderError> {
    Ok(Status { kernel_release: release(), build_id: build_id().ok(), scheduler: scheduler()? })
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
    fn the_build_id_is_found_behind_other_notes() {
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
        match build_id() {
            Ok(id) => assert!(id.as_bytes().len() >= 8),
            Err(error) => assert!(error.to_string().contains("/sys/kernel/notes")),
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = gnu_build_id(&bytes);
        }
    }
}

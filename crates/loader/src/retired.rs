//! Schedulers that are out of use, and the memory that they keep.
//!
//! Something in the kernel may have an address of a module that has run: of a function, a string, a list's node. So a
//! module that goes out of use retires, and its memory stays until the next boot. It is freed only when asked for, and
//! only if the build has shown that no address gets out.

use crate::error::LoaderError;
use crate::host::Machine;
use crate::module_file::ModuleFile;
use crate::paths::Paths;
use crate::record::Record;
use crate::running::{self, Loaded};
use crate::swap;
use rustix::io::Errno;
use schedswap_payload::report::RetiredScheduler;
use std::time::Duration;

/// How many MiB all loaded scheduler modules may keep together, if the command line does not say otherwise.
pub const MIB_MAX: u64 = 64;

/// What becomes of a module's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// It stays until the next boot.
    Keep,
    /// It is freed, if nothing can have an address of it.
    Free,
}

/// What every retired scheduler keeps.
pub fn all(paths: &Paths) -> Result<Vec<RetiredScheduler>, LoaderError> {
    let retired = running::retired(paths)?.into_iter();
    Ok(retired
        .map(|loaded| RetiredScheduler {
            bytes: bytes_of(paths, &loaded.says.module),
            unproved: loaded.unproved(),
            version: loaded.says.version,
            module: loaded.says.module,
        })
        .collect())
}

/// The memory of a loaded module; 0 if the kernel does not say.
pub fn bytes_of(paths: &Paths, module: &str) -> u64 {
    let size = std::fs::read_to_string(paths.of("sys/module").join(module).join("coresize"));
    size.ok().and_then(|size| size.trim().parse().ok()).unwrap_or(0)
}

/// Whether another module may be loaded: each that runs will retire one day, and to leave a scheduler must always be
/// possible.
pub fn check_room(machine: &Machine, module: &ModuleFile) -> Result<(), LoaderError> {
    let paths = &machine.paths;
    let retired = all(paths)?;
    let running = running::scheduler(paths)?;
    let others = running.into_iter().chain(running::beside(paths)?);
    let needed_mib = retired.iter().map(|retired| mib(retired.bytes)).sum::<u64>()
        + others.map(|loaded| mib(bytes_of(paths, &loaded.says.module))).sum::<u64>()
        + mib(module.memory_bytes);
    if needed_mib <= machine.retired_max_mib {
        return Ok(());
    }
    Err(LoaderError::NoRoom { retired, needed_mib, mib: machine.retired_max_mib })
}

/// What counts against the bound: at least 1 MiB for each module, so that it bounds their number too.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20).max(1)
}

/// Takes a module away into which nothing leads. If it has run, it retires.
pub fn put_away(machine: &Machine, name: &str) -> Result<(), LoaderError> {
    match running::of_module(&machine.paths, name)? {
        Some(loaded) if loaded.is_kept() => {
            let path = loaded.dir.join("retire");
            machine.host.write(&path, '1').map_err(|source| LoaderError::NotRetired { path, source })
        }
        _ => swap::unload(machine, name),
    }
}

/// How often to look whether threads have left the module's code, and with what pauses.
const POLL: Duration = Duration::from_millis(100);
const POLLS: u32 = 100;

/// Frees the memory of a module into which nothing leads, or says why that is not safe.
pub fn free(machine: &Machine, loaded: &Loaded) -> Result<(), LoaderError> {
    refuse_unproved(loaded)?;
    if loaded.is_kept() {
        release(machine, loaded)?;
    }
    swap::unload(machine, &loaded.says.module)
}

/// The module looks itself whether a thread is in its code.
fn release(machine: &Machine, loaded: &Loaded) -> Result<(), LoaderError> {
    let path = loaded.dir.join("release");
    for _ in 0..POLLS {
        let Err(source) = machine.host.write(&path, '1') else { return Ok(()) };
        match Errno::from_io_error(&source) {
            Some(Errno::BUSY | Errno::AGAIN) => machine.host.pause(POLL),
            _ => return Err(LoaderError::NotReleased { path, source }),
        }
    }
    let blockers = running::read(&loaded.dir, "blocker").unwrap_or_default();
    let blockers = schedswap_payload::sysfs::parse_blockers(&blockers)?;
    Err(LoaderError::ThreadsInside { version: loaded.says.version.clone(), waited: POLL * POLLS, blockers })
}

/// An error if the build has not shown that this module may be freed.
pub fn refuse_unproved(loaded: &Loaded) -> Result<(), LoaderError> {
    let reasons = loaded.unproved();
    if !loaded.is_kept() || reasons.is_empty() {
        return Ok(());
    }
    Err(LoaderError::Unproved { version: loaded.says.version.clone(), reasons })
}

/// Frees what can be freed of the schedulers that have retired; returns why the others are not.
pub fn free_all(machine: &Machine, record: &mut Record) -> Result<Vec<LoaderError>, LoaderError> {
    let mut errors = Vec::new();
    for loaded in running::retired(&machine.paths)? {
        let bytes = bytes_of(&machine.paths, &loaded.says.module);
        match free(machine, &loaded) {
            Ok(()) => {
                let version = &loaded.says.version;
                record.notes.push(format!("{version} had retired; {} are free again", kib(bytes)));
            }
            Err(error) => errors.push(error),
        }
    }
    Ok(errors)
}

/// `1216 KiB`
pub fn kib(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

//! `remove`, `forget` and `uninstall`: back to the kernel's own scheduler.

use crate::error::LoaderError;
use crate::host::Machine;
use crate::payload_dir::PayloadError;
use crate::record::Record;
use crate::registry::{self, Registry};
use crate::retired::Memory;
use crate::running::{self, Loaded};
use crate::switch::Patience;
use crate::{module_file, refusal, retired, services, swap};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Called before a payload's package is removed: switches back to the kernel's own scheduler if the payload runs, and
/// unregisters it. If it fails, everything stays as it was.
pub fn remove(
    machine: &Machine,
    dir: &Path,
    patience: Patience,
    record: &mut Record,
) -> Result<(), LoaderError> {
    let (kernel, name) = place(machine, dir)?;
    record.version = Some(name.clone());
    let is_running = is_running(machine, dir, &kernel, &name)?;
    if is_running {
        swap::take_out(machine, Memory::Keep, patience, record)?;
        record.notes.extend(record.done.take());
    }
    let registry = Registry::of(&machine.paths, &machine.disk, &kernel);
    if registry.registered().as_deref() == Some(&name) {
        // After the swap, because until then this scheduler runs. A machine that crashes in between loads it once
        // more; its package is still installed.
        registry.drop_active()?;
        registry.clear_attempt()?;
    }
    if is_running {
        services::tell_systemd(machine, "stop", &mut record.notes);
    }
    let others = registry::kernels(&machine.paths).into_iter().flat_map(|kernel| {
        let names = Registry::of(&machine.paths, &machine.disk, &kernel).payloads();
        names.into_iter().map(move |name| (kernel.clone(), name))
    });
    if others.filter(|other| *other != (kernel.clone(), name.clone())).count() == 0 {
        services::remove(machine, &mut record.notes)?;
        for kernel in registry::kernels(&machine.paths) {
            Registry::of(&machine.paths, &machine.disk, &kernel).remove()?;
        }
    } else if Registry::of(&machine.paths, &machine.disk, &kernel).payloads() == [name.as_str()] {
        registry.remove()?;
    }
    record.done = Some(match is_running {
        true => format!("the kernel's own scheduler runs again; {name} is no longer registered"),
        false => format!("{name} is no longer registered"),
    });
    Ok(())
}

/// Called before the files of a payload are removed while other packages of its name stay: after an rpm upgrade, and
/// when one of several packages is removed. After an upgrade nothing is unloaded: either the new scheduler has taken
/// over, or it was refused and the old one goes on running; then the new one is registered in its place, so that the
/// next boot loads what is installed. If one of several is removed and it runs, it is unloaded.
pub fn forget(
    machine: &Machine,
    dir: &Path,
    patience: Patience,
    record: &mut Record,
) -> Result<(), LoaderError> {
    let (kernel, name) = place(machine, dir)?;
    record.version = Some(name.clone());
    let registry = Registry::of(&machine.paths, &machine.disk, &kernel);
    let was_refused = refusal::noted(machine)
        .is_some_and(|refused| refused != name && registry.payloads().contains(&refused));
    if is_running(machine, dir, &kernel, &name)? && !was_refused {
        return remove(machine, dir, patience, record);
    }
    if registry.registered().as_deref() != Some(&name) {
        record.done = Some(format!("{name} is not registered"));
        return Ok(());
    }
    let scheduler = |name: &str| {
        let dir = machine.paths.kernel(&kernel).join(name);
        module_file::read_manifest(&dir).ok().map(|manifest| manifest.name)
    };
    let of_old = scheduler(&name);
    let mut others = registry.payloads();
    others.retain(|other| *other != name && of_old.is_some() && scheduler(other) == of_old);
    // The one that came last is what the upgrade has just brought. Its modification time would be when it was built.
    let came = |name: &String| {
        let dir = machine.paths.kernel(&kernel).join(name);
        dir.metadata().map(|found| (found.ctime(), found.ctime_nsec())).ok()
    };
    match others.into_iter().max_by_key(came) {
        Some(other) => {
            let place = machine.paths.kernel(&kernel).join("active");
            registry.stage_active(&other)?.commit().map_err(registry::cannot("write", &place))?;
            record.done = Some(format!("{other} is registered in place of {name}"));
        }
        None => {
            registry.drop_active()?;
            record.done = Some(format!("{name} is no longer registered"));
        }
    }
    registry.clear_attempt()
}

/// Puts vmlinux's own scheduler back, and unregisters it; the module retires, or is freed together with all that have
/// retired. `record.version` stays `None` if no module was loaded.
pub fn uninstall(
    machine: &Machine,
    memory: Memory,
    patience: Patience,
    record: &mut Record,
) -> Result<(), LoaderError> {
    swap::take_out(machine, memory, patience, record)?;
    let registry = Registry::of(&machine.paths, &machine.disk, &machine.host.release());
    if let Some(name) = registry.registered() {
        registry.drop_active()?;
        registry.clear_attempt()?;
        record.notes.push(format!("{name} is no longer loaded at boot; `switch {name}` brings it back"));
        services::tell_systemd(machine, "stop", &mut record.notes);
    }
    if memory == Memory::Free {
        let mut errors = retired::free_all(machine, record)?;
        // If a scheduler ran, it is gone, and that is what was asked for.
        if record.version.is_none() && !errors.is_empty() {
            return Err(errors.swap_remove(0));
        }
        record.notes.extend(errors.iter().map(LoaderError::to_string));
    }
    Ok(())
}

fn is_running(machine: &Machine, dir: &Path, kernel: &str, name: &str) -> Result<bool, LoaderError> {
    Ok(machine.is_live
        && kernel == machine.host.release()
        && running::scheduler(&machine.paths)?.is_some_and(|loaded| is_of(&loaded, dir, name)))
}

fn place(machine: &Machine, dir: &Path) -> Result<(String, String), LoaderError> {
    let state = machine.paths.state();
    let place = machine.paths.payload_place(dir);
    Ok(place.ok_or_else(|| PayloadError::Place { path: dir.to_owned(), state })?)
}

/// Whether what runs is the scheduler of that payload. If its files are damaged or gone, its name decides.
fn is_of(loaded: &Loaded, dir: &Path, name: &str) -> bool {
    match module_file::read_manifest(dir) {
        Ok(manifest) => loaded.is(&manifest.module_name, name),
        Err(_) => loaded.says.version == name,
    }
}

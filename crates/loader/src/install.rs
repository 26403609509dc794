//! `install` and `switch`: check, load, switch, and only then register; or leave everything as it was.

use crate::conflicts::{self, Functions};
use crate::error::LoaderError;
use crate::host::Machine;
use crate::module_file::{self, ModuleFile};
use crate::payload_dir::{self, Payload};
use crate::record::Record;
use crate::registry::{Registry, Swap};
use crate::switch::Patience;
use crate::{candidate, refusal, retired, running, services, swap};
use schedswap_payload::report::Attempt;
use std::path::{Path, PathBuf};

/// Whether a module was built for the running kernel.
#[derive(Debug)]
pub enum Fit {
    /// It was.
    Runs,
    /// It was not; the error says how they differ.
    Other(LoaderError),
}

/// Whether a separate module may take over from a running scheduler.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TakeOver {
    Yes,
    No,
}

/// Installs what is at `path`: a payload in its place is registered and from now on loaded at every boot; any other
/// module only runs.
pub fn install(
    machine: &Machine,
    path: &Path,
    patience: Patience,
    record: &mut Record,
) -> Result<(), LoaderError> {
    if machine.paths.payload_place(path).is_some() || !machine.is_live {
        return install_payload(machine, path, patience, record);
    }
    install_loose(machine, path, patience, record, TakeOver::No)
}

/// Like `install`, but `path` may be the name of a payload, and a separate module may take over from the running one.
pub fn switch(
    machine: &Machine,
    named: &Path,
    patience: Patience,
    record: &mut Record,
) -> Result<(), LoaderError> {
    let path = candidate::path_of(machine, Some(named))?;
    if machine.paths.payload_place(&path).is_some() || !machine.is_live {
        return install_payload(machine, &path, patience, record);
    }
    install_loose(machine, &path, patience, record, TakeOver::Yes)
}

/// An absolute path. Links are not followed: the check of the payload refuses them.
pub fn absolute(path: &Path) -> PathBuf {
    // This fails only for an empty path, or if there is no working directory.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Where the scheduler is if none is named: beside the loader, as packages install it.
pub fn default_path() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().unwrap_or(Path::new(".")).to_owned()
}

/// Whether the module was built for exactly this kernel, including the build.
pub fn fit(machine: &Machine, module: &ModuleFile) -> Result<Fit, LoaderError> {
    if !machine.is_live {
        return Ok(Fit::Other(LoaderError::NoKernel));
    }
    let running = machine.host.release();
    let expected = module.info.kernel_release.clone();
    if expected != running {
        return Ok(Fit::Other(LoaderError::WrongRelease { running, expected }));
    }
    // The same release can be built twice, and the addresses in the module are valid for one build only.
    let (release, running) = (running, running::build_id(&machine.paths)?);
    let expected = module.info.build_id.clone();
    if expected != running {
        return Ok(Fit::Other(LoaderError::WrongBuildId { release, running, expected }));
    }
    Ok(Fit::Runs)
}

fn install_loose(
    machine: &Machine,
    path: &Path,
    patience: Patience,
    record: &mut Record,
    take_over: TakeOver,
) -> Result<(), LoaderError> {
    let (manifest, module) = module_file::open(path)?;
    record.version.clone_from(&module.info.version);
    payload_dir::check_loose(manifest.as_ref(), &module)?;
    if let Fit::Other(error) = fit(machine, &module)? {
        return Err(error);
    }
    if take_over == TakeOver::No
        && let Some(loaded) = running::scheduler(&machine.paths)?
    {
        return Err(LoaderError::AlreadyLoaded { version: loaded.says.version, state: loaded.says.state });
    }
    retired::check_room(machine, &module)?;
    let functions = manifest.map(|manifest| Functions::of(&manifest.functions)).unwrap_or_default();
    conflicts::refuse(&machine.paths, &functions)?;
    swap::bring_in(machine, &module, patience, record)
        .map_err(|error| name_holders(machine, &functions, error))
}

fn install_payload(
    machine: &Machine,
    dir: &Path,
    patience: Patience,
    record: &mut Record,
) -> Result<(), LoaderError> {
    let mut install = || {
        let payload = payload_dir::open(machine, dir)?;
        record.version = Some(payload.name.clone());
        match fit(machine, &payload.module)? {
            Fit::Runs => install_here(machine, &payload, patience, record),
            Fit::Other(why) => register_for_later(machine, &payload, &why, record),
        }
    };
    let result = install();
    if result.is_err() {
        refusal::note(machine, dir, record);
    }
    result
}

/// Installs a payload that was built for the running kernel.
fn install_here(
    machine: &Machine,
    payload: &Payload,
    patience: Patience,
    record: &mut Record,
) -> Result<(), LoaderError> {
    let registry = Registry::of(&machine.paths, &machine.disk, &payload.kernel);
    // First everything that needs space on the disk, while nothing has been changed yet.
    services::install(machine, payload, &mut record.notes)?;
    let active = registry.stage_active(&payload.name)?;
    if let Err(error) = run(machine, payload, patience, record) {
        active.discard();
        return Err(error);
    }
    // Only now: a machine that crashes during the swap has to boot what ran before.
    let version = payload.name.clone();
    active.commit().map_err(|source| LoaderError::Unregistered { version, source })?;
    registry.clear_attempt()?;
    refusal::clear(machine);
    services::tell_systemd(machine, "start", &mut record.notes);
    Ok(())
}

/// Makes the payload's scheduler run, unless it runs already.
pub fn run(
    machine: &Machine,
    payload: &Payload,
    patience: Patience,
    record: &mut Record,
) -> Result<(), LoaderError> {
    if is_running(machine, payload)? {
        record.done = Some(format!("{} runs already", payload.name));
        return Ok(());
    }
    retired::check_room(machine, &payload.module)?;
    let functions = Functions::of(&payload.manifest.functions);
    conflicts::refuse(&machine.paths, &functions)?;
    swap::bring_in(machine, &payload.module, patience, record)
        .map_err(|error| name_holders(machine, &functions, error))?;
    remember(machine, &payload.kernel, record);
    Ok(())
}

/// Whether that payload's scheduler is the one that runs.
pub fn is_running(machine: &Machine, payload: &Payload) -> Result<bool, LoaderError> {
    let loaded = running::scheduler(&machine.paths)?;
    Ok(loaded.is_some_and(|loaded| {
        loaded.is_in_use() && swap::is_that(&loaded, &payload.module, Some(&payload.name))
    }))
}

/// Registers a payload for another kernel, which loads it when it boots. What is registered for that kernel stays,
/// unless it is another version of the same scheduler.
fn register_for_later(
    machine: &Machine,
    payload: &Payload,
    why: &LoaderError,
    record: &mut Record,
) -> Result<(), LoaderError> {
    let registry = Registry::of(&machine.paths, &machine.disk, &payload.kernel);
    services::install(machine, payload, &mut record.notes)?;
    let Payload { name, kernel, .. } = payload;
    match registry.active() {
        Some(other) if other != *name && !is_same_scheduler(machine, payload, &other) => {
            record.done = Some(format!(
                "{name} is installed, but {other} stays registered for kernel {kernel}: run `switch {name}` \
                 on that kernel to use it"
            ));
        }
        _ => {
            let place = machine.paths.kernel(kernel).join("active");
            let active = registry.stage_active(name)?;
            active.commit().map_err(crate::registry::cannot("write", &place))?;
            registry.clear_attempt()?;
            record.done = Some(format!("{name} is installed, and will be loaded when kernel {kernel} boots"));
        }
    }
    if machine.is_live {
        record.notes.push(format!("nothing is loaded now: {why}"));
    }
    Ok(())
}

/// Whether the payload of that name is another version of the same scheduler, as a package's upgrade replaces it.
fn is_same_scheduler(machine: &Machine, payload: &Payload, other: &str) -> bool {
    let dir = machine.paths.kernel(&payload.kernel).join(other);
    module_file::read_manifest(&dir).is_ok_and(|manifest| manifest.name == payload.manifest.name)
}

/// Adds the users of these functions that the loader sees to the module's refusal.
fn name_holders(machine: &Machine, functions: &Functions, error: LoaderError) -> LoaderError {
    let LoaderError::Held { .. } = error else { return error };
    let mut by = conflicts::find(&machine.paths, functions);
    by.retain(|conflict| conflict.refuses);
    LoaderError::Held { by }
}

/// Adds the times of the last switch to the history, for predictions.
pub fn remember(machine: &Machine, kernel: &str, record: &mut Record) {
    let Some(Attempt::Switched { timing: Some(timing) }) = record.attempts.last() else { return };
    let version = record.version.clone().unwrap_or_default();
    let swap = Swap { at: machine.host.epoch_seconds(), version, timing: timing.clone() };
    if let Err(error) = Registry::of(&machine.paths, &machine.disk, kernel).add_to_history(swap) {
        record.notes.push(error.to_string());
    }
}

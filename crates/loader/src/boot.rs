//! `start`, `stop` and `healthy`: what the units call.
//!
//! Protection against a scheduler that breaks the boot: `start` records its attempt on the disk before it loads, and
//! `healthy` deletes the record once the machine is up. A record of an earlier boot means that the machine did not
//! come up healthy with that scheduler, so it is not loaded again until a user asks for it.

use crate::error::LoaderError;
use crate::host::Machine;
use crate::install::{self, Fit};
use crate::payload_dir;
use crate::record::Record;
use crate::registry::{Attempt, Registry};
use crate::retired::Memory;
use crate::switch::Patience;
use crate::{running, swap, text};
use schedswap_payload::report::Blocked;
use std::fs;

/// What `start` is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// The kernel command line forbids it.
    Disabled,
    /// Nothing is registered for this kernel.
    NothingRegistered,
    /// The registered payload does not exist any more.
    Gone(String),
    /// The last boot with it was not healthy.
    Blocked(Blocked),
    /// That payload is to run.
    Load(String),
}

/// Decides; changes nothing.
pub fn decide(machine: &Machine, is_forced: bool) -> Decision {
    let registry = Registry::of(&machine.paths, &machine.disk, &machine.host.release());
    if running::is_disabled_on_the_command_line(&machine.paths) && !is_forced {
        return Decision::Disabled;
    }
    let Some(name) = registry.active() else {
        return registry.registered().map_or(Decision::NothingRegistered, Decision::Gone);
    };
    match blocked(machine) {
        Some(blocked) if !is_forced => Decision::Blocked(blocked),
        _ => Decision::Load(name),
    }
}

/// Why the active payload is not loaded at boot, if it is not.
pub fn blocked(machine: &Machine) -> Option<Blocked> {
    let registry = Registry::of(&machine.paths, &machine.disk, &machine.host.release());
    let name = registry.active()?;
    // This boot's record: the boot is not finished. Another payload's record: this payload has not been tried yet.
    let attempt = registry.attempt()?;
    let concerns_it = attempt.payload == name || attempt.payload.is_empty();
    (concerns_it && attempt.boot_id != running::boot_id(&machine.paths)).then_some(attempt)
}

/// Whether there is nothing for `start` to do because the scheduler runs: then systemd may ask while another loader
/// works.
pub fn runs_already(machine: &Machine) -> bool {
    let registry = Registry::of(&machine.paths, &machine.disk, &machine.host.release());
    let dir = registry.active().map(|name| machine.paths.kernel(&machine.host.release()).join(name));
    let payload = dir.and_then(|dir| payload_dir::open(machine, &dir).ok());
    payload.is_some_and(|payload| install::is_running(machine, &payload).unwrap_or(false))
}

/// Loads what is registered for this kernel. If there is a reason not to load it, that is not a failure.
pub fn start(
    machine: &Machine,
    is_forced: bool,
    patience: Patience,
    record: &mut Record,
) -> Result<(), LoaderError> {
    let kernel = machine.host.release();
    let name = match decide(machine, is_forced) {
        Decision::Load(name) => name,
        nothing => {
            record.done = Some(reason(&nothing, &kernel));
            return Ok(());
        }
    };
    record.version = Some(name.clone());
    let payload = payload_dir::open(machine, &machine.paths.kernel(&kernel).join(&name))?;
    if let Fit::Other(why) = install::fit(machine, &payload.module)? {
        record.done = Some(format!("nothing is loaded: {why}"));
        return Ok(());
    }
    if install::is_running(machine, &payload)? {
        record.done = Some(format!("{name} runs already"));
        return Ok(());
    }
    let registry = Registry::of(&machine.paths, &machine.disk, &kernel);
    let boot_id = running::boot_id(&machine.paths);
    registry.write_attempt(&Attempt { payload: name, boot_id, at: machine.host.epoch_seconds() })?;
    let result = install::run(machine, &payload, patience, record);
    // If the machine is up already, nothing would delete the record; if nothing was loaded, whatever happens is not
    // caused by the scheduler.
    if result.is_err() || machine.paths.healthy().exists() {
        registry.clear_attempt()?;
    }
    result
}

/// Back to the kernel's own scheduler until the next boot or `start`.
pub fn stop(machine: &Machine, patience: Patience, record: &mut Record) -> Result<(), LoaderError> {
    swap::take_out(machine, Memory::Keep, patience, record)
}

/// Records that the machine came up healthy.
pub fn healthy(machine: &Machine, record: &mut Record) -> Result<(), LoaderError> {
    // Only in memory, for `start`: not worth a failure.
    let _ = fs::write(machine.paths.healthy(), "");
    let registry = Registry::of(&machine.paths, &machine.disk, &machine.host.release());
    match registry.attempt() {
        Some(attempt) if attempt.boot_id == running::boot_id(&machine.paths) => {
            registry.clear_attempt()?;
            record.done = Some(format!("the machine came up healthy with {}", attempt.payload));
        }
        // `start` did not load it because of that record; this boot says nothing about it.
        Some(_) => {
            record.done = Some("the machine came up healthy without the registered scheduler".to_owned())
        }
        None => record.done = Some("the machine came up healthy".to_owned()),
    }
    Ok(())
}

fn reason(decision: &Decision, kernel: &str) -> String {
    match decision {
        Decision::Disabled => {
            "nothing is loaded: the kernel command line contains schedswap.enable=0".to_owned()
        }
        Decision::NothingRegistered => {
            format!("nothing is loaded: no scheduler is registered for kernel {kernel}")
        }
        Decision::Gone(name) => {
            format!("nothing is loaded: {name}, registered for kernel {kernel}, is not installed")
        }
        Decision::Blocked(blocked) => text::blocked(blocked),
        Decision::Load(name) => format!("{name} is loaded"),
    }
}

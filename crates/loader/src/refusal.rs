//! The note that an installation came to nothing, for `forget`: rpm goes on after a failed `%post`, and the old version's
//! `%preun` must not take for a removal what is the rest of an upgrade.
//!
//! In /run, for it concerns this boot only, and a full disk is one of the reasons for it.

use crate::host::Machine;
use crate::record::Record;
use crate::running;
use schedswap_payload::report::Blocked;
use std::fs;
use std::path::Path;

/// What the file holds: which payload, in which boot, when.
type Refusal = Blocked;

/// Notes that the payload at `path` was not installed; nothing where there is none of the running kernel. What cannot
/// be written is no worse than the refusal itself.
pub fn note(machine: &Machine, path: &Path, record: &mut Record) {
    let Some((kernel, payload)) = machine.paths.payload_place(path) else { return };
    if !machine.is_live || kernel != machine.host.release() {
        return;
    }
    let refusal =
        Refusal { payload, boot_id: running::boot_id(&machine.paths), at: machine.host.epoch_seconds() };
    let json = serde_json::to_vec(&refusal).expect("strings and numbers always become JSON");
    let place = machine.paths.refused();
    if let Err(error) = fs::write(&place, json) {
        record.notes.push(format!("cannot write {}: {error}", place.display()));
    }
}

/// The payload of this kernel that last was not installed, if that was in this boot.
pub fn noted(machine: &Machine) -> Option<String> {
    let refusal: Refusal = serde_json::from_slice(&fs::read(machine.paths.refused()).ok()?).ok()?;
    (refusal.boot_id == running::boot_id(&machine.paths)).then_some(refusal.payload)
}

/// One was installed.
pub fn clear(machine: &Machine) {
    let _ = fs::remove_file(machine.paths.refused());
}

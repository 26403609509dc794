//! The record that an installation failed, for `forget`: rpm goes on after a failed `%post`, and the old version's
//! `%preun` must not take the rest of an upgrade for a removal.
//!
//! It is in /run, because it concerns this boot only, and because a full disk is one of the reasons for a failure.

use crate::host::Machine;
use crate::record::Record;
use crate::running;
use schedswap_payload::report::Blocked;
use std::fs;
use std::path::Path;

/// The content of the file: which payload, in which boot, when.
type Refusal = Blocked;

/// Records that the payload at `path` was not installed; does nothing if there is none of the running kernel. Failing
/// to write the record is no worse than the refusal itself.
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

/// The payload of this kernel whose installation failed last, if that was in this boot.
pub fn noted(machine: &Machine) -> Option<String> {
    let refusal: Refusal = serde_json::from_slice(&fs::read(machine.paths.refused()).ok()?).ok()?;
    (refusal.boot_id == running::boot_id(&machine.paths)).then_some(refusal.payload)
}

/// Deletes the record, because a payload was installed.
pub fn clear(machine: &Machine) {
    let _ = fs::remove_file(machine.paths.refused());
}

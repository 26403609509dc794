//! `status`: what runs, what is to run, and what is in the way.

use crate::conflicts::{self, Functions};
use crate::error::LoaderError;
use crate::host::Machine;
use crate::registry::{self, Registry};
use crate::{boot, module_file, retired, running};
use schedswap_payload::Manifest;
use schedswap_payload::report::{InstalledPayload, Status, Taint};

/// Collects everything; works without root, but then sees less.
pub fn status(machine: &Machine) -> Result<Status, LoaderError> {
    let paths = &machine.paths;
    let kernel_release = machine.host.release();
    let registry = Registry::of(paths, &machine.disk, &kernel_release);
    let active = registry.active();
    let scheduler = running::scheduler(paths)?;
    let functions = match (&scheduler, &active) {
        (Some(loaded), _) => Functions::of_loaded(&loaded.dir),
        (None, Some(name)) => {
            let manifest = module_file::read_manifest(&paths.kernel(&kernel_release).join(name));
            manifest.map(|manifest| Functions::of(&manifest.functions)).unwrap_or_default()
        }
        (None, None) => Functions::default(),
    };
    Ok(Status {
        build_id: running::build_id(paths).ok(),
        scheduler: scheduler.map(|loaded| loaded.says),
        beside: running::beside(paths)?.into_iter().map(|loaded| loaded.says).collect(),
        retired: retired::all(paths)?,
        active,
        payloads: payloads(machine),
        blocked: boot::blocked(machine),
        disabled_on_the_command_line: running::is_disabled_on_the_command_line(paths),
        conflicts: conflicts::find(paths, &functions),
        taint: taint(machine),
        kernel_release,
    })
}

fn payloads(machine: &Machine) -> Vec<InstalledPayload> {
    let mut found = Vec::new();
    for kernel_release in registry::kernels(&machine.paths) {
        let registry = Registry::of(&machine.paths, &machine.disk, &kernel_release);
        let active = registry.active();
        for payload in registry.payloads() {
            let manifest =
                module_file::read_manifest(&machine.paths.kernel(&kernel_release).join(&payload)).ok();
            let of =
                |get: fn(&Manifest) -> &Vec<String>| manifest.as_ref().map(get).cloned().unwrap_or_default();
            found.push(InstalledPayload {
                active: active.as_ref() == Some(&payload),
                findings_allowed: of(|manifest| &manifest.findings_allowed),
                warnings: of(|manifest| &manifest.warnings),
                summary: manifest.map(|manifest| manifest.summary).unwrap_or_default(),
                kernel_release: kernel_release.clone(),
                payload,
            });
        }
    }
    found
}

/// `Documentation/admin-guide/tainted-kernels.rst`, by bit.
const TAINTS: [&str; 20] = [
    "proprietary module",
    "module loaded by force",
    "CPU out of specification",
    "module unloaded by force",
    "machine check exception",
    "bad page",
    "requested by userspace",
    "oops or BUG",
    "ACPI table overridden",
    "warning",
    "staging driver",
    "firmware workaround",
    "module from outside the kernel",
    "unsigned module",
    "soft lockup",
    "livepatched",
    "flag of the distribution",
    "struct randomisation",
    "test module",
    "changed by fwctl",
];

fn taint(machine: &Machine) -> Option<Taint> {
    let text = std::fs::read_to_string(machine.paths.of("proc/sys/kernel/tainted")).ok()?;
    let bits: u64 = text.trim().parse().ok()?;
    let reason =
        |bit: u32| TAINTS.get(bit as usize).map_or(format!("bit {bit}"), |reason| (*reason).to_owned());
    Some(Taint { bits, reasons: (0..u64::BITS).filter(|bit| bits >> bit & 1 == 1).map(reason).collect() })
}

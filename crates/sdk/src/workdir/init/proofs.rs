//! The steps that prove that the kernel is understood: its scheduler compiles to the same code, and binds to give
//! vmlinux again.

use super::Run;
use crate::workdir::store::{read_json, read_object, write_compact_json, write_json};
use crate::workdir::{Error, Result};
use schedswap_kernel::objects;
use schedswap_sched::binding::{self, Binding, UnitObject};
use schedswap_sched::boundary::Boundary;
use schedswap_sched::compile::{self, Build, Commands};
use schedswap_sched::identity::{self, Addresses, Gate, KnownBy, Unplaced};
use std::collections::BTreeSet;

impl Run<'_> {
    pub(super) fn compare(&self, commands: &Commands) -> Result<String> {
        let gate = identity::gate(self.image()?, &self.gate_objects(commands)?)?;
        write_json(&self.paths.gate(), &gate)?;
        let identical: usize = gate.units.iter().map(|unit| unit.identical()).sum();
        let compared: usize =
            gate.units.iter().map(|unit| unit.functions.len() - unit.overridden().len()).sum();
        Ok(format!("{identical} of {compared} functions identical"))
    }

    pub(super) fn find_addresses(&self, gate: &Gate) -> Result<String> {
        let commands: Commands = read_json(&self.paths.commands())?;
        let objects = self.gate_objects(&commands)?;
        let addresses = identity::addresses(self.image()?, &objects, gate)?;
        write_compact_json(&self.paths.addresses(), &addresses)?;
        Ok(format!(
            "{} symbols by {} relocations, {} by the symbol table, {} unknown",
            addresses.known_by(KnownBy::Relocation),
            addresses.relocations,
            addresses.known_by(KnownBy::SymbolTable),
            missed(&addresses).count()
        ))
    }

    /// Rewrites the pristine module build and lays it over vmlinux: every byte must be vmlinux's again. Where the module's
    /// code is other code, that is done with the gate build, and of the module build each reference is held against
    /// the compiler's.
    pub(super) fn prove_binding(&self, commands: &Commands, boundary: &Boundary) -> Result<String> {
        let units = |kind: Build| -> Result<Vec<UnitObject>> {
            let dir = self.paths.pristine(kind);
            let units = commands.units.keys().map(|unit| {
                let (unit, object) = read_object(unit, &compile::object_path(&dir, unit))?;
                Ok(UnitObject::new(unit, object))
            });
            units.collect()
        };
        let keeps_code = Build::module_keeps_code(&commands.srcarch);
        let proved = units(if keeps_code { Build::Module } else { Build::Gate })?;
        let image = self.image()?;
        let addresses: Addresses = read_json(&self.paths.addresses())?;
        let binding = Binding {
            image,
            boundary,
            addresses: &addresses,
            anchor: binding::anchor(image)?,
            called_otherwise: &BTreeSet::new(),
        };
        let proof = binding::prove_identity(&binding::rewrite(&proved, &binding)?, &binding)?;
        let mut faults: Vec<String> =
            proof.different.iter().map(|d| format!("{}: {}", d.symbol, d.what)).collect();
        if !keeps_code {
            faults.extend(verified(&units(Build::Module)?, &binding)?);
        }
        if !faults.is_empty() && !self.config.allow_different {
            return Err(Error::WrongBinding(faults));
        }
        Ok(format!("{} functions and {} objects are vmlinux's again", proof.functions, proof.objects))
    }
}

/// What of the written module is not as the compiler's objects, with the addresses of vmlinux, say.
fn verified(units: &[UnitObject], binding: &Binding) -> Result<Vec<String>> {
    let rewritten = binding::rewrite(units, binding)?;
    let bytes = objects::write(&rewritten.object)?;
    let faults = binding::verify(&bytes, units, binding, &rewritten).err().unwrap_or_default();
    Ok(faults.iter().map(ToString::to_string).collect())
}

/// Symbols that a module may refer to, and of which nothing tells the place. What only the kernel's own build reads
/// (`__tracepoint_check`) is in no vmlinux.
pub(super) fn missed(addresses: &Addresses) -> impl Iterator<Item = &Unplaced> {
    addresses.unplaced.iter().filter(|symbol| binding::is_carried(&symbol.section))
}

//! What `check` and `plan` look at: an installed payload, or a loose module.

use crate::conflicts::Functions;
use crate::error::LoaderError;
use crate::host::Machine;
use crate::install::{absolute, default_path};
use crate::module_file::{self, ModuleFile};
use crate::payload_dir::{self, Payload};
use crate::registry::Registry;
use schedswap_payload::Manifest;
use std::path::{Path, PathBuf};

/// Opened, and found fit to be used.
pub enum Target {
    /// An installed payload.
    Payload(Payload),
    /// A module from somewhere else, with the manifest beside it if there is one.
    Loose(Option<Manifest>, ModuleFile),
}

impl Target {
    /// Opens what lies at `path`.
    pub fn open(machine: &Machine, path: &Path) -> Result<Target, LoaderError> {
        if machine.paths.payload_place(path).is_some() || !machine.is_live {
            return Ok(Target::Payload(payload_dir::open(machine, path)?));
        }
        let (manifest, module) = module_file::open(path)?;
        payload_dir::check_loose(manifest.as_ref(), &module)?;
        Ok(Target::Loose(manifest, module))
    }

    /// Its module.
    pub fn module(&self) -> &ModuleFile {
        match self {
            Target::Payload(payload) => &payload.module,
            Target::Loose(_, module) => module,
        }
    }

    /// What it replaces, as far as a manifest says.
    pub fn functions(&self) -> Functions {
        match self {
            Target::Payload(payload) => Functions::of(&payload.manifest.functions),
            Target::Loose(manifest, _) => {
                manifest.as_ref().map(|manifest| Functions::of(&manifest.functions)).unwrap_or_default()
            }
        }
    }

    /// `<name>-<release>`.
    pub fn version(&self) -> Option<String> {
        match self {
            Target::Payload(payload) => Some(payload.name.clone()),
            Target::Loose(Some(manifest), _) => Some(format!("{}-{}", manifest.name, manifest.release)),
            Target::Loose(None, module) => module.info.version.clone(),
        }
    }
}

/// What is meant when `named` is all that was said: nothing means the payload that the loader lies in, else the one
/// that is registered for this kernel.
pub fn path_of(machine: &Machine, named: Option<&Path>) -> Result<PathBuf, LoaderError> {
    let kernel = machine.host.release();
    if let Some(named) = named {
        let of_that_name = machine.paths.kernel(&kernel).join(named);
        let is_a_name = named.components().count() == 1 && of_that_name.is_dir() && !named.is_dir();
        return Ok(if is_a_name { of_that_name } else { absolute(named) });
    }
    let own = default_path();
    if own.join(schedswap_payload::manifest::FILE_NAME).is_file() {
        return Ok(own);
    }
    let active = Registry::of(&machine.paths, &machine.disk, &kernel).active();
    let state = machine.paths.state();
    active
        .map(|name| machine.paths.kernel(&kernel).join(name))
        .ok_or(LoaderError::NothingNamed { kernel, state })
}

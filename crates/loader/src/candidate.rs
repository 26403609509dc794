//! What `check` and `plan` examine: an installed payload, or a separate module.

use crate::conflicts::Functions;
use crate::error::LoaderError;
use crate::host::Machine;
use crate::install::{absolute, default_path};
use crate::module_file::{self, ModuleFile};
use crate::payload_dir::{self, Payload};
use crate::registry::Registry;
use schedswap_payload::Manifest;
use std::path::{Path, PathBuf};

/// A scheduler that was opened and may be used.
pub enum Candidate {
    /// An installed payload.
    Payload(Payload),
    /// A module from elsewhere, with the manifest beside it if there is one.
    Loose(Option<Manifest>, ModuleFile),
}

impl Candidate {
    /// Opens what is at `path`.
    pub fn open(machine: &Machine, path: &Path) -> Result<Candidate, LoaderError> {
        if machine.paths.payload_place(path).is_some() || !machine.is_live {
            return Ok(Candidate::Payload(payload_dir::open(machine, path)?));
        }
        let (manifest, module) = module_file::open(path)?;
        payload_dir::check_loose(manifest.as_ref(), &module)?;
        Ok(Candidate::Loose(manifest, module))
    }

    /// Its module.
    pub fn module(&self) -> &ModuleFile {
        match self {
            Candidate::Payload(payload) => &payload.module,
            Candidate::Loose(_, module) => module,
        }
    }

    /// The functions that it replaces, if a manifest lists them.
    pub fn functions(&self) -> Functions {
        match self {
            Candidate::Payload(payload) => Functions::of(&payload.manifest.functions),
            Candidate::Loose(manifest, _) => {
                manifest.as_ref().map(|manifest| Functions::of(&manifest.functions)).unwrap_or_default()
            }
        }
    }

    /// `<name>-<release>`.
    pub fn version(&self) -> Option<String> {
        match self {
            Candidate::Payload(payload) => Some(payload.name.clone()),
            Candidate::Loose(Some(manifest), _) => Some(format!("{}-{}", manifest.name, manifest.release)),
            Candidate::Loose(None, module) => module.info.version.clone(),
        }
    }
}

/// The path that `named` means: nothing means the payload in whose directory the loader is, else the one that is
/// registered for this kernel.
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

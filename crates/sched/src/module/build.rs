//! From the units' objects to `scheduler.ko`.

use super::extension::{self, Extension};
use super::link::{self, Kbuild, RuntimeObject, compile_runtime, write_if_changed};
use super::runtime;
use super::state::States;
use super::tables::{self, FeatureSet, Tables, anchored};
use crate::binding::{self, Binding, Fault, Rewritten, UnitObject, anchor, bind_runtime, rewrite, verify};
use crate::boundary::{Boundary, Fate};
use crate::identity::Addresses;
use crate::springboard::{self, Contract};
use schedswap_host::progress::Progress;
use schedswap_kernel::address::Addr;
use schedswap_kernel::objects::{self, Place};
use schedswap_kernel::vmlinux::Image;
use schedswap_payload::manifest::DivertedFunction;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why there is no module.
#[derive(Debug, Error)]
pub enum Error {
    /// An object cannot be bound.
    #[error(transparent)]
    Binding(#[from] binding::Error),
    /// What was written does not say what was meant.
    #[error("the rewritten scheduler does not pass verification, which is a fault of schedswap; nothing was built:\n{}", list(.0))]
    Verify(Vec<Fault>),
    /// The assembled stub does not fit vmlinux's `__schedule`.
    #[error("the stub does not pass its proof against vmlinux's __schedule; nothing was built")]
    Stub(#[source] Box<springboard::Error>),
    /// An object cannot be read or written.
    #[error(transparent)]
    Objects(#[from] objects::Error),
    /// The tables cannot be written.
    #[error(transparent)]
    Tables(#[from] tables::Error),
    /// Kbuild failed.
    #[error(transparent)]
    Link(#[from] link::Error),
}

/// What a module is made of.
pub struct Input<'a> {
    /// The kernel.
    pub image: &'a Image,
    /// Its boundary.
    pub boundary: &'a Boundary,
    /// Where its scheduler's symbols are.
    pub addresses: &'a Addresses,
    /// The frame of its `__schedule`.
    pub contract: &'a Contract,
    /// The module build of each unit.
    pub units: &'a [UnitObject],
    /// Directory for `make -C`.
    pub kbuild: Kbuild<'a>,
    /// Where to work: `scheduler.ko` will be below.
    pub dir: &'a Path,
    /// The edited `kernel/sched`, whose private header the runtime uses.
    pub sched: &'a Path,
    /// Shown in sysfs.
    pub version: &'a str,
}

/// The scheduler, bound to vmlinux and verified.
pub struct Bound {
    /// How it was bound.
    pub rewritten: Rewritten,
    anchor: (&'static str, Addr),
}

/// A linked module.
pub struct Module {
    /// What the kernel calls it.
    pub name: String,
    /// `scheduler.ko`.
    pub path: PathBuf,
    /// The functions of vmlinux that are diverted.
    pub functions: Vec<DivertedFunction>,
}

/// Binds and verifies.
pub fn bind(input: &Input, progress: &dyn Progress) -> Result<Bound, Error> {
    let name = anchor(input.image)?;
    let symbol = input.image.unique_symbol(name).ok_or_else(|| binding::Error::NoAnchor(name.into()))?;
    let anchor = (name, symbol.addr);
    let binding = Binding {
        image: input.image,
        boundary: input.boundary,
        addresses: input.addresses,
        anchor: anchor.0,
    };
    progress.begin("binding the scheduler to vmlinux", None);
    let rewritten = rewrite(input.units, &binding)?;
    let scheduler = objects::write(&rewritten.object)?;
    let report = verify(&scheduler, input.units, &binding, &rewritten).map_err(Error::Verify)?;
    progress.end(&format!("{} relocations verified, {} to vmlinux", report.relocations, report.anchored));
    Ok(Bound { rewritten, anchor })
}

/// Links with the runtime.
pub fn build(
    input: &Input,
    bound: &Bound,
    states: &States,
    extension: &Extension,
    progress: &dyn Progress,
) -> Result<Module, Error> {
    let Bound { rewritten, anchor, .. } = bound;
    let scheduler = objects::write(&extension.lead(&rewritten.object))?;
    let anchor = *anchor;
    progress.begin("compiling the runtime", None);
    let header = springboard::header(input.contract, springboard::Anchor { name: anchor.0, addr: anchor.1 });
    let tables = Tables {
        image: input.image,
        boundary: input.boundary,
        targets: &extension.targets(&rewritten.targets),
        classes: &rewritten.classes,
        anchor,
        version: input.version,
        states: &states.carried,
        features: features(input, rewritten, anchor),
        extension,
    }
    .assemble()?;
    let runtime_dir = input.dir.join("runtime");
    write_if_changed(&runtime_dir.join("springboard.h"), header.as_bytes())?;
    write_if_changed(&runtime_dir.join("entries.h"), extension.header().as_bytes())?;
    let mut sources: Vec<(&str, &[u8])> =
        runtime::sources(input.image.machine).filter(|(path, _)| extension.needs(path)).collect();
    sources.push(("tables.S", tables.as_bytes()));
    let compiled = compile_runtime(input.kbuild, &runtime_dir, &sources, &[input.sched])?;
    if let Some(stub) = compiled.iter().find(|o| o.name == "stub") {
        springboard::prove(input.contract, &stub.bytes, input.image).map_err(|e| Error::Stub(Box::new(e)))?;
    }
    let runtime = bind_runtime_objects(input, anchor.0, compiled, rewritten)?;
    progress.end("");

    progress.begin("linking the module", None);
    let name = link::module_name(&scheduler, &runtime);
    let path = link::link(input.kbuild, &input.dir.join("link"), &name, &scheduler, &runtime)?;
    progress.end("");
    let functions = diverted(input, rewritten);
    Ok(Module { name, path, functions })
}

/// Binds the runtime's objects to vmlinux, but for what they have of each other.
fn bind_runtime_objects(
    input: &Input,
    anchor: &str,
    compiled: Vec<RuntimeObject>,
    rewritten: &Rewritten,
) -> Result<Vec<RuntimeObject>, Error> {
    let read = compiled
        .iter()
        .map(|o| {
            let mut object = objects::read(&format!("{}.o", o.name), &o.bytes)?;
            extension::mark(&o.name, &mut object);
            Ok(object)
        })
        .collect::<Result<Vec<_>, objects::Error>>()?;
    let defined: BTreeSet<String> = read
        .iter()
        .chain([&rewritten.object])
        .flat_map(|o| &o.symbols)
        .filter(|s| s.place != Place::Undefined && s.binding != LOCAL)
        .map(|s| s.name.clone())
        // Kbuild supplies this one in the last link.
        .chain([String::from("__this_module")])
        .collect();
    read.into_iter()
        .zip(compiled)
        .map(|(object, compiled)| {
            let bound = bind_runtime(object, input.image, anchor, &defined)?;
            Ok(RuntimeObject { name: compiled.name, bytes: objects::write(&bound)? })
        })
        .collect()
}

/// The diverted functions as kallsyms tells them apart: by name, and by position among those of one name.
fn diverted(input: &Input, rewritten: &Rewritten) -> Vec<DivertedFunction> {
    let mut functions = Vec::new();
    for function in &input.boundary.functions {
        let is_missing = || rewritten.missing.contains(&(function.unit.clone(), function.name.clone()));
        if !matches!(function.fate, Fate::Divert(_) | Fate::Springboard(_)) || is_missing() {
            continue;
        }
        let (position, namesakes) = input.image.symbol_position(&function.name, function.addr);
        let sympos = if namesakes > 1 { position } else { 0 };
        functions.push(DivertedFunction { name: function.name.clone(), sympos });
    }
    functions
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")
}

/// STB_LOCAL.
const LOCAL: u8 = 0;
/// Bytes of a pointer.
const POINTER: u64 = 8;

/// Where both sides keep their feature switches; `None` where they are constants (no CONFIG_SCHED_DEBUG).
fn features(input: &Input, rewritten: &Rewritten, anchor: (&str, Addr)) -> Option<(FeatureSet, FeatureSet)> {
    let theirs = |name: &str| {
        let variable = input.boundary.variables.iter().find(|v| v.name == name && v.in_function.is_none())?;
        Some((anchored(anchor, variable.addr), variable.size))
    };
    let ours = |name: &str| {
        let carried = rewritten.private_data.iter().find(|c| c.name == name)?;
        let symbol = rewritten.object.symbols.iter().find(|s| s.name == carried.symbol)?;
        Some((format!("\"{}\"", carried.symbol), symbol.size))
    };
    Some((feature_set(theirs)?, feature_set(ours)?))
}

fn feature_set(find: impl Fn(&str) -> Option<(String, u64)>) -> Option<FeatureSet> {
    let (bits, bits_bytes) = find("sysctl_sched_features")?;
    let (names, names_bytes) = find("sched_feat_names")?;
    let keys = find("sched_feat_keys").map(|(keys, _)| keys);
    Some(FeatureSet { bits, names, keys, count: names_bytes / POINTER, bits_bytes })
}

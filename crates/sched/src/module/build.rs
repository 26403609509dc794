//! From the units' objects to `scheduler.ko`.

use super::extension::{self, Extension};
use super::link::{self, Kbuild, RuntimeObject, write_if_changed};
use super::runtime::{self, Runtime};
use super::state::States;
use super::tables::{self, FeatureSet, Location, Tables};
use crate::binding::{
    self, Binding, Fault, HandedOut, Rewritten, UnitObject, anchor, bind_runtime, handed_out, rewrite, verify,
};
use crate::boundary::{Boundary, BoundaryFunction, Fate, Sharing, features as feature_variables};
use crate::compile::{self, Commands};
use crate::identity::Addresses;
use crate::springboard::{self, Contract};
use schedswap_host::progress::{Progress, Silent};
use schedswap_kernel::address::Addr;
use schedswap_kernel::objects::{self, Place};
use schedswap_kernel::types;
use schedswap_kernel::vmlinux::Image;
use schedswap_payload::manifest::DivertedFunction;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why the module was not built.
#[derive(Debug, Error)]
pub enum Error {
    /// An object cannot be bound.
    #[error(transparent)]
    Binding(#[from] binding::Error),
    /// What was written is not what was meant.
    #[error("the rewritten scheduler does not pass verification, which is a fault of schedswap: please report it. Nothing was built:\n{}", list(.0))]
    Verify(Vec<Fault>),
    /// The assembled stub does not fit vmlinux's `__schedule`.
    #[error(
        "the stub does not pass its proof against vmlinux's __schedule, which is a fault of schedswap: please report it. Nothing was built"
    )]
    Stub(#[source] Box<springboard::Error>),
    /// An object cannot be read or written.
    #[error(transparent)]
    Objects(#[from] objects::Error),
    /// The tables cannot be written.
    #[error(transparent)]
    Tables(#[from] tables::Error),
    /// The runtime or the tables cannot be compiled.
    #[error(
        "the runtime does not compile for this kernel; it includes kernel/sched/sched.h, so an edit of that may be the cause:\n{0}"
    )]
    Runtime(compile::Error),
    /// The debug information that describes the structures of the tables is damaged.
    #[error(
        "the compiler's debug information of the runtime's structures cannot be read; run `schedswap build` again after deleting .schedswap/build"
    )]
    Structures(#[source] gimli::Error),
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
    /// The frame of its `__schedule`; `None`: it cannot be rebuilt, and `__schedule` stays vmlinux's.
    pub contract: Option<&'a Contract>,
    /// The module build of each unit.
    pub units: &'a [UnitObject],
    /// Functions, by unit and name, that they call in another way than vmlinux does.
    pub called_otherwise: &'a BTreeSet<(String, String)>,
    /// How the kernel's code is compiled.
    pub commands: &'a Commands,
    /// The directory for everything that is made; the linked module is below it.
    pub dir: &'a Path,
    /// The edited kernel source, whose private header the runtime includes.
    pub tree: &'a Path,
    /// Where work dirs share objects of the runtime.
    pub shared: Option<&'a Path>,
    /// Whether a swap rebuilds the queues.
    pub rebuilds: bool,
    /// Shown in sysfs.
    pub version: &'a str,
}

/// The scheduler, bound to vmlinux and verified.
pub struct Bound {
    /// How it was bound.
    pub rewritten: Rewritten,
    /// Addresses of the module's memory that may get out: why it must not be freed once it has run.
    pub handed_out: BTreeSet<HandedOut>,
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
    /// Why its memory must not be freed once it has run, in words; empty if it may.
    pub unproved: Vec<String>,
}

/// Binds and verifies.
///
/// # Errors
/// Something cannot be bound to vmlinux, or what was written does not pass verification.
pub fn bind(input: &Input, progress: &dyn Progress) -> Result<Bound, Error> {
    let name = anchor(input.image)?;
    let symbol = input.image.unique_symbol(name).ok_or_else(|| binding::Error::NoAnchor(name.into()))?;
    let anchor = (name, symbol.addr);
    let binding = Binding {
        image: input.image,
        boundary: input.boundary,
        addresses: input.addresses,
        anchor: anchor.0,
        called_otherwise: input.called_otherwise,
    };
    progress.begin("binding the scheduler to vmlinux", None);
    let rewritten = rewrite(input.units, &binding)?;
    let scheduler = objects::write(&rewritten.object)?;
    let report = verify(&scheduler, input.units, &binding, &rewritten).map_err(Error::Verify)?;
    progress.end(&format!("{} relocations verified, {} to vmlinux", report.relocations, report.anchored));
    let handed_out = handed_out(&rewritten, anchor.0);
    Ok(Bound { rewritten, handed_out, anchor })
}

/// Links with the runtime, which is compiled where [`Runtime::jobs`] has not been done or is out of date.
///
/// # Errors
/// The tables cannot be written or the runtime's headers declare others, the runtime does not compile, the stub does
/// not pass its proof, or Kbuild cannot link the objects.
pub fn build(
    input: &Input,
    bound: &Bound,
    states: &States,
    extension: &Extension,
    progress: &dyn Progress,
) -> Result<Module, Error> {
    let rewritten = &bound.rewritten;
    let scheduler = objects::write(&extension.lead(&rewritten.object))?;
    progress.begin("compiling the runtime", None);
    let compiled = compile_runtime(input, bound, states, extension)?;
    let runtime = bind_runtime_objects(input, bound.anchor.0, compiled, rewritten)?;
    progress.end("");

    progress.begin("linking the module", None);
    let name = link::module_name(&scheduler, &runtime);
    let commands = input.commands;
    let kbuild =
        Kbuild { dir: &commands.cwd, programs: commands.compiler.programs.as_deref(), env: &commands.env };
    let path = link::link(kbuild, &input.dir.join("link"), &name, &scheduler, &runtime)?;
    progress.end("");
    let functions = diverted(input, rewritten);
    Ok(Module { name, path, functions, unproved: unproved(bound) })
}

/// Writes what only this module's build knows, compiles what is out of date, and reads all objects.
fn compile_runtime(
    input: &Input,
    bound: &Bound,
    states: &States,
    extension: &Extension,
) -> Result<Vec<RuntimeObject>, Error> {
    let dir = runtime::directory(input.dir);
    let runtime = Runtime {
        commands: input.commands,
        machine: input.image.machine,
        tree: input.tree,
        dir: &dir,
        shared: input.shared,
    };
    runtime.write().map_err(link::Error::File)?;
    let is_entered_through_it = |f: &BoundaryFunction| matches!(f.fate, Fate::Springboard(_));
    let contract = input.contract.filter(|_| input.boundary.functions.iter().any(is_entered_through_it));
    if let Some(contract) = contract {
        let anchor = springboard::Anchor { name: bound.anchor.0, addr: bound.anchor.1 };
        let header = springboard::header(contract, anchor);
        write_if_changed(&dir.join("springboard.h"), header.as_bytes()).map_err(link::Error::File)?;
    }
    let tables = tables(input, bound, states, extension)?;
    let entries = extension.header();
    for (file, content) in [("entries.h", entries), (runtime::TABLES, tables)] {
        write_if_changed(&dir.join(file), content.as_bytes()).map_err(link::Error::File)?;
    }

    let mut jobs = runtime.jobs();
    jobs.extend(runtime.jobs_of_module(|path| match path.ends_with("/stub.S") {
        true => contract.is_some(),
        false => extension.needs(path),
    }));
    let compiled = compile::compile(input.commands, &jobs, &Silent).map_err(Error::Runtime)?;
    let mut objects = Vec::new();
    for path in compiled.iter().map(|compiled| &compiled.object) {
        let bytes = fs::read(path)
            .map_err(|source| compile::Error::io("read", path, source))
            .map_err(link::Error::File)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if Path::new(runtime::STRUCTURES).file_stem() == path.file_stem() {
            hold_against_headers(&bytes)?;
        } else {
            objects.push(RuntimeObject { name, bytes });
        }
    }
    objects.sort_by(|a, b| a.name.cmp(&b.name));
    if let (Some(contract), Some(stub)) = (contract, objects.iter().find(|o| o.name == "stub")) {
        springboard::prove(contract, &stub.bytes, input.image).map_err(|e| Error::Stub(Box::new(e)))?;
    }
    Ok(objects)
}

/// The first reasons, in words; more of them would say nothing new.
fn unproved(bound: &Bound) -> Vec<String> {
    let reasons =
        bound.handed_out.iter().map(|found| format!("{} hands out the address of {}", found.by, found.what));
    reasons.take(REASONS_MAX).collect()
}

/// How many reasons are kept: what is shown must fit a file of sysfs.
const REASONS_MAX: usize = 10;

fn tables(
    input: &Input,
    bound: &Bound,
    states: &States,
    extension: &Extension,
) -> Result<String, tables::Error> {
    Tables {
        unproved: &unproved(bound),
        image: input.image,
        boundary: input.boundary,
        targets: &extension.targets(&bound.rewritten.targets),
        classes: &bound.rewritten.classes,
        anchor: bound.anchor,
        version: input.version,
        rebuilds: input.rebuilds,
        states: &states.carried,
        features: features(input, &bound.rewritten),
        extension,
    }
    .source()
}

/// Whether the structures that the tables are made of are what the build fills in.
fn hold_against_headers(structures: &[u8]) -> Result<(), Error> {
    let object = objects::read("structures.o", structures)?;
    let types = types::of_object(runtime::STRUCTURES, &object).map_err(Error::Structures)?;
    Ok(tables::agree(&types).map_err(tables::Error::Disagree)?)
}

/// Binds the runtime's objects to vmlinux. What they define for each other is left to the linker.
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

/// The diverted functions as kallsyms tells them apart: by name, and by position among the symbols of that name.
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
fn features(input: &Input, rewritten: &Rewritten) -> Option<(FeatureSet, FeatureSet)> {
    let theirs = |name: &str| {
        let variable = input.boundary.variables.iter().find(|v| v.name == name && v.in_function.is_none())?;
        Some((Location::Vmlinux(variable.addr), variable.size))
    };
    let shared = input.boundary.variables.iter().any(|v| {
        v.name == feature_variables::BITS && v.in_function.is_none() && v.sharing == Sharing::Shared
    });
    let ours = |name: &str| {
        if shared {
            return theirs(name);
        }
        let carried = rewritten.private_data.iter().find(|c| c.name == name)?;
        let symbol = rewritten.object.symbols.iter().find(|s| s.name == carried.symbol)?;
        Some((Location::Module(carried.symbol.clone()), symbol.size))
    };
    Some((feature_set(theirs)?, feature_set(ours)?))
}

fn feature_set(find: impl Fn(&str) -> Option<(Location, u64)>) -> Option<FeatureSet> {
    let (bits, bits_bytes) = find(feature_variables::BITS)?;
    let (names, names_bytes) = find(feature_variables::NAMES)?;
    let keys = find(feature_variables::KEYS).map_or(Location::Null, |(keys, _)| keys);
    let count = u32::try_from(names_bytes / POINTER).ok()?;
    Some(FeatureSet { bits, names, keys, count, bits_bytes: u32::try_from(bits_bytes).ok()? })
}

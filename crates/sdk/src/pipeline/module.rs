//! From the compiled edit to the linked module.

use super::check::Edit;
use super::{Error, Result};
use super::{set, springboard};
use crate::workdir::Workdir;
use schedswap_host::progress::Progress;
use schedswap_kernel::objects::Object;
use schedswap_kernel::vmlinux::Image;
use schedswap_sched::binding::{Rewritten, UnitObject};
use schedswap_sched::boundary::Boundary;
use schedswap_sched::config::Divert;
use schedswap_sched::module::extension::{self, Extension};
use schedswap_sched::module::{self, Module, States};
use schedswap_sched::replaced::Set;

/// A linked module, and what went into it.
pub(super) struct Linked {
    pub image: Image,
    pub boundary: Boundary,
    pub module: Module,
    pub rewritten: Rewritten,
    pub states: States,
    pub set: Set,
}

/// Binds the edited units to vmlinux, and links them with the runtime. `version` is shown in sysfs.
pub(super) fn link(
    work: &Workdir,
    edit: Edit,
    divert: Option<Divert>,
    version: &str,
    progress: &dyn Progress,
) -> Result<Linked> {
    progress.begin("computing what is replaced", None);
    let units: Vec<UnitObject> =
        edit.objects.iter().map(|(unit, object)| UnitObject::new(unit.clone(), object.clone())).collect();
    let (set, mut boundary) = set::compute(work, &edit, &units, divert)?.ok_or(Error::NothingChanged)?;
    let contract = springboard::contract(work, &edit, &units, &set, &mut boundary)?;
    progress.end("");
    let Edit { image, called_otherwise, .. } = edit;
    let commands = work.commands()?;
    let input = module::Input {
        image: &image,
        boundary: &boundary,
        addresses: &work.addresses()?,
        contract: contract.as_ref(),
        units: &units,
        called_otherwise: &called_otherwise,
        commands: &commands,
        dir: &work.build_dir(),
        tree: work.root(),
        shared: work.shared_objects(),
        rebuilds: set.rebuild.is_some(),
        version,
    };
    let bound = module::bind(&input, progress)?;
    let (mut edited, as_released) = module::units_with_state(&units, &bound.rewritten, &boundary);
    edited.extend(extension::units_with_declarations(&units));
    let declarations = module::Declarations {
        edited: &as_declared(work.declarations(&edited, progress)?),
        pristine: &as_declared(work.pristine_declarations(&as_released, progress)?),
    };
    let states = module::states(&units, &bound.rewritten, &boundary, &declarations)?;
    let extension = Extension::of(&image, &boundary, &units, &bound.rewritten, declarations.edited)?;
    let module = module::build(&input, &bound, &states, &extension, progress)?;
    Ok(Linked { module, rewritten: bound.rewritten, states, image, boundary, set })
}

/// Only their debug information is read, so the objects stay as the compiler wrote them.
fn as_declared(objects: Vec<(String, Object)>) -> Vec<UnitObject> {
    objects.into_iter().map(|(unit, object)| UnitObject { unit, object }).collect()
}

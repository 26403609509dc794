//! Which functions a module replaces.

use super::Result;
use super::check::Edit;
use crate::workdir::Workdir;
use schedswap_sched::binding::UnitObject;
use schedswap_sched::boundary::Boundary;
use schedswap_sched::compile::Build;
use schedswap_sched::config::{Divert, Rebuilding};
use schedswap_sched::module::extension;
use schedswap_sched::replaced::{self, Rebuild, Replaced, Set};

/// Computes the set, and the boundary that follows from it. `None`: the edit changes nothing that runs.
pub(super) fn compute(
    work: &Workdir,
    edit: &Edit,
    units: &[UnitObject],
    asked: Option<Divert>,
) -> Result<Option<(Set, Boundary)>> {
    let all = |why_all: Option<String>| Set {
        divert: Divert::All,
        why_all,
        members: vec![],
        added: vec![],
        rebuild: Some(Rebuild::All),
    };
    if asked.unwrap_or(work.config().boundary.divert) == Divert::All {
        return Ok(Some((all(None), edit.boundary.clone())));
    }
    let srcarch = work.commands()?.srcarch;
    if !Build::module_keeps_code(&srcarch) {
        let why = format!(
            "on {srcarch} the code that a module can carry is compiled with other flags than vmlinux's, so the two cannot \
             be mixed"
        );
        return Ok(Some((all(Some(why)), edit.boundary.clone())));
    }
    let Replaced { members, added, boundary, rebuild, is_empty } = replaced(work, edit, units)?;
    let rebuild = match work.config().boundary.rebuild {
        Rebuilding::Needed => rebuild,
        Rebuilding::Always => rebuild.or(Some(Rebuild::Asked)),
    };
    let set = Set { divert: Divert::Changed, why_all: None, members, added, rebuild };
    Ok((!is_empty).then_some((set, boundary)))
}

/// What the edit changes, whatever is replaced.
pub(super) fn replaced(work: &Workdir, edit: &Edit, units: &[UnitObject]) -> Result<Replaced> {
    Ok(replaced::replaced(&replaced::Input {
        boundary: &edit.boundary,
        pristine: &work.pristine(Build::Module)?,
        edited: &edit.objects,
        entry_sizes: &edit.image.entry_sizes,
        followed: &extension::followed(units),
        class_members: &edit.image.class_members,
        runtime: &work.runtime_object()?,
    }))
}

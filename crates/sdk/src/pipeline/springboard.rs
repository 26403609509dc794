//! `__schedule`, which is entered through the springboard. On a kernel where its frame cannot be rebuilt, everything else can
//! be replaced.

use super::check::Edit;
use super::{Error, Result, set};
use crate::workdir::{Springboard, Workdir};
use schedswap_sched::binding::UnitObject;
use schedswap_sched::boundary::{Boundary, BoundaryFunction, Fate, StayReason};
use schedswap_sched::config::Divert;
use schedswap_sched::replaced::Set;
use schedswap_sched::springboard::Contract;

fn is_entered_through_it(function: &BoundaryFunction) -> bool {
    matches!(function.fate, Fate::Springboard(_))
}

/// The contract of the frame. `None`: this kernel has none, and the module does without, because the edit leaves
/// `__schedule` as it is.
///
/// # Errors
/// [`Error::NoSpringboard`] if it does not.
pub(super) fn contract(
    work: &Workdir,
    edit: &Edit,
    units: &[UnitObject],
    set: &Set,
    boundary: &mut Boundary,
) -> Result<Option<Contract>> {
    let why = match work.springboard()? {
        Springboard::Derived(contract) => return Ok(Some(contract)),
        Springboard::Missing { why } => why,
    };
    let Some(function) = boundary.functions.iter_mut().find(|f| is_entered_through_it(f)) else {
        return Ok(None);
    };
    let is_edited = set.divert == Divert::Changed
        || set::replaced(work, edit, units)?.boundary.functions.iter().any(is_entered_through_it);
    if is_edited {
        return Err(Error::NoSpringboard { function: function.name.clone(), why });
    }
    function.fate = Fate::Stay(StayReason::NoSpringboard);
    Ok(None)
}

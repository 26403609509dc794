//! The two builds of each unit.

use super::canonical::Functions;
use crate::boundary::{Boundary, Sharing};
use crate::check::CheckError;
use schedswap_kernel::objects::Object;
use std::collections::{BTreeMap, HashSet};

/// The two builds of one unit.
pub struct UnitBuilds<'a> {
    pub unit: &'a str,
    pub pristine: Functions<'a>,
    pub edited: Functions<'a>,
}

impl<'a> UnitBuilds<'a> {
    /// Puts the two builds of each unit side by side. `entry_sizes` are
    /// [`schedswap_kernel::vmlinux::Image::entry_sizes`], `private` what [`private_variables`] says.
    ///
    /// # Errors
    /// [`CheckError::MissingUnit`] if the edited build lacks a unit of the pristine one.
    pub fn pairs(
        pristine: &'a [(String, Object)],
        edited: &'a [(String, Object)],
        entry_sizes: &BTreeMap<String, u64>,
        private: &'a HashSet<String>,
    ) -> Result<Vec<UnitBuilds<'a>>, CheckError> {
        let mut builds = Vec::new();
        for (unit, object) in pristine {
            let edited = edited.iter().find(|(name, _)| name == unit);
            let (_, edited) = edited.ok_or_else(|| CheckError::MissingUnit { unit: unit.clone() })?;
            builds.push(UnitBuilds {
                unit,
                pristine: Functions::new(object, entry_sizes, private),
                edited: Functions::new(edited, entry_sizes, private),
            });
        }
        Ok(builds)
    }
}

/// Variables of which the module has a copy of its own.
pub fn private_variables(boundary: &Boundary) -> HashSet<String> {
    let private = boundary.variables.iter().filter(|v| matches!(v.sharing, Sharing::Private(_)));
    private.map(|v| v.name.clone()).collect()
}

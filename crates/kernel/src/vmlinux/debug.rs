//! What else the debug information of a vmlinux says: types, prototypes and parameters, for phases that need more than
//! the [`Image`] holds.

use super::dwarf;
use super::error::Error;
use super::image::Image;
use crate::address::Addr;
use crate::types::debug_info::DebugSections;
use crate::types::index::IndexedUnit;
use crate::types::{Layouts, Parameters, parameters, paths};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Units listed for a name. Findings show a few as examples, so more would not be read.
const LISTED: usize = 8;

/// Debug information from which the parameters of functions cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ParametersError {
    /// vmlinux's.
    #[error(transparent)]
    Kernel(#[from] Error),
    /// An object's.
    #[error("the compiler's debug information for the edited source cannot be read")]
    Object(#[source] gimli::Error),
}

impl Layouts {
    /// Reads what the scheduler's units, and those of sidecars, declare.
    ///
    /// # Errors
    /// The debug information is missing or damaged.
    pub fn of_kernel(image: &Image) -> Result<Layouts, Error> {
        let info = dwarf::index(image)?;
        let wanted: Vec<_> = of_the_module(&info, image).collect();
        let units = wanted.par_iter().map(|unit| info.types(unit)).collect::<gimli::Result<Vec<_>>>();
        let mut layouts = Layouts { units: units.map_err(|error| dwarf::malformed(image, error))? };
        layouts.units.sort_by(|a, b| a.unit.cmp(&b.unit));
        Ok(layouts)
    }
}

/// Where the functions of one of the scheduler's units in vmlinux find their parameters, by symbol.
///
/// # Errors
/// The debug information is missing or damaged.
pub fn parameters_of_kernel(image: &Image, unit: &str) -> Result<BTreeMap<String, Parameters>, Error> {
    let info = dwarf::index(image)?;
    let symbols_at = |address: u64| {
        let ids = image.functions_entered_at(Addr(address));
        ids.iter().map(|id| image.symbol(*id).name.clone()).collect()
    };
    let mut found = BTreeMap::new();
    for indexed in of_the_module(&info, image).filter(|indexed| info.name_of(indexed) == unit) {
        let read = parameters::read(&info, indexed, symbols_at);
        found.extend(read.map_err(|error| dwarf::malformed(image, error))?);
    }
    Ok(found)
}

/// For each of the names (tags and typedefs) that a unit outside the scheduler fully describes: such units, a few
/// of them.
///
/// # Errors
/// The debug information is missing or damaged.
pub fn defined_elsewhere(
    image: &Image,
    names: &BTreeSet<String>,
) -> Result<BTreeMap<String, BTreeSet<String>>, Error> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let info = dwarf::index(image)?;
    // Sidecars count as outside: only some of their functions are replaced.
    let is_outside = |unit: &&IndexedUnit<'_>| !paths::is_below_scheduler(info.name_of(unit));
    let outside: Vec<_> = info.index.units.iter().filter(is_outside).collect();
    let found = outside
        .par_iter()
        .map(|unit| Ok((info.name_of(unit), described(&info, unit, names)?)))
        .collect::<gimli::Result<Vec<_>>>()
        .map_err(|error| dwarf::malformed(image, error))?;
    let mut by_name: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (unit, found) in found {
        for name in found {
            let units = by_name.entry(name).or_default();
            if units.len() < LISTED {
                units.insert(unit.to_owned());
            }
        }
    }
    Ok(by_name)
}

/// Which of the names a unit fully describes.
fn described<'a>(
    info: &DebugSections<'a>,
    unit: &IndexedUnit<'a>,
    names: &BTreeSet<String>,
) -> gimli::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    info.outline(unit, |named| {
        if let Ok(name) = std::str::from_utf8(named.name.slice())
            && !named.is_declaration
            && names.contains(name)
        {
            found.insert(name.to_owned());
        }
    })?;
    Ok(found)
}

/// The scheduler's units and sidecars.
fn of_the_module<'i, 'a>(
    info: &'i DebugSections<'a>,
    image: &'i Image,
) -> impl Iterator<Item = &'i IndexedUnit<'a>> {
    let is_wanted =
        |indexed: &&IndexedUnit<'a>| image.units.iter().any(|unit| unit.name == info.name_of(indexed));
    info.index.units.iter().filter(is_wanted)
}

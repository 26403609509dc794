//! Which units outside the scheduler know a structure's members.

use crate::vmlinux::{self, Image, debug};
use gimli::constants as dw;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Units listed for a name; more say nothing new.
const LISTED: usize = 8;

/// For each of the names (tags and typedefs) that a unit outside the scheduler fully describes: such units, a few
/// of them.
///
/// # Errors
/// The debug information is missing or damaged.
pub fn defined_elsewhere(
    image: &Image,
    names: &BTreeSet<String>,
) -> Result<BTreeMap<String, BTreeSet<String>>, vmlinux::Error> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let info = debug::Units::of(image)?;
    let others: Vec<_> = info.others().collect();
    let found = others
        .par_iter()
        .map(|(name, indexed)| Ok((name, described(&info.dwarf, indexed.header, names)?)))
        .collect::<gimli::Result<Vec<_>>>()
        .map_err(|error| debug::malformed(image, error))?;
    let mut by_name: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (unit, found) in found {
        for name in found {
            let units = by_name.entry(name).or_default();
            if units.len() < LISTED {
                units.insert((*unit).clone());
            }
        }
    }
    Ok(by_name)
}

/// Which of the names a unit fully describes. Only entries at the top level are looked at: structures of
/// headers are there.
fn described<'a>(
    dwarf: &super::read::Dwarf<'a>,
    header: gimli::UnitHeader<super::read::Slice<'a>>,
    names: &BTreeSet<String>,
) -> gimli::Result<BTreeSet<String>> {
    let unit = dwarf.unit(header)?;
    let mut found = BTreeSet::new();
    let mut entries = unit.entries_raw(None)?;
    let mut entry = gimli::DebuggingInformationEntry::null();
    while !entries.is_empty() {
        let depth = entries.next_depth();
        let mut ahead = entries.clone();
        let Some(abbreviation) = ahead.read_abbreviation()? else {
            entries = ahead;
            continue;
        };
        let is_wanted = matches!(
            abbreviation.tag(),
            dw::DW_TAG_structure_type
                | dw::DW_TAG_union_type
                | dw::DW_TAG_enumeration_type
                | dw::DW_TAG_typedef
        );
        if depth != 1 || !is_wanted {
            ahead.skip_attributes(abbreviation.attributes())?;
            entries = ahead;
            continue;
        }
        entries.read_entry(&mut entry)?;
        let is_declaration = entry.attr_value(dw::DW_AT_declaration).is_some();
        let Some(name) = entry.attr_value(dw::DW_AT_name).filter(|_| !is_declaration) else { continue };
        let name = dwarf.attr_string(&unit, name)?;
        if let Ok(name) = std::str::from_utf8(name.slice())
            && names.contains(name)
        {
            found.insert(name.to_owned());
        }
    }
    Ok(found)
}

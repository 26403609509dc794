//! SS114: addresses of functions that nothing may call by address, where the processor enforces indirect-branch
//! tracking.

use super::explain;
use super::finding::finding;
use super::finding::{Code, Finding};
use super::source::{Place, Sources};
use crate::binding::{self, Taken, addresses_taken};
use schedswap_kernel::objects::Object;
use std::collections::BTreeSet;

/// The addresses that the edit takes anew of functions of which `is_sealed` says so: by unit and function.
pub fn newly_taken(
    pristine: &[(String, Object)],
    edited: &[(String, Object)],
    sources: &Sources,
    is_sealed: impl Fn(&str, &Taken) -> bool,
) -> Result<Vec<Finding>, binding::Error> {
    let mut before = BTreeSet::new();
    for (unit, object) in pristine {
        before.extend(addresses_taken(unit, object)?);
    }
    let mut findings = Vec::new();
    for (unit, object) in edited {
        for taken in addresses_taken(unit, object)? {
            if before.contains(&taken) || !is_sealed(unit, &taken) {
                continue;
            }
            let place = sources.edited.place_of(&taken.by, unit);
            let place = place.unwrap_or(Place { file: unit.clone(), line: 0 });
            findings.push(finding(
                Code::TakesSealed,
                &taken.function,
                place,
                explain::takes_sealed(&taken.by),
            ));
        }
    }
    Ok(findings)
}

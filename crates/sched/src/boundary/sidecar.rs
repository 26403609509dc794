//! Functions outside the scheduler that are replaced with it.

use super::explain::stay;
use super::{BoundaryFunction, Fate};
use crate::config::{At, Config, Sidecar, hint};
use schedswap_kernel::vmlinux::{Image, Unit};
use std::collections::BTreeSet;

/// Most functions named in a message.
const SHOWN: usize = 8;

/// The sidecars that the configuration names and that cannot be replaced, each with why and what to do.
pub fn refused(image: &Image, config: &Config, functions: &[BoundaryFunction]) -> Vec<(At, String)> {
    let why = |Sidecar { function, file }: &Sidecar| {
        let Some(unit) = image.units.iter().find(|unit| unit.name == file.name) else {
            return Some("vmlinux was not read with that unit".to_owned());
        };
        let own: Vec<_> = unit.functions.iter().filter(|f| f.source_name == function.name).collect();
        if own.is_empty() {
            return Some(why_missing(image, unit, &function.name));
        }
        let fate = |f: &BoundaryFunction| f.unit == unit.name && own.iter().any(|o| o.addr == f.addr);
        functions.iter().filter(|f| fate(f)).find_map(|f| match &f.fate {
            Fate::Stay(reason) => Some(stay(reason)),
            _ => None,
        })
    };
    let refused = config.sidecar.iter().filter_map(|sidecar| {
        let what = format!(
            "{} of {} cannot be a sidecar: {}",
            sidecar.function.name,
            sidecar.file.name,
            why(sidecar)?
        );
        Some((sidecar.function.at, what))
    });
    refused.collect()
}

fn why_missing(image: &Image, unit: &Unit, name: &str) -> String {
    let copies = unit.inlined.iter().chain(&image.inlined_outside).filter(|copy| copy.name == name);
    let holders: BTreeSet<&str> = copies.map(|copy| copy.into.as_str()).collect();
    if !holders.is_empty() {
        let shown: Vec<&str> = holders.iter().take(SHOWN).copied().collect();
        return format!("the compiler inlined it into {}; name those that shall change", shown.join(", "));
    }
    let in_unit =
        image.units.iter().find(|u| u.functions.iter().any(|function| function.source_name == name));
    let in_file = || {
        let file = image.symbols_named(name).iter().find_map(|id| image.symbol(*id).file)?;
        Some(image.symbol(file).name.clone())
    };
    match in_unit.map(|unit| unit.name.clone()).or_else(in_file) {
        Some(place) => format!("the unit has no such function; there is one of that name in {place}"),
        None => {
            let near = hint(name, unit.functions.iter().map(|function| function.source_name.as_str()));
            format!("the unit has no such function{near}")
        }
    }
}

//! Functions outside the scheduler that are replaced with it.

use super::Error;
use crate::vmlinux::{Image, Unit};
use std::collections::BTreeSet;

/// Most functions named in a message.
const SHOWN: usize = 8;

/// Refuses a name of which the unit has no code of its own.
pub fn refuse_missing(image: &Image, unit: &Unit) -> Result<(), Error> {
    let names = unit.sidecar.iter().flatten();
    let has = |name: &str| unit.functions.iter().any(|function| function.source_name == *name);
    match names.into_iter().find(|name| !has(name)) {
        Some(name) => Err(Error::Sidecar {
            unit: unit.name.clone(),
            function: name.clone(),
            why: why_missing(image, unit, name),
        }),
        None => Ok(()),
    }
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
    let elsewhere = in_unit.map(|unit| unit.name.clone()).or_else(in_file);
    let elsewhere = elsewhere.map(|place| format!("; there is one of that name in {place}"));
    format!("the unit has no such function{}", elsewhere.unwrap_or_default())
}

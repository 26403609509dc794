//! SS109: variants that the compiler makes of functions (`.isra.0`, `.constprop.0`, `.part.0`). The compiler chooses how
//! they are called for the callers that it sees, and may choose differently after any edit of either.

use super::frozen::{Frozen, is_replaced};
use crate::boundary::{Boundary, BoundaryFunction, Fate, StayReason};
use crate::check::compare::{Sources, UnitBuilds};
use crate::check::finding::{Code, Finding, finding};
use crate::check::follow;
use crate::check::words::explain;
use schedswap_kernel::objects::Object;
use schedswap_kernel::types::{Parameters, parameters_of_object};
use schedswap_kernel::vmlinux::{Image, ParametersError, parameters_of_kernel};
use std::collections::BTreeSet;

/// Whether a name is a variant's.
pub fn is_variant(name: &str) -> bool {
    name.contains('.')
}

/// The name in the source.
pub fn source_name(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// New variants of functions that stay in vmlinux, which code of the module calls.
pub fn new_variants(
    builds: &[UnitBuilds],
    objects: &[(String, Object)],
    boundary: &Boundary,
    sources: &Sources,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for unit in builds {
        let Some((_, object)) = objects.iter().find(|(name, _)| name == unit.unit) else { continue };
        for symbol in unit.edited.carried_symbols().filter(|symbol| is_variant(&symbol.name)) {
            let name = symbol.name.as_str();
            if unit.pristine.has(name) || boundary.function(unit.unit, name).is_some() {
                continue;
            }
            let of = |f: &&BoundaryFunction| f.unit == unit.unit && source_name(&f.name) == source_name(name);
            let Some((function, reason)) = boundary.functions.iter().filter(of).find_map(stays) else {
                continue;
            };
            if calls_from_the_module(object, unit.unit, name, boundary) {
                let place = sources.place(&function.decl_file, function.decl_line);
                let text = explain::new_variant(source_name(name), reason);
                findings.push(finding(Code::ChangedVariant, name, place, text));
            }
        }
    }
    findings
}

fn stays(function: &BoundaryFunction) -> Option<(&BoundaryFunction, &StayReason)> {
    match &function.fate {
        Fate::Stay(StayReason::Init | StayReason::OverriddenWeak) => None,
        Fate::Stay(reason) => Some((function, reason)),
        _ => None,
    }
}

/// Whether a function that the module has refers to another of its unit.
pub fn calls_from_the_module(object: &Object, unit: &str, name: &str, boundary: &Boundary) -> bool {
    follow::users(object, name).iter().any(|user| {
        let known = boundary.function(unit, user);
        user != name && !known.is_some_and(|user| matches!(user.fate, Fate::Stay(_)))
    })
}

/// Variants that code in vmlinux still calls, and that now take their parameters elsewhere.
///
/// # Errors
/// The debug information cannot be read.
pub fn changed_conventions(
    image: &Image,
    boundary: &Boundary,
    frozen: &Frozen,
    declarations: &[(String, Object)],
    sources: &Sources,
) -> Result<Vec<Finding>, ParametersError> {
    let mut findings = Vec::new();
    for (unit, object) in declarations {
        let wanted: Vec<(&BoundaryFunction, &BTreeSet<String>)> = boundary
            .functions
            .iter()
            .filter(|f| f.unit == *unit && is_variant(&f.name) && is_replaced(f))
            .filter_map(|f| Some((f, frozen.staying_callers.get(&f.addr)?)))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let before = parameters_of_kernel(image, unit)?;
        let after = parameters_of_object(object).map_err(ParametersError::Object)?;
        for (function, users) in wanted {
            let (Some(was), Some(is)) = (before.get(&function.name), after.get(&function.name)) else {
                continue;
            };
            if was != is {
                let users = explain::list(users).unwrap_or_default();
                let text = explain::changed_convention(&words(was), &words(is), &users);
                let place = sources.place(&function.decl_file, function.decl_line);
                findings.push(finding(Code::ChangedVariant, &function.name, place, text));
            }
        }
    }
    Ok(findings)
}

/// Variants, by unit and name, that compile differently, and that take their parameters elsewhere than vmlinux's do. Their
/// callers are all in the module, or [`changed_conventions`] refuses the edit.
///
/// # Errors
/// The debug information cannot be read.
pub fn called_otherwise(
    image: &Image,
    boundary: &Boundary,
    declarations: &[(String, Object)],
    differs: impl Fn(&str, &str) -> bool,
) -> Result<BTreeSet<(String, String)>, ParametersError> {
    let mut found = BTreeSet::new();
    for (unit, object) in declarations {
        let of_unit = boundary.functions.iter().filter(|f| f.unit == *unit && is_replaced(f));
        let variants: Vec<_> =
            of_unit.filter(|f| is_variant(&f.name) && differs(unit, &f.name)).map(|f| &f.name).collect();
        if variants.is_empty() {
            continue;
        }
        let before = parameters_of_kernel(image, unit)?;
        let after = parameters_of_object(object).map_err(ParametersError::Object)?;
        let is_otherwise = |name: &&&String| before.get(**name) != after.get(**name);
        found.extend(variants.iter().filter(is_otherwise).map(|name| (unit.clone(), (*name).clone())));
    }
    Ok(found)
}

fn words(parameters: &Parameters) -> String {
    let each: Vec<String> =
        parameters.iter().map(|parameter| format!("{} {}", parameter.name, parameter.place)).collect();
    if each.is_empty() { "nothing".to_owned() } else { each.join(", ") }
}

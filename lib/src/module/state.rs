//! Which of a module's variables the next version takes over: those that only modules have, that change, and that
//! hold values alone. A pointer may lead into the module that goes.

use super::declared::{Declared, Shape, declared};
use super::tables::State;
use crate::binding::{Rewritten, UnitObject, local_static};
use crate::boundary::Boundary;
use crate::objects::{Object, Place, Section};
use object::elf;
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of the variables that a switch of versions could hand over.
#[derive(Default)]
pub struct States {
    /// Handed over to a version that declares the same.
    pub carried: Vec<State>,
    /// Not handed over: unit and name, and why.
    pub left: Vec<String>,
}

/// A new variable that changes: unit, symbol in the unit's object, symbol in the module.
struct New<'a> {
    unit: &'a str,
    symbol: &'a str,
    in_module: &'a str,
    size: u64,
    is_per_cpu: bool,
}

/// The units that have such a variable: whose declarations are wanted.
pub fn units_with_state(
    units: &[UnitObject],
    rewritten: &Rewritten,
    boundary: &Boundary,
) -> BTreeSet<String> {
    new_variables(units, rewritten, boundary).into_iter().map(|new| new.unit.to_owned()).collect()
}

/// `declarations`: those units, compiled with debug information.
///
/// # Errors
/// The debug information of a unit is damaged.
pub fn states(
    units: &[UnitObject],
    rewritten: &Rewritten,
    boundary: &Boundary,
    declarations: &[UnitObject],
) -> gimli::Result<States> {
    let mut by_unit = BTreeMap::new();
    for unit in declarations {
        by_unit.insert(unit.unit.as_str(), declared(&unit.object)?);
    }
    let mut states = States::default();
    for new in new_variables(units, rewritten, boundary) {
        let candidates = by_unit.get(new.unit).map_or(&[][..], Vec::as_slice);
        let Some(declared) = candidates.iter().find(|d| d.symbol == new.symbol) else {
            states.left.push(format!("{} in {}: its type is not known", new.symbol, new.unit));
            continue;
        };
        let name = full_name(new.unit, declared);
        let namesakes = candidates.iter().filter(|d| full_name(new.unit, d) == name).count();
        match &declared.shape {
            _ if namesakes > 1 => {
                states.left.push(format!("{name}: there is more than one of that name"));
            }
            Shape::Plain { hash } => states.carried.push(State {
                symbol: new.in_module.to_owned(),
                name,
                size: new.size,
                type_hash: *hash,
                is_per_cpu: new.is_per_cpu,
            }),
            Shape::Pointer { at } => {
                states.left.push(format!("{name}: {}{at} is a pointer", declared.name));
            }
            Shape::Unknown => states.left.push(format!("{name}: its type is not fully described")),
        }
    }
    Ok(states)
}

/// The same in every version, whatever numbers the compiler gives its symbols.
fn full_name(unit: &str, declared: &Declared) -> String {
    match &declared.function {
        Some(function) => format!("{unit}:{function}:{}", declared.name),
        None => format!("{unit}:{}", declared.name),
    }
}

fn new_variables<'a>(units: &'a [UnitObject], rewritten: &'a Rewritten, boundary: &Boundary) -> Vec<New<'a>> {
    // A private variable that vmlinux has too is none of the edit's.
    let in_vmlinux: BTreeSet<(&str, &str)> =
        boundary.variables.iter().map(|v| (v.unit.as_str(), v.name.as_str())).collect();
    let mut found = Vec::new();
    for carried in &rewritten.private_data {
        let base = local_static(&carried.name).unwrap_or(&carried.name);
        let Some(unit) = units.iter().find(|u| u.unit == carried.unit) else { continue };
        let Some((section, size)) = section_of(&unit.object, &carried.name) else { continue };
        let changes = section.flags & elf::SHF_WRITE.0 != 0;
        // `.data.once` holds what was said already, which is not the policy's; what is declared to the runtime
        // goes ways of its own.
        let is_policy = section.name != ".data.once" && !section.name.starts_with(".schedswap.");
        if changes && is_policy && !in_vmlinux.contains(&(carried.unit.as_str(), base)) {
            found.push(New {
                unit: &unit.unit,
                symbol: &carried.name,
                in_module: &carried.symbol,
                size,
                is_per_cpu: section.name.starts_with(".data..percpu"),
            });
        }
    }
    found
}

fn section_of<'o>(object: &'o Object, symbol: &str) -> Option<(&'o Section, u64)> {
    object.symbols.iter().filter(|s| s.name == symbol).find_map(|s| match s.place {
        Place::Section(section) if s.kind == elf::STT_OBJECT.0 => Some((object.section(section), s.size)),
        _ => None,
    })
}

//! The descriptors among the edited units' data.

use super::{Error, Kind, entries};
use crate::binding::{Rewritten, UnitObject};
use object::elf;
use schedswap_kernel::objects::{Place, Symbol};
use std::collections::BTreeSet;

/// Section of `struct schedswap_state`s.
const STATES: &str = ".schedswap.state";
/// Section of `struct ss_hook`s.
const HOOKS: &str = ".schedswap.hooks";
/// What the macros append to a state's name.
const SUFFIX: &str = "__state";

/// A `struct schedswap_state`.
pub(super) struct StateDescriptor {
    pub unit: String,
    pub name: String,
    pub kind: Kind,
    pub symbol: String,
}

pub(super) struct Descriptors {
    pub states: Vec<StateDescriptor>,
    pub hooks: Vec<String>,
}

/// The units whose debug information is wanted: those that declare a state.
pub fn units_with_declarations(units: &[UnitObject]) -> BTreeSet<String> {
    units.iter().filter(|u| symbols_in(u, STATES).next().is_some()).map(|u| u.unit.clone()).collect()
}

/// The functions in which the runtime has to follow the objects that the units declare states of.
pub fn followed(units: &[UnitObject]) -> Vec<&'static str> {
    let descriptors = units.iter().flat_map(|unit| symbols_in(unit, STATES));
    let kinds: BTreeSet<Kind> = descriptors.filter_map(|(_, data)| kind_in(data)).collect();
    kinds.into_iter().flat_map(entries::of_kind).collect()
}

fn kind_in(data: &[u8]) -> Option<Kind> {
    match number_in(data) {
        1 => Some(Kind::Task),
        2 => Some(Kind::Group),
        3 => Some(Kind::Rq),
        _ => None,
    }
}

fn number_in(data: &[u8]) -> u32 {
    data.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Objects in a section of that name, by address, each with the section's bytes from there on.
fn symbols_in<'u>(unit: &'u UnitObject, section: &str) -> impl Iterator<Item = (&'u Symbol, &'u [u8])> {
    let mut found: Vec<(&Symbol, &[u8])> = unit
        .object
        .symbols
        .iter()
        .filter(|symbol| symbol.kind == elf::STT_OBJECT.0)
        .filter_map(|symbol| match symbol.place {
            Place::Section(id) if unit.object.section(id).name == section => {
                Some((symbol, unit.object.section(id).data.get(symbol.value as usize..).unwrap_or_default()))
            }
            _ => None,
        })
        .collect();
    found.sort_by_key(|(symbol, _)| symbol.value);
    found.into_iter()
}

impl Descriptors {
    pub fn of(units: &[UnitObject], rewritten: &Rewritten) -> Result<Descriptors, Error> {
        let mut found = Descriptors { states: Vec::new(), hooks: Vec::new() };
        let in_module = |unit: &str, name: &str| {
            let carried = rewritten.private_data.iter().find(|c| c.unit == unit && c.name == name);
            carried.map(|c| c.symbol.clone()).unwrap_or_default()
        };
        for unit in units {
            for (symbol, data) in symbols_in(unit, STATES) {
                let name = symbol.name.strip_suffix(SUFFIX).unwrap_or(&symbol.name).to_owned();
                let Some(kind) = kind_in(data) else {
                    let found = number_in(data);
                    return Err(Error::Kind { state: name, unit: unit.unit.clone(), found });
                };
                let symbol = in_module(&unit.unit, &symbol.name);
                found.states.push(StateDescriptor { unit: unit.unit.clone(), name, kind, symbol });
            }
            found
                .hooks
                .extend(symbols_in(unit, HOOKS).map(|(symbol, _)| in_module(&unit.unit, &symbol.name)));
        }
        Ok(found)
    }
}

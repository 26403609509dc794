//! Where functions find their parameters when they are entered. For a variant that the compiler made of a function,
//! only this tells how it is called.

use super::debug_info::{DebugSections, Die, Dwarf, Unit};
use super::index::IndexedUnit;
use gimli::AttributeValue;
use gimli::constants as dw;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// One parameter of a function as compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parameter {
    /// Its name in the source.
    pub name: String,
    /// Where it is when the function is entered.
    pub place: ParameterPlace,
}

/// Where a parameter is when a function is entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParameterPlace {
    /// In this register (DWARF's number).
    Register(u16),
    /// In memory, by the stack pointer.
    Stack,
    /// It is not passed: it is not used, it has one value only, or only parts of it are passed.
    NotPassed,
}

impl fmt::Display for ParameterPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParameterPlace::Register(number) => write!(f, "in register {number}"),
            ParameterPlace::Stack => f.write_str("on the stack"),
            ParameterPlace::NotPassed => f.write_str("not passed"),
        }
    }
}

/// A function's parameters, in order.
pub type Parameters = Vec<Parameter>;

/// The function whose parameters are being read.
struct Current {
    depth: isize,
    start: u64,
    symbols: Vec<String>,
}

/// Reads the functions of a unit, by symbol. `symbols_at` says which functions are entered at an address.
pub(crate) fn read<'a>(
    info: &DebugSections<'a>,
    indexed: &IndexedUnit<'a>,
    symbols_at: impl Fn(u64) -> Vec<String>,
) -> gimli::Result<BTreeMap<String, Parameters>> {
    let dwarf = &info.dwarf;
    let unit = &dwarf.unit(indexed.header)?;
    // Code may come before the abstract function that it completes, so names are read first.
    let names = names(dwarf, unit)?;
    let mut found = BTreeMap::new();
    let mut current: Option<Current> = None;
    let mut entries = unit.entries();
    while let Some(die) = entries.next_dfs()? {
        if current.as_ref().is_some_and(|function| die.depth() <= function.depth) {
            current = None;
        }
        if die.tag() == dw::DW_TAG_subprogram {
            for start in starts(dwarf, unit, die)? {
                let symbols: Vec<String> =
                    symbols_at(start).into_iter().filter(|s| !s.contains(".cold")).collect();
                if !symbols.is_empty() {
                    symbols.iter().for_each(|s| drop(found.insert(s.clone(), Vec::new())));
                    current = Some(Current { depth: die.depth(), start, symbols });
                    break;
                }
            }
        } else if let Some(function) = &current
            && die.tag() == dw::DW_TAG_formal_parameter
            && die.depth() == function.depth + 1
        {
            let origin = match die.attr_value(dw::DW_AT_abstract_origin) {
                Some(AttributeValue::UnitRef(offset)) => offset.0,
                _ => die.offset().0,
            };
            let name = names.get(&origin).cloned().unwrap_or_default();
            let place = place(dwarf, unit, die, function.start)?;
            for symbol in &function.symbols {
                found.entry(symbol.clone()).or_default().push(Parameter { name: name.clone(), place });
            }
        }
    }
    Ok(found)
}

/// Names of parameters, by the offsets of their entries in the unit.
fn names<'a>(dwarf: &Dwarf<'a>, unit: &Unit<'a>) -> gimli::Result<HashMap<usize, String>> {
    let mut names = HashMap::new();
    let mut entries = unit.entries();
    while let Some(die) = entries.next_dfs()? {
        if die.tag() == dw::DW_TAG_formal_parameter
            && let Some(name) = die.attr_value(dw::DW_AT_name)
        {
            let name = dwarf.attr_string(unit, name)?.to_string_lossy().into_owned();
            names.insert(die.offset().0, name);
        }
    }
    Ok(names)
}

/// Where a function's ranges begin.
fn starts<'a>(dwarf: &Dwarf<'a>, unit: &Unit<'a>, die: &Die<'a>) -> gimli::Result<Vec<u64>> {
    let mut starts = Vec::new();
    if let Some(value) = die.attr_value(dw::DW_AT_low_pc) {
        starts.extend(dwarf.attr_address(unit, value)?);
    }
    if let Some(value) = die.attr_value(dw::DW_AT_ranges)
        && let Some(mut ranges) = dwarf.attr_ranges(unit, value)?
    {
        while let Some(range) = ranges.next()? {
            starts.push(range.begin);
        }
    }
    Ok(starts)
}

fn place<'a>(dwarf: &Dwarf<'a>, unit: &Unit<'a>, die: &Die<'a>, start: u64) -> gimli::Result<ParameterPlace> {
    let Some(value) = die.attr_value(dw::DW_AT_location) else { return Ok(ParameterPlace::NotPassed) };
    let expression = match value {
        AttributeValue::Exprloc(expression) => Some(expression),
        value => {
            let mut at_entry = None;
            if let Some(mut list) = dwarf.attr_locations(unit, value)? {
                while let Some(location) = list.next()? {
                    if location.range.begin == start {
                        at_entry = Some(location.data);
                        break;
                    }
                }
            }
            at_entry
        }
    };
    let Some(expression) = expression else { return Ok(ParameterPlace::NotPassed) };
    Ok(match expression.operations(unit.encoding()).next()? {
        Some(gimli::Operation::Register { register }) => ParameterPlace::Register(register.0),
        Some(gimli::Operation::FrameOffset { .. } | gimli::Operation::RegisterOffset { .. }) => {
            ParameterPlace::Stack
        }
        _ => ParameterPlace::NotPassed,
    })
}

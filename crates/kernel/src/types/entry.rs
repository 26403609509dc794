//! Where functions find their parameters when they are entered. Of a variant that the compiler made of a function,
//! nothing else tells how it is called.

use super::object::{load, placed, relocated_debug_sections};
use super::read::{Dwarf, Slice, Unit};
use crate::objects::{Object, Place};
use crate::vmlinux::{self, Image, debug};
use gimli::constants as dw;
use gimli::{AttributeValue, DebuggingInformationEntry};
use object::elf;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

type Entry<'a> = DebuggingInformationEntry<Slice<'a>>;

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
    /// It is not passed: it is not used, has one value only, or only parts of it are passed.
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

/// Debug information that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// vmlinux's.
    #[error(transparent)]
    Kernel(#[from] vmlinux::Error),
    /// An object's.
    #[error("the compiler's debug information for the edited source cannot be read")]
    Object(#[source] gimli::Error),
}

/// The functions of one of the scheduler's units in vmlinux, by symbol.
///
/// # Errors
/// The debug information is missing or damaged.
pub fn parameters_of_kernel(
    image: &Image,
    unit: &str,
) -> Result<BTreeMap<String, Parameters>, vmlinux::Error> {
    let info = debug::Units::of(image)?;
    let mut found = BTreeMap::new();
    for (_, indexed) in info.of_the_module().filter(|(name, _)| name == unit) {
        let read = || {
            let unit = info.dwarf.unit(indexed.header)?;
            functions(&info.dwarf, &unit, |address| {
                let ids = image.functions_entered_at(crate::address::Addr(address));
                ids.iter().map(|id| image.symbol(*id).name.clone()).collect()
            })
        };
        found.extend(read().map_err(|error| debug::malformed(image, error))?);
    }
    Ok(found)
}

/// The functions of an object compiled with debug information, by symbol.
///
/// # Errors
/// The debug information is damaged.
pub fn parameters_of_object(object: &Object) -> gimli::Result<BTreeMap<String, Parameters>> {
    let sections = relocated_debug_sections(object);
    let dwarf = load(&sections)?;
    let mut headers = dwarf.units();
    let Some(header) = headers.next()? else { return Ok(BTreeMap::new()) };
    let unit = dwarf.unit(header)?;
    functions(&dwarf, &unit, |address| {
        let Some((section, offset)) = placed(address) else { return Vec::new() };
        let here = object
            .symbols
            .iter()
            .filter(|s| s.place == Place::Section(section) && s.value == offset && s.kind == elf::STT_FUNC.0);
        here.map(|s| s.name.clone()).collect()
    })
}

fn functions<'a>(
    dwarf: &Dwarf<'a>,
    unit: &Unit<'a>,
    symbols_at: impl Fn(u64) -> Vec<String>,
) -> gimli::Result<BTreeMap<String, Parameters>> {
    let mut found = BTreeMap::new();
    let mut names: HashMap<usize, String> = HashMap::new();
    // The function being read: depth, entry, symbols.
    let mut current: Option<(isize, u64, Vec<String>)> = None;
    // Code may come before the abstract function that it completes, so names are read first.
    let mut entries = unit.entries();
    while let Some(entry) = entries.next_dfs()? {
        if entry.tag() == dw::DW_TAG_formal_parameter
            && let Some(name) = entry.attr_value(dw::DW_AT_name)
        {
            let name = dwarf.attr_string(unit, name)?.to_string_lossy().into_owned();
            names.insert(entry.offset().0, name);
        }
    }
    let mut entries = unit.entries();
    while let Some(entry) = entries.next_dfs()? {
        if current.as_ref().is_some_and(|(depth, ..)| entry.depth() <= *depth) {
            current = None;
        }
        if entry.tag() == dw::DW_TAG_subprogram {
            for start in starts(dwarf, unit, entry)? {
                let symbols: Vec<String> =
                    symbols_at(start).into_iter().filter(|s| !s.contains(".cold")).collect();
                if !symbols.is_empty() {
                    symbols.iter().for_each(|s| drop(found.insert(s.clone(), Vec::new())));
                    current = Some((entry.depth(), start, symbols));
                    break;
                }
            }
        } else if let Some((depth, start, symbols)) = &current
            && entry.tag() == dw::DW_TAG_formal_parameter
            && entry.depth() == depth + 1
        {
            let origin = match entry.attr_value(dw::DW_AT_abstract_origin) {
                Some(AttributeValue::UnitRef(offset)) => offset.0,
                _ => entry.offset().0,
            };
            let name = names.get(&origin).cloned().unwrap_or_default();
            let place = place(dwarf, unit, entry, *start)?;
            for symbol in symbols {
                found.entry(symbol.clone()).or_default().push(Parameter { name: name.clone(), place });
            }
        }
    }
    Ok(found)
}

/// Where a function's ranges begin.
fn starts<'a>(dwarf: &Dwarf<'a>, unit: &Unit<'a>, entry: &Entry<'a>) -> gimli::Result<Vec<u64>> {
    let mut starts = Vec::new();
    if let Some(value) = entry.attr_value(dw::DW_AT_low_pc) {
        starts.extend(dwarf.attr_address(unit, value)?);
    }
    if let Some(value) = entry.attr_value(dw::DW_AT_ranges)
        && let Some(mut ranges) = dwarf.attr_ranges(unit, value)?
    {
        while let Some(range) = ranges.next()? {
            starts.push(range.begin);
        }
    }
    Ok(starts)
}

fn place<'a>(
    dwarf: &Dwarf<'a>,
    unit: &Unit<'a>,
    entry: &Entry<'a>,
    start: u64,
) -> gimli::Result<ParameterPlace> {
    let Some(value) = entry.attr_value(dw::DW_AT_location) else { return Ok(ParameterPlace::NotPassed) };
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

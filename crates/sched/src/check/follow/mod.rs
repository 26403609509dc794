//! Where the address of a function or variable goes, in compiled code and in data.
//!
//! Code is followed by what each instruction does, in the terms of [`schedswap_kernel::arch::step`], which are the same
//! for all machines. What is not understood is said to be unknown.
//!
//! | file | what |
//! |---|---|
//! | `code` | an object's code: functions with their cold parts, instructions, what relocations in them refer to |
//! | `walk` | a register that holds an address, from instruction to instruction |
//! | `effects` | what one instruction makes of an address |

mod code;
mod effects;
#[cfg(test)]
mod tests;
mod walk;

use crate::binding::{carries_code, carries_data};
use code::Code;
use object::elf;
use schedswap_kernel::objects::{Object, Place, Relocation, SectionId, Symbol};
use std::collections::BTreeSet;

/// A function or variable.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct UnitSymbol {
    /// The unit that defines it.
    pub unit: String,
    /// Its symbol.
    pub name: String,
}

/// One use of an address.
#[derive(Debug)]
pub struct Use {
    /// The unit that uses it.
    pub unit: String,
    /// The function that uses it; empty in data.
    pub by: String,
    /// What becomes of it.
    pub fate: AddressFate,
}

/// What becomes of an address.
#[derive(PartialEq, Eq, Debug)]
pub enum AddressFate {
    /// It is an argument of a call.
    Passed {
        /// The function called; [`A_POINTER`] for a call through one.
        to: String,
        /// Which argument it is, from 0.
        argument: usize,
    },
    /// It is written to memory.
    Stored,
    /// Initial contents of a variable have it.
    Data {
        /// The variable.
        variable: String,
        /// Its section.
        section: String,
    },
    /// The code was not understood.
    Unknown,
}

/// What is called where the function called is not known.
pub const A_POINTER: &str = "a pointer";

/// What gcc calls at a function's entry for tracers (`-mfentry`); it takes nothing and leaves every register.
const PROFILER: &str = "__fentry__";

/// All uses of a target's address, direct calls and plain accesses left out.
pub fn uses(objects: &[(String, Object)], target: &UnitSymbol) -> Vec<Use> {
    let mut found = Vec::new();
    for (unit, object) in objects {
        let Some(known) = Known::in_object(unit, object, target) else { continue };
        let code = Code::of(object);
        for (index, section) in object.sections.iter().enumerate() {
            let is_code = carries_code(&section.name, section.flags);
            if !is_code && !carries_data(&section.name, section.flags) {
                continue;
            }
            let id = SectionId(index as u32);
            for relocation in section.relocations.iter().filter(|r| known.may_be_meant(object, r)) {
                let of = |by: &str, fate| Use { unit: unit.clone(), by: by.to_owned(), fate };
                if !is_code {
                    let variable = covering(object, id, relocation.offset).map(|s| s.name.clone());
                    let variable = variable.filter(|_| known.is_meant(object, relocation, 0));
                    let section = section.name.clone();
                    let fate = variable.map(|variable| AddressFate::Data { variable, section });
                    found.extend(fate.map(|fate| of("", fate)));
                } else if let Some(function) =
                    code.as_ref().and_then(|code| code.function(id, relocation.offset))
                {
                    let fates = function.fates_at(id, relocation, &known);
                    found.extend(fates.into_iter().map(|fate| of(function.name, fate)));
                }
            }
        }
    }
    found
}

/// What becomes of an argument in the function that it is passed to.
pub fn uses_of_argument(objects: &[(String, Object)], function: &str, argument: usize) -> Vec<Use> {
    let mut found = Vec::new();
    for (unit, object) in objects {
        let defined = object.symbols.iter().find(|s| s.name == function && s.kind == elf::STT_FUNC.0);
        let Some((symbol, Place::Section(section))) = defined.map(|s| (s, s.place)) else { continue };
        let code = Code::of(object);
        let code = code.as_ref().and_then(|code| code.function(section, symbol.value));
        let fates = code.map(|function| function.fates_of_argument(argument)).unwrap_or_default();
        found.extend(fates.into_iter().map(|fate| Use { unit: unit.clone(), by: function.to_owned(), fate }));
    }
    found
}

/// Whether an object defines a function of that name.
pub fn defines_function(object: &Object, name: &str) -> bool {
    let is_defined = |s: &Symbol| matches!(s.place, Place::Section(_)) && s.kind == elf::STT_FUNC.0;
    object.symbols.iter().any(|s| s.name == name && is_defined(s))
}

/// Functions of an object that refer to another function of it, calls included.
pub fn users(object: &Object, name: &str) -> BTreeSet<String> {
    let symbol = object.symbols.iter().find(|s| s.name == name);
    let known = symbol.and_then(Known::here);
    match (known, Code::of(object)) {
        (Some(known), Some(code)) => code.users(&known),
        _ => BTreeSet::new(),
    }
}

/// A target as one object knows it.
enum Known {
    /// It is defined there.
    Here { section: SectionId, start: u64, size: u64 },
    /// It is another object's.
    Elsewhere { name: String },
}

impl Known {
    fn in_object(unit: &str, object: &Object, target: &UnitSymbol) -> Option<Known> {
        let symbol = object.symbols.iter().find(|s| s.name == target.name)?;
        match symbol.place {
            Place::Undefined => Some(Known::Elsewhere { name: symbol.name.clone() }),
            _ if unit == target.unit => Known::here(symbol),
            _ => None,
        }
    }

    fn here(symbol: &Symbol) -> Option<Known> {
        let Place::Section(section) = symbol.place else { return None };
        Some(Known::Here { section, start: symbol.value, size: symbol.size.max(1) })
    }

    /// A quick test, before code is decoded.
    fn may_be_meant(&self, object: &Object, relocation: &Relocation) -> bool {
        let symbol = object.symbol(relocation.symbol);
        match self {
            Known::Here { section, .. } => symbol.place == Place::Section(*section),
            Known::Elsewhere { name } => symbol.place == Place::Undefined && symbol.name == *name,
        }
    }

    /// Whether a field refers to the target. `to_end` is the distance from the field to the end of its instruction.
    fn is_meant(&self, object: &Object, relocation: &Relocation, to_end: u64) -> bool {
        match self {
            Known::Elsewhere { .. } => self.may_be_meant(object, relocation),
            Known::Here { .. } => {
                code::place(object, relocation, to_end).is_some_and(|(section, at)| self.covers(section, at))
            }
        }
    }

    fn covers(&self, in_section: SectionId, at: u64) -> bool {
        match self {
            Known::Here { section, start, size } => {
                *section == in_section && (*start..*start + *size).contains(&at)
            }
            Known::Elsewhere { .. } => false,
        }
    }
}

/// The named object, or function, that covers a place.
fn covering(object: &Object, section: SectionId, offset: u64) -> Option<&Symbol> {
    object.symbols.iter().find(|s| {
        let has_place = s.place == Place::Section(section) && !s.name.is_empty();
        has_place && s.size > 0 && (s.value..s.value + s.size).contains(&offset)
    })
}

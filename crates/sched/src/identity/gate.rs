//! The gate itself: function by function, is it the same code?

use super::matching::{Found, pair_functions};
use super::overlay::Overlay;
use super::{Error, Result};
use crate::boundary::{Boundary, Fate};
use schedswap_kernel::objects::Object;
use schedswap_kernel::vmlinux::{Image, Unit};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The result of comparing the scheduler, compiled here, with vmlinux. Kept in the work dir as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// One a unit, in the order of the image's units.
    pub units: Vec<UnitGate>,
}

/// One unit's result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnitGate {
    /// `kernel/sched/core.c`.
    pub unit: String,
    /// Every function symbol of the compiled object or of vmlinux (`.cold` parts are symbols of their own).
    pub functions: BTreeMap<String, State>,
}

/// How one function compares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Byte for byte the same once relocated fields are masked, and those refer to the same things.
    Identical,
    /// Weak, and vmlinux runs another definition of the name; nothing to compare, nothing to replace.
    Overridden,
    /// Not the same.
    Different(Why),
}

/// Why a function is not the same. Offsets are from its start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The compiled object does not have it.
    NotCompiled,
    /// Vmlinux does not have it.
    NotInVmlinux,
    /// It has another length, in bytes.
    Size {
        /// In vmlinux.
        vmlinux: u64,
        /// Compiled here.
        compiled: u64,
    },
    /// Other instructions.
    Code {
        /// Of the first instruction that differs.
        offset: u64,
        /// Up to 8 bytes there.
        vmlinux: Vec<u8>,
        /// Up to 8 bytes there.
        compiled: Vec<u8>,
    },
    /// The same code with another text.
    Literal {
        /// Of the reference.
        offset: u64,
        /// The text in vmlinux.
        vmlinux: String,
        /// The text compiled here.
        compiled: String,
    },
    /// The same code that calls, or refers to, something else.
    Target {
        /// Of the reference.
        offset: u64,
        /// What vmlinux refers to.
        vmlinux: String,
        /// What the compiled function refers to.
        compiled: String,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NotCompiled => write!(f, "in vmlinux only"),
            Why::NotInVmlinux => write!(f, "not in vmlinux"),
            Why::Size { vmlinux, compiled } => {
                write!(f, "{vmlinux} bytes in vmlinux, {compiled} bytes compiled here")
            }
            Why::Code { offset, vmlinux, compiled } => {
                write!(
                    f,
                    "from +{offset:#x} on vmlinux has {}, compiled here {}",
                    hex(vmlinux),
                    hex(compiled)
                )
            }
            Why::Literal { offset, vmlinux, compiled } => {
                write!(f, "at +{offset:#x} vmlinux has the text {vmlinux:?}, compiled here {compiled:?}")
            }
            Why::Target { offset, vmlinux, compiled } => {
                write!(f, "at +{offset:#x} vmlinux refers to {vmlinux}, compiled here to {compiled}")
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}

impl UnitGate {
    fn count(&self, predicate: impl Fn(&State) -> bool) -> usize {
        self.functions.values().filter(|state| predicate(state)).count()
    }

    /// Functions that vmlinux has of this unit.
    pub fn in_vmlinux(&self) -> usize {
        self.count(|s| !matches!(s, State::Overridden | State::Different(Why::NotInVmlinux)))
    }

    /// Functions in the compiled object.
    pub fn compiled(&self) -> usize {
        self.count(|s| !matches!(s, State::Different(Why::NotCompiled)))
    }

    /// Functions that are the same in both.
    pub fn identical(&self) -> usize {
        self.count(|s| *s == State::Identical)
    }

    /// Weak functions of which vmlinux runs another definition.
    pub fn overridden(&self) -> Vec<&str> {
        self.functions
            .iter()
            .filter(|(_, s)| **s == State::Overridden)
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Functions that are not the same, and why.
    pub fn different(&self) -> impl Iterator<Item = (&str, &Why)> {
        self.functions.iter().filter_map(|(name, state)| match state {
            State::Different(why) => Some((name.as_str(), why)),
            _ => None,
        })
    }

    /// Whether a function and its `.cold` part are the same in both.
    pub fn is_identical(&self, function: &str) -> bool {
        let same = |name: &str| self.functions.get(name).is_none_or(|s| *s == State::Identical);
        self.functions.contains_key(function) && same(function) && same(&format!("{function}.cold"))
    }
}

impl Gate {
    /// A unit's result.
    pub fn unit(&self, unit: &str) -> Option<&UnitGate> {
        self.units.iter().find(|u| u.unit == unit)
    }

    /// The functions that shall be replaced (or whose module copy serves the module) and are not the same:
    /// unit, name and why.
    pub fn different_and_replaced(&self, boundary: &Boundary) -> Vec<(String, String, Why)> {
        let replaced = |fate: &Fate| !matches!(fate, Fate::Stay(_));
        let mut found = Vec::new();
        for function in boundary.functions.iter().filter(|f| replaced(&f.fate)) {
            let unit = self.unit(&function.unit);
            if unit.is_some_and(|u| u.is_identical(&function.name)) {
                continue;
            }
            let why = |name: &str| match unit?.functions.get(name)? {
                State::Different(why) => Some(why.clone()),
                _ => None,
            };
            let why = why(&function.name).or_else(|| why(&format!("{}.cold", function.name)));
            found.push((function.unit.clone(), function.name.clone(), why.unwrap_or(Why::NotCompiled)));
        }
        found
    }
}

/// Compares every function of `objects` (unit and object, compiled with [`crate::compile::Build::Gate`]) with
/// vmlinux.
///
/// # Errors
/// When a unit of vmlinux has no object, or an object is damaged or has a relocation of unknown kind.
pub fn gate(image: &Image, objects: &[(String, Object)]) -> Result<Gate> {
    let mut units = Vec::new();
    for unit in &image.units {
        let object = objects.iter().find(|(name, _)| *name == unit.name).map(|(_, object)| object);
        units.push(match object {
            Some(object) => compare_unit(image, unit, object)?,
            None => return Err(Error::NoObject { unit: unit.name.clone() }),
        });
    }
    Ok(Gate { units })
}

fn compare_unit(image: &Image, unit: &Unit, object: &Object) -> Result<UnitGate> {
    let mut functions = BTreeMap::new();
    for pair in pair_functions(image, unit, object) {
        let state = match pair.found {
            Found::Overridden => State::Overridden,
            Found::Nowhere => State::Different(Why::NotInVmlinux),
            Found::At(theirs) if theirs.size != pair.symbol.size => {
                State::Different(Why::Size { vmlinux: theirs.size, compiled: pair.symbol.size })
            }
            Found::At(theirs) => {
                let section = object.section(pair.section);
                let range = pair.symbol.value..pair.symbol.value + pair.symbol.size;
                if range.end > section.data.len() as u64 {
                    return Err(Error::BadSymbol {
                        object: object.name.clone(),
                        symbol: pair.symbol.name.clone(),
                    });
                }
                let overlay = Overlay { image, object, section, range, addr: theirs.addr };
                overlay.why_different()?.map_or(State::Identical, State::Different)
            }
        };
        functions.insert(pair.symbol.name.clone(), state);
    }
    for function in &unit.functions {
        functions.entry(function.name.clone()).or_insert(State::Different(Why::NotCompiled));
    }
    Ok(UnitGate { unit: unit.name.clone(), functions })
}

//! Which of a module's variables a swap takes along: those that only modules have, that change, and that hold values
//! alone, go to the next version; those that the configuration carries come from vmlinux and go back to it. A pointer
//! may lead into the module that goes.

use super::declared::{Declared, Shape, declared};
use super::tables::State;
use crate::binding::{Rewritten, UnitObject, local_static};
use crate::boundary::{Boundary, BoundaryVariable, Sharing};
use object::elf;
use schedswap_kernel::objects::{Object, Place, Section};
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of the variables whose values a swap could take along.
#[derive(Default)]
pub struct States {
    /// Taken along.
    pub carried: Vec<State>,
    /// Not handed over to a next version: unit and name, and why.
    pub left: Vec<String>,
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The debug information of a unit is damaged.
    #[error("the compiler's debug information cannot be read")]
    Dwarf(#[from] gimli::Error),
    /// What shall be carried from vmlinux and back is not what vmlinux has.
    #[error(
        "{name} cannot be carried: {why}. Its value comes from vmlinux's and goes back there, so it keeps its type; \
         leave `carry` out, or add a new variable beside it"
    )]
    NotCarried {
        /// Unit, function if any, and variable.
        name: String,
        /// What is in the way.
        why: String,
    },
}

/// The edited units and the pristine ones, compiled with debug information.
pub struct Declarations<'a> {
    /// Edited.
    pub edited: &'a [UnitObject],
    /// As released.
    pub pristine: &'a [UnitObject],
}

/// A variable whose value may be taken along: unit, symbol in the unit's object, symbol in the module.
struct Candidate<'a> {
    unit: &'a str,
    symbol: &'a str,
    in_module: &'a str,
    size: u64,
    is_per_cpu: bool,
    /// The variables of vmlinux that it may be the copy of: several where statics of functions share a name.
    originals: Vec<&'a BoundaryVariable>,
}

impl Candidate<'_> {
    fn may_be_carried(&self) -> bool {
        self.originals.iter().any(|v| v.carry)
    }
}

/// The units whose declarations are wanted: edited, and pristine.
pub fn units_with_state(
    units: &[UnitObject],
    rewritten: &Rewritten,
    boundary: &Boundary,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let candidates = candidates(units, rewritten, boundary);
    let of = |wanted: &dyn Fn(&&Candidate) -> bool| {
        candidates.iter().filter(wanted).map(|c| c.unit.to_owned()).collect()
    };
    (of(&|_| true), of(&|c| c.may_be_carried()))
}

/// `declarations`: of those units.
pub fn states(
    units: &[UnitObject],
    rewritten: &Rewritten,
    boundary: &Boundary,
    declarations: &Declarations,
) -> Result<States, Error> {
    let edited = by_unit(declarations.edited)?;
    let pristine = by_unit(declarations.pristine)?;
    let mut states = States::default();
    for candidate in candidates(units, rewritten, boundary) {
        let declared_here = edited.get(candidate.unit).map_or(&[][..], Vec::as_slice);
        let Some(declared) = declared_here.iter().find(|d| d.symbol == candidate.symbol) else {
            let what = format!("{} in {}", candidate.symbol, candidate.unit);
            if candidate.may_be_carried() {
                return Err(not_carried(what, "its type is not known"));
            }
            states.left.push(format!("{what}: its type is not known"));
            continue;
        };
        let name = full_name(candidate.unit, declared);
        let namesakes = declared_here.iter().filter(|d| full_name(candidate.unit, d) == name).count();
        let original = candidate.originals.iter().find(|v| v.in_function == declared.function);
        // What vmlinux has too is none of the edit's, unless the configuration made it the module's own.
        if original.is_some_and(|v| !is_made_private(v)) {
            continue;
        }
        let original = original.filter(|v| v.carry);
        if let Some(original) = original {
            let as_released = pristine.get(candidate.unit).map_or(&[][..], Vec::as_slice);
            is_the_same(original, &candidate, declared, as_released)
                .map_err(|why| not_carried(name.clone(), &why))?;
        }
        let why_not = match &declared.shape {
            _ if namesakes > 1 => "there is more than one of that name".to_owned(),
            Shape::Plain { hash } => {
                states.carried.push(State {
                    symbol: candidate.in_module.to_owned(),
                    name,
                    size: candidate.size,
                    type_hash: *hash,
                    is_per_cpu: candidate.is_per_cpu,
                    vmlinux: original.map(|v| v.addr),
                });
                continue;
            }
            Shape::Pointer { at } => format!("{}{at} is a pointer", declared.name),
            Shape::Unknown => "its type is not fully described".to_owned(),
        };
        match original {
            Some(_) => return Err(not_carried(name, &why_not)),
            None => states.left.push(format!("{name}: {why_not}")),
        }
    }
    Ok(states)
}

fn not_carried(name: String, why: &str) -> Error {
    Error::NotCarried { name, why: why.to_owned() }
}

fn by_unit(units: &[UnitObject]) -> gimli::Result<BTreeMap<&str, Vec<Declared>>> {
    units.iter().map(|unit| Ok((unit.unit.as_str(), declared(&unit.object)?))).collect()
}

/// Whether the module's variable is what vmlinux has.
fn is_the_same(
    original: &BoundaryVariable,
    candidate: &Candidate,
    now: &Declared,
    as_released: &[Declared],
) -> Result<(), String> {
    if original.size != candidate.size {
        return Err(format!("it takes {} bytes, but {} in vmlinux", candidate.size, original.size));
    }
    let before = as_released.iter().find(|d| d.name == now.name && d.function == now.function);
    match before {
        None => Err("the source as released does not declare it".to_owned()),
        Some(before) if before.shape != now.shape => Err("its type has been changed".to_owned()),
        Some(_) => Ok(()),
    }
}

/// The same in every version, whatever numbers the compiler gives its symbols.
fn full_name(unit: &str, declared: &Declared) -> String {
    match &declared.function {
        Some(function) => format!("{unit}:{function}:{}", declared.name),
        None => format!("{unit}:{}", declared.name),
    }
}

fn candidates<'a>(
    units: &'a [UnitObject],
    rewritten: &'a Rewritten,
    boundary: &'a Boundary,
) -> Vec<Candidate<'a>> {
    let mut in_vmlinux: BTreeMap<(&str, &str), Vec<&BoundaryVariable>> = BTreeMap::new();
    for v in &boundary.variables {
        in_vmlinux.entry((v.unit.as_str(), v.name.as_str())).or_default().push(v);
    }
    let mut found = Vec::new();
    for carried in &rewritten.private_data {
        let base = local_static(&carried.name).unwrap_or(&carried.name);
        let Some(unit) = units.iter().find(|u| u.unit == carried.unit) else { continue };
        let Some((section, size)) = section_of(&unit.object, &carried.name) else { continue };
        let changes = section.flags & elf::SHF_WRITE.0 != 0;
        let originals = in_vmlinux.get(&(carried.unit.as_str(), base)).map_or(&[][..], Vec::as_slice);
        let is_own = originals.is_empty() || originals.iter().any(|v| is_made_private(v));
        // `.data.once` holds what was said already, which is not the policy's; what is declared to the runtime
        // goes ways of its own.
        let is_policy = section.name != ".data.once" && !section.name.starts_with(".schedswap.");
        if changes && is_policy && is_own {
            found.push(Candidate {
                unit: &unit.unit,
                symbol: &carried.name,
                in_module: &carried.symbol,
                size,
                is_per_cpu: section.name.starts_with(".data..percpu"),
                originals: originals.to_vec(),
            });
        }
    }
    found
}

/// By the configuration; the feature switches have a way of their own.
fn is_made_private(variable: &BoundaryVariable) -> bool {
    variable.configured.is_some() && matches!(variable.sharing, Sharing::Private(_))
}

fn section_of<'o>(object: &'o Object, symbol: &str) -> Option<(&'o Section, u64)> {
    object.symbols.iter().filter(|s| s.name == symbol).find_map(|s| match s.place {
        Place::Section(section) if s.kind == elf::STT_OBJECT.0 => Some((object.section(section), s.size)),
        _ => None,
    })
}

//! Which of a module's variables a swap takes along. Variables that only modules have, that change, and that hold
//! nothing but values go to the next version; those that the configuration carries come from vmlinux and go back to
//! it. A variable that holds a pointer stays behind, because the pointer may lead into the module that goes.

use super::tables::State;
use crate::binding::{Rewritten, UnitObject, local_static};
use crate::boundary::{Boundary, BoundaryVariable, Sharing};
use object::elf;
use schedswap_kernel::objects::{Object, Place, Section};
use schedswap_kernel::types::{self, Shape};
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of the variables whose values a swap could take along.
#[derive(Default)]
pub struct States {
    /// Taken along.
    pub carried: Vec<State>,
    /// Not handed over to a next version: unit and name, and why.
    pub left: Vec<String>,
}

/// Why the states cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The debug information of a unit is damaged.
    #[error("the compiler's debug information cannot be read")]
    Dwarf(#[from] gimli::Error),
    /// A variable that is to be carried from vmlinux and back is not what vmlinux has.
    #[error(
        "{name} cannot be carried: {why}. Its value comes from vmlinux's variable and goes back there, so its type must \
         stay the same; remove `carry` from its configuration, or add a new variable beside it"
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
        let edited = edited.get(candidate.unit).map_or(&[][..], Vec::as_slice);
        let pristine = pristine.get(candidate.unit).map_or(&[][..], Vec::as_slice);
        match verdict(&candidate, edited, pristine)? {
            Verdict::Carried(state) => states.carried.push(state),
            Verdict::Left(why) => states.left.push(why),
            Verdict::OfVmlinux => {}
        }
    }
    Ok(states)
}

/// What becomes of one variable.
enum Verdict {
    Carried(State),
    /// Unit and name, and why.
    Left(String),
    /// vmlinux has it too, and the configuration does not make it the module's own.
    OfVmlinux,
}

/// `edited`, `pristine`: what the edited unit and the unit as released define.
fn verdict(candidate: &Candidate, edited: &[Declared], pristine: &[Declared]) -> Result<Verdict, Error> {
    let Some(declared) = edited.iter().find(|d| d.symbol == candidate.symbol) else {
        let what = format!("{} in {}", candidate.symbol, candidate.unit);
        if candidate.may_be_carried() {
            return Err(not_carried(what, "its type is not known"));
        }
        return Ok(Verdict::Left(format!("{what}: its type is not known")));
    };
    let name = full_name(candidate.unit, declared);
    let original = candidate.originals.iter().find(|v| v.in_function == declared.function);
    if original.is_some_and(|v| !is_made_private(v)) {
        return Ok(Verdict::OfVmlinux);
    }
    let original = original.filter(|v| v.carry);
    if let Some(original) = original {
        is_the_same(original, candidate, declared, pristine)
            .map_err(|why| not_carried(name.clone(), &why))?;
    }
    let namesakes = edited.iter().filter(|d| full_name(candidate.unit, d) == name).count();
    let hash = match namesakes {
        1 => plain_hash(declared),
        _ => Err("there is more than one of that name".to_owned()),
    };
    match (hash, original) {
        (Ok(type_hash), _) => Ok(Verdict::Carried(State {
            symbol: candidate.in_module.to_owned(),
            name,
            size: candidate.size,
            type_hash,
            is_per_cpu: candidate.is_per_cpu,
            vmlinux: original.map(|v| v.addr),
        })),
        (Err(why_not), Some(_)) => Err(not_carried(name, &why_not)),
        (Err(why_not), None) => Ok(Verdict::Left(format!("{name}: {why_not}"))),
    }
}

fn not_carried(name: String, why: &str) -> Error {
    Error::NotCarried { name, why: why.to_owned() }
}

/// The hash of a variable's type, if it holds values alone; else why it cannot be copied.
fn plain_hash(declared: &Declared) -> Result<u64, String> {
    match &declared.shape {
        Shape { pointer: Some(at), .. } => Err(format!("{}{at} is a pointer", declared.name)),
        Shape { hash, .. } => hash.ok_or_else(|| "its type is not fully described".to_owned()),
    }
}

/// A variable that an object defines.
struct Declared {
    /// Its symbol in the object.
    symbol: String,
    /// The function that it is local to.
    function: Option<String>,
    /// Its name in the source.
    name: String,
    shape: Shape,
}

fn by_unit(units: &[UnitObject]) -> gimli::Result<BTreeMap<&str, Vec<Declared>>> {
    units.iter().map(|unit| Ok((unit.unit.as_str(), declared(unit)?))).collect()
}

/// The variables that a unit defines, from its debug information.
fn declared(unit: &UnitObject) -> gimli::Result<Vec<Declared>> {
    let types = types::of_object(&unit.unit, &unit.object)?;
    let mut found: Vec<Declared> = Vec::new();
    for variable in &types.variables {
        let Some(symbol) = variable.address.and_then(|address| types::symbol_at(&unit.object, address))
        else {
            continue;
        };
        // Each copy of an inlined function describes its static variables again.
        if found.iter().any(|known| known.symbol == symbol.name) {
            continue;
        }
        found.push(Declared {
            symbol: symbol.name.clone(),
            function: variable.function.clone(),
            name: variable.name.clone(),
            shape: types.shape(variable.of),
        });
    }
    Ok(found)
}

/// Checks that the module's variable is what vmlinux has; if not, says how it differs.
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
        // `.data.once` holds which messages were printed already, which is not the policy's state; what is declared
        // to the runtime is handed over by the runtime.
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

/// Made private by the configuration; the feature switches are carried in their own way.
fn is_made_private(variable: &BoundaryVariable) -> bool {
    variable.configured.is_some() && matches!(variable.sharing, Sharing::Private(_))
}

fn section_of<'o>(object: &'o Object, symbol: &str) -> Option<(&'o Section, u64)> {
    object.symbols.iter().filter(|s| s.name == symbol).find_map(|s| match s.place {
        Place::Section(section) if s.kind == elf::STT_OBJECT.0 => Some((object.section(section), s.size)),
        _ => None,
    })
}

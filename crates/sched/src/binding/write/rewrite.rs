//! The scheduler's objects, compiled as built-in code, made into one object that a module can carry.

use super::emit::{Anonymous, layout};
use crate::binding::Binding;
use crate::binding::Error;
use crate::binding::boot_pointers;
use crate::binding::place::destination::Destination;
use crate::binding::place::index::Index;
use crate::binding::place::initial;
use crate::binding::place::literals;
use crate::binding::place::live::{Live, check_switch};
use crate::binding::place::normalise::{Referent, Unit};
use crate::binding::place::rename::Names;
use crate::binding::place::resolve::{Destinations, Resolved};
use crate::binding::place::slice::Form;
use crate::binding::place::special::Policy;
use crate::binding::place::tables::{Tables, fill_up};
use crate::binding::place::through;
use crate::boundary::Fate;
use schedswap_kernel::objects::Object;
use std::collections::{BTreeMap, BTreeSet};

/// One unit's module build: the kernel's flags and `-ffunction-sections -fdata-sections`, objtool run.
pub struct UnitObject {
    /// `kernel/sched/core.c`
    pub unit: String,
    /// The object; its instructions read what boot code would have written into them.
    pub object: Object,
}

impl UnitObject {
    /// `object`, as a module can have it.
    pub fn new(unit: impl Into<String>, mut object: Object) -> UnitObject {
        boot_pointers::read_variables(&mut object);
        fill_up(&mut object);
        UnitObject { unit: unit.into(), object }
    }
}

/// The module's scheduler, bound to vmlinux.
pub struct Rewritten {
    /// All units in one. Undefined in it are only the anchor and `ss_switch_to`; all its code lies in one
    /// section between `ss_text_start` and `ss_text_end`.
    pub object: Object,
    /// Its data without symbols, strings aside where they may be shared.
    pub anonymous: Anonymous,
    /// What vmlinux's diverted functions lead to: unit and function name → the module's symbol.
    pub targets: BTreeMap<(String, String), String>,
    /// Functions that vmlinux would divert, but of which the edited source has no code: unit and name.
    pub missing: Vec<(String, String)>,
    /// Functions that vmlinux does not have.
    pub new_functions: Vec<Carried>,
    /// Data that the module has of its own.
    pub private_data: Vec<Carried>,
    /// The module's build of each `sched_class`: name → the module's symbol.
    pub classes: BTreeMap<String, String>,
    /// What was left out because vmlinux's is in force.
    pub dropped: Vec<Carried>,
    /// What the developer should know.
    pub warnings: Vec<String>,
}

/// A function or object that the module carries, or leaves out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Carried {
    /// Unit.
    pub unit: String,
    /// Its name in the unit's object.
    pub name: String,
    /// Its symbol in the module; empty if left out.
    pub symbol: String,
    /// Why.
    pub reason: String,
}

/// Binds the scheduler's units to vmlinux and makes one object of them.
///
/// # Errors
/// When an object has a section, a relocation or a reference that cannot be bound; the error names the unit and who uses
/// what.
pub fn rewrite(units: &[UnitObject], binding: &Binding) -> Result<Rewritten, Error> {
    let index = Index::new(binding)?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = units.iter().find(|u| !seen.insert(&u.unit)) {
        return Err(Error::Twice(twice.unit.clone()));
    }
    let units = units.iter().map(|u| Unit::new(&u.unit, &u.object)).collect::<Result<Vec<_>, _>>()?;
    let tables =
        units.iter().map(|u| Tables::new(u, &binding.image.entry_sizes)).collect::<Result<Vec<_>, _>>()?;
    let mut destinations = Destinations::new(&index, &units)?;
    let mut warnings = initial::settle(&mut destinations);
    literals::settle(&mut destinations);
    through::settle(&mut destinations, &tables);
    check_switch(&destinations)?;
    let live = Live::new(&destinations, &tables)?;
    let names = Names::new(&destinations, &live);
    let (object, anonymous) = layout(&destinations, &live, &names, &tables)?;
    warnings.extend(never_found(&destinations));
    warnings.extend(unreachable_copies(&destinations, &live)?);

    let mut rewritten = Rewritten {
        object,
        anonymous,
        targets: BTreeMap::new(),
        missing: Vec::new(),
        new_functions: Vec::new(),
        private_data: Vec::new(),
        classes: BTreeMap::new(),
        dropped: Vec::new(),
        warnings,
    };
    rewritten.list(&destinations, &live, &names);
    for f in &binding.boundary.functions {
        let is_diverted = matches!(f.fate, Fate::Divert(_) | Fate::Springboard(_));
        let key = (f.unit.clone(), f.name.clone());
        if is_diverted && !rewritten.targets.contains_key(&key) && seen.contains(&f.unit) {
            rewritten.missing.push(key);
        }
    }
    Ok(rewritten)
}

impl Rewritten {
    /// Fills in what became of each piece.
    fn list(&mut self, destinations: &Destinations, live: &Live, names: &Names) {
        for (u, unit) in destinations.units.iter().enumerate() {
            for piece in unit.slices.ids() {
                let form = unit.slices.piece(piece).form;
                let renamed = unit.names(piece).zip(names.of(u, piece));
                let carried = |name: &str, symbol: &str, reason: &str| Carried {
                    unit: unit.name.into(),
                    name: name.into(),
                    symbol: symbol.into(),
                    reason: reason.into(),
                };
                match destinations.of(u, piece) {
                    Destination::Both(_) | Destination::Through(_) | Destination::Body(_) => {
                        for (name, symbol) in renamed {
                            let diverted = destinations
                                .index
                                .function(unit.name, name)
                                .is_some_and(|f| matches!(f.fate, Fate::Divert(_) | Fate::Springboard(_)));
                            if diverted {
                                self.targets.insert((unit.name.into(), name.into()), symbol.clone());
                            }
                        }
                    }
                    Destination::Class(_) => {
                        self.classes.extend(
                            renamed
                                .filter(|(name, _)| destinations.index.class(name).is_some())
                                .map(|(name, symbol)| (name.to_owned(), symbol.clone())),
                        );
                    }
                    Destination::Module(why) if live.has(u, piece) => {
                        let list = if form == Form::Function {
                            &mut self.new_functions
                        } else {
                            &mut self.private_data
                        };
                        list.extend(renamed.map(|(name, symbol)| carried(name, symbol, why)));
                    }
                    Destination::Vmlinux(_, why) | Destination::Nowhere(why) => {
                        self.dropped.extend(unit.names(piece).map(|name| carried(name, "", why)));
                    }
                    Destination::Module(_) | Destination::ColdPartOf(_) => {}
                }
            }
        }
    }
}

/// New functions that the kernel would find only through a table built into vmlinux: initcalls, boot parameters,
/// exports.
fn never_found(destinations: &Destinations) -> Vec<String> {
    let mut warnings = Vec::new();
    for (u, unit) in destinations.units.iter().enumerate() {
        for (i, section) in unit.object.sections.iter().enumerate() {
            let what = match section.name.as_str() {
                name if name.starts_with(".initcall") => "an initcall",
                ".init.setup" => "a boot parameter",
                name if name.contains("ksymtab") => "an export",
                _ => continue,
            };
            debug_assert_eq!(unit.policies[i].0, Policy::Drop);
            for reference in unit.section_references(schedswap_kernel::objects::SectionId(i as u32)) {
                let Referent::Piece(piece) = reference.referent else { continue };
                let is_new = match destinations.of(u, piece) {
                    Destination::Nowhere(_) => true,
                    destination => destination.is_new(),
                };
                if is_new && unit.slices.piece(piece).form == Form::Function {
                    let name = unit.describe(piece);
                    warnings.push(format!(
                        "{name} in {} is {what} that vmlinux does not have; a module cannot add one, so it has no effect",
                        unit.name
                    ));
                }
            }
        }
    }
    warnings
}

/// Addresses taken of functions that cannot be diverted: a call through one runs vmlinux's copy, edited or not.
fn unreachable_copies(destinations: &Destinations, live: &Live) -> Result<Vec<String>, Error> {
    let mut warnings = BTreeSet::new();
    for (u, unit) in destinations.units.iter().enumerate() {
        for from in unit.slices.ids().filter(|p| live.has(u, *p)) {
            for reference in unit.references(from).iter().filter(|r| !r.is_branch) {
                let Some((to_unit, to, 0)) = destinations.defined(u, reference) else { continue };
                if !matches!(destinations.of(to_unit, to), Destination::Both(_)) {
                    continue;
                }
                let owner = &destinations.units[to_unit];
                for name in owner.names(to) {
                    let fate = destinations.index.function(owner.name, name).map(|f| &f.fate);
                    if let Some(Fate::InsideOnly(why)) = fate
                        && matches!(
                            destinations.resolve(u, from, reference, false)?,
                            Resolved::Vmlinux { .. }
                        )
                    {
                        warnings.insert(format!(
                            "{} in {} takes the address of {name}, which cannot be diverted ({why}): a call \
                             through that address runs vmlinux's copy",
                            unit.describe(from),
                            unit.name
                        ));
                    }
                }
            }
        }
    }
    Ok(warnings.into_iter().collect())
}

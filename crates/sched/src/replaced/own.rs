//! Data of which the module has its own: what differs in the two builds.

use super::UnitPair;
use crate::boundary::{Boundary, BoundaryVariable, Fate, Sharing, features};
use crate::check::{Data, Functions, Referred, base_name};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Which data is the module's own.
#[derive(Default)]
pub(super) struct Own {
    /// Unit and name, without the compiler's number.
    variables: BTreeSet<(String, String)>,
    /// The same of marks that something has been done once. The module does its own things once, so nobody joins for them.
    once: BTreeSet<(String, String)>,
    /// Statics of functions of which it cannot be told which is which: all who use one of that name use vmlinux's, or all
    /// the module's.
    together: BTreeSet<(String, String)>,
    /// Name of a global → the unit that defines it.
    globals: HashMap<String, String>,
    /// Whether the features' file is written by code that tells vmlinux's switches too.
    features_follow: bool,
    /// Whether a scheduling class has other methods.
    pub classes_differ: bool,
}

impl Own {
    pub fn of(boundary: &Boundary, units: &[UnitPair]) -> Own {
        let mut own = Own::default();
        for pair in units {
            let (pristine, edited) = (groups(&pair.pristine), groups(&pair.edited));
            for (name, group) in &edited {
                let key = || (pair.unit.to_owned(), (*name).to_owned());
                let is_same = pristine.get(name) == Some(group);
                if group.iter().any(|data| data.is_once) {
                    own.once.insert(key());
                    continue;
                }
                if boundary.classes.iter().any(|class| class.name == *name && class.unit == pair.unit) {
                    own.classes_differ |= !is_same;
                    continue;
                }
                let variables = variables(boundary, pair.unit, name);
                if is_own(&variables, group, is_same) {
                    own.variables.insert(key());
                } else if !is_only_one(&variables, group) {
                    own.together.insert(key());
                }
            }
            for name in pair.edited.global_variables() {
                own.globals.insert(name.to_owned(), pair.unit.to_owned());
            }
        }
        own.settle_features(boundary);
        own
    }

    /// The feature switches belong together: all of them are the module's own, or none.
    fn settle_features(&mut self, boundary: &Boundary) {
        let of_features = |name: &str| [features::BITS, features::KEYS, features::NAMES].contains(&name);
        if !self.variables.iter().any(|(_, name)| of_features(name)) {
            return;
        }
        let all = boundary.variables.iter().filter(|v| v.in_function.is_none() && of_features(&v.name));
        self.variables.extend(all.map(|v| (v.unit.clone(), v.name.clone())));
        let mut writers = boundary.functions.iter().filter(|f| f.name == features::WRITER);
        self.features_follow = writers.any(|f| matches!(f.fate, Fate::Divert(_)));
    }

    /// The variable that is the module's own, if a function of `unit` refers to one.
    pub fn variable_of<'r>(&self, unit: &str, referred: &'r Referred) -> Option<&'r str> {
        let name = base_name(&referred.symbol.name);
        let is_global = referred.symbol.binding != object::elf::STB_LOCAL.0;
        let owner = if is_global { self.globals.get(name).map(String::as_str) } else { Some(unit) };
        let key = (owner?.to_owned(), name.to_owned());
        // What asks about a feature asks its key, and the keys of both sides have the same values.
        let is_asked = self.features_follow && referred.is_noted && name == features::KEYS;
        (self.variables.contains(&key) && !is_asked).then_some(name)
    }

    /// The name of the statics that have to stay together, if a function of `unit` refers to one of them.
    pub fn together<'r>(&self, unit: &str, referred: &Referred<'r>) -> Option<&'r str> {
        let name = base_name(&referred.symbol.name);
        let is_local = referred.symbol.binding == object::elf::STB_LOCAL.0;
        (is_local && self.together.contains(&(unit.to_owned(), name.to_owned()))).then_some(name)
    }

    /// Makes what is the same in both builds vmlinux's, unless the configuration says otherwise.
    pub fn share_the_rest(&self, boundary: &mut Boundary) {
        for variable in &mut boundary.variables {
            let key = (variable.unit.clone(), variable.name.clone());
            let is_own = self.variables.contains(&key) || self.once.contains(&key);
            if variable.configured.is_none() && !is_own {
                variable.sharing = Sharing::Shared;
            }
        }
    }
}

/// The data of a build by name. A name can be that of several: statics of functions.
fn groups<'a>(build: &Functions<'a>) -> BTreeMap<&'a str, Vec<Data<'a>>> {
    let mut groups: BTreeMap<&str, Vec<Data>> = BTreeMap::new();
    for data in build.data() {
        groups.entry(data.name).or_default().push(data);
    }
    groups.values_mut().for_each(|group| group.sort());
    groups
}

fn variables<'b>(boundary: &'b Boundary, unit: &str, name: &str) -> Vec<&'b BoundaryVariable> {
    boundary.variables.iter().filter(|v| v.unit == unit && v.name == name).collect()
}

/// Whether a reference to data of one name says which variable is meant, or it does not matter.
fn is_only_one(variables: &[&BoundaryVariable], group: &[Data]) -> bool {
    group.iter().all(|data| data.is_constant || !data.is_numbered) || variables.len() == 1 && group.len() == 1
}

/// Whether data of one name is the module's own. `variables`: what vmlinux has of that name.
fn is_own(variables: &[&BoundaryVariable], group: &[Data], is_same: bool) -> bool {
    let is_private = |v: &&&BoundaryVariable| matches!(v.sharing, Sharing::Private(_));
    if variables.iter().filter(is_private).any(|v| v.configured.is_some()) {
        return true;
    }
    // The comparison of code has looked at these.
    let is_compared = |data: &Data| data.is_constant && data.is_numbered && !data.content.has_references();
    if is_same || group.iter().all(is_compared) {
        return false;
    }
    let is_shared = !variables.is_empty() && !variables.iter().any(|v| is_private(&v));
    // What a shared variable begins with is of no account: it is what it is in the running kernel.
    !is_shared || group.iter().any(|data| data.is_constant)
}

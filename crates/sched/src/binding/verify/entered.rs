//! The functions that the module calls through vmlinux's entry, as tracers are attached there, found from the boundary and
//! the compiler's objects.

use crate::binding::{Binding, Rewritten, UnitObject};
use crate::boundary::{BoundaryFunction, Fate};
use object::elf;
use schedswap_kernel::arch::relocation::Fields;
use schedswap_kernel::arch::{self, Arch};
use schedswap_kernel::objects::{Object, Place, Symbol};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Those functions.
pub struct Entered<'a> {
    /// Unit and name.
    functions: BTreeSet<(&'a str, &'a str)>,
    /// By unit and name, aliases too: where the compiler lists room for ftrace, counted from the function's first byte.
    rooms: BTreeMap<(&'a str, &'a str), i64>,
    /// The module's symbols of their copies.
    symbols: HashSet<&'a str>,
}

impl<'a> Entered<'a> {
    pub fn new(units: &'a [UnitObject], binding: &Binding<'a>, rewritten: &'a Rewritten) -> Entered<'a> {
        let mut entered =
            Entered { functions: BTreeSet::new(), rooms: BTreeMap::new(), symbols: HashSet::new() };
        let arch = arch::of(binding.image.machine);
        for unit in units {
            let listed = listed(arch, &unit.object);
            let functions = || unit.object.symbols.iter().filter(|s| s.kind == elf::STT_FUNC.0);
            for symbol in functions() {
                let key = (unit.unit.clone(), symbol.name.clone());
                let is_led_to = rewritten.targets.contains_key(&key);
                let may_be = binding.boundary.function(&unit.unit, &symbol.name).is_some_and(is_traced)
                    && !binding.called_otherwise.contains(&key)
                    && !begins_again(arch, &unit.object, symbol);
                if is_led_to
                    && may_be
                    && let Some(at) = at(&listed, symbol)
                {
                    entered.functions.insert((&unit.unit, &symbol.name));
                    let aliases = functions().filter(|s| (s.place, s.value) == (symbol.place, symbol.value));
                    entered.rooms.extend(aliases.map(|s| ((unit.unit.as_str(), s.name.as_str()), at)));
                    entered.symbols.insert(&rewritten.targets[&key]);
                }
            }
        }
        entered.add_aliases(&rewritten.object);
        entered
    }

    fn add_aliases(&mut self, object: &'a Object) {
        let is_function = |s: &&Symbol| s.kind == elf::STT_FUNC.0;
        let functions = || object.symbols.iter().filter(is_function);
        let named = |s: &&Symbol| self.symbols.contains(s.name.as_str());
        let places: HashSet<(Place, u64)> = functions().filter(named).map(|s| (s.place, s.value)).collect();
        let there = functions().filter(|s| places.contains(&(s.place, s.value)));
        self.symbols.extend(there.map(|s| s.name.as_str()));
    }

    /// Whether a function of a unit is called through vmlinux's entry.
    pub fn has(&self, unit: &str, name: &str) -> bool {
        self.functions.contains(&(unit, name))
    }

    /// Whether a symbol of the module is the copy of such a function.
    pub fn is_copy(&self, symbol: &str) -> bool {
        self.symbols.contains(symbol)
    }

    /// Where the compiler lists room for ftrace in such a function, by any of its names, counted from its first byte.
    pub fn room(&self, unit: &str, name: &str) -> Option<i64> {
        self.rooms.get(&(unit, name)).copied()
    }
}

/// Whether tracers can be attached to vmlinux's function while it is diverted.
fn is_traced(function: &BoundaryFunction) -> bool {
    matches!(&function.fate, Fate::Divert(site) if site.after_fentry)
}

/// The places that a unit's ftrace table lists.
fn listed(arch: &dyn Arch, object: &Object) -> BTreeSet<(Place, u64)> {
    let tables = object.sections.iter().filter(|s| s.name == arch.ftrace_table());
    let place = |r: &schedswap_kernel::objects::Relocation| {
        let symbol = object.symbol(r.symbol);
        (symbol.place, symbol.value.wrapping_add_signed(r.addend))
    };
    tables.flat_map(|s| &s.relocations).map(place).collect()
}

/// The place listed for a function: in it, or before it with nothing but padding between.
fn at(listed: &BTreeSet<(Place, u64)>, symbol: &Symbol) -> Option<i64> {
    const PADDING: u64 = 8;
    let first = symbol.value.saturating_sub(PADDING);
    let mut inside = listed.range((symbol.place, first)..(symbol.place, symbol.value + symbol.size));
    inside.next().map(|(_, at)| *at as i64 - symbol.value as i64)
}

/// Whether a function has a jump to its own entry that cannot lead anywhere else, as its field is too short.
fn begins_again(arch: &dyn Arch, object: &Object, symbol: &Symbol) -> bool {
    let Place::Section(id) = symbol.place else { return false };
    let end = symbol.value + symbol.size;
    let Some(code) = object.section(id).data.get(symbol.value as usize..end as usize) else { return false };
    let mut fields = Fields::default();
    arch.fields(code, symbol.value, &mut fields);
    fields.branches.iter().any(|branch| branch.relocation.is_none() && branch.target == symbol.value)
}

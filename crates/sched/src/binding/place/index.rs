//! What objects are bound to, arranged for looking up.

use crate::binding::Error;
use crate::binding::vmlinux_symbols::{global, is_per_cpu};
use crate::boundary::{Boundary, BoundaryFunction, BoundaryVariable, SchedClass};
use crate::identity::Addresses;
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::vmlinux::{self, Image};
use std::collections::{BTreeSet, HashMap};

/// What objects are bound to.
#[derive(Clone, Copy)]
pub struct Binding<'a> {
    /// The kernel.
    pub image: &'a Image,
    /// What is replaced and what stays.
    pub boundary: &'a Boundary,
    /// Where the scheduler's own symbols are.
    pub addresses: &'a Addresses,
    /// The exported symbol against which vmlinux addresses are written: `_printk`.
    pub anchor: &'a str,
    /// Functions, by unit and name, that the edited source calls in another way than vmlinux does.
    pub called_otherwise: &'a BTreeSet<(String, String)>,
}

/// A place in vmlinux.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InVmlinux {
    pub addr: Addr,
    /// In a per-CPU section that is linked at 0: an offset, not an address that moves with the kernel.
    pub is_offset: bool,
}

/// The boundary and vmlinux, arranged for looking up.
pub struct Index<'a> {
    pub binding: &'a Binding<'a>,
    pub anchor: Addr,
    functions: HashMap<(&'a str, &'a str), &'a BoundaryFunction>,
    variables: HashMap<(&'a str, &'a str), Vec<&'a BoundaryVariable>>,
    classes: HashMap<&'a str, &'a SchedClass>,
}

impl<'a> Index<'a> {
    /// # Errors
    /// When vmlinux does not export the anchor.
    pub fn new(binding: &'a Binding<'a>) -> Result<Index<'a>, Error> {
        let image = binding.image;
        if !image.exports.contains_key(binding.anchor) {
            return Err(Error::NoAnchor(binding.anchor.into()));
        }
        let anchor =
            image.unique_symbol(binding.anchor).ok_or_else(|| Error::NoAnchor(binding.anchor.into()))?.addr;
        let mut index = Index {
            binding,
            anchor,
            functions: HashMap::new(),
            variables: HashMap::new(),
            classes: binding.boundary.classes.iter().map(|c| (c.name.as_str(), c)).collect(),
        };
        for f in &binding.boundary.functions {
            index.functions.insert((&f.unit, &f.name), f);
        }
        for v in &binding.boundary.variables {
            index.variables.entry((&v.unit, &v.name)).or_default().push(v);
        }
        Ok(index)
    }

    /// What the boundary says of a function.
    pub fn function(&self, unit: &str, name: &str) -> Option<&'a BoundaryFunction> {
        self.functions.get(&(unit, name)).copied()
    }

    /// What the boundary says of the variables of that name: more than one where functions have a static each.
    pub fn variables<'s>(&'s self, unit: &'s str, name: &'s str) -> &'s [&'a BoundaryVariable] {
        self.variables.get(&(unit, name)).map_or(&[], Vec::as_slice)
    }

    /// The scheduling class of that name.
    pub fn class(&self, name: &str) -> Option<&'a SchedClass> {
        self.classes.get(name).copied()
    }

    /// A global of vmlinux. Locals of that name do not count: other units cannot see them.
    ///
    /// # Errors
    /// When vmlinux has several.
    pub fn global(&self, name: &str, user: &str) -> Result<Option<&'a vmlinux::Symbol>, Error> {
        global(self.binding.image, name, user)
    }

    /// Where a symbol of vmlinux is.
    pub fn place(&self, symbol: &vmlinux::Symbol) -> InVmlinux {
        let section = symbol.section.map(|s| &self.binding.image.sections[s]);
        let is_offset =
            section.is_none_or(|s| s.addr.0 == 0 && s.flags & elf::SHF_ALLOC.0 != 0 && is_per_cpu(&s.name));
        InVmlinux { addr: symbol.addr, is_offset }
    }

    /// A place of which only the address and the section's name are known.
    pub fn place_in(&self, addr: Addr, section: &str) -> InVmlinux {
        let at_zero = || self.binding.image.sections.iter().any(|s| is_per_cpu(&s.name) && s.addr.0 == 0);
        InVmlinux { addr, is_offset: is_per_cpu(section) && at_zero() }
    }
}

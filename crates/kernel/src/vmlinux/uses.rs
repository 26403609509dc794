//! Who refers to what, in the code and the data of the whole kernel.

use super::dwarf::Layouts;
use super::image::Unit;
use super::{keys, stored};
use crate::address::Addr;
use crate::arch::{
    self, Branch, CodeUses, DataUse, FunctionEntries, Known, Passed, Site, Taken, VariableRanges,
};
use crate::elf::{Elf, SymbolId};

/// References found in code and data.
#[derive(Default)]
pub struct Uses {
    /// Direct branches (call, jmp, jcc) from one function to the entry of another. Sorted by callee.
    pub branches: Vec<Branch>,
    /// Instructions that take a function's address (`lea`, `mov $imm`, …). Sorted by target.
    pub taken: Vec<Taken>,
    /// Words of data that hold a function's address. Sorted by target. Tables that only describe code
    /// (ksymtab, mcount_loc, ORC, bug table, initcalls' own sections, …) are not uses and are left out.
    pub stored: Vec<Stored>,
    /// Functions' addresses handed to a function that is called directly. Sorted by target.
    pub passed: Vec<Passed>,
    /// Functions that call or jump through a pointer (on retpoline kernels, through `__x86_indirect_thunk_*`).
    /// Calls that boot code makes direct (paravirt, alternatives) and static calls do not count. Sorted.
    pub indirect: Vec<SymbolId>,
    /// Instructions that refer to a variable of the scheduler's units, and static branches on one. Sorted by target.
    pub data: Vec<DataUse>,
    /// Words of data that hold the address of a variable of the scheduler's units, or of a part of it. Sorted by
    /// target.
    pub held: Vec<Stored>,
}

/// A data word that holds the address of a function, or of a variable.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Address of the word.
    pub at: Addr,
    /// Index of its section.
    pub section: usize,
    /// The object symbol that holds the word, if one covers it.
    pub object: Option<SymbolId>,
    /// The address stored: a function's entry, or a byte of a variable.
    pub target: Addr,
}

impl Uses {
    /// Looks through all code and data. `units` say which variables matter, `layouts` and `sites` how the kernel's
    /// own tables are to be read.
    pub(super) fn find(elf: &Elf, units: &[Unit], layouts: &Layouts, sites: &[Site]) -> Uses {
        let entries = FunctionEntries::of(elf);
        let variables = units.iter().flat_map(|unit| &unit.variables);
        let variables = VariableRanges::of(variables.map(|variable| (variable.addr, variable.size)));
        let known = Known { entries: &entries, variables: &variables, sites };
        let CodeUses { branches, taken, passed, indirect, mut data } =
            arch::of(elf.machine).uses(elf, &known);
        data.extend(keys::branches_on_keys(elf, &variables, layouts));
        data.sort_unstable_by_key(|used| (used.target, used.at));
        let stored = stored::functions(elf, &entries);
        let held = stored::variables(elf, &variables);
        Uses { branches, taken, stored, passed, indirect, data, held }
    }
}

//! What stays in force in vmlinux while the module's scheduler runs: functions, and inlined copies.

use crate::boundary::{Boundary, BoundaryFunction, Fate, StayReason};
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch;
use schedswap_kernel::vmlinux::{Image, InlinedCopy};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Code of vmlinux that is not replaced, as far as an edit of the scheduler can conflict with it.
#[derive(Debug, Default)]
pub struct Frozen {
    /// Inlined copies of scheduler functions in code that is not replaced.
    pub copies: Vec<FrozenCopy>,
    /// Entry of a function that is replaced → functions that stay and call it or hand its address on.
    pub staying_callers: HashMap<Addr, BTreeSet<String>>,
    /// Entry of a function that stays → functions it calls that are replaced.
    pub replaced_callees: HashMap<Addr, BTreeSet<String>>,
}

/// One inlined copy that stays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrozenCopy {
    /// The inlined function.
    pub helper: String,
    /// Where it is defined.
    pub decl_file: String,
    /// Line of its definition.
    pub decl_line: u32,
    /// The function that holds the copy.
    pub holder: String,
    /// What that function is.
    pub held_by: HeldBy,
}

/// What a function is that holds an inlined copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HeldBy {
    /// A function of this scheduler unit that stays in vmlinux.
    Outsider {
        /// `kernel/sched/core.c`
        unit: String,
    },
    /// `__init` code of the scheduler: it has run, and its memory is freed.
    Init,
    /// A function outside of the scheduler, in this unit.
    Elsewhere {
        /// `kernel/fork.c`
        unit: String,
    },
}

impl Frozen {
    /// Reads what stays from the binary and the boundary.
    pub fn new(image: &Image, boundary: &Boundary) -> Frozen {
        let owners = Owners::new(boundary);
        let mut frozen = Frozen::default();
        for unit in &image.units {
            for copy in &unit.inlined {
                let Some(holder) = owners.of(copy.into_addr) else { continue };
                let held_by = match &holder.fate {
                    Fate::Stay(StayReason::Init) => HeldBy::Init,
                    _ if keeps_running(holder) => HeldBy::Outsider { unit: holder.unit.clone() },
                    _ => continue,
                };
                frozen.copies.push(copy_in(copy, &holder.name, held_by));
            }
        }
        for copy in &image.inlined_outside {
            // Boot code outside the scheduler has run.
            if !lies_in_init(image, copy.into_addr) {
                let held_by = HeldBy::Elsewhere { unit: copy.unit.clone() };
                frozen.copies.push(copy_in(copy, &copy.into, held_by));
            }
        }
        let switches = switches(image);
        let branches = image.uses.branches.iter().map(|branch| (branch.at, branch.callee));
        let taken = image.uses.taken.iter().map(|taken| (taken.at, taken.target));
        for (from, to) in branches.chain(taken) {
            let (Some(user), Some(used)) = (owners.of(from), owners.of(to)) else { continue };
            // After the switch of stacks it is vmlinux's __schedule that continues.
            let is_tail = || {
                matches!(user.fate, Fate::Springboard(_))
                    && switches.range(..from).any(|at| user_has(user, *at))
            };
            if (keeps_running(user) || is_tail()) && is_replaced(used) && used.addr == to {
                frozen.staying_callers.entry(to).or_default().insert(user.name.clone());
                frozen.replaced_callees.entry(user.addr).or_default().insert(used.name.clone());
            }
        }
        frozen
    }
}

/// Where the kernel switches stacks.
fn switches(image: &Image) -> BTreeSet<Addr> {
    let Some(switch) = image.unique_symbol(arch::of(image.machine).stack_switch()) else {
        return BTreeSet::new();
    };
    image.uses.branches.iter().filter(|branch| branch.callee == switch.addr).map(|branch| branch.at).collect()
}

fn user_has(function: &BoundaryFunction, addr: Addr) -> bool {
    function.ranges.iter().any(|range| range.contains(&addr))
}

fn copy_in(copy: &InlinedCopy, holder: &str, held_by: HeldBy) -> FrozenCopy {
    FrozenCopy {
        helper: copy.name.clone(),
        decl_file: copy.decl_file.clone(),
        decl_line: copy.decl_line,
        holder: holder.to_owned(),
        held_by,
    }
}

/// Whether calls to vmlinux's function reach the module's.
pub fn is_replaced(function: &BoundaryFunction) -> bool {
    matches!(function.fate, Fate::Divert(_) | Fate::Springboard(_))
}

/// Whether vmlinux's function still runs while the module's scheduler is in force.
pub fn keeps_running(function: &BoundaryFunction) -> bool {
    match &function.fate {
        Fate::Stay(reason) => !matches!(reason, StayReason::Init | StayReason::OverriddenWeak),
        // vmlinux keeps running its own copy.
        Fate::Duplicate(_) => true,
        Fate::Divert(_) | Fate::Springboard(_) | Fate::InsideOnly(_) => false,
    }
}

fn lies_in_init(image: &Image, addr: Addr) -> bool {
    let section = image.sections.iter().find(|s| s.addr <= addr && addr.0 - s.addr.0 < s.size);
    section.is_some_and(|section| section.name.starts_with(".init"))
}

/// Boundary functions by the addresses of their code.
struct Owners<'a> {
    by_start: BTreeMap<Addr, (Addr, &'a BoundaryFunction)>,
}

impl<'a> Owners<'a> {
    fn new(boundary: &'a Boundary) -> Owners<'a> {
        let ranges = boundary.functions.iter().flat_map(|function| {
            function.ranges.iter().map(move |range| (range.start, (range.end, function)))
        });
        Owners { by_start: ranges.collect() }
    }

    fn of(&self, addr: Addr) -> Option<&'a BoundaryFunction> {
        let (_, (end, function)) = self.by_start.range(..=addr).next_back()?;
        (addr < *end).then_some(*function)
    }
}

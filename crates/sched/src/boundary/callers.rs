//! Who reaches a scheduler function from outside: by a direct branch, or through an address.

use schedswap_kernel::address::Addr;
use schedswap_kernel::vmlinux::{Image, SymbolId};
use std::collections::{BTreeMap, BTreeSet};

/// The code of the scheduler's units, as sorted address ranges.
pub struct SchedulerText {
    ranges: Vec<(Addr, Addr)>,
}

impl SchedulerText {
    /// Collects the ranges of every function of the scheduler's own units. A sidecar's count as outside: most of
    /// its functions stay.
    pub fn of(image: &Image) -> SchedulerText {
        let mut ranges: Vec<_> = image
            .units
            .iter()
            .filter(|u| u.sidecar.is_none())
            .flat_map(|u| &u.functions)
            .flat_map(|f| f.ranges.iter().map(|r| (r.start, r.end)))
            .collect();
        ranges.sort();
        SchedulerText { ranges }
    }

    /// Whether an instruction at `addr` belongs to the scheduler.
    pub fn contains(&self, addr: Addr) -> bool {
        let after = self.ranges.partition_point(|r| r.0 <= addr);
        after > 0 && addr < self.ranges[after - 1].1
    }
}

/// For every function entry: who reaches it.
#[derive(Default)]
pub struct Reached {
    /// Names of functions outside the scheduler that call or jump to it.
    pub called_from: BTreeMap<Addr, BTreeSet<String>>,
    /// Names of functions of the scheduler that call or jump to it.
    pub called_inside: BTreeMap<Addr, BTreeSet<SymbolId>>,
    /// Objects that hold its address, and functions whose code yields it.
    pub stored_in: BTreeMap<Addr, BTreeSet<String>>,
}

impl Reached {
    /// Sorts every use of a scheduler function by where it comes from.
    pub fn of(image: &Image, text: &SchedulerText) -> Reached {
        let entries: BTreeSet<Addr> = image.units.iter().flat_map(|u| &u.functions).map(|f| f.addr).collect();
        let mut reached = Reached::default();
        for branch in image.uses.branches.iter().filter(|b| entries.contains(&b.callee)) {
            if text.contains(branch.at) {
                reached.called_inside.entry(branch.callee).or_default().insert(branch.caller);
            } else {
                let caller = image.symbol(branch.caller).name.to_string();
                reached.called_from.entry(branch.callee).or_default().insert(caller);
            }
        }
        for taken in image.uses.taken.iter().filter(|t| entries.contains(&t.target)) {
            let by = format!("{}()", image.symbol(taken.function).name);
            reached.stored_in.entry(taken.target).or_default().insert(by);
        }
        for stored in image.uses.stored.iter().filter(|s| entries.contains(&s.target)) {
            let at = match stored.object {
                Some(object) => image.symbol(object).name.to_string(),
                None => format!("{} at {}", image.sections[stored.section].name, stored.at),
            };
            reached.stored_in.entry(stored.target).or_default().insert(at);
        }
        reached
    }
}

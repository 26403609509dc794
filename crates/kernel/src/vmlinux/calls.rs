//! Who calls whom, in both directions.

use super::image::{Image, SymbolId};
use crate::address::Addr;
use std::collections::HashMap;

/// The direct branches of the whole kernel, from function to function. A `.cold` part counts as its function.
pub struct Calls<'a> {
    image: &'a Image,
    entries: HashMap<SymbolId, Addr>,
    callees: HashMap<Addr, Vec<Addr>>,
}

impl<'a> Calls<'a> {
    /// Puts the branches in order by caller.
    pub fn of(image: &'a Image) -> Calls<'a> {
        let (mut entries, mut callees) = (HashMap::new(), HashMap::<Addr, Vec<Addr>>::new());
        for branch in &image.uses.branches {
            let caller = *entries.entry(branch.caller).or_insert_with(|| image.entry_of(branch.caller));
            callees.entry(caller).or_default().push(branch.callee);
        }
        Calls { image, entries, callees }
    }

    /// The functions that one branches to; one may occur several times.
    pub fn callees(&self, caller: Addr) -> &[Addr] {
        self.callees.get(&caller).map_or(&[], Vec::as_slice)
    }

    /// The functions that branch to one; one may occur several times.
    pub fn callers(&self, callee: Addr) -> impl Iterator<Item = Addr> {
        let branches = &self.image.uses.branches;
        let start = branches.partition_point(|branch| branch.callee < callee);
        let to_it = branches[start..].iter().take_while(move |branch| branch.callee == callee);
        to_it.map(|branch| self.entries[&branch.caller])
    }
}

impl Image {
    /// The entry of the function that a symbol's code belongs to: a `.cold` part belongs to its parent.
    pub fn entry_of(&self, code: SymbolId) -> Addr {
        let symbol = self.symbol(code);
        let Some((parent, _)) = symbol.name.split_once(".cold") else { return symbol.addr };
        let named = self.by_name.get(parent).into_iter().flatten().map(|id| self.symbol(*id));
        let mut beside = named.filter(|other| other.file == symbol.file || other.file.is_none());
        beside.next().map_or(symbol.addr, |other| other.addr)
    }

    /// The name of the function at an address, or the address.
    pub fn name_at(&self, addr: Addr) -> String {
        self.function_at(addr).map_or_else(|| addr.to_string(), |id| self.symbol(id).name.clone())
    }
}

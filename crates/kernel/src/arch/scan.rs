//! Goes through all functions of a kernel, in parallel.

use super::CodeUses;
use crate::address::Addr;
use crate::elf::{Elf, SymbolId};
use rayon::prelude::*;

/// How many functions are one piece of parallel work.
const FUNCTIONS_PER_TASK: usize = 256;

/// A function's code.
pub(super) struct Code<'a> {
    pub id: SymbolId,
    pub bytes: &'a [u8],
    pub start: Addr,
}

impl<'a> Code<'a> {
    pub fn holds(&self, addr: Addr) -> bool {
        self.start <= addr && addr.0 - self.start.0 < self.bytes.len() as u64
    }

    /// The code from `addr` to the function's end.
    pub fn from(&self, addr: Addr) -> Option<&'a [u8]> {
        self.bytes.get(usize::try_from(addr.0.checked_sub(self.start.0)?).ok()?..)
    }
}

/// What `scan` finds in all functions. Code is looked at symbol by symbol, because tables and padding between
/// functions would throw a decoder out of step.
pub(super) fn all(elf: &Elf, scan: impl Fn(&Code<'_>, &mut CodeUses) + Sync) -> CodeUses {
    let functions = without_overlap(elf);
    let some = |part: &[SymbolId]| {
        let mut uses = CodeUses::default();
        for id in part {
            let symbol = elf.symbol(*id);
            if let Some(bytes) = elf.bytes(symbol.addr, symbol.size) {
                scan(&Code { id: *id, bytes, start: symbol.addr }, &mut uses);
            }
        }
        uses
    };
    let parts: Vec<CodeUses> = functions.par_chunks(FUNCTIONS_PER_TASK).map(some).collect();
    let mut uses = CodeUses::default();
    for part in parts {
        uses.branches.extend(part.branches);
        uses.taken.extend(part.taken);
        uses.passed.extend(part.passed);
        uses.indirect.extend(part.indirect);
        uses.data.extend(part.data);
    }
    uses.branches.par_sort_unstable_by_key(|b| (b.callee, b.at));
    uses.taken.par_sort_unstable_by_key(|t| (t.target, t.at));
    uses.data.par_sort_unstable_by_key(|u| (u.target, u.at));
    uses.passed.sort_unstable();
    uses.passed.dedup();
    uses.indirect.sort_unstable();
    uses
}

/// Symbols with code, so that each byte of code is looked at once: one of several aliases, and no labels inside
/// functions.
fn without_overlap(elf: &Elf) -> Vec<SymbolId> {
    let mut chosen: Vec<SymbolId> = Vec::new();
    let mut end = Addr(0);
    for id in elf.functions_by_addr.iter().copied() {
        let symbol = elf.symbol(id);
        if symbol.size == 0 {
            continue;
        }
        let alias_of_last = chosen.last().is_some_and(|last| {
            let last = elf.symbol(*last);
            last.addr == symbol.addr && last.size <= symbol.size
        });
        if alias_of_last {
            chosen.pop();
        } else if symbol.addr < end {
            continue;
        }
        end = symbol.end();
        chosen.push(id);
    }
    chosen
}

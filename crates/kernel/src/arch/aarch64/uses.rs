//! Which function calls, jumps to, or takes the address of which, and which instruction refers to which variable
//! of the scheduler, from the code of all functions.
//!
//! An address is made of two instructions: `adrp` yields its page, and an `add` adds the rest, or a load or store
//! has it as its offset. The compiler moves the two apart and uses one `adrp` for several; so each register that
//! holds a page is followed to wherever it still holds it.

use super::super::scan::{self, Code};
use super::super::step::Register;
use super::follow::{Function, Go};
use super::lift::ABI;
use super::transfer::Transfer;
use super::word::Word;
use crate::address::Addr;
use crate::arch::{Branch, CodeUses, DataUse, FunctionEntries, Known, Passed, Taken, VariableRanges};
use crate::elf::{Elf, SymbolId};
use std::collections::BTreeSet;

/// Looks at all functions.
pub(super) fn uses(elf: &Elf, known: &Known<'_>) -> CodeUses {
    let scan = Scan { elf, entries: known.entries, variables: known.variables };
    scan::all(elf, |code, uses| scan.function(code, uses))
}

struct Scan<'a> {
    elf: &'a Elf,
    entries: &'a FunctionEntries,
    variables: &'a VariableRanges,
}

/// An address that an instruction makes up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    at: u64,
    target: u64,
    /// The register that holds it afterwards; none for a load or store, which reads or writes what is there.
    register: Option<Register>,
}

impl Scan<'_> {
    fn function(&self, code: &Code<'_>, uses: &mut CodeUses) {
        let mut function = Function::new(self.elf, code.start, code.bytes);
        let mut found = BTreeSet::new();
        let mut is_indirect = false;
        for index in 0..function.words.len() {
            let (at, word) = (function.at(index), function.words[index]);
            match word.transfer() {
                Some(Transfer::Direct { .. }) => self.branch(code, at, word, uses),
                Some(Transfer::Call) => is_indirect = true,
                Some(Transfer::Jump(_)) => is_indirect |= !function.is_table_jump(index),
                _ => {}
            }
            if let Some((register, page)) = word.adrp(at) {
                self.page(&mut function, index, register, page, &mut found);
            }
            if let Some((register, target)) = word.adr(at) {
                found.insert(Found { at, target, register: Some(register) });
            }
            if let Some((register, literal)) = word.literal(at)
                && let Some(bytes) = self.elf.bytes(Addr(literal), 8)
            {
                let target = u64::from_le_bytes(bytes.try_into().expect("eight bytes were asked for"));
                found.insert(Found { at, target, register: Some(register) });
            }
        }
        for found in found {
            self.address(code.id, &mut function, found, uses);
        }
        if is_indirect {
            uses.indirect.push(code.id);
        }
    }

    fn branch(&self, code: &Code<'_>, at: u64, word: Word, uses: &mut CodeUses) {
        let Some(callee) = word.target(at).map(Addr) else { return };
        if !code.holds(callee) && self.entries.contains(callee) {
            uses.branches.push(Branch { at: Addr(at), caller: code.id, callee, is_call: word.is_call() });
        }
    }

    /// Follows a page to all instructions that make an address of it.
    fn page(
        &self,
        function: &mut Function<'_>,
        from: usize,
        register: Register,
        page: u64,
        found: &mut BTreeSet<Found>,
    ) {
        function.walk(from, |at, word| {
            if let Some((to, base, by)) = word.add_immediate().filter(|(_, base, _)| *base == register) {
                debug_assert_eq!(base, register);
                let target = page.wrapping_add_signed(by);
                found.insert(Found { at, target, register: Some(to) });
            } else if let Some(access) = word.load_store().filter(|access| access.base == register) {
                let target = page.wrapping_add_signed(access.offset);
                found.insert(Found { at, target, register: None });
            }
            if overwrites(word, register) { Go::Stop } else { Go::On }
        });
    }

    /// Sorts an address into what it is of, if it is of something that is asked for.
    fn address(&self, id: SymbolId, function: &mut Function<'_>, found: Found, uses: &mut CodeUses) {
        let (at, target) = (Addr(found.at), Addr(found.target));
        if self.entries.contains(target)
            && let Some(register) = found.register
        {
            uses.taken.push(Taken { at, function: id, target });
            self.passed(id, function, at, register, target, uses);
        } else if self.variables.is_address(target) {
            uses.data.push(DataUse { at, function: id, target, is_taken: found.register.is_some() });
        }
    }

    /// Follows an argument register to the calls that are made with it.
    fn passed(
        &self,
        caller: SymbolId,
        function: &mut Function<'_>,
        at: Addr,
        register: Register,
        target: Addr,
        uses: &mut CodeUses,
    ) {
        let Some(from) = function.index(at.0).filter(|_| ABI.arguments.contains(&register)) else { return };
        let (start, end) = (function.start, function.at(function.words.len()));
        function.walk(from, |here, word| {
            if let Some(callee) = word.target(here)
                && !(start..end).contains(&callee)
                && self.entries.contains(Addr(callee))
            {
                uses.passed.push(Passed { target, callee: Addr(callee), at, caller });
            }
            if overwrites(word, register) { Go::Stop } else { Go::On }
        });
    }
}

/// Whether a register may hold another value after an instruction; a call keeps only those that are callee-saved.
fn overwrites(word: Word, register: Register) -> bool {
    let is_call = word.is_call() || word.transfer() == Some(Transfer::Call);
    if is_call {
        return !ABI.callee_saved.contains(&register);
    }
    word.registers().is_some_and(|used| used.writes.contains(register))
}

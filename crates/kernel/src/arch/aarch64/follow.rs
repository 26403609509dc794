//! Following a register through a function: from where it is set to wherever it is still that value.

use super::decode::{BYTES, Branch, Direct, Word, words};
use crate::address::Addr;
use crate::elf::Elf;

/// Instructions that are looked at, at most, before a table's jump for what makes it one.
const TABLE_DISTANCE_MAX: usize = 16;

/// Entries of a table of jumps, at most.
const TABLE_ENTRIES_MAX: u64 = 256;

/// One function, ready to be gone through again and again.
pub(super) struct Function<'a> {
    elf: &'a Elf,
    pub start: u64,
    pub words: Vec<Word>,
    /// By instruction: the last walk that was there.
    seen: Vec<u32>,
    walk: u32,
}

/// What a walk does at an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Go {
    /// On, wherever the code goes.
    On,
    /// No further this way.
    Stop,
}

impl<'a> Function<'a> {
    pub fn new(elf: &'a Elf, start: Addr, code: &[u8]) -> Function<'a> {
        let words: Vec<Word> = words(code, start.0).map(|(_, word)| word).collect();
        Function { elf, start: start.0, seen: vec![0; words.len()], words, walk: 0 }
    }

    pub fn at(&self, index: usize) -> u64 {
        self.start + index as u64 * BYTES
    }

    pub fn index(&self, addr: u64) -> Option<usize> {
        let index = usize::try_from(addr.checked_sub(self.start)? / BYTES).ok()?;
        (index < self.words.len()).then_some(index)
    }

    /// Goes wherever execution may go behind the instruction `from`, each instruction once. `look` is shown each,
    /// and says whether to go on behind it. Calls are gone over.
    pub fn walk(&mut self, from: usize, mut look: impl FnMut(u64, Word) -> Go) {
        self.walk += 1;
        let mut pending = Vec::new();
        self.behind(from, &mut pending);
        while let Some(mut index) = pending.pop() {
            while index < self.words.len() && self.seen[index] != self.walk {
                self.seen[index] = self.walk;
                if look(self.at(index), self.words[index]) == Go::Stop {
                    break;
                }
                if self.words[index].branch().is_some() {
                    self.behind(index, &mut pending);
                    break;
                }
                index += 1;
            }
        }
    }

    fn behind(&self, index: usize, pending: &mut Vec<usize>) {
        let word = self.words[index];
        let (on, target) = match word.branch() {
            None | Some(Branch::Call) | Some(Branch::Direct { kind: Direct::Call, .. }) => (true, None),
            // A WARN goes on.
            Some(Branch::Trap) => (true, None),
            Some(Branch::Direct { kind, .. }) => (kind != Direct::Jump, word.target(self.at(index))),
            Some(Branch::Jump(_)) => {
                pending.extend(self.table(index).unwrap_or_default());
                (false, None)
            }
            Some(Branch::Return | Branch::Other) => (false, None),
        };
        pending.extend(target.and_then(|target| self.index(target)));
        if on {
            pending.push(index + 1);
        }
    }

    /// Whether a `br` goes through a table of a switch: how far to each case is added to the address behind the
    /// `br`, which an `adr` yields.
    pub fn is_table_jump(&self, index: usize) -> bool {
        self.table_base(index).is_some()
    }

    /// `adr base, behind; add target, base, offset, sxt? #2; br target`: the register with the offset.
    fn table_base(&self, index: usize) -> Option<u32> {
        let Some(Branch::Jump(target)) = self.words[index].branch() else { return None };
        let add = *self.words.get(index.checked_sub(1)?)?;
        let is_extended_add = add.is(0xffe0_1c00, 0x8b20_0800) || add.is(0xffe0_0000, 0x8b20_0000);
        let (base, offset) = (add.general_or_sp(5), add.bits(16, 5));
        if !is_extended_add || add.general_or_sp(0) != target {
            return None;
        }
        let behind = self.at(index) + BYTES;
        let first = index.saturating_sub(TABLE_DISTANCE_MAX);
        let yields = |at: usize| self.words[at].adr(self.at(at)) == Some((base, behind));
        (first..index).rev().any(yields).then_some(offset)
    }

    /// The cases that a table leads to. Nothing says how many there are; what is read behind its end leads out of the
    /// function, or to a place where nobody uses what it does not have.
    fn table(&self, index: usize) -> Option<Vec<usize>> {
        let offset = self.table_base(index)?;
        let first = index.saturating_sub(TABLE_DISTANCE_MAX);
        let before = || (first..index).rev();
        // ldrb, ldrh or ldr of the offset, with a register as the index
        let load = before().find(|at| {
            let word = self.words[*at];
            word.is(0x3f20_0c00, 0x3820_0800) && word.bits(0, 5) == offset
        })?;
        let (size, table) = (1u64 << self.words[load].bits(30, 2), self.words[load].general_or_sp(5));
        let add = (first..load).rev().find_map(|at| {
            self.words[at].add_immediate().filter(|(to, ..)| *to == table).map(|(_, from, by)| (at, from, by))
        });
        let (add_at, page_register, by) = add?;
        let adrp = (0..add_at).rev().find_map(|at| {
            self.words[at].adrp(self.at(at)).filter(|(to, _)| *to == page_register).map(|(_, page)| page)
        })?;
        let table = adrp.wrapping_add_signed(by);
        let behind = self.at(index) + BYTES;
        let mut cases = Vec::new();
        for entry in 0..TABLE_ENTRIES_MAX {
            let Some(bytes) = self.elf.bytes(Addr(table + entry * size), size) else { break };
            let distance = match *bytes {
                [byte] => i64::from(byte as i8),
                [a, b] => i64::from(i16::from_le_bytes([a, b])),
                [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
                _ => return None,
            };
            let Some(case) = self.index(behind.wrapping_add_signed(distance << 2)) else { break };
            cases.push(case);
        }
        Some(cases)
    }
}

//! Following a register through a function: from where it is set to wherever it is still that value.

use super::transfer::{Direct, Transfer};
use super::word::{BYTES, Word, words};
use crate::address::Addr;
use crate::elf::Elf;

/// At most so many instructions before a jump are searched for those that make it a table's.
const TABLE_DISTANCE_MAX: usize = 16;

/// At most so many entries of a table of jumps are read.
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

    /// Goes wherever execution may go after the instruction `from`, to each instruction once. `look` is shown each,
    /// and says whether to go on after it. Calls are stepped over.
    pub fn walk(&mut self, from: usize, mut look: impl FnMut(u64, Word) -> Go) {
        self.walk += 1;
        let mut pending = Vec::new();
        self.add_successors(from, &mut pending);
        while let Some(mut index) = pending.pop() {
            while index < self.words.len() && self.seen[index] != self.walk {
                self.seen[index] = self.walk;
                if look(self.at(index), self.words[index]) == Go::Stop {
                    break;
                }
                if self.words[index].transfer().is_some() {
                    self.add_successors(index, &mut pending);
                    break;
                }
                index += 1;
            }
        }
    }

    fn add_successors(&self, index: usize, pending: &mut Vec<usize>) {
        let word = self.words[index];
        let (on, target) = match word.transfer() {
            None | Some(Transfer::Call) | Some(Transfer::Direct { kind: Direct::Call, .. }) => (true, None),
            // A WARN goes on.
            Some(Transfer::Trap) => (true, None),
            Some(Transfer::Direct { kind, .. }) => (kind != Direct::Jump, word.target(self.at(index))),
            Some(Transfer::Jump(_)) => {
                pending.extend(self.table(index).unwrap_or_default());
                (false, None)
            }
            Some(Transfer::Return | Transfer::Other) => (false, None),
        };
        pending.extend(target.and_then(|target| self.index(target)));
        if on {
            pending.push(index + 1);
        }
    }

    /// Whether a `br` goes through a table of a switch. The table holds the distance to each case, which is added to
    /// the address after the `br`; an `adr` yields that.
    pub fn is_table_jump(&self, index: usize) -> bool {
        self.table_base(index).is_some()
    }

    /// `adr base, after; add target, base, offset, sxt? #2; br target`: the register with the offset.
    fn table_base(&self, index: usize) -> Option<u32> {
        let Some(Transfer::Jump(target)) = self.words[index].transfer() else { return None };
        let add = *self.words.get(index.checked_sub(1)?)?;
        let is_extended_add = add.is(0xffe0_1c00, 0x8b20_0800) || add.is(0xffe0_0000, 0x8b20_0000);
        let (base, offset) = (add.general_or_sp(5), add.bits(16, 5));
        if !is_extended_add || add.general_or_sp(0) != target {
            return None;
        }
        let after = self.at(index) + BYTES;
        let first = index.saturating_sub(TABLE_DISTANCE_MAX);
        let yields = |at: usize| self.words[at].adr(self.at(at)) == Some((base, after));
        (first..index).rev().any(yields).then_some(offset)
    }

    /// The cases that a table leads to. Nothing says how many there are. What is read past its end leads out of the
    /// function, which ends the table, or to an instruction that does not use the value that is followed.
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
        let after = self.at(index) + BYTES;
        let mut cases = Vec::new();
        for entry in 0..TABLE_ENTRIES_MAX {
            let Some(bytes) = self.elf.bytes(Addr(table + entry * size), size) else { break };
            let distance = match *bytes {
                [byte] => i64::from(byte as i8),
                [a, b] => i64::from(i16::from_le_bytes([a, b])),
                [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
                _ => return None,
            };
            let Some(case) = self.index(after.wrapping_add_signed(distance << 2)) else { break };
            cases.push(case);
        }
        Some(cases)
    }
}

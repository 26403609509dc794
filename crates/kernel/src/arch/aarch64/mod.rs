//! arm64: A64 instructions.

mod fields;
mod follow;
mod lift;
mod load_store;
mod registers;
mod transfer;
mod uses;
mod word;

use super::relocation::{Field, Fields};
use super::step::{Abi, Outline, Register, Step};
use super::{Arch, CodeUses, Known, SiteKind};
use crate::address::Addr;
use crate::elf::{Elf, Machine};
use object::elf;
use std::ops::Range;
use word::{BYTES, Word, words};

/// See [`Arch`].
pub(super) struct Aarch64;

const NOP: u32 = 0xd503_201f;
const BTI_C: u32 = 0xd503_245f;
const BTI_JC: u32 = 0xd503_24df;

/// Bytes of ftrace's two nops.
const FENTRY_BYTES: u8 = 8;

/// How far before a function's entry its listed place is, where there is room for a pointer to call through
/// (DYNAMIC_FTRACE_WITH_CALL_OPS).
const CALL_OPS_BYTES: u64 = 8;

impl Arch for Aarch64 {
    fn machine(&self) -> Machine {
        Machine::Aarch64
    }

    fn directory(&self) -> &'static str {
        "arm64"
    }

    fn triplet(&self) -> &'static str {
        "aarch64-linux-gnu"
    }

    fn abi(&self) -> &'static Abi {
        &lift::ABI
    }

    fn stack_switch(&self) -> &'static str {
        "__switch_to"
    }

    fn retpoline(&self, _name: &str) -> Option<Register> {
        None
    }

    fn return_thunk(&self) -> Option<&'static str> {
        None
    }

    fn uses(&self, elf: &Elf, known: &Known<'_>) -> CodeUses {
        uses::uses(elf, known)
    }

    /// `$x`, `$d`, `$x.foo`: "ELF for the Arm 64-bit Architecture", 5.5.4.
    fn is_marker(&self, symbol: &str) -> bool {
        ["$x", "$d"].iter().any(|marker| {
            symbol.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// `ftrace_call_adjust()` of arch/arm64/kernel/ftrace.c.
    fn fentry(&self, elf: &Elf, listed: Addr) -> Addr {
        let entered = |addr| !elf.functions_entered_at(addr).is_empty();
        let entry = listed + CALL_OPS_BYTES;
        if entered(listed) || !entered(entry) {
            return listed;
        }
        entry + elf.bytes(entry, BYTES).map_or(0, |bytes| self.landing_pad(bytes))
    }

    fn site_len(&self, kind: SiteKind, _addr: Addr, _code: &[u8]) -> u8 {
        if kind == SiteKind::Fentry { FENTRY_BYTES } else { BYTES as u8 }
    }

    fn alternative_members(&self) -> [&'static str; 3] {
        ["orig_offset", "orig_len", "alt_len"]
    }

    fn landing_pad(&self, entry: &[u8]) -> u64 {
        match words(entry, 0).next() {
            Some((_, Word(BTI_C | BTI_JC))) => BYTES,
            _ => 0,
        }
    }

    fn is_before_body(&self, bytes: &[u8]) -> bool {
        words(bytes, 0).all(|(_, word)| matches!(word.0, NOP | BTI_C | BTI_JC))
    }

    /// `b`.
    fn jump_bytes(&self) -> u64 {
        BYTES
    }

    fn instruction_bytes(&self) -> Option<u64> {
        Some(BYTES)
    }

    fn has_jump_tables(&self) -> bool {
        true
    }

    /// CC_USING_PATCHABLE_FUNCTION_ENTRY, include/linux/ftrace.h.
    fn fentry_nop(&self) -> Option<&'static [u8]> {
        None
    }

    fn ftrace_table(&self) -> &'static str {
        "__patchable_function_entries"
    }

    /// The upper half, from `PAGE_END` on: the kernel is between modules and vmalloc (arch/arm64/include/asm/memory.h).
    fn kernel_addresses(&self) -> Range<u64> {
        0xffff_8000_0000_0000..u64::MAX
    }

    fn is_padding(&self, bytes: &[u8]) -> bool {
        words(bytes, 0).all(|(_, word)| matches!(word, Word(NOP | 0)))
    }

    fn step(&self, code: &[u8], at: Addr) -> Option<Step> {
        let (_, word) = words(code, at.0).next()?;
        lift::lift(word, at)
    }

    fn outlines(&self, code: &[u8], at: u64) -> Vec<Outline> {
        let outline = |(at, word): (u64, Word)| {
            let target = word.target(at);
            Outline { at, len: BYTES, mnemonic: word.0 >> 24, form: word.form(), nop: word.0 == NOP, target }
        };
        words(code, at).map(outline).collect()
    }

    fn field(&self, relocation: u32) -> Option<Field> {
        fields::field(relocation)
    }

    fn fields(&self, code: &[u8], start: u64, fields: &mut Fields) {
        fields::decode(code, start, fields);
    }

    fn address_relocation(&self) -> u32 {
        elf::R_AARCH64_ABS64.0
    }

    fn distance_relocation(&self) -> u32 {
        elf::R_AARCH64_PREL32.0
    }
}

//! A64 instructions: "Arm Architecture Reference Manual", C4. What the kernel's C code and its inline assembly
//! consist of; SIMD, SVE and SME are told apart from the rest, and no more.
//!
//! | file | says of an instruction |
//! |---|---|
//! | this | its fields, and which value it makes, if it makes one of its own |
//! | `transfer` | where it goes |
//! | `load_store` | what it loads or stores, at a base and an offset |
//! | `registers` | which registers it reads and writes |

use super::super::step::{Condition, Register};
use crate::arch::relocation::{adr_immediate, sign_extend};

/// The stack pointer, as registers are numbered here.
pub(super) const SP: Register = 31;
/// The link register.
pub(super) const LR: Register = 30;

/// Bytes of an instruction.
pub(super) const BYTES: u64 = 4;

/// By the number that instructions encode it with.
pub(super) fn condition(code: u32) -> Condition {
    match code {
        0 => Condition::Equal,
        1 => Condition::NotEqual,
        _ => Condition::Other,
    }
}

/// One instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word(pub u32);

impl Word {
    pub fn bits(self, low: u32, count: u32) -> u32 {
        self.0 >> low & ((1 << count) - 1)
    }

    pub fn is(self, mask: u32, value: u32) -> bool {
        self.0 & mask == value
    }

    pub fn signed(self, low: u32, count: u32) -> i64 {
        sign_extend(u64::from(self.bits(low, count)), count)
    }

    /// Rd, Rt: a register, or none where 31 is the zero register.
    pub fn rd(self) -> Option<Register> {
        self.general(0)
    }

    pub fn rn(self) -> Option<Register> {
        self.general(5)
    }

    pub fn rm(self) -> Option<Register> {
        self.general(16)
    }

    pub fn general(self, low: u32) -> Option<Register> {
        Some(self.bits(low, 5) as Register).filter(|register| *register != SP)
    }

    /// A register where 31 is the stack pointer.
    pub fn general_or_sp(self, low: u32) -> Register {
        self.bits(low, 5) as Register
    }

    /// Of 64 bits, where bit 31 tells.
    pub fn is_wide(self) -> bool {
        self.0 >> 31 != 0
    }

    /// `adrp`: register and page.
    pub fn adrp(self, at: u64) -> Option<(Register, u64)> {
        let page = (at & !0xfff).wrapping_add_signed(adr_immediate(u64::from(self.0)) << 12);
        self.rd().filter(|_| self.is(0x9f00_0000, 0x9000_0000)).map(|rd| (rd, page))
    }

    /// `adr`: register and address.
    pub fn adr(self, at: u64) -> Option<(Register, u64)> {
        let addr = at.wrapping_add_signed(adr_immediate(u64::from(self.0)));
        self.rd().filter(|_| self.is(0x9f00_0000, 0x1000_0000)).map(|rd| (rd, addr))
    }

    /// `add` or `sub` of 64 bits with an immediate, flags untouched: to, from, by. 31 is the stack pointer.
    pub fn add_immediate(self) -> Option<(Register, Register, i64)> {
        if !self.is(0xbf80_0000, 0x9100_0000) {
            return None;
        }
        let shift = if self.bits(22, 1) != 0 { 12 } else { 0 };
        let by = i64::from(self.bits(10, 12)) << shift;
        let by = if self.bits(30, 1) != 0 { -by } else { by };
        Some((self.general_or_sp(0), self.general_or_sp(5), by))
    }

    /// `mov` of 64 bits from register to register: to, from.
    pub fn moved(self) -> Option<(Register, Register)> {
        self.is(0xffe0_ffe0, 0xaa00_03e0).then(|| self.rd().zip(self.rm())).flatten()
    }

    /// `mov` of a number: to, and which.
    pub fn number(self) -> Option<(Register, u64)> {
        let value = u64::from(self.bits(5, 16)) << (16 * self.bits(21, 2));
        self.rd().filter(|_| self.is(0x7f80_0000, 0x5280_0000)).map(|to| (to, value))
    }

    /// `cset` of equality or its opposite: `csinc` of zero and zero by the opposite condition.
    pub fn truth(self) -> Option<(Register, Condition)> {
        let condition = condition(self.bits(12, 4)).opposite();
        let is_known = self.is(0x7fff_0fe0, 0x1a9f_07e0) && condition != Condition::Other;
        self.rd().filter(|_| is_known).map(|to| (to, condition))
    }

    /// `ldr` of 64 bits from an address near by: register and address.
    pub fn literal(self, at: u64) -> Option<(Register, u64)> {
        let addr = at.wrapping_add_signed(self.signed(5, 19) << 2);
        self.rd().filter(|_| self.is(0xff00_0000, 0x5800_0000)).map(|rd| (rd, addr))
    }
}

/// The instructions of `code`, which begins at `start`, with their addresses.
pub(super) fn words(code: &[u8], start: u64) -> impl Iterator<Item = (u64, Word)> + '_ {
    let words = code.as_chunks::<4>().0.iter().map(|bytes| Word(u32::from_le_bytes(*bytes)));
    (start..).step_by(BYTES as usize).zip(words)
}

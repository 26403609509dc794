//! A64 instructions: "Arm Architecture Reference Manual", C4. What the kernel's C code and its inline assembly
//! consist of; SIMD, SVE and SME are told apart, and no more.

use super::super::step::{Condition, Register, Registers};
use crate::arch::relocation::{adr_immediate, sign_extend};

/// The stack pointer, as registers are numbered here.
pub(super) const SP: Register = 31;
/// The link register.
pub(super) const LR: Register = 30;

/// Bytes of an instruction.
pub(super) const BYTES: u64 = 4;

/// Where an instruction goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Branch {
    /// `b`, `bl`, `b.cond`, `cbz`, `tbz`, …: bytes from the instruction.
    Direct { kind: Direct, distance: i64 },
    /// `br`
    Jump(Register),
    /// `blr`
    Call,
    /// `ret`
    Return,
    /// `brk`, `udf`
    Trap,
    /// Exceptions, returns from them, and branches that check a signature.
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direct {
    Jump,
    Call,
    /// `b.eq`, `b.ne`, or another one.
    Condition(u8),
    /// `cbz`, `cbnz`, `tbz`, `tbnz`: tests this register.
    Test(Option<Register>),
}

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

    fn signed(self, low: u32, count: u32) -> i64 {
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

    /// Where it goes, if not only to the next instruction.
    pub fn branch(self) -> Option<Branch> {
        let direct = |kind, distance: i64| Some(Branch::Direct { kind, distance: distance << 2 });
        if self.is(0x7c00_0000, 0x1400_0000) {
            let kind = if self.is_wide() { Direct::Call } else { Direct::Jump };
            return direct(kind, self.signed(0, 26));
        }
        if self.is(0xff00_0000, 0x5400_0000) {
            return direct(Direct::Condition(self.bits(0, 4) as u8), self.signed(5, 19));
        }
        if self.is(0x7e00_0000, 0x3400_0000) {
            return direct(Direct::Test(self.rd()), self.signed(5, 19));
        }
        if self.is(0x7e00_0000, 0x3600_0000) {
            return direct(Direct::Test(self.rd()), self.signed(5, 14));
        }
        match self.0 & 0xffff_fc1f {
            0xd61f_0000 => return Some(Branch::Jump(self.general_or_sp(5))),
            0xd63f_0000 => return Some(Branch::Call),
            0xd65f_0000 => return Some(Branch::Return),
            _ => {}
        }
        if self.is(0xfe00_0000, 0xd600_0000) {
            return Some(Branch::Other);
        }
        if self.is(0xff00_0000, 0xd400_0000) {
            let is_brk = self.is(0xffe0_001f, 0xd420_0000);
            return Some(if is_brk { Branch::Trap } else { Branch::Other });
        }
        self.is(0xffff_0000, 0).then_some(Branch::Trap)
    }

    /// The target of a direct branch at `at`.
    pub fn target(self, at: u64) -> Option<u64> {
        match self.branch()? {
            Branch::Direct { distance, .. } => Some(at.wrapping_add_signed(distance)),
            _ => None,
        }
    }

    pub fn is_call(self) -> bool {
        self.is(0xfc00_0000, 0x9400_0000)
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

    /// A load or store of one or two general registers at a base and an offset.
    pub fn access(self) -> Option<Access> {
        if self.is(0x3a00_0000, 0x2800_0000) {
            return self.pair();
        }
        if self.bits(26, 1) != 0 || !self.is(0x3a00_0000, 0x3800_0000) {
            return None;
        }
        let (size, opc) = (self.bits(30, 2), self.bits(22, 2));
        let kind = match (size, opc) {
            (3, 2) => Kind::Prefetch,
            (_, 0) => Kind::Store,
            (3, 3) | (2, 3) => return None,
            _ => Kind::Load,
        };
        let (offset, update) = if self.bits(24, 1) != 0 {
            (i64::from(self.bits(10, 12)) << size, Update::No)
        } else if self.bits(21, 1) != 0 {
            return None;
        } else {
            let update = match self.bits(10, 2) {
                0 | 2 => Update::No,
                1 => Update::After,
                _ => Update::Before,
            };
            (self.signed(12, 9), update)
        };
        let whole = size == 3;
        Some(Access {
            kind,
            registers: [self.rd(), None],
            count: 1,
            bytes: 1 << size,
            base: self.general_or_sp(5),
            offset,
            update,
            whole,
        })
    }

    fn pair(self) -> Option<Access> {
        let opc = self.bits(30, 2);
        // Of SIMD registers, or with a tag.
        if self.bits(26, 1) != 0 || opc == 3 {
            return None;
        }
        let is_load = self.bits(22, 1) != 0;
        if opc == 1 && !is_load {
            return None;
        }
        let bytes = if opc == 2 { 8 } else { 4 };
        let update = match self.bits(23, 2) {
            1 => Update::After,
            3 => Update::Before,
            _ => Update::No,
        };
        Some(Access {
            kind: if is_load { Kind::Load } else { Kind::Store },
            registers: [self.rd(), self.general(10)],
            count: 2,
            bytes,
            base: self.general_or_sp(5),
            offset: self.signed(15, 7) * bytes,
            update,
            whole: bytes == 8,
        })
    }

    /// `ldr` of 64 bits from an address near by: register and address.
    pub fn literal(self, at: u64) -> Option<(Register, u64)> {
        let addr = at.wrapping_add_signed(self.signed(5, 19) << 2);
        self.rd().filter(|_| self.is(0xff00_0000, 0x5800_0000)).map(|rd| (rd, addr))
    }

    /// The registers that it reads and writes, 31 meaning the stack pointer; `None` for what is not a general
    /// instruction.
    pub fn registers(self) -> Option<Used> {
        let mut used = Used::default();
        match self.bits(25, 4) {
            0b1000 | 0b1001 => self.immediate(&mut used),
            0b1010 | 0b1011 => self.system(&mut used),
            0b0100 | 0b0110 | 0b1100 | 0b1110 => self.memory(&mut used)?,
            0b0101 | 0b1101 => self.register(&mut used),
            _ => return None,
        }
        Some(used)
    }

    /// Data processing with an immediate.
    fn immediate(self, used: &mut Used) {
        let sets_flags = self.bits(29, 2);
        match self.bits(23, 3) {
            // adr, adrp
            0 | 1 => used.write(self.rd()),
            // add, sub; of tags
            2 | 3 => {
                used.read(Some(self.general_or_sp(5)));
                let is_flagged = self.bits(29, 1) != 0;
                used.write(if is_flagged { self.rd() } else { Some(self.general_or_sp(0)) });
                used.sets_flags |= is_flagged;
            }
            // Logical
            4 => {
                used.read(self.rn());
                let is_flagged = sets_flags == 3;
                used.write(if is_flagged { self.rd() } else { Some(self.general_or_sp(0)) });
                used.sets_flags |= is_flagged;
            }
            // movn, movz, movk
            5 => {
                if sets_flags == 3 {
                    used.read(self.rd());
                }
                used.write(self.rd());
            }
            // Bit fields, of which bfm keeps what it does not write; extr
            rest => {
                used.read(self.rn());
                if rest == 6 && sets_flags == 1 {
                    used.read(self.rd());
                }
                if rest == 7 {
                    used.read(self.rm());
                }
                used.write(self.rd());
            }
        }
    }

    /// Branches, exceptions, system registers.
    fn system(self, used: &mut Used) {
        match self.branch() {
            Some(Branch::Direct { kind, .. }) => match kind {
                Direct::Test(register) => used.read(register),
                Direct::Call => used.write(Some(LR)),
                Direct::Jump | Direct::Condition(_) => {}
            },
            Some(Branch::Jump(register)) => used.read(Some(register)),
            Some(Branch::Call) => {
                used.read(self.rn());
                used.write(Some(LR));
            }
            Some(_) => {}
            // mrs, sysl
            None if self.is(0xffe0_0000, 0xd520_0000) => used.write(self.rd()),
            None if self.is(0xffc0_0000, 0xd500_0000) => match self.0 {
                // xpaclri
                0xd503_20ff => {
                    used.read(Some(LR));
                    used.write(Some(LR));
                }
                // Hints of signatures: x17 with x16 (pacia1716, …), or x30.
                _ if self.is(0xffff_fd1f, 0xd503_211f) => {
                    used.read(Some(17));
                    used.read(Some(16));
                    used.write(Some(17));
                }
                _ if self.is(0xffff_ff1f, 0xd503_231f) => {
                    used.read(Some(LR));
                    used.write(Some(LR));
                }
                // Other hints, barriers and clrex name no register; msr and sys do.
                _ if self.is(0xffff_f000, 0xd503_2000) || self.is(0xffff_f000, 0xd503_3000) => {}
                _ => {
                    used.read(self.rd());
                    used.sets_flags = true;
                }
            },
            None => {}
        }
    }

    /// Loads and stores. `None` where SIMD registers are meant and the base would not tell.
    fn memory(self, used: &mut Used) -> Option<()> {
        let base = Some(self.general_or_sp(5));
        let is_simd = self.bits(26, 1) != 0;
        if let Some(access) = self.access() {
            used.read(base);
            for register in access.registers {
                match access.kind {
                    Kind::Load => used.write(register),
                    Kind::Store => used.read(register),
                    Kind::Prefetch => {}
                }
            }
            if access.update != Update::No {
                used.write(base);
            }
            return Some(());
        }
        // Literals
        if self.is(0x3b00_0000, 0x1800_0000) {
            if !is_simd && !self.is(0xff00_0000, 0xd800_0000) {
                used.write(self.rd());
            }
            return Some(());
        }
        // Memory tags
        if self.is(0xff20_0000, 0xd920_0000) {
            used.read(base);
            used.read(Some(self.general_or_sp(0)));
            used.write(self.rd());
            used.write(base);
            return Some(());
        }
        if self.is(0x3f00_0000, 0x0800_0000) {
            used.read(base);
            self.exclusive(used);
            return Some(());
        }
        // rcpc: ldapr with an offset
        if self.is(0x3f20_0c00, 0x1900_0000) {
            used.read(base);
            if self.bits(22, 2) == 0 {
                used.read(self.rd())
            } else {
                used.write(self.rd())
            }
            return Some(());
        }
        if self.is(0x3a00_0000, 0x3800_0000) || self.is(0x3a00_0000, 0x2800_0000) {
            used.read(base);
            if is_simd {
                // Post- and pre-indexed ones move the base.
                used.write(base);
                return Some(());
            }
            // With a register as the offset, atomic, or checking a signature.
            used.read(self.rm());
            used.read(self.rd());
            let is_plain_store = self.bits(10, 2) == 2 && self.bits(22, 2) == 0;
            let is_prefetch = self.bits(10, 2) == 2 && self.bits(30, 2) == 3 && self.bits(22, 2) == 2;
            if !is_plain_store && !is_prefetch {
                used.write(self.rd());
            }
            // Atomic ones put there what was in memory; some forms of swapping are single copies of 64 bytes instead.
            let is_atomic = self.bits(21, 1) == 1 && self.bits(10, 2) == 0;
            let is_of_64_bytes = self.bits(15, 1) == 1 && matches!(self.bits(12, 3), 1 | 2 | 3 | 5);
            let is_load = self.bits(10, 2) == 2 && self.bits(22, 2) != 0;
            if is_load || is_atomic && !is_of_64_bytes {
                used.forget_read(self.rd(), [base, self.rm()]);
            }
            return Some(());
        }
        // SIMD structures
        used.read(base);
        used.write(base);
        is_simd.then_some(())
    }

    /// Exclusive and ordered loads and stores, compare and swap ("Load/store exclusive" and what follows it in the
    /// manual's table of loads and stores): the registers besides the base.
    fn exclusive(self, used: &mut Used) {
        let (is_load, is_pair) = (self.bits(22, 1) != 0, self.bits(21, 1) != 0);
        let next = |register: Option<Register>| register.map(|register| (register + 1) & 31);
        match (self.bits(23, 1) != 0, is_pair) {
            // cas: the old value comes to where the expected one was
            (true, true) => {
                used.read(self.rd());
                used.read(self.rm());
                used.write(self.rm());
            }
            // casp: the same of two registers each
            (false, true) if self.bits(31, 1) == 0 => {
                for register in [self.rd(), next(self.rd()), self.rm(), next(self.rm())] {
                    used.read(register);
                }
                used.write(self.rm());
                used.write(next(self.rm()));
            }
            (is_ordered, is_pair) => {
                let second = self.general(10).filter(|_| is_pair);
                for register in [self.rd(), second] {
                    if is_load { used.write(register) } else { used.read(register) }
                }
                // Whether the store was done.
                if !is_load && !is_ordered {
                    used.write(self.rm());
                }
            }
        }
    }

    /// Data processing with registers.
    fn register(self, used: &mut Used) {
        used.read(self.rm());
        used.read(self.rn());
        if self.is(0x1f00_0000, 0x1b00_0000) {
            // Three sources
            used.read(self.general(10));
            used.write(self.rd());
        } else if self.is(0x1fe0_0000, 0x1a40_0000) {
            // ccmp, ccmn; bits 16 to 20 may be an immediate, which does no harm as a register that is read … but
            // would make up a reader, so it is left out.
            if self.bits(11, 1) != 0 {
                used.forget_read(self.rm(), [self.rn(), None]);
            }
            used.sets_flags = true;
        } else if self.is(0x5fe0_0000, 0x5ac0_0000) {
            // One source; bits 16 to 20 are part of the opcode. Those that sign read what they write.
            used.forget_read(self.rm(), [self.rn(), None]);
            if self.bits(16, 5) == 1 {
                used.read(self.rd());
                used.read(Some(self.general_or_sp(5)));
            }
            used.write(self.rd());
        } else if self.is(0x1f20_0000, 0x0b20_0000) {
            // Extended: the stack pointer may be meant.
            used.forget_read(self.rn(), [self.rm(), None]);
            used.read(Some(self.general_or_sp(5)));
            let is_flagged = self.bits(29, 1) != 0;
            used.write(if is_flagged { self.rd() } else { Some(self.general_or_sp(0)) });
            used.sets_flags = is_flagged;
        } else {
            used.write(self.rd());
            let is_arithmetic = self.is(0x1f00_0000, 0x0b00_0000) || self.is(0x1fe0_0000, 0x1a00_0000);
            let is_logical = self.is(0x1f00_0000, 0x0a00_0000);
            used.sets_flags = is_arithmetic && self.bits(29, 1) != 0 || is_logical && self.bits(29, 2) == 3;
        }
    }
}

/// A load or store of general registers, each of `bytes`, one behind the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Access {
    pub kind: Kind,
    /// `None` is the zero register.
    pub registers: [Option<Register>; 2],
    pub count: usize,
    pub bytes: i64,
    pub base: Register,
    pub offset: i64,
    pub update: Update,
    /// Of all 64 bits of the registers.
    pub whole: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Load,
    Store,
    Prefetch,
}

/// Whether the offset is added to the base register, before or after the access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Update {
    No,
    Before,
    After,
}

/// The registers that an instruction uses.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Used {
    pub reads: Registers,
    pub writes: Registers,
    pub sets_flags: bool,
}

impl Used {
    fn read(&mut self, register: Option<Register>) {
        register.into_iter().for_each(|register| self.reads.insert(register));
    }

    fn write(&mut self, register: Option<Register>) {
        register.into_iter().for_each(|register| self.writes.insert(register));
    }

    /// A field that is no register read, unless one of the others is the same one.
    fn forget_read(&mut self, register: Option<Register>, others: [Option<Register>; 2]) {
        if let Some(register) = register.filter(|register| !others.contains(&Some(*register))) {
            self.reads.remove(register);
        }
    }
}

/// The instructions of `code`, which begins at `start`, with their addresses.
pub(super) fn words(code: &[u8], start: u64) -> impl Iterator<Item = (u64, Word)> + '_ {
    let words = code.as_chunks::<4>().0.iter().map(|bytes| Word(u32::from_le_bytes(*bytes)));
    (start..).step_by(BYTES as usize).zip(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers(numbers: &[Register]) -> Registers {
        numbers.iter().copied().collect()
    }

    fn used(word: u32) -> (Registers, Registers) {
        let used = Word(word).registers().unwrap();
        (used.reads, used.writes)
    }

    /// Encodings as `llvm-mc` gives them.
    #[test]
    fn what_instructions_read_and_write() {
        for (word, reads, writes, name) in [
            (0xa9bf_7bfd, &[29, 30, 31][..], &[31][..], "stp x29, x30, [sp, #-16]!"),
            (0xa8c2_7bfd, &[31], &[29, 30, 31], "ldp x29, x30, [sp], #32"),
            (0x910003fd, &[31], &[29], "mov x29, sp"),
            (0xd10203ff, &[31], &[31], "sub sp, sp, #128"),
            (0xf942a820, &[1], &[0], "ldr x0, [x1, #1360]"),
            (0xf81f_83a0, &[0, 29], &[], "stur x0, [x29, #-8]"),
            (0xa93e_ffbf, &[29], &[], "stp xzr, xzr, [x29, #-24]"),
            (0xb8a2_6802, &[0, 2], &[2], "ldrsw x2, [x0, x2]"),
            (0xf820_6833, &[0, 1, 19], &[], "str x19, [x1, x0]"),
            (0xf862_7821, &[1, 2], &[1], "ldr x1, [x1, x2, lsl #3]"),
            (0x8b01_0273, &[1, 19], &[19], "add x19, x19, x1"),
            (0xeb00_003f, &[0, 1], &[], "cmp x1, x0"),
            (0xd538_4101, &[], &[1], "mrs x1, sp_el0"),
            (0xd51b_d060, &[0], &[], "msr tpidrro_el0, x0"),
            (0x885f_7c40, &[2], &[0], "ldxr w0, [x2]"),
            (0x8803_7c40, &[0, 2], &[3], "stxr w3, w0, [x2]"),
            (0xc87f_0c41, &[2], &[1, 3], "ldxp x1, x3, [x2]"),
            (0xc824_0c41, &[1, 2, 3], &[4], "stxp w4, x1, x3, [x2]"),
            (0xc8df_fc41, &[2], &[1], "ldar x1, [x2]"),
            (0xc89f_fc41, &[1, 2], &[], "stlr x1, [x2]"),
            (0xc8a3_7c41, &[1, 2, 3], &[3], "cas x3, x1, [x2]"),
            (0x4826_7d04, &[4, 5, 6, 7, 8], &[6, 7], "casp x6, x7, x4, x5, [x8]"),
            (0xf823_0005, &[0, 3], &[5], "ldadd x3, x5, [x0]"),
            (0xf823_0003, &[0, 3], &[3], "ldadd x3, x3, [x0]"),
            (0xf823_8005, &[0, 3], &[5], "swp x3, x5, [x0]"),
            (0xf83f_9006, &[0, 6], &[6], "st64b x6, [x0]"),
            (0xf8bf_c005, &[0], &[5], "ldapr x5, [x0]"),
            (0xb24c_03c1, &[30], &[1], "orr x1, x30, #…"),
            (0xf2aa_f580, &[0], &[0], "movk x0, #…, lsl #16"),
            (0xd280_0000, &[], &[0], "mov x0, #0"),
            (0x3500_0060, &[0], &[], "cbnz w0"),
            (0xd63f_0020, &[1], &[30], "blr x1"),
            (0x9a80_0020, &[0, 1], &[0], "csel x0, x1, x0, eq"),
            (0xdac0_1020, &[1], &[0], "clz x0, x1"),
            (0xfa41_0804, &[0], &[], "ccmp x0, #1, #4, eq"),
        ] {
            let (found_reads, found_writes) = used(word);
            assert_eq!(found_reads, registers(reads), "{name}");
            assert_eq!(found_writes, registers(writes), "{name}");
        }
    }

    #[test]
    fn where_branches_go() {
        for (word, expected) in [
            (0x97ff_fffeu32, Some(0xff8)),
            (0x5400_0060, Some(0x100c)),
            (0x3500_0060, Some(0x100c)),
            (0x36bf_f140, Some(0x1000 - 0x1d8)),
            (0xd65f_03c0, None),
            (0xd503_201f, None),
        ] {
            assert_eq!(Word(word).target(0x1000), expected, "{word:#x}");
        }
        assert_eq!(Word(0xd421_0000).branch(), Some(Branch::Trap), "brk #0x800");
        assert_eq!(Word(0xd65f_03c0).branch(), Some(Branch::Return));
        assert_eq!(Word(0xd503_233f).branch(), None, "paciasp");
    }
}

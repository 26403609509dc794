//! The registers that an A64 instruction reads and writes.

use super::super::step::{Register, Registers};
use super::load_store::{LoadStore, LoadStoreKind, Update};
use super::transfer::{Direct, Transfer};
use super::word::{LR, Word};

/// The registers that an instruction uses.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct UsedRegisters {
    pub reads: Registers,
    pub writes: Registers,
    pub sets_flags: bool,
}

impl UsedRegisters {
    fn read(&mut self, register: Option<Register>) {
        register.into_iter().for_each(|register| self.reads.insert(register));
    }

    fn write(&mut self, register: Option<Register>) {
        register.into_iter().for_each(|register| self.writes.insert(register));
    }

    /// A load or store, with its base.
    fn add_load_store(&mut self, access: &LoadStore) {
        self.read(Some(access.base));
        for register in access.registers {
            match access.kind {
                LoadStoreKind::Load => self.write(register),
                LoadStoreKind::Store => self.read(register),
                LoadStoreKind::Prefetch => {}
            }
        }
        if access.update != Update::No {
            self.write(Some(access.base));
        }
    }

    /// A field that is not a register read, unless one of the others is the same one.
    fn forget_read(&mut self, register: Option<Register>, others: [Option<Register>; 2]) {
        if let Some(register) = register.filter(|register| !others.contains(&Some(*register))) {
            self.reads.remove(register);
        }
    }
}

impl Word {
    /// The registers that it reads and writes, 31 meaning the stack pointer; `None` if it is not a general
    /// instruction.
    pub fn registers(self) -> Option<UsedRegisters> {
        let mut used = UsedRegisters::default();
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
    fn immediate(self, used: &mut UsedRegisters) {
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
    fn system(self, used: &mut UsedRegisters) {
        match self.transfer() {
            Some(Transfer::Direct { kind, .. }) => match kind {
                Direct::Zero(register) | Direct::Bit(register) => used.read(register),
                Direct::Call => used.write(Some(LR)),
                Direct::Jump | Direct::Condition(_) => {}
            },
            Some(Transfer::Jump(register)) => used.read(Some(register)),
            Some(Transfer::Call) => {
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

    /// Loads and stores. `None` if SIMD registers are meant and the base would not tell.
    fn memory(self, used: &mut UsedRegisters) -> Option<()> {
        let is_simd = self.bits(26, 1) != 0;
        if let Some(access) = self.load_store() {
            used.add_load_store(&access);
            return Some(());
        }
        // Literals
        if self.is(0x3b00_0000, 0x1800_0000) {
            if !is_simd && !self.is(0xff00_0000, 0xd800_0000) {
                used.write(self.rd());
            }
            return Some(());
        }
        let base = Some(self.general_or_sp(5));
        used.read(base);
        if self.is(0xff20_0000, 0xd920_0000) {
            // Memory tags
            used.read(Some(self.general_or_sp(0)));
            used.write(self.rd());
            used.write(base);
        } else if self.is(0x3f00_0000, 0x0800_0000) {
            self.exclusive(used);
        } else if self.is(0x3f20_0c00, 0x1900_0000) {
            // rcpc: ldapr with an offset
            if self.bits(22, 2) == 0 { used.read(self.rd()) } else { used.write(self.rd()) }
        } else if !is_simd && (self.is(0x3a00_0000, 0x3800_0000) || self.is(0x3a00_0000, 0x2800_0000)) {
            self.indexed(used);
        } else {
            // SIMD: structures, and what is post- or pre-indexed; these move the base.
            used.write(base);
            return is_simd.then_some(());
        }
        Some(())
    }

    /// Loads and stores with a register as the offset, atomic ones, and those that check a signature: the registers
    /// besides the base.
    fn indexed(self, used: &mut UsedRegisters) {
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
            used.forget_read(self.rd(), [Some(self.general_or_sp(5)), self.rm()]);
        }
    }

    /// Exclusive and ordered loads and stores, compare and swap ("Load/store exclusive" and what follows it in the
    /// manual's table of loads and stores): the registers besides the base.
    fn exclusive(self, used: &mut UsedRegisters) {
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
    fn register(self, used: &mut UsedRegisters) {
        used.read(self.rm());
        used.read(self.rn());
        if self.is(0x1f00_0000, 0x1b00_0000) {
            // Three sources
            used.read(self.general(10));
            used.write(self.rd());
        } else if self.is(0x1fe0_0000, 0x1a40_0000) {
            // ccmp, ccmn; bits 16 to 20 may be an immediate, which would count as
            // a register that is read, so it is left out.
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
}

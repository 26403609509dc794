//! Where an A64 instruction goes.

use super::super::step::Register;
use super::word::Word;

/// Where an instruction goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transfer {
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

/// The kinds of direct branches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direct {
    Jump,
    Call,
    /// `b.eq`, `b.ne`, or another one.
    Condition(u8),
    /// `cbz`, `cbnz`: whether this register is zero.
    Zero(Option<Register>),
    /// `tbz`, `tbnz`: a bit of this register.
    Bit(Option<Register>),
}

impl Word {
    /// Where it goes, if not only to the next instruction.
    pub fn transfer(self) -> Option<Transfer> {
        let direct = |kind, distance: i64| Some(Transfer::Direct { kind, distance: distance << 2 });
        if self.is(0x7c00_0000, 0x1400_0000) {
            let kind = if self.is_wide() { Direct::Call } else { Direct::Jump };
            return direct(kind, self.signed(0, 26));
        }
        if self.is(0xff00_0000, 0x5400_0000) {
            return direct(Direct::Condition(self.bits(0, 4) as u8), self.signed(5, 19));
        }
        if self.is(0x7e00_0000, 0x3400_0000) {
            return direct(Direct::Zero(self.rd()), self.signed(5, 19));
        }
        if self.is(0x7e00_0000, 0x3600_0000) {
            return direct(Direct::Bit(self.rd()), self.signed(5, 14));
        }
        match self.0 & 0xffff_fc1f {
            0xd61f_0000 => return Some(Transfer::Jump(self.general_or_sp(5))),
            0xd63f_0000 => return Some(Transfer::Call),
            0xd65f_0000 => return Some(Transfer::Return),
            _ => {}
        }
        if self.is(0xfe00_0000, 0xd600_0000) {
            return Some(Transfer::Other);
        }
        if self.is(0xff00_0000, 0xd400_0000) {
            let is_brk = self.is(0xffe0_001f, 0xd420_0000);
            return Some(if is_brk { Transfer::Trap } else { Transfer::Other });
        }
        self.is(0xffff_0000, 0).then_some(Transfer::Trap)
    }

    /// The target of a direct branch at `at`.
    pub fn target(self, at: u64) -> Option<u64> {
        match self.transfer()? {
            Transfer::Direct { distance, .. } => Some(at.wrapping_add_signed(distance)),
            _ => None,
        }
    }

    /// The bits that say what kind of instruction it is and on what it works; of a direct branch, all that do not say
    /// where it goes.
    pub fn form(self) -> u32 {
        match self.transfer() {
            Some(Transfer::Direct { kind, .. }) => match kind {
                Direct::Jump | Direct::Call => self.0 & 0xfc00_0000,
                Direct::Condition(_) | Direct::Zero(_) => self.0 & 0xff00_001f,
                Direct::Bit(_) => self.0 & 0xfff8_001f,
            },
            _ => self.0,
        }
    }

    pub fn is_call(self) -> bool {
        self.is(0xfc00_0000, 0x9400_0000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(Word(0xd421_0000).transfer(), Some(Transfer::Trap), "brk #0x800");
        assert_eq!(Word(0xd65f_03c0).transfer(), Some(Transfer::Return));
        assert_eq!(Word(0xd503_233f).transfer(), None, "paciasp");
    }
}

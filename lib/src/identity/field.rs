//! Relocated fields: which bits of the code a relocation fills in, and which address it was filled in with.
//!
//! x86-64: psABI, table 4.9; AArch64: "ELF for the Arm 64-bit Architecture", 5.7.

use crate::address::Addr;
use crate::vmlinux::Machine;

/// The bits that a relocation writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Field {
    /// Bytes of the field or instruction.
    pub len: usize,
    /// Set bits are written by the linker.
    pub mask: u64,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Holds S + A; sign-extended when shorter than an address.
    Absolute { signed: bool },
    /// Holds S + A - P.
    PcRelative,
    /// A64 `b`, `bl`, `b.cond`, `tbz`: (S + A - P) / 4 in `bits` bits from bit `low`.
    Branch { bits: u32, low: u32 },
    /// A64 `adrp`.
    Page,
    /// A64 `adr`.
    Adr,
    /// A64 `add`, `ldr`, `str`: the low 12 bits of S + A, in units of `1 << shift`.
    Low12 { shift: u32 },
    /// What the linker made of it cannot be told from the field alone.
    Opaque,
}

/// What a field says of S + A.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Filled {
    /// All of it.
    Target(Addr),
    /// It without its low 12 bits.
    Page(Addr),
    /// Its low 12 bits.
    Low12(u64),
    /// Nothing.
    Unknown,
}

/// The field of a relocation; `None` for a kind that is not known.
pub(super) fn field(machine: Machine, kind: u32) -> Option<Field> {
    match machine {
        Machine::X86_64 => x86_64(kind),
        Machine::Aarch64 => aarch64(kind),
    }
}

fn x86_64(kind: u32) -> Option<Field> {
    use object::elf::*;
    let whole = |len: usize, kind| Some(Field { len, mask: u64::MAX >> (64 - 8 * len), kind });
    match RelocationType(kind) {
        R_X86_64_NONE => Some(Field { len: 0, mask: 0, kind: Kind::Opaque }),
        R_X86_64_64 => whole(8, Kind::Absolute { signed: false }),
        R_X86_64_32S => whole(4, Kind::Absolute { signed: true }),
        R_X86_64_32 => whole(4, Kind::Absolute { signed: false }),
        R_X86_64_PC32 | R_X86_64_PLT32 => whole(4, Kind::PcRelative),
        R_X86_64_PC64 => whole(8, Kind::PcRelative),
        R_X86_64_GOTPCREL => whole(4, Kind::Opaque),
        _ => None,
    }
}

fn aarch64(kind: u32) -> Option<Field> {
    use object::elf::*;
    let data = |len: usize, kind| Some(Field { len, mask: u64::MAX >> (64 - 8 * len), kind });
    let code = |mask: u64, kind| Some(Field { len: 4, mask, kind });
    let branch = |bits: u32, low: u32| code(((1 << bits) - 1) << low, Kind::Branch { bits, low });
    let low12 = |shift: u32| code(0x003f_fc00, Kind::Low12 { shift });
    match RelocationType(kind) {
        R_AARCH64_NONE => Some(Field { len: 0, mask: 0, kind: Kind::Opaque }),
        R_AARCH64_ABS64 => data(8, Kind::Absolute { signed: false }),
        R_AARCH64_ABS32 => data(4, Kind::Absolute { signed: false }),
        R_AARCH64_PREL64 => data(8, Kind::PcRelative),
        R_AARCH64_PREL32 => data(4, Kind::PcRelative),
        R_AARCH64_CALL26 | R_AARCH64_JUMP26 => branch(26, 0),
        R_AARCH64_CONDBR19 => branch(19, 5),
        R_AARCH64_TSTBR14 => branch(14, 5),
        R_AARCH64_ADR_PREL_LO21 => code(0x60ff_ffe0, Kind::Adr),
        R_AARCH64_ADR_PREL_PG_HI21 | R_AARCH64_ADR_PREL_PG_HI21_NC => code(0x60ff_ffe0, Kind::Page),
        R_AARCH64_ADD_ABS_LO12_NC | R_AARCH64_LDST8_ABS_LO12_NC => low12(0),
        R_AARCH64_LDST16_ABS_LO12_NC => low12(1),
        R_AARCH64_LDST32_ABS_LO12_NC => low12(2),
        R_AARCH64_LDST64_ABS_LO12_NC => low12(3),
        R_AARCH64_LDST128_ABS_LO12_NC => low12(4),
        _ => None,
    }
}

impl Field {
    /// Whether the address is S + A exactly, so that the addend is the offset referred to.
    pub fn is_absolute(&self) -> bool {
        matches!(self.kind, Kind::Absolute { .. })
    }

    /// What the linker filled in; `bytes` are the field in vmlinux, which is at `place`.
    pub fn filled(&self, bytes: &[u8], place: Addr) -> Filled {
        let mut value = [0u8; 8];
        value[..self.len].copy_from_slice(&bytes[..self.len]);
        let raw = u64::from_le_bytes(value);
        let extended = if self.len == 4 { raw as u32 as i32 as i64 } else { raw as i64 };
        match self.kind {
            Kind::Absolute { signed: true } => Filled::Target(Addr(extended as u64)),
            Kind::Absolute { signed: false } => Filled::Target(Addr(raw)),
            Kind::PcRelative => Filled::Target(place.offset(extended)),
            Kind::Branch { bits, low } => {
                Filled::Target(place.offset(sign_extend((raw & self.mask) >> low, bits) << 2))
            }
            Kind::Adr => Filled::Target(place.offset(adr_immediate(raw))),
            Kind::Page => Filled::Page(Addr(place.0 & !0xfff).offset(adr_immediate(raw) << 12)),
            Kind::Low12 { shift } => Filled::Low12(((raw & self.mask) >> 10) << shift),
            Kind::Opaque => Filled::Unknown,
        }
    }
}

fn adr_immediate(instruction: u64) -> i64 {
    let low = (instruction >> 29) & 3;
    let high = (instruction >> 5) & 0x7_ffff;
    sign_extend(high << 2 | low, 21)
}

fn sign_extend(value: u64, bits: u32) -> i64 {
    ((value << (64 - bits)) as i64) >> (64 - bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(machine: Machine, kind: u32, bytes: &[u8], place: u64) -> Filled {
        field(machine, kind).unwrap().filled(bytes, Addr(place))
    }

    #[test]
    fn x86_fields_give_the_target_back() {
        let pc = filled(Machine::X86_64, 2, &(-16i32).to_le_bytes(), 0xffff_ffff_8100_0000);
        assert_eq!(pc, Filled::Target(Addr(0xffff_ffff_80ff_fff0)));
        let abs = filled(Machine::X86_64, 11, &0x8200_0000u32.to_le_bytes(), 0);
        assert_eq!(abs, Filled::Target(Addr(0xffff_ffff_8200_0000)));
        // A per-CPU offset, reached by wrapping round the end of the address space.
        let percpu = filled(Machine::X86_64, 2, &0x7f00_1000i32.to_le_bytes(), 0xffff_ffff_8100_0000);
        assert_eq!(percpu, Filled::Target(Addr(0x1000)));
        assert!(field(Machine::X86_64, 200).is_none());
    }

    #[test]
    fn a64_fields_give_the_target_back() {
        // adrp x0, .+0x3000 at 0x1abc; add x0, x0, #0x124; ldr x0, [x0, #0x128]; bl .-8
        let adrp = filled(Machine::Aarch64, 275, &0xf000_0000u32.to_le_bytes(), 0x1abc);
        assert_eq!(adrp, Filled::Page(Addr(0x4000)));
        let add = filled(Machine::Aarch64, 277, &0x9104_9000u32.to_le_bytes(), 0);
        assert_eq!(add, Filled::Low12(0x124));
        let ldr = filled(Machine::Aarch64, 286, &0xf940_9400u32.to_le_bytes(), 0);
        assert_eq!(ldr, Filled::Low12(0x128));
        let bl = filled(Machine::Aarch64, 283, &0x97ff_fffeu32.to_le_bytes(), 0x1000);
        assert_eq!(bl, Filled::Target(Addr(0xff8)));
    }
}

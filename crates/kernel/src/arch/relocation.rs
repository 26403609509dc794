//! Relocated fields: which bits of code or data a relocation fills in, with what, and which address they were
//! filled in with.

use crate::address::Addr;
use std::collections::HashMap;
use std::fmt;

/// The bits that a relocation writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// Bytes of the field or instruction.
    pub len: usize,
    /// Set bits are written by the linker.
    pub mask: u64,
    /// What it holds.
    pub kind: Kind,
}

/// What a field holds of S + A, the address referred to. P is the field's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// S + A.
    Absolute {
        /// Whether a field of 32 bits is sign-extended to an address.
        signed: bool,
    },
    /// S + A - P.
    PcRelative,
    /// A64 `b`, `bl`, `b.cond`, `tbz`: (S + A - P) / 4.
    Branch {
        /// How many bits of the instruction hold it.
        bits: u32,
        /// The lowest of these bits.
        low: u32,
    },
    /// A64 `adrp`: the distance from P's page of 4096 bytes to that of S + A, in pages.
    Page,
    /// A64 `adr`: S + A - P.
    Adr,
    /// A64 `add`, `ldr`, `str`: the low 12 bits of S + A.
    Low12 {
        /// The field counts in units of `1 << shift` bytes.
        shift: u32,
    },
    /// What the linker made of it cannot be told from the field alone.
    Opaque,
}

/// What a field tells of S + A.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Filled {
    /// All of it.
    Target(Addr),
    /// All but its low 12 bits.
    Page(Addr),
    /// Its low 12 bits.
    Low12(u64),
    /// Nothing.
    Unknown,
}

/// Why a value cannot be put into a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// The field ends past the end of the section.
    PastTheEnd,
    /// The value is wider than the field, or not aligned as the field needs.
    TooFar {
        /// How many bits the field has.
        bits: u32,
    },
    /// Nothing is known of the field.
    Opaque,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::PastTheEnd => f.write_str("the field reaches past the end of its section"),
            Unfit::TooFar { bits } => write!(f, "the value does not fit its {bits}-bit field"),
            Unfit::Opaque => f.write_str("nothing is known of the field"),
        }
    }
}

impl Field {
    /// A whole number of bytes.
    pub fn whole(len: usize, kind: Kind) -> Field {
        Field { len, mask: u64::MAX >> (64 - 8 * len), kind }
    }

    /// A field that is not looked into.
    pub fn opaque(len: usize) -> Field {
        Field { len, mask: if len == 0 { 0 } else { u64::MAX >> (64 - 8 * len) }, kind: Kind::Opaque }
    }

    /// Whether it is known what it holds.
    pub fn is_known(&self) -> bool {
        self.kind != Kind::Opaque
    }

    /// Whether the address is S + A exactly, so that the addend is the offset referred to.
    pub fn is_absolute(&self) -> bool {
        matches!(self.kind, Kind::Absolute { .. })
    }

    /// Whether it counts from its own place.
    pub fn is_relative(&self) -> bool {
        matches!(self.kind, Kind::PcRelative | Kind::Branch { .. } | Kind::Page | Kind::Adr)
    }

    /// Whether an address in the upper half of the address space can be in it.
    pub fn holds_kernel_addresses(&self) -> bool {
        self.len == 8 || self.kind != Kind::Absolute { signed: false }
    }

    /// What the linker filled in; `bytes` are the field in vmlinux, which is at `place`.
    pub fn filled(&self, bytes: &[u8], place: Addr) -> Filled {
        let raw = self.raw(bytes);
        let extended = if self.len == 4 { raw as u32 as i32 as i64 } else { raw as i64 };
        match self.kind {
            Kind::Absolute { signed: true } => Filled::Target(Addr(extended as u64)),
            Kind::Absolute { signed: false } => Filled::Target(Addr(raw)),
            Kind::PcRelative => Filled::Target(place.offset(extended)),
            Kind::Branch { bits, low } => {
                Filled::Target(place.offset(sign_extend((raw & self.mask) >> low, bits) << 2))
            }
            Kind::Adr => Filled::Target(place.offset(adr_immediate(raw))),
            Kind::Page => Filled::Page(page(place).offset(adr_immediate(raw) << 12)),
            Kind::Low12 { shift } => Filled::Low12(((raw & self.mask) >> 10) << shift),
            Kind::Opaque => Filled::Unknown,
        }
    }

    /// Whether the bits that it writes are all zero in `bytes`, which are the field.
    pub fn is_clear(&self, bytes: &[u8]) -> bool {
        self.raw(bytes) & self.mask == 0
    }

    /// Makes them zero.
    pub fn clear(&self, bytes: &mut [u8]) {
        let cleared = self.raw(bytes) & !self.mask;
        bytes[..self.len].copy_from_slice(&cleared.to_le_bytes()[..self.len]);
    }

    /// Bytes, as offsets count them.
    pub fn width(&self) -> u64 {
        self.len as u64
    }

    fn raw(&self, bytes: &[u8]) -> u64 {
        let mut value = [0u8; 8];
        value[..self.len].copy_from_slice(&bytes[..self.len]);
        u64::from_le_bytes(value)
    }

    /// Puts `value`, which is S + A, into the field at `offset` of `bytes`; `place` is the field's address. The bits
    /// of an instruction around it stay.
    ///
    /// # Errors
    /// [`Unfit::PastTheEnd`] if `bytes` ends before the field does, [`Unfit::TooFar`] if the value does not fit, and
    /// [`Unfit::Opaque`] if the field is one whose meaning is not known.
    pub fn fill(&self, bytes: &mut [u8], offset: usize, place: Addr, value: u64) -> Result<(), Unfit> {
        let bytes = offset.checked_add(self.len).and_then(|end| bytes.get_mut(offset..end));
        let bytes = bytes.ok_or(Unfit::PastTheEnd)?;
        let distance = value.wrapping_sub(place.0);
        let bits = match self.kind {
            Kind::Absolute { signed } if self.len == 4 => {
                let fits = if signed { is_signed(value, 32) } else { value <= u64::from(u32::MAX) };
                fits.then_some(value).ok_or(Unfit::TooFar { bits: 32 })?
            }
            Kind::Absolute { .. } => value,
            Kind::PcRelative if self.len == 8 => distance,
            Kind::PcRelative => {
                is_signed(distance, 32).then_some(distance).ok_or(Unfit::TooFar { bits: 32 })?
            }
            Kind::Branch { bits, low } => {
                let fits = distance.is_multiple_of(4) && is_signed(distance, bits + 2);
                (fits.then_some(distance >> 2).ok_or(Unfit::TooFar { bits })?) << low
            }
            Kind::Adr => {
                adr_bits(is_signed(distance, 21).then_some(distance).ok_or(Unfit::TooFar { bits: 21 })?)
            }
            Kind::Page => {
                let pages = page(Addr(value)).0.wrapping_sub(page(place).0) as i64 >> 12;
                adr_bits(
                    is_signed(pages as u64, 21).then_some(pages as u64).ok_or(Unfit::TooFar { bits: 21 })?,
                )
            }
            Kind::Low12 { shift } => {
                let low = value & 0xfff;
                let fits = low & ((1 << shift) - 1) == 0;
                (fits.then_some(low >> shift).ok_or(Unfit::TooFar { bits: 12 })?) << 10
            }
            Kind::Opaque => return Err(Unfit::Opaque),
        };
        let filled = self.raw(bytes) & !self.mask | bits & self.mask;
        bytes.copy_from_slice(&filled.to_le_bytes()[..self.len]);
        Ok(())
    }
}

fn page(addr: Addr) -> Addr {
    Addr(addr.0 & !0xfff)
}

/// The 21 bits of `adr` and `adrp`.
pub(super) fn adr_immediate(instruction: u64) -> i64 {
    let low = (instruction >> 29) & 3;
    let high = (instruction >> 5) & 0x7_ffff;
    sign_extend(high << 2 | low, 21)
}

fn adr_bits(value: u64) -> u64 {
    (value & 3) << 29 | (value >> 2 & 0x7_ffff) << 5
}

pub(super) fn sign_extend(value: u64, bits: u32) -> i64 {
    ((value << (64 - bits)) as i64) >> (64 - bits)
}

/// Whether `value` is the sign extension of its low `bits` bits.
fn is_signed(value: u64, bits: u32) -> bool {
    sign_extend(value, bits) as u64 == value
}

/// A field inside an instruction, found by decoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodeField {
    /// Bytes from the field's start to the place from which relative fields count. (The end of the instruction on
    /// x86-64, where immediates may follow the field; the field itself on A64.)
    pub to_end: i64,
    /// Whether it is of a call, jump or conditional branch that can be bound to anything within its reach.
    pub is_branch: bool,
    /// A value that the instruction has in it, rather than a part of where its memory operand, or its target, is.
    pub is_value: bool,
    /// Whether the instruction makes a value of the address that the field leads to, rather than branches there, or
    /// reads or writes what is there.
    pub yields_address: bool,
}

/// A branch whose displacement the assembler resolved by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalBranch {
    /// Offset of the displacement, or of the instruction that it is part of, in the section.
    pub field: u64,
    /// Its width in bytes.
    pub width: u64,
    /// The relocation type that binds it; `None` if it is too short to be bound.
    pub relocation: Option<u32>,
    /// Offset in the section that it goes to.
    pub target: u64,
}

/// The fields of a stretch of code.
#[derive(Default)]
pub struct Fields {
    /// By offset in the section.
    pub by_offset: HashMap<u64, CodeField>,
    /// Direct branches, by their displacement as it stands in the file.
    pub branches: Vec<LocalBranch>,
}

impl Fields {
    /// What is to be added to the addend of a relocation at `offset`, for it to be the offset referred to.
    pub fn to_end(&self, field: &Field, offset: u64) -> i64 {
        if field.is_relative() { self.by_offset.get(&offset).map_or(0, |f| f.to_end) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::of;
    use super::*;
    use crate::elf::Machine;

    fn filled(machine: Machine, kind: u32, bytes: &[u8], place: u64) -> Filled {
        of(machine).field(kind).unwrap().filled(bytes, Addr(place))
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
        assert!(of(Machine::X86_64).field(200).is_none());
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

    /// What is filled in comes back, and the bits around it stay.
    #[test]
    fn filling_is_the_reverse() {
        let place = Addr(0xffff_8000_0801_2abc);
        let target = 0xffff_8000_0913_4128;
        for (kind, instruction, expected) in [
            (275, 0x9000_0000u32, Filled::Page(Addr(0xffff_8000_0913_4000))),
            (277, 0x9100_0000, Filled::Low12(0x128)),
            (286, 0xf940_0000, Filled::Low12(0x128)),
            (283, 0x9400_0000, Filled::Target(Addr(target))),
            (282, 0x1400_0000, Filled::Target(Addr(target))),
            (261, 0, Filled::Target(Addr(target))),
        ] {
            let field = of(Machine::Aarch64).field(kind).unwrap();
            let mut bytes = instruction.to_le_bytes();
            field.fill(&mut bytes, 0, place, target).unwrap();
            assert_eq!(field.filled(&bytes, place), expected, "{kind}");
            assert_eq!(u32::from_le_bytes(bytes) & !field.mask as u32, instruction, "{kind}");
        }
        let far = of(Machine::Aarch64).field(283).unwrap();
        let too_far = far.fill(&mut [0; 4], 0, place, place.0 + (1 << 27));
        assert_eq!(too_far, Err(Unfit::TooFar { bits: 26 }));
        // An unaligned variable cannot be loaded in units of 8 bytes.
        let low = of(Machine::Aarch64).field(286).unwrap();
        assert_eq!(low.fill(&mut [0; 4], 0, place, 0x124), Err(Unfit::TooFar { bits: 12 }));
    }

    #[test]
    fn a_value_out_of_reach_is_refused() {
        let mut bytes = [0; 4];
        let field = |kind| of(Machine::X86_64).field(kind).unwrap();
        assert!(field(2).fill(&mut bytes, 0, Addr(0xffff_8880_0000_0000), 0).is_err());
        assert_eq!(field(2).fill(&mut bytes, 1, Addr(0), 0), Err(Unfit::PastTheEnd));
        field(11).fill(&mut bytes, 0, Addr(0), 0xffff_ffff_8100_0000).unwrap();
        assert_eq!(bytes, [0, 0, 0, 0x81]);
    }
}

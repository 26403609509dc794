//! Relocated fields of A64 code and data: "ELF for the Arm 64-bit Architecture", 5.7.

use super::super::relocation::{CodeField, Field, Fields, Kind, LocalBranch};
use super::transfer::{Direct, Transfer};
use super::word::{BYTES, Word, words};
use object::elf::*;

/// The field of a relocation type; `None` for one that kernels do not have.
pub(super) fn field(kind: u32) -> Option<Field> {
    let code = |mask: u64, kind| Some(Field { len: BYTES as usize, mask, kind });
    let branch = |bits: u32, low: u32| code(((1 << bits) - 1) << low, Kind::Branch { bits, low });
    let low12 = |shift: u32| code(0x003f_fc00, Kind::Low12 { shift });
    match RelocationType(kind) {
        R_AARCH64_NONE => Some(Field::opaque(0)),
        R_AARCH64_ABS64 => Some(Field::whole(8, Kind::Absolute { signed: false })),
        R_AARCH64_ABS32 => Some(Field::whole(4, Kind::Absolute { signed: false })),
        R_AARCH64_PREL64 => Some(Field::whole(8, Kind::PcRelative)),
        R_AARCH64_PREL32 => Some(Field::whole(4, Kind::PcRelative)),
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

/// `add` with an immediate, which completes what `adrp` began, and `adr`. An `adrp` alone makes the address of a page:
/// of no use to anybody until the low bits are added, by `add`, or by a load or store in place.
fn makes_an_address(word: Word) -> bool {
    word.is(0x7f80_0000, 0x1100_0000) || word.is(0x9f00_0000, 0x1000_0000)
}

/// Decodes `code`, which is at offset `start` of its section. Every instruction is a field, whose
/// distances count from the instruction itself.
pub(super) fn decode(code: &[u8], start: u64, fields: &mut Fields) {
    for (at, word) in words(code, start) {
        let branch = match word.transfer() {
            Some(Transfer::Direct { kind, distance }) => Some((kind, at.wrapping_add_signed(distance))),
            _ => None,
        };
        let field = CodeField {
            to_end: 0,
            is_branch: branch.is_some(),
            is_value: false,
            yields_address: makes_an_address(word),
        };
        fields.by_offset.insert(at, field);
        if let Some((kind, target)) = branch {
            let relocation = match kind {
                Direct::Jump => R_AARCH64_JUMP26,
                Direct::Call => R_AARCH64_CALL26,
                Direct::Condition(_) | Direct::Zero(_) => R_AARCH64_CONDBR19,
                Direct::Bit(_) => R_AARCH64_TSTBR14,
            };
            fields.branches.push(LocalBranch {
                field: at,
                width: BYTES,
                relocation: Some(relocation.0),
                target,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_a_value_of_an_address() {
        for (word, yields) in [
            (0x9100_0000u32, true), // add x0, x0, #0
            (0x1000_0000, true),    // adr x0, .
            (0x9000_0000, false),   // adrp x0, .
            (0xf940_0000, false),   // ldr x0, [x0]
            (0x3900_0000, false),   // strb w0, [x0]
            (0x9400_0000, false),   // bl
        ] {
            let mut fields = Fields::default();
            decode(&word.to_le_bytes(), 0, &mut fields);
            assert_eq!(fields.by_offset[&0].yields_address, yields, "{word:#x}");
        }
    }
}

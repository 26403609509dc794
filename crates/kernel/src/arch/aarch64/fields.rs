//! Relocated fields of A64 code and data: "ELF for the Arm 64-bit Architecture", 5.7.

use super::super::relocation::{CodeField, Field, Fields, Kind, LocalBranch};
use super::transfer::{Direct, Transfer};
use super::word::{BYTES, words};
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

/// Decodes `code`, which is at offset `start` of its section. Every instruction is a field, whose
/// distances count from the instruction itself.
pub(super) fn decode(code: &[u8], start: u64, fields: &mut Fields) {
    for (at, word) in words(code, start) {
        let branch = match word.transfer() {
            Some(Transfer::Direct { kind, distance }) => Some((kind, at.wrapping_add_signed(distance))),
            _ => None,
        };
        fields.by_offset.insert(at, CodeField { to_end: 0, is_branch: branch.is_some(), is_value: false });
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

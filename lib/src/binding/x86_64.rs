//! What a relocated field means to an x86-64 instruction.

use super::Error;
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction};
use object::elf;
use std::collections::HashMap;

/// The function that switches stacks, called once in `__schedule`.
pub(super) const SWITCH: &str = "__switch_to_asm";

/// What a relocation type computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kind {
    /// Bytes of the field.
    pub width: u64,
    /// S + A − P rather than S + A.
    pub is_relative: bool,
    /// Whether the field is sign-extended to 64 bits (or is that wide), as kernel addresses need.
    pub is_signed: bool,
}

/// The relocation types of kernel objects; `None` for others.
pub(super) fn kind(number: u32) -> Option<Kind> {
    let (width, is_relative, is_signed) = match elf::RelocationType(number) {
        elf::R_X86_64_64 => (8, false, true),
        elf::R_X86_64_PC64 => (8, true, true),
        elf::R_X86_64_32S => (4, false, true),
        elf::R_X86_64_32 => (4, false, false),
        elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 => (4, true, true),
        _ => return None,
    };
    Some(Kind { width, is_relative, is_signed })
}

/// The type of a branch's relocation.
pub(super) const BRANCH: u32 = elf::R_X86_64_PLT32.0;

/// One field inside an instruction, found by decoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Field {
    /// Bytes from the field's start to the end of its instruction, from which relative fields count.
    pub to_end: i64,
    /// call, jmp or jcc with a 32-bit displacement.
    pub is_branch: bool,
}

/// A branch whose displacement the assembler resolved by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LocalBranch {
    /// Offset of the displacement in the section.
    pub field: u64,
    /// Its width, bytes.
    pub width: u64,
    /// Offset in the section that it goes to.
    pub target: u64,
}

/// The fields of a stretch of code.
#[derive(Default)]
pub(super) struct Fields {
    /// By offset in the section.
    pub by_offset: HashMap<u64, Field>,
    /// Direct branches, by their displacement as it stands in the file.
    pub branches: Vec<LocalBranch>,
}

impl Fields {
    /// Decodes `code`, which lies at `start` of its section, and adds what it finds.
    pub fn decode(&mut self, code: &[u8], start: u64) {
        let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            if instruction.code() == Code::INVALID {
                continue;
            }
            let at = instruction.ip();
            let end = instruction.next_ip();
            let offsets = decoder.get_constant_offsets(&instruction);
            let is_direct = matches!(
                instruction.flow_control(),
                FlowControl::Call | FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
            ) && offsets.has_immediate();
            if offsets.has_displacement() {
                let field = at + offsets.displacement_offset() as u64;
                self.by_offset.insert(field, Field { to_end: (end - field) as i64, is_branch: false });
            }
            if offsets.has_immediate() {
                let field = at + offsets.immediate_offset() as u64;
                let width = offsets.immediate_size() as u64;
                self.by_offset.insert(
                    field,
                    Field { to_end: (end - field) as i64, is_branch: is_direct && width == 4 },
                );
                if is_direct {
                    self.branches.push(LocalBranch {
                        field,
                        width,
                        target: instruction.near_branch_target(),
                    });
                }
            }
        }
    }
}

/// Puts `value` into the field that a relocation of type `number` describes.
///
/// `at` is the field's address; `value` is S + A. Used to evaluate code at vmlinux's own addresses.
pub(super) fn apply(bytes: &mut [u8], offset: u64, number: u32, at: u64, value: u64) -> Result<(), Error> {
    let out = |what: &str| Error::Relocation {
        unit: String::new(),
        section: String::new(),
        offset,
        kind: number,
        what: what.into(),
    };
    let kind = kind(number).ok_or_else(|| out("unknown"))?;
    let value = if kind.is_relative { value.wrapping_sub(at) } else { value };
    let start = offset as usize;
    let field =
        bytes.get_mut(start..start + kind.width as usize).ok_or_else(|| out("reaches behind the end"))?;
    if kind.width == 4 {
        let fits = if kind.is_signed {
            value as i64 == i64::from(value as i32)
        } else {
            value <= u64::from(u32::MAX)
        };
        if !fits {
            return Err(out("the value does not fit its 32-bit field"));
        }
    }
    field.copy_from_slice(&value.to_le_bytes()[..kind.width as usize]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn immediates_behind_a_data_reference_are_counted() {
        // cmpl $0x1,0x0(%rip); call; jne rel32; movq $0,%rdi
        let code = [
            0x83, 0x3d, 0, 0, 0, 0, 1, 0xe8, 0, 0, 0, 0, 0x0f, 0x85, 0, 0, 0, 0, 0x48, 0xc7, 0xc7, 0, 0, 0, 0,
        ];
        let mut fields = Fields::default();
        fields.decode(&code, 0);
        assert_eq!(fields.by_offset[&2], Field { to_end: 5, is_branch: false });
        assert_eq!(fields.by_offset[&8], Field { to_end: 4, is_branch: true });
        assert_eq!(fields.by_offset[&14], Field { to_end: 4, is_branch: true });
        assert_eq!(fields.by_offset[&21], Field { to_end: 4, is_branch: false });
    }

    #[test]
    fn a_value_out_of_reach_is_refused() {
        let mut bytes = [0; 4];
        assert!(apply(&mut bytes, 0, elf::R_X86_64_PC32.0, 0xffff_8880_0000_0000, 0).is_err());
        assert!(apply(&mut bytes, 1, elf::R_X86_64_PC32.0, 0, 0).is_err());
        apply(&mut bytes, 0, elf::R_X86_64_32S.0, 0, 0xffff_ffff_8100_0000).unwrap();
        assert_eq!(bytes, [0, 0, 0, 0x81]);
    }
}

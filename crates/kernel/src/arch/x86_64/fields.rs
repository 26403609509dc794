//! Relocated fields of x86-64 code and data: psABI, table 4.9.

use super::super::relocation::{CodeField, Field, Fields, Kind, LocalBranch};
use iced_x86::{Code, FlowControl, Instruction, Mnemonic};
use object::elf::*;

/// The field of a relocation type; `None` for one that kernels do not have.
pub(super) fn field(kind: u32) -> Option<Field> {
    Some(match RelocationType(kind) {
        R_X86_64_NONE => Field::opaque(0),
        R_X86_64_64 => Field::whole(8, Kind::Absolute { signed: false }),
        R_X86_64_32S => Field::whole(4, Kind::Absolute { signed: true }),
        R_X86_64_32 => Field::whole(4, Kind::Absolute { signed: false }),
        R_X86_64_PC32 | R_X86_64_PLT32 => Field::whole(4, Kind::PcRelative),
        R_X86_64_PC64 => Field::whole(8, Kind::PcRelative),
        R_X86_64_GOTPCREL => Field::opaque(4),
        _ => return None,
    })
}

/// Decodes `code`, which is at offset `start` of its section, and adds what it finds.
pub(super) fn decode(code: &[u8], start: u64, fields: &mut Fields) {
    let mut decoder = super::decoder(code, start);
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
            let field_of = CodeField {
                to_end: (end - field) as i64,
                is_branch: false,
                is_value: false,
                yields_address: instruction.mnemonic() == Mnemonic::Lea,
            };
            fields.by_offset.insert(field, field_of);
        }
        if offsets.has_immediate() {
            let field = at + offsets.immediate_offset() as u64;
            let width = offsets.immediate_size() as u64;
            let is_branch = is_direct && width == 4;
            let field_of = CodeField {
                to_end: (end - field) as i64,
                is_branch,
                is_value: !is_direct,
                // A comparison makes flags of it, nothing else.
                yields_address: !is_direct && instruction.mnemonic() != Mnemonic::Cmp,
            };
            fields.by_offset.insert(field, field_of);
            if is_direct {
                let relocation = is_branch.then_some(R_X86_64_PLT32.0);
                let target = instruction.near_branch_target();
                fields.branches.push(LocalBranch { field, width, relocation, target });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn immediates_after_a_data_reference_are_counted() {
        // cmpl $0x1,0x0(%rip); call; jne rel32; movq $0,%rdi
        let code = [
            0x83, 0x3d, 0, 0, 0, 0, 1, 0xe8, 0, 0, 0, 0, 0x0f, 0x85, 0, 0, 0, 0, 0x48, 0xc7, 0xc7, 0, 0, 0, 0,
        ];
        let mut fields = Fields::default();
        decode(&code, 0, &mut fields);
        let field =
            |to_end, is_branch, is_value| CodeField { to_end, is_branch, is_value, yields_address: is_value };
        assert_eq!(fields.by_offset[&2], field(5, false, false));
        assert_eq!(fields.by_offset[&8], field(4, true, false));
        assert_eq!(fields.by_offset[&14], field(4, true, false));
        assert_eq!(fields.by_offset[&21], field(4, false, true));
    }

    #[test]
    fn what_makes_a_value_of_an_address() {
        for (code, at, yields) in [
            (&[0x48, 0x8d, 0x05, 0, 0, 0, 0][..], 3, true), // lea 0x0(%rip),%rax
            (&[0x48, 0x8d, 0x80, 0, 0, 0, 0], 3, true),     // lea 0x0(%rax),%rax
            (&[0x48, 0xc7, 0xc7, 0, 0, 0, 0], 3, true),     // mov $0x0,%rdi
            (&[0x48, 0x05, 0, 0, 0, 0], 2, true),           // add $0x0,%rax
            (&[0x68, 0, 0, 0, 0], 1, true),                 // push $0x0
            (&[0xbf, 0, 0, 0, 0], 1, true),                 // mov $0x0,%edi
            (&[0x48, 0xc7, 0x05, 0, 0, 0, 0, 0, 0, 0, 0], 7, true), // movq $0x0,0x0(%rip): what is stored
            (&[0x48, 0xc7, 0x05, 0, 0, 0, 0, 0, 0, 0, 0], 3, false), // and where
            (&[0x48, 0x8b, 0x05, 0, 0, 0, 0], 3, false),    // mov 0x0(%rip),%rax
            (&[0x48, 0x89, 0x04, 0xc5, 0, 0, 0, 0], 4, false), // mov %rax,0x0(,%rax,8)
            (&[0x65, 0xff, 0x05, 0, 0, 0, 0], 3, false),    // incl %gs:0x0(%rip)
            (&[0x80, 0x3d, 0, 0, 0, 0, 0], 2, false),       // cmpb $0x0,0x0(%rip)
            (&[0x48, 0x3d, 0, 0, 0, 0], 2, false),          // cmp $0x0,%rax
            (&[0xff, 0x15, 0, 0, 0, 0], 2, false),          // call *0x0(%rip)
            (&[0x74, 0], 1, false),                         // je
        ] {
            let mut fields = Fields::default();
            decode(code, 0, &mut fields);
            assert_eq!(fields.by_offset[&at].yields_address, yields, "{code:02x?} at {at}");
        }
    }
}

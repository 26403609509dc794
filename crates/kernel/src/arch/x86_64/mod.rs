//! x86-64.

mod data;
mod fields;
mod lift;
mod sites;
mod uses;

use super::relocation::{Field, Fields};
use super::step::{Abi, Outline, Register, Step};
use super::{Arch, CodeUses, Known, SiteKind};
use crate::address::Addr;
use crate::elf::{Elf, Machine};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use object::elf;
use std::ops::Range;

/// See [`Arch`].
pub(super) struct X86_64;

impl Arch for X86_64 {
    fn machine(&self) -> Machine {
        Machine::X86_64
    }

    fn directory(&self) -> &'static str {
        "x86"
    }

    fn triplet(&self) -> &'static str {
        "x86_64-linux-gnu"
    }

    fn abi(&self) -> &'static Abi {
        &lift::ABI
    }

    fn stack_switch(&self) -> &'static str {
        "__switch_to_asm"
    }

    fn retpoline(&self, name: &str) -> Option<Register> {
        let of = name.strip_prefix("__x86_indirect_thunk_")?;
        (0..lift::ABI.registers).find(|register| (lift::ABI.name)(*register) == of)
    }

    fn return_thunk(&self) -> Option<&'static str> {
        Some("__x86_return_thunk")
    }

    fn uses(&self, elf: &Elf, known: &Known<'_>) -> CodeUses {
        uses::uses(elf, known)
    }

    fn is_marker(&self, _symbol: &str) -> bool {
        false
    }

    fn fentry(&self, _elf: &Elf, listed: Addr) -> Addr {
        listed
    }

    fn site_len(&self, kind: SiteKind, addr: Addr, code: &[u8]) -> u8 {
        sites::site_len(kind, addr, code)
    }

    fn alternative_members(&self) -> [&'static str; 3] {
        ["instr_offset", "instrlen", "replacementlen"]
    }

    fn landing_pad(&self, entry: &[u8]) -> u64 {
        const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
        if entry.starts_with(ENDBR64) { ENDBR64.len() as u64 } else { 0 }
    }

    fn is_before_body(&self, _bytes: &[u8]) -> bool {
        false
    }

    /// `jmp rel32`.
    fn jump_bytes(&self) -> u64 {
        5
    }

    fn instruction_bytes(&self) -> Option<u64> {
        None
    }

    /// `-fno-jump-tables`: arch/x86/Makefile, for retpolines and for indirect-branch tracking.
    fn has_jump_tables(&self) -> bool {
        false
    }

    /// `nopl 0(%rax,%rax,1)`: `x86_nops[5]` in arch/x86/kernel/alternative.c.
    fn fentry_nop(&self) -> Option<&'static [u8]> {
        Some(&[0x0f, 0x1f, 0x44, 0, 0])
    }

    fn ftrace_table(&self) -> &'static str {
        "__mcount_loc"
    }

    /// As far as KASLR may move it (`KERNEL_IMAGE_SIZE`; Documentation/arch/x86/x86_64/mm.rst). Modules follow.
    fn kernel_addresses(&self) -> Range<u64> {
        0xffff_ffff_8000_0000..0xffff_ffff_c000_0000
    }

    fn is_padding(&self, bytes: &[u8]) -> bool {
        const INT3: u8 = 0xcc;
        const NOP: u8 = 0x90;
        bytes.iter().all(|b| matches!(*b, INT3 | NOP))
    }

    fn step(&self, code: &[u8], at: Addr) -> Option<Step> {
        let instruction = decoder(code, at.0).decode();
        (!instruction.is_invalid()).then(|| lift::lift(&instruction))
    }

    fn outlines(&self, code: &[u8], at: u64) -> Vec<Outline> {
        let outline = |instruction: Instruction| {
            let target = near_target(&instruction);
            let mnemonic = instruction.mnemonic() as u32;
            Outline {
                at: instruction.ip(),
                len: instruction.len() as u64,
                mnemonic,
                // Branches that differ only in the length of their displacement do the same.
                form: if target.is_some() { mnemonic } else { instruction.code() as u32 },
                nop: instruction.mnemonic() == Mnemonic::Nop,
                target,
            }
        };
        decoder(code, at).into_iter().map(outline).collect()
    }

    fn field(&self, relocation: u32) -> Option<Field> {
        fields::field(relocation)
    }

    fn fields(&self, code: &[u8], start: u64, fields: &mut Fields) {
        fields::decode(code, start, fields);
    }

    fn address_relocation(&self) -> u32 {
        elf::R_X86_64_64.0
    }

    fn distance_relocation(&self) -> u32 {
        elf::R_X86_64_PC32.0
    }
}

fn decoder(code: &[u8], addr: u64) -> Decoder<'_> {
    Decoder::with_ip(64, code, addr, DecoderOptions::NONE)
}

/// Where it goes if it is a direct branch.
fn near_target(instruction: &Instruction) -> Option<u64> {
    (instruction.op_count() > 0 && instruction.op0_kind() == OpKind::NearBranch64)
        .then(|| instruction.near_branch64())
}

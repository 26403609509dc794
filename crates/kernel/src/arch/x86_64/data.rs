//! Which instruction refers to which variable of the scheduler.

use crate::address::Addr;
use crate::arch::{DataUse, VariableRanges};
use crate::elf::{Elf, SymbolId};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// Looks for references to the scheduler's variables, function by function.
pub(super) struct Data<'a> {
    variables: &'a VariableRanges,
    /// The table by which code reaches another CPU's copy of per-CPU data.
    per_cpu_offset: Option<Addr>,
    /// The variable by which it makes a pointer to its own CPU's copy.
    this_cpu_offset: Option<Addr>,
}

/// What was found in one function.
#[derive(Default)]
pub(super) struct Found {
    uses: Vec<DataUse>,
    /// Small numbers, which are taken for offsets of per-CPU variables if the function uses per-CPU data at all.
    perhaps: Vec<DataUse>,
    is_per_cpu: bool,
}

impl<'a> Data<'a> {
    pub fn of(elf: &Elf, variables: &'a VariableRanges) -> Data<'a> {
        let addr = |name: &str| elf.unique_symbol(name).map(|symbol| symbol.addr);
        Data { variables, per_cpu_offset: addr("__per_cpu_offset"), this_cpu_offset: addr("this_cpu_off") }
    }

    /// Looks at one instruction that is not a direct branch.
    pub fn instruction(&self, function: SymbolId, instruction: &Instruction, found: &mut Found) {
        for operand in 0..instruction.op_count() {
            let (value, is_taken) = match instruction.op_kind(operand) {
                OpKind::Immediate32to64 => (instruction.immediate32to64() as u64, true),
                OpKind::Immediate64 => (instruction.immediate64(), true),
                OpKind::Immediate32 => (u64::from(instruction.immediate32()), true),
                OpKind::Memory => {
                    let is_address = instruction.mnemonic() == Mnemonic::Lea
                        && instruction.memory_index() == Register::None;
                    (instruction.memory_displacement64(), is_address)
                }
                _ => continue,
            };
            let target = Addr(value);
            let found_here = || DataUse { at: Addr(instruction.ip()), function, target, is_taken };
            if instruction.op_kind(operand) == OpKind::Memory {
                let is_this_cpu = instruction.segment_prefix() == Register::GS;
                found.is_per_cpu |= Some(target) == self.per_cpu_offset
                    || is_this_cpu && Some(target) == self.this_cpu_offset;
                if is_this_cpu && self.variables.is_per_cpu_offset(target) {
                    found.uses.push(found_here());
                    continue;
                }
            }
            if self.variables.is_address(target) {
                found.uses.push(found_here());
            } else if self.variables.is_per_cpu_offset(target) {
                found.perhaps.push(found_here());
            }
        }
    }
}

impl Found {
    pub fn into_uses(mut self) -> Vec<DataUse> {
        if self.is_per_cpu {
            self.uses.append(&mut self.perhaps);
        }
        self.uses
    }
}

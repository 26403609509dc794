//! Where the stack pointer and rbp are at the springboard.
//!
//! Found by following the code from the entry, whatever it looks like: only instructions that change the two
//! registers count. What differs between paths is unknown; the springboard itself must be known.

use super::code::{At, Code, Join, Next};
use super::error::Error;
use crate::address::Addr;
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

/// The two registers as offsets from the CFA, where they are known to be such.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Height {
    /// rsp.
    pub sp: Option<i64>,
    /// rbp, when it points into the frame.
    pub bp: Option<i64>,
}

impl Join for Height {
    fn join(&mut self, other: &Height) -> bool {
        let before = *self;
        self.sp = self.sp.filter(|_| self.sp == other.sp);
        self.bp = self.bp.filter(|_| self.bp == other.bp);
        *self != before
    }
}

/// The registers when execution arrives at `springboard`.
pub fn at_springboard(code: &Code<'_>, springboard: Addr) -> Result<Height, Error> {
    let entry = Height { sp: Some(-8), bp: None };
    let starts = code.arrive(code.entry()).into_iter().map(|at| (at, entry)).collect();
    let mut factory = InstructionInfoFactory::new();
    let known = code.explore(starts, |at, instruction, height| {
        if at.addr == springboard {
            return Ok(Vec::new());
        }
        let Next { inside, .. } = code.next(at, instruction);
        let after = height.after(instruction, &mut factory);
        // Code behind a call that does not return belongs to no path, and may be no code of this function.
        Ok(inside.into_iter().filter(|at| code.decode(*at).is_ok()).map(|at| (at, after)).collect())
    })?;
    known
        .get(&At { addr: springboard, alternative: None })
        .copied()
        .filter(|height| height.sp.is_some())
        .ok_or(Error::StackPointerUnknown { at: springboard })
}

impl Height {
    fn register(&self, register: Register) -> Option<i64> {
        match register {
            Register::RSP => self.sp,
            Register::RBP => self.bp,
            _ => None,
        }
    }

    /// The registers after an instruction. A call leaves both as they were.
    fn after(&self, instruction: &Instruction, factory: &mut InstructionInfoFactory) -> Height {
        let mut after = *self;
        match instruction.mnemonic() {
            Mnemonic::Call => {}
            Mnemonic::Leave => {
                after.sp = self.bp.map(|bp| bp + 8);
                after.bp = None;
            }
            _ => {
                if instruction.stack_pointer_increment() != 0 {
                    after.sp = self.sp.map(|sp| sp + i64::from(instruction.stack_pointer_increment()));
                }
                let info = factory.info(instruction);
                let written = |wanted: Register| {
                    info.used_registers().iter().any(|used| {
                        used.register().full_register() == wanted
                            && !matches!(used.access(), OpAccess::None | OpAccess::Read | OpAccess::CondRead)
                    })
                };
                let value = self.computed(instruction);
                if written(Register::RBP) {
                    after.bp = value.filter(|_| instruction.op0_register() == Register::RBP);
                }
                if written(Register::RSP) && instruction.stack_pointer_increment() == 0 {
                    after.sp = value.filter(|_| instruction.op0_register() == Register::RSP);
                }
            }
        }
        after
    }

    /// What an instruction puts into its first operand, when that is an address in the frame.
    fn computed(&self, instruction: &Instruction) -> Option<i64> {
        match instruction.mnemonic() {
            Mnemonic::Mov if instruction.op1_kind() == OpKind::Register => {
                self.register(instruction.op1_register())
            }
            Mnemonic::Lea if instruction.memory_index() == Register::None => {
                let base = self.register(instruction.memory_base())?;
                Some(base + instruction.memory_displacement64() as i64)
            }
            Mnemonic::Add => {
                self.register(instruction.op0_register()).zip(immediate(instruction)).map(|(a, b)| a + b)
            }
            Mnemonic::Sub => {
                self.register(instruction.op0_register()).zip(immediate(instruction)).map(|(a, b)| a - b)
            }
            _ => None,
        }
    }
}

/// The second operand, if it is an immediate.
pub fn immediate(instruction: &Instruction) -> Option<i64> {
    matches!(
        instruction.op1_kind(),
        OpKind::Immediate8 | OpKind::Immediate8to64 | OpKind::Immediate32to64 | OpKind::Immediate64
    )
    .then(|| instruction.immediate(1) as i64)
}

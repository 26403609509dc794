//! What one instruction makes of an address.

use super::AddressFate;
use schedswap_kernel::arch::step::{Effect, Operand, Register, Registers, Touched};

/// What becomes of an address in a register.
#[derive(Default)]
pub struct Outcome {
    pub fates: Vec<AddressFate>,
    /// Registers that hold it too, or one near it, from here on.
    pub copies: Vec<Register>,
    /// The register holds something else.
    pub is_over: bool,
}

impl Outcome {
    fn written(&mut self, register: Register, to: Register, is_copy: bool) {
        match (is_copy, to == register) {
            (true, false) => self.copies.push(to),
            (false, true) => self.is_over = true,
            _ => {}
        }
    }
}

/// What an instruction does with an address that `register` holds.
pub fn outcome(effects: &[Effect], register: Register) -> Outcome {
    let mut outcome = Outcome::default();
    for effect in effects {
        match effect {
            Effect::Copy { to, from } | Effect::Add { to, from, .. } => {
                outcome.written(register, *to, *from == register);
            }
            Effect::Load { to, .. }
            | Effect::Set { to, .. }
            | Effect::Truth { to, .. }
            | Effect::Current { to } => outcome.written(register, *to, false),
            Effect::Store { from, .. } if *from == register => outcome.fates.push(AddressFate::Stored),
            Effect::Store { .. } | Effect::Sign { .. } | Effect::Authenticate { .. } => {}
            // Compared it does no harm. An address less a number is one near it, a number less an address is none.
            Effect::Compare { left, touched, .. } => {
                let is_near = *left == Operand::Register(register);
                touched.writes.iter().for_each(|to| outcome.written(register, to, is_near));
            }
            Effect::Touch(touched) => {
                let reads = touched.reads.contains(register);
                touched.writes.iter().for_each(|to| outcome.written(register, to, reads));
                if reads && !touched.stores.is_empty() {
                    outcome.fates.push(AddressFate::Stored);
                }
            }
        }
    }
    outcome
}

/// Whether an instruction reads or writes memory.
pub fn has_access(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| match effect {
        Effect::Load { .. } | Effect::Store { .. } => true,
        Effect::Touch(touched) | Effect::Compare { touched, .. } => {
            !touched.loads.is_empty() || !touched.stores.is_empty()
        }
        _ => false,
    })
}

/// Whether an instruction writes to memory.
pub fn has_store(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| match effect {
        Effect::Store { .. } => true,
        Effect::Touch(Touched { stores, .. }) => !stores.is_empty(),
        _ => false,
    })
}

/// The registers that hold an address after the instruction that it is a part of. What is compared with it does not.
pub fn written(effects: &[Effect]) -> Registers {
    let mut registers = Registers::default();
    for effect in effects {
        match effect {
            Effect::Set { to, .. } | Effect::Add { to, .. } => registers.insert(*to),
            Effect::Touch(touched) => touched.writes.iter().for_each(|to| registers.insert(to)),
            _ => {}
        }
    }
    registers
}

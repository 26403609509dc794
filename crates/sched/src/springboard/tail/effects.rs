//! What one instruction does to registers and frame, and what it must not read.

use super::state::{State, Value, Written};
use super::{Walk, named};
use crate::springboard::contract::Guard;
use crate::springboard::error::Error;
use schedswap_kernel::arch::step::{Access, Effect, Operand, Place, Register, Step, Touched};

impl Walk<'_, '_> {
    /// Takes in one effect of an instruction.
    pub fn effect(&mut self, effect: &Effect, step: &Step, state: &mut State) -> Result<(), Error> {
        match effect {
            Effect::Copy { to, from } => {
                self.readable(*from, step, state)?;
                self.assign(*to, state.get(*from), step, state)
            }
            Effect::Add { to, from, by } => match state.get(*from) {
                Value::Frame(offset) => self.assign(*to, Value::Frame(offset.wrapping_add(*by)), step, state),
                _ => {
                    self.own(*from, step, state)?;
                    self.assign(*to, Value::Own, step, state)
                }
            },
            Effect::Load { to, from } => {
                let value = self.loaded(*from, step, state)?;
                self.assign(*to, value, step, state)
            }
            // Where a slot's register is loaded early and saved again on the way to a panic (gcc 16).
            Effect::Store { to, from } if state.puts_back(*to, *from) => Ok(()),
            Effect::Store { to, from } => {
                self.own(*from, step, state)?;
                self.known_place(*to, step, state)?;
                self.stored(Access { place: *to, bytes: 8 }, step, state)
            }
            Effect::Set { to, .. } | Effect::Truth { to, .. } => self.assign(*to, Value::Own, step, state),
            Effect::Current { to } => self.assign(*to, Value::Current, step, state),
            // The tail signs nothing of its own before it returns.
            Effect::Sign { .. } => Err(Error::Unforeseen { instruction: named(step) }),
            Effect::Authenticate { register, modifier } => {
                let entry_sp = Value::Frame(self.abi.entry_sp);
                match (state.get(*register), state.get(*modifier)) {
                    (Value::Slot(offset), modifier) if modifier == entry_sp => {
                        state.set(*register, Value::Authenticated(offset));
                        Ok(())
                    }
                    _ => Err(Error::Unforeseen { instruction: named(step) }),
                }
            }
            Effect::Compare { left, right, touched } => {
                if self.compares_canary(*left, *right, touched, step, state)? {
                    return Ok(());
                }
                self.touch(touched, step, state)
            }
            Effect::Touch(touched) => self.touch(touched, step, state),
        }
    }

    /// Puts a value into a register; the stack pointer takes nothing but addresses of the frame.
    fn assign(&self, to: Register, value: Value, step: &Step, state: &mut State) -> Result<(), Error> {
        if to == self.abi.stack_pointer && !matches!(value, Value::Frame(_)) {
            return Err(Error::StackPointerLost { instruction: named(step) });
        }
        state.set(to, value);
        Ok(())
    }

    /// What a register is loaded with, all of it.
    fn loaded(&self, from: Place, step: &Step, state: &State) -> Result<Value, Error> {
        if let Some(offset) = state.frame_place(from) {
            return self.load(offset, 8, true, step, state);
        }
        if let Some(guard) = guard_at(from, state) {
            return Ok(Value::Guard(guard));
        }
        self.known_place(from, step, state)?;
        Ok(Value::Loaded)
    }

    /// Recognises the comparison of the canary with the guard: the one from the frame, the other from where guards
    /// are, in either order, each from a register or from memory.
    fn compares_canary(
        &mut self,
        left: Operand,
        right: Operand,
        touched: &Touched,
        step: &Step,
        state: &mut State,
    ) -> Result<bool, Error> {
        let operands = [left, right].map(|operand| match operand {
            Operand::Register(register) => Some(state.get(register)),
            Operand::Memory(place) => {
                guard_at(place, state).map(Value::Guard).or(state.frame_place(place).map(Value::Slot))
            }
            Operand::Other => None,
        });
        let (offset, guard) = match operands {
            [Some(Value::Slot(offset)), Some(Value::Guard(guard))]
            | [Some(Value::Guard(guard)), Some(Value::Slot(offset))] => (offset, guard),
            _ => return Ok(false),
        };
        self.load(offset, 8, true, step, state)?;
        if let Some((earlier_offset, earlier_guard)) = self.tail.canary
            && (earlier_offset, earlier_guard) != (offset, guard)
        {
            let instruction = named(step);
            return Err(Error::SeveralCanaries { offset, guard, earlier_offset, earlier_guard, instruction });
        }
        self.tail.canary = Some((offset, guard));
        for register in touched.writes.iter() {
            self.assign(register, Value::Own, step, state)?;
        }
        Ok(true)
    }

    /// Every register and slot read must be the tail's own, every register written becomes so.
    fn touch(&mut self, touched: &Touched, step: &Step, state: &mut State) -> Result<(), Error> {
        for access in touched.loads.iter().chain(&touched.stores) {
            self.known_place(access.place, step, state)?;
        }
        for access in &touched.loads {
            if let Some(offset) = state.frame_place(access.place) {
                self.load(offset, access.bytes, false, step, state)?;
            }
        }
        for register in touched.reads.iter() {
            self.own(register, step, state)?;
        }
        for access in &touched.stores {
            self.stored(*access, step, state)?;
        }
        for register in touched.writes.iter() {
            self.assign(register, Value::Own, step, state)?;
        }
        Ok(())
    }

    /// The registers that make up a place must be known, or address the frame.
    fn known_place(&self, place: Place, step: &Step, state: &State) -> Result<(), Error> {
        match place {
            Place::Based { .. } if state.frame_place(place).is_some() => Ok(()),
            Place::Based { base, .. } => self.own(base, step, state),
            Place::PerCpu(_) => Ok(()),
            Place::Other(registers) => registers.iter().try_for_each(|r| self.own(r, step, state)),
        }
    }

    /// Refuses what is not the tail's own.
    fn own(&self, register: Register, step: &Step, state: &State) -> Result<(), Error> {
        self.readable(register, step, state)?;
        match state.get(register) {
            Value::Slot(offset) | Value::Authenticated(offset) => {
                Err(Error::LiveSlot { offset, instruction: named(step) })
            }
            Value::Frame(offset) => Err(Error::FrameEscapes { offset, instruction: named(step) }),
            _ => Ok(()),
        }
    }

    /// Refuses what the new `__schedule` could not have provided.
    fn readable(&self, register: Register, step: &Step, state: &State) -> Result<(), Error> {
        match state.get(register) {
            Value::Constant(constant) => {
                self.read.borrow_mut().insert(constant);
                Ok(())
            }
            Value::Live(_) | Value::Undefined => {
                let register = (self.abi.name)(register);
                Err(Error::LiveRegister { register, instruction: named(step) })
            }
            _ => Ok(()),
        }
    }

    /// The first offset that is the caller's, or holds the return address.
    fn frame_end(&self) -> i64 {
        self.abi.entry_sp
    }

    /// What a load from the frame yields. A slot that the tail did not write may only be loaded `whole`.
    fn load(&self, offset: i64, bytes: i64, whole: bool, step: &Step, state: &State) -> Result<Value, Error> {
        let written: Vec<_> = (offset..offset + bytes).map(|byte| state.written.get(&byte)).collect();
        if written.iter().all(|byte| *byte == Some(&Written::Always)) {
            return Ok(Value::Own);
        }
        if offset < self.lowest || offset + bytes > self.frame_end() {
            return Err(Error::OutsideFrame { offset, instruction: named(step) });
        }
        if whole && offset % 8 == 0 && written.iter().all(Option::is_none) {
            return Ok(Value::Slot(offset));
        }
        Err(Error::LiveSlot { offset, instruction: named(step) })
    }

    /// Writes to the frame are kept; others do not concern it.
    fn stored(&self, access: Access, step: &Step, state: &mut State) -> Result<(), Error> {
        let Some(offset) = state.frame_place(access.place) else { return Ok(()) };
        if offset + access.bytes > self.frame_end() {
            return Err(Error::OutsideFrame { offset, instruction: named(step) });
        }
        state.written.extend((offset..offset + access.bytes).map(|byte| (byte, Written::Always)));
        Ok(())
    }
}

/// The guard that may be at a place: in this CPU's own data, or in the running thread.
fn guard_at(place: Place, state: &State) -> Option<Guard> {
    match place {
        Place::PerCpu(addr) => Some(Guard::at(addr)),
        Place::Based { base, offset } if state.get(base) == Value::Current => {
            u64::try_from(offset).ok().map(Guard::Thread)
        }
        _ => None,
    }
}

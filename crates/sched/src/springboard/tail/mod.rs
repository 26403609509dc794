//! What the code after the springboard does with the frame.
//!
//! An abstract run of every path from the instruction after the call of the switch to a return. Each register
//! holds one of the [`Value`]s; the frame is what was there before unless the tail wrote it. Whatever the new
//! `__schedule` could not have provided must not be read.

mod effects;
mod state;

use super::contract::{CalleeSaved, Guard};
use super::error::Error;
use super::height::Height;
use super::paths::{At, Callee, Code, named};
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::step::{Abi, Flow, Register, Step};
use state::{State, Value};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// What the tail asks of the frame.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tail {
    /// For each callee-saved register, the slot it is loaded from; `None` where the tail leaves it alone. The
    /// register with the return address is among them, where there is one.
    pub restored: BTreeMap<CalleeSaved, Option<i64>>,
    /// Whether the return address in the frame is signed, with the stack pointer at the entry as the modifier.
    pub signed: Option<bool>,
    /// The canary's slot and what it is compared with.
    pub canary: Option<(i64, Guard)>,
    /// Callee-saved registers that it reads, which hold a number at the springboard in every case.
    pub constants: BTreeSet<Register>,
    /// Names of what it calls.
    pub calls: BTreeSet<String>,
    /// Its instructions.
    pub instructions: BTreeSet<At>,
}

/// Explores the tail. `height` is where the stack and frame pointers are at the springboard, `constants` which registers
/// are numbers there.
///
/// # Errors
/// When the tail expects what the new `__schedule` cannot provide.
pub fn explore(
    code: &Code<'_>,
    springboard: Addr,
    height: Height,
    constants: &BTreeMap<Register, u64>,
) -> Result<Tail, Error> {
    let call = At { addr: springboard, alternative: None };
    let sp = height.sp.ok_or(Error::StackPointerUnknown { at: springboard })?;
    let mut start = State::after_the_switch(code.abi(), sp, height.fp);
    for register in constants.keys() {
        if start.get(*register) == Value::Live(*register) {
            start.set(*register, Value::Constant(*register));
        }
    }
    let next = code.next(call, &code.decode(call)?);
    let starts = next.inside.into_iter().map(|at| (at, start.clone())).collect();

    let (abi, read) = (code.abi(), RefCell::default());
    let mut walk = Walk { code, abi, springboard, lowest: sp, read, tail: Tail::default() };
    let known = code.explore(starts, |at, step, state| walk.step(at, step, state))?;
    let mut tail = walk.tail;
    if tail.restored.is_empty() {
        return Err(Error::NeverReturns);
    }
    tail.instructions = known.into_keys().collect();
    tail.constants = walk.read.into_inner();
    Ok(tail)
}

struct Walk<'c, 'a> {
    code: &'c Code<'a>,
    abi: &'static Abi,
    springboard: Addr,
    /// The stack pointer at the springboard: the frame's lowest byte.
    lowest: i64,
    /// Registers that were constants and were read as such.
    read: RefCell<BTreeSet<Register>>,
    tail: Tail,
}

impl Walk<'_, '_> {
    fn step(&mut self, at: At, step: &Step, state: &State) -> Result<Vec<(At, State)>, Error> {
        if at.addr == self.springboard {
            return Err(Error::Loops { instruction: named(step) });
        }
        let mut state = state.clone();
        match step.flow {
            Flow::Call(target) => self.call(target, step, &mut state)?,
            Flow::CallIndirect(register) => self.indirect_call(register, step, &mut state)?,
            Flow::JumpIndirect => return Err(Error::IndirectBranch { instruction: named(step) }),
            Flow::Other => return Err(Error::Unforeseen { instruction: named(step) }),
            Flow::Next | Flow::Branch { .. } => {
                for effect in &step.effects {
                    self.effect(effect, step, &mut state)?;
                }
            }
            Flow::Return | Flow::Jump(_) | Flow::Trap => {}
        }
        let next = self.code.next(at, step);
        if next.returns {
            self.returns(step, &state)?;
        }
        for target in next.outside {
            match (self.code.callee)(target) {
                Callee::Return => {}
                // A sibling call: a call, with the return left to the callee.
                _ => self.known_callee(target, step)?,
            }
            self.returns(step, &state)?;
        }
        Ok(next.inside.into_iter().map(|at| (at, state.clone())).collect())
    }

    fn known_callee(&mut self, target: Addr, step: &Step) -> Result<(), Error> {
        match (self.code.callee)(target) {
            Callee::Known(name) | Callee::Diverges(name) => {
                self.tail.calls.insert(name);
                Ok(())
            }
            Callee::Switch => Err(Error::Loops { instruction: named(step) }),
            Callee::Return => {
                Err(Error::UnknownCall { callee: "the return thunk".into(), instruction: named(step) })
            }
            // As a sibling call: the register is not looked at there.
            Callee::Thunk(register) => Err(Error::UnknownCall {
                callee: format!("what {} holds", (self.abi.name)(register)),
                instruction: named(step),
            }),
            Callee::Unknown(callee) => Err(Error::UnknownCall { callee, instruction: named(step) }),
        }
    }

    fn call(&mut self, target: Addr, step: &Step, state: &mut State) -> Result<(), Error> {
        match (self.code.callee)(target) {
            Callee::Thunk(register) if state.get(register).is_own() => self.named_by_data(),
            _ => self.known_callee(target, step)?,
        }
        self.called(step, state)
    }

    fn indirect_call(
        &mut self,
        register: Option<Register>,
        step: &Step,
        state: &mut State,
    ) -> Result<(), Error> {
        if self.code.patched_calls.contains(&step.at) {
            self.tail.calls.insert("a paravirt operation".into());
        } else if register.is_some_and(|register| state.get(register) == Value::Loaded) {
            self.named_by_data();
        } else {
            let callee = "what it computes".into();
            return Err(Error::UnknownCall { callee, instruction: named(step) });
        }
        self.called(step, state)
    }

    /// A callback that the kernel's own data names: called with what the tail has, like any C function. The run queue's
    /// `balance_callback` until 5.17; a tracepoint's probes, where there are no static calls.
    fn named_by_data(&mut self) {
        self.tail.calls.insert("what the kernel's data names".into());
    }

    /// What any C function may do: it may read its arguments, and leaves only callee-saved registers and its
    /// result defined. It cannot touch the frame, whose address it was not given.
    fn called(&self, step: &Step, state: &mut State) -> Result<(), Error> {
        for argument in self.abi.arguments {
            if let Value::Frame(offset) = state.get(*argument) {
                return Err(Error::FrameEscapes { offset, instruction: named(step) });
            }
        }
        for register in 0..self.abi.registers {
            if register != self.abi.stack_pointer && !self.abi.callee_saved.contains(&register) {
                let is_result = self.abi.results.contains(&register);
                state.set(register, if is_result { Value::Own } else { Value::Undefined });
            }
        }
        let Value::Frame(sp) = state.get(self.abi.stack_pointer) else {
            return Err(Error::StackPointerLost { instruction: named(step) });
        };
        state.written.retain(|byte, _| *byte >= sp);
        Ok(())
    }

    fn returns(&mut self, step: &Step, state: &State) -> Result<(), Error> {
        let sp = state.get(self.abi.stack_pointer);
        if sp != Value::Frame(self.abi.entry_sp) {
            let (found, expected) = (self.describe(sp), self.abi.entry_sp);
            return Err(Error::Unbalanced { found, expected, instruction: named(step) });
        }
        for register in CalleeSaved::of(self.code.arch.machine()) {
            let is_link = self.abi.link == Some(register.number());
            let restored = match state.get(register.number()) {
                Value::Slot(offset) => {
                    self.signed(is_link.then_some(false), register)?;
                    Some(offset)
                }
                Value::Authenticated(offset) if is_link => {
                    self.signed(Some(true), register)?;
                    Some(offset)
                }
                Value::Live(number) | Value::Constant(number) if number == register.number() && !is_link => {
                    None
                }
                other => {
                    let (found, instruction) = (self.describe(other), named(step));
                    return Err(Error::NotRestored { register, found, instruction });
                }
            };
            let earlier = *self.tail.restored.entry(register).or_insert(restored);
            if earlier != restored {
                return Err(Error::RestoredDifferently { register });
            }
        }
        Ok(())
    }

    fn signed(&mut self, signed: Option<bool>, register: CalleeSaved) -> Result<(), Error> {
        let earlier = self.tail.signed.or(signed);
        if signed.is_some() && earlier != signed {
            return Err(Error::RestoredDifferently { register });
        }
        self.tail.signed = earlier;
        Ok(())
    }

    fn describe(&self, value: Value) -> String {
        match value {
            Value::Own | Value::Loaded | Value::Guard(_) | Value::Current => {
                "a value of the tail's own".to_owned()
            }
            Value::Live(number) | Value::Constant(number) => {
                format!("{} as it was at the springboard", (self.abi.name)(number))
            }
            Value::Slot(offset) => format!("the slot CFA{offset:+}"),
            Value::Authenticated(offset) => format!("the slot CFA{offset:+}, signed"),
            Value::Frame(offset) => format!("CFA{offset:+}"),
            Value::Undefined => "nothing certain".to_owned(),
        }
    }
}

//! What the code behind the springboard does with the frame.
//!
//! An abstract run of every path from the instruction behind the call of the switch to a return. Each register
//! holds one of the [`Value`]s; the frame is what was there before unless the tail wrote it. Whatever the new
//! `__schedule` could not have provided must not be read.

use super::contract::{CalleeSaved, Guard};
use super::error::Error;
use super::height::Height;
use super::paths::{At, Callee, Code, Join, named};
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::step::{Abi, Access, Effect, Flow, Operand, Place, Register, Step, Touched};
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

/// What is known of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Value {
    /// The tail's own: made from what the switch returned, from memory outside the frame or from constants.
    Own,
    /// What lies in memory outside the frame, as it is; the tail's own, too.
    Loaded,
    /// What lies where stack guards may be; the tail's own, too.
    Guard(Guard),
    /// The address of the running thread; the tail's own, too.
    Current,
    /// What the callee-saved register of that number held at the springboard: always the same number.
    Constant(Register),
    /// What the callee-saved register of that number held at the springboard.
    Live(Register),
    /// What the frame held at this offset at the springboard.
    Slot(i64),
    /// The same, its signature checked and taken off.
    Authenticated(i64),
    /// The address at this offset from the CFA.
    Frame(i64),
    /// Nothing: a call left it undefined, or it depends on the path.
    Undefined,
}

impl Value {
    fn is_own(self) -> bool {
        !matches!(
            self,
            Value::Live(_) | Value::Slot(_) | Value::Authenticated(_) | Value::Frame(_) | Value::Undefined
        )
    }
}

/// Whether a byte of the frame, once written by the tail, was written on every path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Written {
    Always,
    Sometimes,
}

/// As many registers as any machine has.
const REGISTERS: usize = 32;

#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    registers: [Value; REGISTERS],
    /// Bytes of the frame that the tail wrote, by offset from the CFA. Only own values are ever written.
    written: BTreeMap<i64, Written>,
}

impl Join for State {
    fn join(&mut self, other: &State) -> bool {
        let mut changed = false;
        for (ours, theirs) in self.registers.iter_mut().zip(other.registers) {
            let joined = match (*ours, theirs) {
                (a, b) if a == b => a,
                (a, b) if a.is_own() && b.is_own() => Value::Own,
                _ => Value::Undefined,
            };
            changed |= *ours != joined;
            *ours = joined;
        }
        let bytes: BTreeSet<i64> = self.written.keys().chain(other.written.keys()).copied().collect();
        for byte in bytes {
            let joined = match (self.written.get(&byte), other.written.get(&byte)) {
                (Some(Written::Always), Some(Written::Always)) => Written::Always,
                _ => Written::Sometimes,
            };
            changed |= self.written.insert(byte, joined) != Some(joined);
        }
        changed
    }
}

/// Explores the tail. `height` is where the stack and frame pointers are at the springboard, `constants` which registers
/// are numbers there.
pub fn explore(
    code: &Code<'_>,
    springboard: Addr,
    height: Height,
    constants: &BTreeMap<Register, u64>,
) -> Result<Tail, Error> {
    let call = At { addr: springboard, alternative: None };
    let sp = height.sp.ok_or(Error::StackPointerUnknown { at: springboard })?;
    let mut start = State::behind_the_switch(code.abi(), sp, height.fp);
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

impl State {
    /// The switch returns the previous thread; like any call it leaves the other registers that are not
    /// callee-saved undefined, and those that are as the new `__schedule` had them.
    fn behind_the_switch(abi: &Abi, sp: i64, fp: Option<i64>) -> State {
        let mut state = State { registers: [Value::Undefined; REGISTERS], written: BTreeMap::new() };
        for register in abi.callee_saved {
            state.set(*register, Value::Live(*register));
        }
        state.set(abi.results[0], Value::Own);
        state.set(abi.stack_pointer, Value::Frame(sp));
        if let Some(fp) = fp {
            state.set(abi.frame_pointer, Value::Frame(fp));
        }
        state
    }

    fn get(&self, register: Register) -> Value {
        self.registers[usize::from(register)]
    }

    fn set(&mut self, register: Register, value: Value) {
        self.registers[usize::from(register)] = value;
    }

    /// Whether a store writes what the place already holds.
    fn puts_back(&self, to: Place, from: Register) -> bool {
        let Some(offset) = self.frame_place(to) else { return false };
        let is_untouched = (offset..offset + 8).all(|byte| !self.written.contains_key(&byte));
        self.get(from) == Value::Slot(offset) && is_untouched
    }

    /// A place in the frame, as an offset from the CFA.
    fn frame_place(&self, place: Place) -> Option<i64> {
        let Place::Based { base, offset } = place else { return None };
        match self.get(base) {
            Value::Frame(at) => Some(at.wrapping_add(offset)),
            _ => None,
        }
    }
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
    /// result behind. It cannot touch the frame, whose address it was not given.
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

    fn effect(&mut self, effect: &Effect, step: &Step, state: &mut State) -> Result<(), Error> {
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
                self.place(*to, step, state)?;
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
        self.place(from, step, state)?;
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
            self.place(access.place, step, state)?;
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
    fn place(&self, place: Place, step: &Step, state: &State) -> Result<(), Error> {
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

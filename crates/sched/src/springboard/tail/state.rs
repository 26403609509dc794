//! What is known of the registers and of the frame at one place of the tail.

use crate::springboard::contract::Guard;
use crate::springboard::paths::Join;
use schedswap_kernel::arch::step::{Abi, Place, Register};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
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
    /// Whether the tail may use it as it likes.
    pub fn is_own(self) -> bool {
        !matches!(
            self,
            Value::Live(_) | Value::Slot(_) | Value::Authenticated(_) | Value::Frame(_) | Value::Undefined
        )
    }
}

/// Whether a byte of the frame, once written by the tail, was written on every path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    Always,
    Sometimes,
}

/// As many registers as any machine has.
const REGISTERS: usize = 32;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    registers: [Value; REGISTERS],
    /// Bytes of the frame that the tail wrote, by offset from the CFA. Only own values are ever written.
    pub written: BTreeMap<i64, Written>,
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

impl State {
    /// The switch returns the previous thread; like any call it leaves the other registers that are not
    /// callee-saved undefined, and those that are as the new `__schedule` had them.
    pub fn after_the_switch(abi: &Abi, sp: i64, fp: Option<i64>) -> State {
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

    /// What is known of a register.
    pub fn get(&self, register: Register) -> Value {
        self.registers[usize::from(register)]
    }

    /// Learns what a register holds.
    pub fn set(&mut self, register: Register, value: Value) {
        self.registers[usize::from(register)] = value;
    }

    /// Whether a store writes what the place already holds.
    pub fn puts_back(&self, to: Place, from: Register) -> bool {
        let Some(offset) = self.frame_place(to) else { return false };
        let is_untouched = (offset..offset + 8).all(|byte| !self.written.contains_key(&byte));
        self.get(from) == Value::Slot(offset) && is_untouched
    }

    /// A place in the frame, as an offset from the CFA.
    pub fn frame_place(&self, place: Place) -> Option<i64> {
        let Place::Based { base, offset } = place else { return None };
        match self.get(base) {
            Value::Frame(at) => Some(at.wrapping_add(offset)),
            _ => None,
        }
    }
}

//! A machine whose registers hold symbols: enough of one to run the stub and vmlinux's tail.
//!
//! What an instruction is not known to compute becomes junk, and junk equals nothing: a proof can only fail by
//! it, never succeed.

use super::super::contract::Guard;
use schedswap_kernel::arch::step::{Abi, Effect, Operand, Place, Register, Step, Touched};
use std::collections::BTreeMap;

/// What a register or a stack slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    /// What the register of that number held when `__schedule` was called.
    Entry(Register),
    /// What the register of that number held when `__schedule.ss` called for the switch.
    Body(Register),
    /// The address at this offset from the CFA.
    Frame(i64),
    /// The kernel's stack guard.
    Guard,
    /// The address of the running thread.
    Current,
    /// The return address into the caller of `__schedule`.
    Caller,
    /// The same, signed with this offset from the CFA.
    Signed(i64),
    /// A number.
    Number(u64),
    /// Anything.
    Junk,
}

/// A memory operand, resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// On the stack, at this offset from the CFA.
    Stack(i64),
    /// The kernel's stack guard.
    Guard,
    /// The stub's per-CPU variable.
    FrameSp,
    /// Elsewhere.
    Other,
}

/// As many registers as any machine has.
const REGISTERS: usize = 32;

/// Bytes of a register.
const WORD: i64 = 8;

/// Registers, stack and the per-CPU variable.
#[derive(Clone, Debug)]
pub struct Machine {
    stack_pointer: Register,
    guard: Option<Guard>,
    registers: [Value; REGISTERS],
    stack: BTreeMap<i64, Value>,
    /// `ss_frame_sp`.
    pub frame_sp: Value,
    /// Whether the last comparison was of two equal values; `None` if that is not known.
    pub equal: Option<bool>,
}

impl Machine {
    /// At the entry of `__schedule`; `guard` is the kernel's.
    pub fn at_entry(abi: &Abi, guard: Option<Guard>) -> Machine {
        let mut machine = Machine {
            stack_pointer: abi.stack_pointer,
            guard,
            registers: std::array::from_fn(|number| Value::Entry(number as Register)),
            stack: BTreeMap::new(),
            frame_sp: Value::Junk,
            equal: None,
        };
        machine.set(abi.stack_pointer, Value::Frame(abi.entry_sp));
        match abi.link {
            Some(link) => machine.set(link, Value::Caller),
            None => drop(machine.stack.insert(abi.entry_sp, Value::Caller)),
        }
        machine
    }

    /// A register's value.
    pub fn register(&self, number: Register) -> Value {
        self.registers[usize::from(number)]
    }

    /// Sets a register.
    pub fn set(&mut self, number: Register, value: Value) {
        self.registers[usize::from(number)] = value;
    }

    /// What the stack holds at an offset.
    pub fn stack(&self, offset: i64) -> Value {
        self.stack.get(&offset).copied().unwrap_or(Value::Junk)
    }

    /// Puts a value onto the stack.
    pub fn put(&mut self, offset: i64, value: Value) {
        self.store(Memory::Stack(offset), WORD, value);
    }

    /// Where the stack pointer is, while it points into the stack.
    pub fn sp(&self) -> Option<i64> {
        match self.register(self.stack_pointer) {
            Value::Frame(offset) => Some(offset),
            _ => None,
        }
    }

    /// What a C function may do between its call and its return.
    pub fn call(&mut self, abi: &Abi) {
        for number in 0..abi.registers {
            if number != abi.stack_pointer && !abi.callee_saved.contains(&number) {
                self.set(number, Value::Junk);
            }
        }
        if let Some(sp) = self.sp() {
            self.stack.retain(|offset, _| *offset >= sp);
        }
        self.equal = None;
    }

    /// Forgets the stack below an offset.
    pub fn drop_below(&mut self, lowest: i64) {
        self.stack.retain(|offset, _| *offset >= lowest);
    }

    /// Runs one instruction that is not a branch. `relocated` is where its operand in memory is, if a relocation
    /// says so.
    pub fn run(&mut self, step: &Step, relocated: Option<Memory>) {
        let mut equal = self.equal.filter(|_| !step.sets_flags);
        for effect in &step.effects {
            match effect {
                Effect::Copy { to, from } => self.set(*to, self.register(*from)),
                Effect::Add { to, from, by } => {
                    let value = match self.register(*from) {
                        Value::Frame(offset) => Value::Frame(offset.wrapping_add(*by)),
                        _ => Value::Junk,
                    };
                    self.set(*to, value);
                }
                Effect::Load { to, from } => self.set(*to, self.load(self.place(*from, relocated))),
                Effect::Store { to, from } => {
                    self.store(self.place(*to, relocated), WORD, self.register(*from));
                }
                Effect::Set { to, value } => self.set(*to, Value::Number(*value)),
                Effect::Truth { to, .. } => self.set(*to, Value::Junk),
                Effect::Current { to } => self.set(*to, Value::Current),
                Effect::Sign { register, modifier } => {
                    let value = match (self.register(*register), self.register(*modifier)) {
                        (Value::Caller, Value::Frame(at)) => Value::Signed(at),
                        _ => Value::Junk,
                    };
                    self.set(*register, value);
                }
                Effect::Authenticate { register, modifier } => {
                    let value = match (self.register(*register), self.register(*modifier)) {
                        (Value::Signed(with), Value::Frame(at)) if with == at => Value::Caller,
                        _ => Value::Junk,
                    };
                    self.set(*register, value);
                }
                Effect::Compare { left, right, touched } => {
                    let is_guard = |operand| self.operand(operand, relocated) == Value::Guard;
                    equal = (is_guard(*left) && is_guard(*right)).then_some(true);
                    self.junk(touched, relocated);
                }
                Effect::Touch(touched) => self.junk(touched, relocated),
            }
        }
        self.equal = equal;
    }

    fn operand(&self, operand: Operand, relocated: Option<Memory>) -> Value {
        match operand {
            Operand::Register(register) => self.register(register),
            Operand::Memory(place) => self.load(self.place(place, relocated)),
            Operand::Other => Value::Junk,
        }
    }

    /// Whatever else an instruction writes is unknown from now on.
    fn junk(&mut self, touched: &Touched, relocated: Option<Memory>) {
        for access in &touched.stores {
            self.store(self.place(access.place, relocated), access.bytes, Value::Junk);
        }
        for number in touched.writes.iter() {
            self.set(number, Value::Junk);
        }
    }

    fn place(&self, place: Place, relocated: Option<Memory>) -> Memory {
        match place {
            Place::Based { base, offset } => match self.register(base) {
                Value::Frame(at) => Memory::Stack(at.wrapping_add(offset)),
                Value::Current if self.guard.is_some_and(|guard| guard.is_of_thread(offset)) => Memory::Guard,
                _ => Memory::Other,
            },
            Place::PerCpu(addr) => {
                let is_guard = self.guard == Some(Guard::at(addr));
                relocated.unwrap_or(if is_guard { Memory::Guard } else { Memory::Other })
            }
            Place::Other(_) => relocated.unwrap_or(Memory::Other),
        }
    }

    fn load(&self, place: Memory) -> Value {
        match place {
            Memory::Stack(offset) => self.stack(offset),
            Memory::Guard => Value::Guard,
            Memory::FrameSp => self.frame_sp,
            Memory::Other => Value::Junk,
        }
    }

    fn store(&mut self, place: Memory, bytes: i64, value: Value) {
        match place {
            Memory::Stack(offset) => {
                // Whatever overlaps is gone.
                self.stack.retain(|slot, _| *slot + WORD <= offset || *slot >= offset + bytes);
                if bytes == WORD {
                    self.stack.insert(offset, value);
                }
            }
            Memory::FrameSp => self.frame_sp = value,
            Memory::Guard | Memory::Other => {}
        }
    }
}

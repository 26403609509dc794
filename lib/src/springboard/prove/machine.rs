//! A machine whose registers hold symbols: enough of x86-64 to run the stub and vmlinux's tail.
//!
//! What an instruction is not known to compute becomes junk, and junk equals nothing: a proof can only fail by
//! it, never succeed.

use super::super::contract::Guard;
use super::super::height::immediate;
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use std::collections::BTreeMap;

/// What a register or a stack slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    /// What the register of that number held when `__schedule` was called.
    Entry(usize),
    /// What the register of that number held when `__schedule.ss` called for the switch.
    Body(usize),
    /// The address at this offset from the CFA.
    Frame(i64),
    /// The kernel's stack guard.
    Guard,
    /// The return address into the caller of `__schedule`.
    Caller,
    /// Zero.
    Zero,
    /// Anything.
    Junk,
}

/// A memory operand, resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// On the stack, at this offset from the CFA.
    Stack(i64),
    /// The kernel's stack guard.
    Guard,
    /// The stub's per-CPU variable.
    FrameSp,
    /// Elsewhere.
    Other,
}

/// Registers, stack and the per-CPU variable.
#[derive(Clone, Debug)]
pub struct Machine {
    registers: [Value; 16],
    stack: BTreeMap<i64, Value>,
    /// `ss_frame_sp`.
    pub frame_sp: Value,
    /// Whether the last comparison was of two equal values; `None` if that is not known.
    pub equal: Option<bool>,
}

/// Register numbers.
pub const RSP: usize = 4;
pub const RBP: usize = 5;
pub const RSI: usize = 6;
pub const RDI: usize = 7;

impl Machine {
    /// At the entry of `__schedule`.
    pub fn at_entry() -> Machine {
        let mut registers = std::array::from_fn(Value::Entry);
        registers[RSP] = Value::Frame(-8);
        Machine {
            registers,
            stack: BTreeMap::from([(-8, Value::Caller)]),
            frame_sp: Value::Junk,
            equal: None,
        }
    }

    /// A register's value.
    pub fn register(&self, number: usize) -> Value {
        self.registers[number]
    }

    /// Sets a register.
    pub fn set(&mut self, number: usize, value: Value) {
        self.registers[number] = value;
    }

    /// What the stack holds at an offset.
    pub fn stack(&self, offset: i64) -> Value {
        self.stack.get(&offset).copied().unwrap_or(Value::Junk)
    }

    /// Where the stack pointer is, while it points into the stack.
    pub fn sp(&self) -> Option<i64> {
        match self.registers[RSP] {
            Value::Frame(offset) => Some(offset),
            _ => None,
        }
    }

    /// What a C function may do between its call and its return.
    pub fn call(&mut self, callee_saved: &[usize]) {
        for number in 0..16 {
            if number != RSP && !callee_saved.contains(&number) {
                self.registers[number] = Value::Junk;
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

    /// Runs one instruction that is no branch. `relocated` is where its operand in memory is, if a relocation
    /// says so.
    pub fn run(&mut self, instruction: &Instruction, guard: Option<Guard>, relocated: Option<Place>) {
        let place = relocated.unwrap_or_else(|| self.place(instruction, guard));
        let op0 = number(instruction.op0_register());
        let whole = instruction.op0_register().is_gpr64();
        match instruction.mnemonic() {
            Mnemonic::Nop | Mnemonic::Endbr64 => return,
            Mnemonic::Push if instruction.op0_kind() == OpKind::Register => {
                if let (Some(sp), Some(source)) = (self.sp(), op0) {
                    self.stack.insert(sp - 8, self.registers[source]);
                    self.registers[RSP] = Value::Frame(sp - 8);
                    return;
                }
            }
            Mnemonic::Pop if whole => {
                if let (Some(sp), Some(target)) = (self.sp(), op0) {
                    self.registers[target] = self.stack(sp);
                    self.registers[RSP] = Value::Frame(sp + 8);
                    return;
                }
            }
            Mnemonic::Leave => {
                let Value::Frame(bp) = self.registers[RBP] else {
                    self.registers[RSP] = Value::Junk;
                    return;
                };
                self.registers[RBP] = self.stack(bp);
                self.registers[RSP] = Value::Frame(bp + 8);
                return;
            }
            Mnemonic::Mov if whole || instruction.op1_register().is_gpr64() => {
                let value = match instruction.op1_kind() {
                    OpKind::Register => {
                        number(instruction.op1_register()).map_or(Value::Junk, |n| self.registers[n])
                    }
                    OpKind::Memory => self.load(place),
                    _ => Value::Junk,
                };
                match op0 {
                    Some(target) => self.registers[target] = value,
                    None => self.store(place, 8, value),
                }
                return;
            }
            Mnemonic::Lea if whole => {
                if let (Some(target), Place::Stack(offset)) = (op0, self.place(instruction, None)) {
                    self.registers[target] = Value::Frame(offset);
                    return;
                }
            }
            Mnemonic::Xor if op0.is_some() && instruction.op0_register() == instruction.op1_register() => {
                self.registers[op0.unwrap_or_default()] = Value::Zero;
                return;
            }
            Mnemonic::Add | Mnemonic::Sub if whole => {
                if let (Some(target), Some(by)) = (op0, immediate(instruction))
                    && let Value::Frame(offset) = self.registers[target]
                {
                    let by = if instruction.mnemonic() == Mnemonic::Add { by } else { -by };
                    self.registers[target] = Value::Frame(offset + by);
                    return;
                }
            }
            _ => {}
        }
        self.compare(instruction, place);
        self.junk(instruction, place);
    }

    /// Learns whether a comparison is of the guard with itself.
    fn compare(&mut self, instruction: &Instruction, place: Place) {
        let operand = |index: u32| match instruction.op_kind(index) {
            OpKind::Register if instruction.op_register(index).is_gpr64() => {
                number(instruction.op_register(index)).map_or(Value::Junk, |n| self.registers[n])
            }
            OpKind::Memory => self.load(place),
            _ => Value::Junk,
        };
        let compares = matches!(instruction.mnemonic(), Mnemonic::Sub | Mnemonic::Xor | Mnemonic::Cmp);
        self.equal = (compares && operand(0) == Value::Guard && operand(1) == Value::Guard).then_some(true);
    }

    /// Whatever else an instruction writes is unknown from now on.
    fn junk(&mut self, instruction: &Instruction, place: Place) {
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(instruction);
        let writes = |access| {
            !matches!(access, OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
        };
        for used in info.used_registers().iter().filter(|used| writes(used.access())) {
            if let Some(number) = number(used.register()) {
                self.registers[number] = Value::Junk;
            }
        }
        if info.used_memory().iter().any(|used| writes(used.access())) {
            self.store(place, instruction.memory_size().size().max(1) as i64, Value::Junk);
        }
    }

    fn place(&self, instruction: &Instruction, guard: Option<Guard>) -> Place {
        let fixed = instruction.memory_index() == Register::None;
        let displacement = instruction.memory_displacement64();
        if instruction.segment_prefix() == Register::GS {
            let alone = matches!(instruction.memory_base(), Register::None | Register::RIP) && fixed;
            return if alone && guard == Some(Guard::at(displacement)) { Place::Guard } else { Place::Other };
        }
        match number(instruction.memory_base()).map(|base| self.registers[base]) {
            Some(Value::Frame(offset)) if fixed => Place::Stack(offset.wrapping_add(displacement as i64)),
            _ => Place::Other,
        }
    }

    fn load(&self, place: Place) -> Value {
        match place {
            Place::Stack(offset) => self.stack(offset),
            Place::Guard => Value::Guard,
            Place::FrameSp => self.frame_sp,
            Place::Other => Value::Junk,
        }
    }

    fn store(&mut self, place: Place, bytes: i64, value: Value) {
        match place {
            Place::Stack(offset) => {
                // Whatever overlaps is gone.
                self.stack.retain(|slot, _| *slot + 8 <= offset || *slot >= offset + bytes);
                if bytes == 8 {
                    self.stack.insert(offset, value);
                }
            }
            Place::FrameSp => self.frame_sp = value,
            Place::Guard | Place::Other => {}
        }
    }
}

fn number(register: Register) -> Option<usize> {
    register.is_gpr().then(|| register.full_register().number())
}

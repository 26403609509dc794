//! What the code behind the springboard does with the frame.
//!
//! An abstract run of every path from the instruction behind the `call __switch_to_asm` to a return. Each
//! register holds one of the [`Value`]s; the frame is what was there before unless the tail wrote it. Whatever
//! the new `__schedule` could not have provided must not be read.

use super::code::{At, Callee, Code, Join, is_direct_branch, named};
use super::contract::{CalleeSaved, Guard};
use super::error::Error;
use super::height::{Height, immediate};
use crate::address::Addr;
use iced_x86::{
    FlowControl, Instruction, InstructionInfoFactory, MemorySize, Mnemonic, OpAccess, OpKind, Register,
};
use std::collections::{BTreeMap, BTreeSet};

/// What the tail asks of the frame.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tail {
    /// For each callee-saved register, the slot it is loaded from; `None` where the tail leaves it alone.
    pub restored: BTreeMap<CalleeSaved, Option<i64>>,
    /// The canary's slot and what it is compared with.
    pub canary: Option<(i64, Guard)>,
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
    /// What lies at this offset of a per-CPU variable; the tail's own, too.
    PerCpu(Guard),
    /// What the callee-saved register of that number held at the springboard.
    Live(usize),
    /// What the frame held at this offset at the springboard.
    Slot(i64),
    /// The address at this offset from the CFA.
    Frame(i64),
    /// Nothing: a call left it undefined, or it depends on the path.
    Undefined,
}

impl Value {
    fn is_own(self) -> bool {
        matches!(self, Value::Own | Value::PerCpu(_))
    }
}

/// Whether a byte of the frame, once written by the tail, was written on every path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Written {
    Always,
    Sometimes,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    registers: [Value; 16],
    /// Bytes of the frame that the tail wrote, by offset from the CFA. Only own values are ever written.
    written: BTreeMap<i64, Written>,
}

const RAX: usize = 0;
const RDX: usize = 2;
const RSP: usize = 4;
const RBP: usize = 5;
/// The registers that pass arguments.
const ARGUMENTS: [usize; 6] = [7, 6, 2, 1, 8, 9];

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

/// Explores the tail. `height` is where rsp and rbp are at the springboard.
pub fn explore(code: &Code<'_>, springboard: Addr, height: Height) -> Result<Tail, Error> {
    let call = At { addr: springboard, alternative: None };
    let sp = height.sp.ok_or(Error::StackPointerUnknown { at: springboard })?;
    let start = State::behind_the_switch(sp, height.bp);
    let next = code.next(call, &code.decode(call)?);
    let starts = next.inside.into_iter().map(|at| (at, start.clone())).collect();

    let mut walk =
        Walk { code, springboard, lowest: sp, factory: InstructionInfoFactory::new(), tail: Tail::default() };
    let known = code.explore(starts, |at, instruction, state| walk.step(at, instruction, state))?;
    let mut tail = walk.tail;
    if tail.restored.is_empty() {
        return Err(Error::NeverReturns);
    }
    tail.instructions = known.into_keys().collect();
    Ok(tail)
}

impl State {
    /// `__switch_to_asm` returns the previous thread; like any call it leaves the other registers that are not
    /// callee-saved undefined, and those that are as the new `__schedule` had them.
    fn behind_the_switch(sp: i64, bp: Option<i64>) -> State {
        let mut registers = [Value::Undefined; 16];
        for register in CalleeSaved::ALL {
            registers[register.number()] = Value::Live(register.number());
        }
        registers[RAX] = Value::Own;
        registers[RSP] = Value::Frame(sp);
        if let Some(bp) = bp {
            registers[RBP] = Value::Frame(bp);
        }
        State { registers, written: BTreeMap::new() }
    }
}

struct Walk<'c, 'a> {
    code: &'c Code<'a>,
    springboard: Addr,
    /// The stack pointer at the springboard: the frame's lowest byte.
    lowest: i64,
    factory: InstructionInfoFactory,
    tail: Tail,
}

impl Walk<'_, '_> {
    fn step(&mut self, at: At, instruction: &Instruction, state: &State) -> Result<Vec<(At, State)>, Error> {
        if at.addr == self.springboard {
            return Err(Error::Loops { instruction: named(instruction) });
        }
        let mut state = state.clone();
        match instruction.flow_control() {
            FlowControl::Call => self.call(instruction, &mut state)?,
            FlowControl::IndirectCall => self.indirect_call(instruction, &mut state)?,
            FlowControl::IndirectBranch => {
                return Err(Error::IndirectBranch { instruction: named(instruction) });
            }
            FlowControl::Return if instruction.op_count() == 0 => {}
            FlowControl::Next => self.compute(instruction, &mut state)?,
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
                if is_direct_branch(instruction) => {}
            FlowControl::Exception => {}
            _ => return Err(Error::Unforeseen { instruction: named(instruction) }),
        }
        let next = self.code.next(at, instruction);
        if next.returns {
            self.returns(instruction, &state)?;
        }
        for target in next.outside {
            match (self.code.callee)(target) {
                Callee::Return => {}
                // A sibling call: a call, with the return left to the callee.
                _ => self.known_callee(target, instruction)?,
            }
            self.returns(instruction, &state)?;
        }
        Ok(next.inside.into_iter().map(|at| (at, state.clone())).collect())
    }

    fn known_callee(&mut self, target: Addr, instruction: &Instruction) -> Result<(), Error> {
        match (self.code.callee)(target) {
            Callee::Known(name) | Callee::Diverges(name) => {
                self.tail.calls.insert(name);
                Ok(())
            }
            Callee::Switch => Err(Error::Loops { instruction: named(instruction) }),
            Callee::Return => {
                Err(Error::UnknownCall { callee: "the return thunk".into(), instruction: named(instruction) })
            }
            // As a sibling call: the register is not looked at there.
            Callee::Thunk(register) => Err(Error::UnknownCall {
                callee: format!("what {} holds", register_name(register)),
                instruction: named(instruction),
            }),
            Callee::Unknown(callee) => Err(Error::UnknownCall { callee, instruction: named(instruction) }),
        }
    }

    fn call(&mut self, instruction: &Instruction, state: &mut State) -> Result<(), Error> {
        let target = Addr(instruction.near_branch_target());
        match (self.code.callee)(target) {
            // A callback that the kernel's own data names (`balance_callback` of a run queue, until 5.17): called with
            // what the tail has, like any C function.
            Callee::Thunk(register) if state.registers[register].is_own() => {
                self.tail.calls.insert("what the kernel's data names".into());
            }
            _ => self.known_callee(target, instruction)?,
        }
        self.called(instruction, state)
    }

    fn indirect_call(&mut self, instruction: &Instruction, state: &mut State) -> Result<(), Error> {
        if !self.code.patched_calls.contains(&Addr(instruction.ip())) {
            let callee = "what it computes".into();
            return Err(Error::UnknownCall { callee, instruction: named(instruction) });
        }
        self.tail.calls.insert("a paravirt operation".into());
        self.called(instruction, state)
    }

    /// What any C function may do: it may read its arguments, and leaves only callee-saved registers and its
    /// result behind. It cannot touch the frame, whose address it was not given.
    fn called(&self, instruction: &Instruction, state: &mut State) -> Result<(), Error> {
        for argument in ARGUMENTS {
            if let Value::Frame(offset) = state.registers[argument] {
                return Err(Error::FrameEscapes { offset, instruction: named(instruction) });
            }
        }
        for number in [1, 6, 7, 8, 9, 10, 11] {
            state.registers[number] = Value::Undefined;
        }
        state.registers[RAX] = Value::Own;
        state.registers[RDX] = Value::Own;
        let Value::Frame(sp) = state.registers[RSP] else {
            return Err(Error::StackPointerLost { instruction: named(instruction) });
        };
        state.written.retain(|byte, _| *byte >= sp);
        Ok(())
    }

    fn returns(&mut self, instruction: &Instruction, state: &State) -> Result<(), Error> {
        if state.registers[RSP] != Value::Frame(-8) {
            let found = describe(state.registers[RSP]);
            return Err(Error::Unbalanced { found, instruction: named(instruction) });
        }
        for register in CalleeSaved::ALL {
            let restored = match state.registers[register.number()] {
                Value::Slot(offset) => Some(offset),
                Value::Live(number) if number == register.number() => None,
                other => {
                    let (found, instruction) = (describe(other), named(instruction));
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

    /// An instruction that computes, loads or stores.
    fn compute(&mut self, instruction: &Instruction, state: &mut State) -> Result<(), Error> {
        let destination = register_number(instruction.op0_register());
        match instruction.mnemonic() {
            Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Pause => return Ok(()),
            Mnemonic::Push => return self.push(instruction, state),
            Mnemonic::Pop => return self.pop(instruction, destination, state),
            Mnemonic::Leave => {
                let Value::Frame(bp) = state.registers[RBP] else {
                    return Err(Error::StackPointerLost { instruction: named(instruction) });
                };
                state.registers[RBP] = self.load(bp, 8, true, instruction, state)?;
                state.registers[RSP] = Value::Frame(bp + 8);
                return Ok(());
            }
            Mnemonic::Mov if is_whole(instruction) => {
                if let Some(value) = self.moved(instruction, state)? {
                    return self.assign(destination, value, instruction, state);
                }
            }
            Mnemonic::Lea if is_whole(instruction) && instruction.memory_index() == Register::None => {
                if let Some(offset) = frame_operand(instruction, state) {
                    return self.assign(destination, Value::Frame(offset), instruction, state);
                }
            }
            Mnemonic::Add | Mnemonic::Sub if is_whole(instruction) => {
                let target = destination.map(|number| state.registers[number]);
                if let (Some(Value::Frame(offset)), Some(by)) = (target, immediate(instruction)) {
                    let by = if instruction.mnemonic() == Mnemonic::Add { by } else { -by };
                    return self.assign(destination, Value::Frame(offset + by), instruction, state);
                }
            }
            _ => {}
        }
        if self.compares_canary(instruction, destination, state)? {
            return Ok(());
        }
        self.anything_else(instruction, state)
    }

    /// The value of a whole-register `mov`, unless only general rules apply to it.
    fn moved(&self, instruction: &Instruction, state: &State) -> Result<Option<Value>, Error> {
        if let Some(source) = register_number(instruction.op1_register()) {
            self.readable(source, instruction, state)?;
            return Ok(Some(state.registers[source]));
        }
        if instruction.op1_kind() != OpKind::Memory {
            return Ok(None);
        }
        if let Some(guard) = per_cpu_operand(instruction) {
            return Ok(Some(Value::PerCpu(guard)));
        }
        let Some(offset) = frame_operand(instruction, state) else { return Ok(None) };
        self.load(offset, 8, true, instruction, state).map(Some)
    }

    fn push(&self, instruction: &Instruction, state: &mut State) -> Result<(), Error> {
        self.check_reads(instruction, state)?;
        let Value::Frame(sp) = state.registers[RSP] else {
            return Err(Error::StackPointerLost { instruction: named(instruction) });
        };
        state.registers[RSP] = Value::Frame(sp - 8);
        self.store(sp - 8, 8, instruction, state)
    }

    fn pop(
        &self,
        instruction: &Instruction,
        destination: Option<usize>,
        state: &mut State,
    ) -> Result<(), Error> {
        let (Value::Frame(sp), Some(destination)) = (state.registers[RSP], destination) else {
            return Err(Error::StackPointerLost { instruction: named(instruction) });
        };
        state.registers[destination] = self.load(sp, 8, true, instruction, state)?;
        state.registers[RSP] = Value::Frame(sp + 8);
        Ok(())
    }

    /// Puts a value into a register; the stack pointer takes nothing but addresses of the frame.
    fn assign(
        &self,
        destination: Option<usize>,
        value: Value,
        instruction: &Instruction,
        state: &mut State,
    ) -> Result<(), Error> {
        let Some(number) = destination else {
            return Err(Error::StackPointerLost { instruction: named(instruction) });
        };
        if number == RSP && !matches!(value, Value::Frame(_)) {
            return Err(Error::StackPointerLost { instruction: named(instruction) });
        }
        state.registers[number] = value;
        Ok(())
    }

    /// Recognises the comparison of the canary with the guard: `sub`, `xor` or `cmp` of the one, from the frame,
    /// with the other, from `gs`, in either order, each from a register or from memory.
    fn compares_canary(
        &mut self,
        instruction: &Instruction,
        destination: Option<usize>,
        state: &mut State,
    ) -> Result<bool, Error> {
        if !matches!(instruction.mnemonic(), Mnemonic::Sub | Mnemonic::Xor | Mnemonic::Cmp) {
            return Ok(false);
        }
        let operands = [0, 1].map(|index| match instruction.op_kind(index) {
            OpKind::Register => register_number(instruction.op_register(index))
                .filter(|_| instruction.op_register(index).is_gpr64())
                .map(|number| state.registers[number]),
            OpKind::Memory if instruction.memory_size() == MemorySize::UInt64 => per_cpu_operand(instruction)
                .map(Value::PerCpu)
                .or_else(|| frame_operand(instruction, state).map(Value::Slot)),
            _ => None,
        });
        let (offset, guard) = match operands {
            [Some(Value::Slot(offset)), Some(Value::PerCpu(guard))]
            | [Some(Value::PerCpu(guard)), Some(Value::Slot(offset))] => (offset, guard),
            _ => return Ok(false),
        };
        self.load(offset, 8, true, instruction, state)?;
        if let Some((earlier_offset, earlier_guard)) = self.tail.canary
            && (earlier_offset, earlier_guard) != (offset, guard)
        {
            let instruction = named(instruction);
            return Err(Error::SeveralCanaries { offset, guard, earlier_offset, earlier_guard, instruction });
        }
        self.tail.canary = Some((offset, guard));
        if instruction.mnemonic() != Mnemonic::Cmp {
            self.assign(destination, Value::Own, instruction, state)?;
        }
        Ok(true)
    }

    /// Every register and slot read must be the tail's own, every register written becomes so.
    fn anything_else(&mut self, instruction: &Instruction, state: &mut State) -> Result<(), Error> {
        self.check_reads(instruction, state)?;
        let bytes = instruction.memory_size().size() as i64;
        if let Some(offset) = frame_operand(instruction, state)
            && instruction.mnemonic() != Mnemonic::Lea
            && writes_memory(self.factory.info(instruction))
        {
            self.store(offset, bytes, instruction, state)?;
        }
        for used in self.factory.info(instruction).used_registers() {
            let written = !matches!(
                used.access(),
                OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
            );
            if let Some(number) = register_number(used.register()).filter(|_| written) {
                if number == RSP {
                    return Err(Error::StackPointerLost { instruction: named(instruction) });
                }
                state.registers[number] = Value::Own;
            }
        }
        Ok(())
    }

    fn check_reads(&self, instruction: &Instruction, state: &State) -> Result<(), Error> {
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(instruction);
        let slot = frame_operand(instruction, state);
        if let Some(offset) = slot
            && instruction.mnemonic() != Mnemonic::Lea
            && info.used_memory().iter().any(|used| {
                used.segment() != Register::None
                    && reads(used.access())
                    && used.base() == instruction.memory_base()
            })
        {
            self.load(offset, instruction.memory_size().size() as i64, false, instruction, state)?;
        }
        for used in info.used_registers() {
            let Some(number) = register_number(used.register()).filter(|_| reads(used.access())) else {
                continue;
            };
            let implicit_stack = number == RSP && instruction.is_stack_instruction();
            let base = slot.is_some() && register_number(instruction.memory_base()) == Some(number);
            if implicit_stack || base {
                continue;
            }
            self.readable(number, instruction, state)?;
            match state.registers[number] {
                Value::Slot(offset) => {
                    return Err(Error::LiveSlot { offset, instruction: named(instruction) });
                }
                Value::Frame(offset) => {
                    return Err(Error::FrameEscapes { offset, instruction: named(instruction) });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses what the new `__schedule` could not have provided.
    fn readable(&self, number: usize, instruction: &Instruction, state: &State) -> Result<(), Error> {
        match state.registers[number] {
            Value::Live(_) | Value::Undefined => {
                Err(Error::LiveRegister { register: register_name(number), instruction: named(instruction) })
            }
            _ => Ok(()),
        }
    }

    /// What a load from the frame yields. A slot that the tail did not write may only be loaded `whole`.
    fn load(
        &self,
        offset: i64,
        bytes: i64,
        whole: bool,
        instruction: &Instruction,
        state: &State,
    ) -> Result<Value, Error> {
        let written: Vec<_> = (offset..offset + bytes).map(|byte| state.written.get(&byte)).collect();
        if written.iter().all(|byte| *byte == Some(&Written::Always)) {
            return Ok(Value::Own);
        }
        if offset < self.lowest || offset + bytes > -8 {
            return Err(Error::OutsideFrame { offset, instruction: named(instruction) });
        }
        if whole && offset % 8 == 0 && written.iter().all(Option::is_none) {
            return Ok(Value::Slot(offset));
        }
        Err(Error::LiveSlot { offset, instruction: named(instruction) })
    }

    fn store(
        &self,
        offset: i64,
        bytes: i64,
        instruction: &Instruction,
        state: &mut State,
    ) -> Result<(), Error> {
        if offset + bytes > -8 {
            return Err(Error::OutsideFrame { offset, instruction: named(instruction) });
        }
        state.written.extend((offset..offset + bytes).map(|byte| (byte, Written::Always)));
        Ok(())
    }
}

fn reads(access: OpAccess) -> bool {
    matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

fn writes_memory(info: &iced_x86::InstructionInfo) -> bool {
    info.used_memory().iter().any(|used| {
        matches!(
            used.access(),
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        )
    })
}

/// Whether all 64 bits of a register are the first operand.
fn is_whole(instruction: &Instruction) -> bool {
    instruction.op0_kind() == OpKind::Register && instruction.op0_register().is_gpr64()
}

fn register_number(register: Register) -> Option<usize> {
    register.is_gpr().then(|| register.full_register().number())
}

/// The offset from the CFA that a memory operand names, if it does.
fn frame_operand(instruction: &Instruction, state: &State) -> Option<i64> {
    let base = register_number(instruction.memory_base())?;
    let Value::Frame(offset) = state.registers[base] else { return None };
    (instruction.memory_index() == Register::None)
        .then(|| offset.wrapping_add(instruction.memory_displacement64() as i64))
}

/// The per-CPU variable that a memory operand names, if it does so by itself.
fn per_cpu_operand(instruction: &Instruction) -> Option<Guard> {
    let fixed = matches!(instruction.memory_base(), Register::None | Register::RIP)
        && instruction.memory_index() == Register::None;
    // For an operand relative to rip, the decoder's displacement is the address itself.
    (instruction.segment_prefix() == Register::GS && fixed)
        .then(|| Guard::at(instruction.memory_displacement64()))
}

const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

fn register_name(number: usize) -> String {
    NAMES[number].to_owned()
}

/// The number of a general register.
pub(super) fn register_of(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
}

fn describe(value: Value) -> String {
    match value {
        Value::Own | Value::PerCpu(_) => "a value of the tail's own".to_owned(),
        Value::Live(number) => format!("{} as it was at the springboard", register_name(number)),
        Value::Slot(offset) => format!("the slot CFA{offset:+}"),
        Value::Frame(offset) => format!("CFA{offset:+}"),
        Value::Undefined => "nothing certain".to_owned(),
    }
}

//! What an x86-64 instruction does.

use super::super::step::{
    Abi, Access, Condition, Effect, Flow, Operand, Place, Register as Number, Step, Touched,
};
use crate::address::Addr;
use iced_x86::{
    ConditionCode, FlowControl, Instruction, InstructionInfo, InstructionInfoFactory, MemorySize, Mnemonic,
    OpAccess, OpKind, Register,
};

const RSP: Number = 4;
const RBP: Number = 5;
const RSI: Number = 6;
const RDI: Number = 7;

/// System V ABI, in the kernel's use of it.
pub(super) const ABI: Abi = Abi {
    registers: 16,
    stack_pointer: RSP,
    frame_pointer: RBP,
    link: None,
    entry_sp: -8,
    arguments: &[7, 6, 2, 1, 8, 9],
    results: &[0, 2],
    callee_saved: &[3, RBP, 12, 13, 14, 15],
    name: register_name,
};

fn register_name(register: Number) -> String {
    const NAMES: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
        "r14", "r15",
    ];
    NAMES[usize::from(register)].to_owned()
}

/// The instruction in the terms of all machines.
pub(super) fn lift(instruction: &Instruction) -> Step {
    let flow = flow(instruction);
    Step {
        at: Addr(instruction.ip()),
        len: instruction.len() as u64,
        form: format!("{:?}", instruction.code()),
        flow,
        effects: if flow == Flow::Next { effects(instruction) } else { Vec::new() },
        sets_flags: instruction.rflags_modified() != 0,
    }
}

fn flow(instruction: &Instruction) -> Flow {
    let target = super::near_target(instruction).map(Addr);
    match (instruction.flow_control(), target) {
        (FlowControl::Next, _) => Flow::Next,
        (FlowControl::Call, Some(target)) => Flow::Call(target),
        (FlowControl::IndirectCall, _) => Flow::CallIndirect(whole(instruction, 0)),
        (FlowControl::UnconditionalBranch, Some(target)) => Flow::Jump(target),
        (FlowControl::IndirectBranch, _) => Flow::JumpIndirect,
        (FlowControl::ConditionalBranch, Some(target)) => {
            let condition = match instruction.condition_code() {
                ConditionCode::e => Condition::Equal,
                ConditionCode::ne => Condition::NotEqual,
                _ => Condition::Other,
            };
            Flow::Branch { target, condition }
        }
        (FlowControl::Return, _) if instruction.op_count() == 0 => Flow::Return,
        (FlowControl::Exception, _) => Flow::Trap,
        _ => Flow::Other,
    }
}

fn effects(instruction: &Instruction) -> Vec<Effect> {
    let to = whole(instruction, 0);
    let from = whole(instruction, 1);
    let is_memory = |operand| instruction.op_kind(operand) == OpKind::Memory;
    let place = place(instruction);
    match instruction.mnemonic() {
        Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Pause => Vec::new(),
        Mnemonic::Push => push(instruction, to),
        Mnemonic::Pop if to.is_some_and(|to| to != RSP) => {
            let to = to.unwrap_or_default();
            vec![
                Effect::Load { to, from: Place::Based { base: RSP, offset: 0 } },
                Effect::Add { to: RSP, from: RSP, by: 8 },
            ]
        }
        Mnemonic::Leave => vec![
            Effect::Copy { to: RSP, from: RBP },
            Effect::Load { to: RBP, from: Place::Based { base: RSP, offset: 0 } },
            Effect::Add { to: RSP, from: RSP, by: 8 },
        ],
        Mnemonic::Mov if moved_number(instruction).is_some() => {
            let (to, value) = moved_number(instruction).unwrap_or_default();
            vec![Effect::Set { to, value }]
        }
        Mnemonic::Mov => match (to, from) {
            (Some(to), Some(from)) => vec![Effect::Copy { to, from }],
            (Some(to), None) if is_memory(1) => vec![Effect::Load { to, from: place }],
            (None, Some(from)) if is_memory(0) => vec![Effect::Store { to: place, from }],
            _ => vec![Effect::Touch(touched(instruction))],
        },
        Mnemonic::Lea => match (to, place, instruction.segment_prefix()) {
            (Some(to), Place::Based { base, offset }, Register::None) => {
                vec![Effect::Add { to, from: base, by: offset }]
            }
            _ => vec![Effect::Touch(touched(instruction))],
        },
        Mnemonic::Add | Mnemonic::Sub if to.is_some() && immediate(instruction).is_some() => {
            let (to, by) = (to.unwrap_or_default(), immediate(instruction).unwrap_or_default());
            let by = if instruction.mnemonic() == Mnemonic::Add { by } else { by.wrapping_neg() };
            vec![Effect::Add { to, from: to, by }]
        }
        // Of 32 bits as well: what is above becomes zero too.
        Mnemonic::Xor if instruction.op1_kind() == OpKind::Register && zeroed(instruction).is_some() => {
            vec![Effect::Set { to: zeroed(instruction).unwrap_or_default(), value: 0 }]
        }
        Mnemonic::Sub | Mnemonic::Xor | Mnemonic::Cmp => {
            let [left, right] = [0, 1].map(|operand| compared(instruction, operand));
            vec![Effect::Compare { left, right, touched: touched(instruction) }]
        }
        _ => vec![Effect::Touch(touched(instruction))],
    }
}

fn push(instruction: &Instruction, register: Option<Number>) -> Vec<Effect> {
    let to = Place::Based { base: RSP, offset: 0 };
    let down = Effect::Add { to: RSP, from: RSP, by: -8 };
    if let Some(from) = register.filter(|register| *register != RSP) {
        return vec![down, Effect::Store { to, from }];
    }
    let mut source = touched(instruction);
    source.writes.remove(RSP);
    source.stores.clear();
    let pushed = Touched { stores: vec![Access { place: to, bytes: 8 }], ..Touched::default() };
    vec![Effect::Touch(source), down, Effect::Touch(pushed)]
}

/// A general-purpose register of 64 bits that is an operand.
fn whole(instruction: &Instruction, operand: u32) -> Option<Number> {
    let is_register = operand < instruction.op_count() && instruction.op_kind(operand) == OpKind::Register;
    let register = is_register.then(|| instruction.op_register(operand))?;
    register.is_gpr64().then(|| number(register)).flatten()
}

fn zeroed(instruction: &Instruction) -> Option<Number> {
    let register = instruction.op0_register();
    let is_whole = register.is_gpr32() || register.is_gpr64();
    (is_whole && register == instruction.op1_register()).then(|| number(register)).flatten()
}

/// `mov` of a number into all of a register; of 32 bits as well, for what is above becomes zero.
fn moved_number(instruction: &Instruction) -> Option<(Number, u64)> {
    let register = instruction.op0_register();
    let is_whole =
        register.is_gpr64() || register.is_gpr32() && instruction.op1_kind() == OpKind::Immediate32;
    let is_number =
        matches!(instruction.op1_kind(), OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64);
    let to = number(register).filter(|_| instruction.op0_kind() == OpKind::Register)?;
    (is_whole && is_number).then(|| (to, instruction.immediate(1)))
}

fn compared(instruction: &Instruction, operand: u32) -> Operand {
    match instruction.op_kind(operand) {
        OpKind::Register => whole(instruction, operand).map_or(Operand::Other, Operand::Register),
        OpKind::Memory if instruction.memory_size() == MemorySize::UInt64 => {
            Operand::Memory(place(instruction))
        }
        _ => Operand::Other,
    }
}

/// The second operand, if it is an immediate.
fn immediate(instruction: &Instruction) -> Option<i64> {
    matches!(
        instruction.op1_kind(),
        OpKind::Immediate8 | OpKind::Immediate8to64 | OpKind::Immediate32to64 | OpKind::Immediate64
    )
    .then(|| instruction.immediate(1) as i64)
}

/// Where the memory operand is, if there is one.
fn place(instruction: &Instruction) -> Place {
    let base = number(instruction.memory_base());
    let index = number(instruction.memory_index());
    let offset = instruction.memory_displacement64();
    match (instruction.segment_prefix(), base, index) {
        // For an operand relative to rip, the decoder's displacement is the address itself.
        (Register::GS, None, None) => Place::PerCpu(offset),
        (Register::None, Some(base), None) => Place::Based { base, offset: offset as i64 },
        _ => Place::Other(base.into_iter().chain(index).collect()),
    }
}

fn touched(instruction: &Instruction) -> Touched {
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(instruction);
    let mut touched = Touched::default();
    for used in info.used_registers() {
        let Some(register) = number(used.register()) else { continue };
        let is_implicit = register == RSP && instruction.is_stack_instruction();
        if reads(used.access()) && !is_implicit {
            touched.reads.insert(register);
        }
        if writes(used.access()) {
            touched.writes.insert(register);
        }
        // What is written on a condition may keep its value, so what the instruction leaves depends on it.
        if matches!(used.access(), OpAccess::CondWrite) {
            touched.reads.insert(register);
        }
    }
    let has_memory =
        (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory);
    if has_memory && instruction.mnemonic() != Mnemonic::Lea {
        // What makes up the place is not read but for that, unless it is an operand as well.
        for register in [instruction.memory_base(), instruction.memory_index()].into_iter().filter_map(number)
        {
            let is_operand = (0..instruction.op_count()).any(|operand| {
                instruction.op_kind(operand) == OpKind::Register
                    && number(instruction.op_register(operand)) == Some(register)
                    && reads(info.op_access(operand))
            });
            if !is_operand {
                touched.reads.remove(register);
            }
        }
        let access =
            Access { place: place(instruction), bytes: instruction.memory_size().size().max(1) as i64 };
        // Where it is relative to rip, the decoder says the address instead.
        let base = Some(instruction.memory_base()).filter(|_| !instruction.is_ip_rel_memory_operand());
        let own = |memory: &&iced_x86::UsedMemory| memory.base() == base.unwrap_or_default();
        if info.used_memory().iter().filter(own).any(|memory| reads(memory.access())) {
            touched.loads.push(access);
        }
        if info.used_memory().iter().filter(own).any(|memory| writes(memory.access())) {
            touched.stores.push(access);
        }
    }
    touch_strings(instruction, info, &mut touched);
    touched
}

/// String instructions find their memory by registers that they move on.
fn touch_strings(instruction: &Instruction, info: &InstructionInfo, touched: &mut Touched) {
    for operand in 0..instruction.op_count() {
        let base = match instruction.op_kind(operand) {
            OpKind::MemorySegRSI => RSI,
            OpKind::MemoryESRDI => RDI,
            _ => continue,
        };
        touched.reads.remove(base);
        let access = Access {
            place: Place::Other([base].into_iter().collect()),
            bytes: instruction.memory_size().size().max(1) as i64,
        };
        if reads(info.op_access(operand)) {
            touched.loads.push(access);
        }
        if writes(info.op_access(operand)) {
            touched.stores.push(access);
        }
    }
}

fn reads(access: OpAccess) -> bool {
    matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

fn writes(access: OpAccess) -> bool {
    !matches!(access, OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
}

fn number(register: Register) -> Option<Number> {
    register.is_gpr().then(|| register.full_register().number() as Number)
}

#[cfg(test)]
mod tests {
    use super::super::super::step::Registers;
    use super::*;

    fn lifted(code: &[u8]) -> Step {
        lift(&super::super::decoder(code, 0x1000).decode())
    }

    fn registers(numbers: &[Number]) -> Registers {
        numbers.iter().copied().collect()
    }

    #[test]
    fn the_stack_moves_before_a_push_and_after_a_pop() {
        let top = Place::Based { base: RSP, offset: 0 };
        // push %rbx; pop %r12; leave
        let down = Effect::Add { to: RSP, from: RSP, by: -8 };
        assert_eq!(lifted(&[0x53]).effects, [down, Effect::Store { to: top, from: 3 }]);
        let up = Effect::Add { to: RSP, from: RSP, by: 8 };
        assert_eq!(lifted(&[0x41, 0x5c]).effects, [Effect::Load { to: 12, from: top }, up.clone()]);
        let leave = [Effect::Copy { to: RSP, from: RBP }, Effect::Load { to: RBP, from: top }, up];
        assert_eq!(lifted(&[0xc9]).effects, leave);
    }

    #[test]
    fn narrow_moves_are_no_copies() {
        // mov %rsp,%rbp; mov %esp,%ebp; mov %rax,-0x38(%rbp); mov -0x38(%rbp),%edi
        assert_eq!(lifted(&[0x48, 0x89, 0xe5]).effects, [Effect::Copy { to: RBP, from: RSP }]);
        let narrow = Touched { reads: registers(&[RSP]), writes: registers(&[RBP]), ..Touched::default() };
        assert_eq!(lifted(&[0x89, 0xe5]).effects, [Effect::Touch(narrow)]);
        let place = Place::Based { base: RBP, offset: -0x38 };
        assert_eq!(lifted(&[0x48, 0x89, 0x45, 0xc8]).effects, [Effect::Store { to: place, from: 0 }]);
        let load = Access { place, bytes: 4 };
        let narrow = Touched { writes: registers(&[7]), loads: vec![load], ..Touched::default() };
        assert_eq!(lifted(&[0x8b, 0x7d, 0xc8]).effects, [Effect::Touch(narrow)]);
    }

    #[test]
    fn what_is_compared() {
        // sub %gs:0x28,%rax
        let step = lifted(&[0x65, 0x48, 0x2b, 0x04, 0x25, 0x28, 0, 0, 0]);
        let [Effect::Compare { left, right, touched }] = step.effects.as_slice() else { panic!("{step:?}") };
        assert_eq!((*left, *right), (Operand::Register(0), Operand::Memory(Place::PerCpu(0x28))));
        assert!(step.sets_flags && touched.writes.contains(0) && touched.reads.contains(0));
        // xor %edi,%edi
        assert_eq!(lifted(&[0x31, 0xff]).effects, [Effect::Set { to: 7, value: 0 }]);
        // mov $1, %ebx; mov $-1, %rbx; mov $1, %bl, of which the rest stays
        assert_eq!(lifted(&[0xbb, 1, 0, 0, 0]).effects, [Effect::Set { to: 3, value: 1 }]);
        let all = Effect::Set { to: 3, value: u64::MAX };
        assert_eq!(lifted(&[0x48, 0xc7, 0xc3, 0xff, 0xff, 0xff, 0xff]).effects, [all]);
        assert!(matches!(lifted(&[0xb3, 1]).effects.as_slice(), [Effect::Touch(_)]));
    }

    #[test]
    fn a_base_that_is_stored_is_read_too() {
        // add %rbx,(%rbx); add %rax,(%rbx)
        let reads = |code: &[u8]| match lifted(code).effects.as_slice() {
            [Effect::Touch(touched)] => touched.reads,
            other => panic!("{other:?}"),
        };
        assert_eq!(reads(&[0x48, 0x01, 0x1b]), registers(&[3]));
        assert_eq!(reads(&[0x48, 0x01, 0x03]), registers(&[0]));
    }

    #[test]
    fn an_access_relative_to_rip_is_one_too() {
        // movl $1, 0(%rip); movzbl 0(%rip), %eax
        let touched = |code: &[u8]| match lifted(code).effects.as_slice() {
            [Effect::Touch(touched)] => touched.clone(),
            other => panic!("{other:?}"),
        };
        let at = |bytes| Access { place: Place::Other(registers(&[])), bytes };
        assert_eq!(touched(&[0xc7, 0x05, 0, 0, 0, 0, 1, 0, 0, 0]).stores, [at(4)]);
        assert_eq!(touched(&[0x0f, 0xb6, 0x05, 0, 0, 0, 0]).loads, [at(1)]);
    }

    #[test]
    fn string_instructions_have_their_registers_in_the_place() {
        // rep stosq; movsq
        let touched = |code: &[u8]| match lifted(code).effects.as_slice() {
            [Effect::Touch(touched)] => touched.clone(),
            other => panic!("{other:?}"),
        };
        let at = |register| Access { place: Place::Other(registers(&[register])), bytes: 8 };
        let cleared = touched(&[0xf3, 0x48, 0xab]);
        assert_eq!((cleared.reads, cleared.stores), (registers(&[0, 1]), vec![at(RDI)]));
        let copied = touched(&[0x48, 0xa5]);
        assert_eq!((copied.loads, copied.stores), (vec![at(RSI)], vec![at(RDI)]));
        assert!(copied.reads == registers(&[]) && copied.writes == registers(&[RSI, RDI]));
    }

    #[test]
    fn where_branches_go() {
        // jne +2; call *%rax; ud2; ret $8
        let branch = Flow::Branch { target: Addr(0x1004), condition: Condition::NotEqual };
        assert_eq!(lifted(&[0x75, 0x02]).flow, branch);
        assert_eq!(lifted(&[0xff, 0xd0]).flow, Flow::CallIndirect(Some(0)));
        assert_eq!(lifted(&[0x0f, 0x0b]).flow, Flow::Trap);
        assert_eq!(lifted(&[0xc2, 8, 0]).flow, Flow::Other);
        assert_eq!(lifted(&[0xc3]).flow, Flow::Return);
    }
}

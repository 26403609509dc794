//! Where the address of a function or variable goes, in compiled code and data.

mod steps;

use super::compare::{displacement, relocations_in};
use crate::binding::{carries_code, carries_data};
use iced_x86::{
    ConditionCode, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};
use object::elf;
use schedswap_kernel::arch;
use schedswap_kernel::objects::{Object, Place, Relocation, Section, SectionId, Symbol};
use std::collections::{BTreeSet, HashSet};
use steps::{Steps, local_users};

/// A function or variable.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Target {
    /// The unit that defines it.
    pub unit: String,
    /// Its symbol.
    pub name: String,
}

/// One use of an address.
#[derive(Debug)]
pub struct Use {
    /// The unit that uses it.
    pub unit: String,
    /// The function that uses it; empty in data.
    pub by: String,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of an address.
#[derive(PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is an argument of a call.
    Passed {
        /// The function called; `a pointer` for a call through one.
        to: String,
        /// Which argument it is, from 0.
        argument: usize,
    },
    /// It is written to memory.
    Stored,
    /// Initial contents of a variable have it.
    Data {
        /// The variable.
        variable: String,
        /// Its section.
        section: String,
    },
    /// The code was not understood.
    Unknown,
}

/// What gcc calls at a function's entry for tracers (`-mfentry`); it takes nothing and leaves every register.
const PROFILER: &str = "__fentry__";

/// Instructions looked at, at most, behind the one that takes an address.
const DISTANCE_MAX: usize = 512;

/// All uses of a target's address, direct calls and plain accesses left out.
pub fn uses(objects: &[(String, Object)], target: &Target) -> Vec<Use> {
    let mut found = Vec::new();
    for (unit, object) in objects {
        let Some(symbol) = symbol_of(unit, object, target) else { continue };
        for (index, section) in object.sections.iter().enumerate() {
            let is_code = carries_code(&section.name, section.flags);
            if !is_code && !carries_data(&section.name, section.flags) {
                continue;
            }
            let id = SectionId(index as u32);
            for relocation in &section.relocations {
                if !may_mean(object, relocation, &symbol) {
                    continue;
                }
                if is_code {
                    let uses = InCode { object, section: id, symbol: &symbol }.follow(relocation);
                    found.extend(uses.into_iter().map(|(by, fate)| Use { unit: unit.clone(), by, fate }));
                } else if points_into(object, relocation, 0, &symbol)
                    && let Some(variable) = covering(object, id, relocation.offset)
                {
                    let fate = Fate::Data { variable: variable.name.clone(), section: section.name.clone() };
                    found.push(Use { unit: unit.clone(), by: String::new(), fate });
                }
            }
        }
    }
    found
}

/// What becomes of an argument in the function that it is passed to.
pub fn uses_of_argument(objects: &[(String, Object)], function: &str, argument: usize) -> Vec<Use> {
    let mut found = Vec::new();
    for (unit, object) in objects {
        let defined = object.symbols.iter().find(|s| s.name == function && s.kind == elf::STT_FUNC.0);
        let Some((symbol, Place::Section(section))) = defined.map(|s| (s, s.place)) else { continue };
        let code = InCode { object, section, symbol: &Known::Elsewhere { name: String::new() } };
        let fates = match (code.steps(), ARGUMENTS.get(argument)) {
            (Some(steps), _) => steps.argument(symbol, argument),
            (None, Some(register)) => code.register(symbol, symbol.value, *register),
            (None, None) => Vec::new(),
        };
        found.extend(fates.into_iter().map(|fate| Use { unit: unit.clone(), by: function.to_owned(), fate }));
    }
    found
}

/// Whether an object defines a function of that name.
pub fn defines_function(object: &Object, name: &str) -> bool {
    let is_defined = |s: &Symbol| matches!(s.place, Place::Section(_)) && s.kind == elf::STT_FUNC.0;
    object.symbols.iter().any(|s| s.name == name && is_defined(s))
}

/// A target as one object knows it.
pub(super) enum Known {
    /// It is defined there.
    Here { section: SectionId, start: u64, size: u64 },
    /// It is another object's.
    Elsewhere { name: String },
}

fn symbol_of(unit: &str, object: &Object, target: &Target) -> Option<Known> {
    let symbol = object.symbols.iter().find(|s| s.name == target.name)?;
    match symbol.place {
        Place::Section(section) if unit == target.unit => {
            Some(Known::Here { section, start: symbol.value, size: symbol.size.max(1) })
        }
        Place::Undefined => Some(Known::Elsewhere { name: symbol.name.clone() }),
        _ => None,
    }
}

/// A quick test, before code is decoded.
fn may_mean(object: &Object, relocation: &Relocation, known: &Known) -> bool {
    let symbol = object.symbol(relocation.symbol);
    match known {
        Known::Here { section, .. } => symbol.place == Place::Section(*section),
        Known::Elsewhere { name } => symbol.place == Place::Undefined && symbol.name == *name,
    }
}

/// Whether a field refers to the target. `to_end` is the distance from the field to the end of its instruction.
pub(super) fn points_into(object: &Object, relocation: &Relocation, to_end: u64, known: &Known) -> bool {
    match known {
        Known::Elsewhere { .. } => may_mean(object, relocation, known),
        Known::Here { section, start, size } => {
            let symbol = object.symbol(relocation.symbol);
            let offset = symbol.value as i64 + displacement(object.machine, relocation, to_end);
            symbol.place == Place::Section(*section)
                && (*start as i64..(*start + *size) as i64).contains(&offset)
        }
    }
}

/// The named object, or function, that covers a place.
pub(super) fn covering(object: &Object, section: SectionId, offset: u64) -> Option<&Symbol> {
    object.symbols.iter().find(|s| {
        let has_place = s.place == Place::Section(section) && !s.name.is_empty();
        has_place && s.size > 0 && (s.value..s.value + s.size).contains(&offset)
    })
}

/// One section of code, searched for a target.
pub(super) struct InCode<'a> {
    pub object: &'a Object,
    pub section: SectionId,
    pub symbol: &'a Known,
}

impl InCode<'_> {
    /// For machines whose instructions all have one length.
    fn steps(&self) -> Option<Steps<'_>> {
        let arch = arch::of_elf(self.object.machine).filter(|arch| arch.instruction_bytes().is_some())?;
        Some(Steps { code: self, arch })
    }

    fn section(&self) -> &Section {
        self.object.section(self.section)
    }

    /// What becomes of an address at the instruction that a relocation is in, with the function's name.
    fn follow(&self, relocation: &Relocation) -> Vec<(String, Fate)> {
        if let Some(steps) = self.steps() {
            return steps.follow(relocation);
        }
        let Some(function) = covering(self.object, self.section, relocation.offset) else {
            return Vec::new();
        };
        let by = function.name.split(".cold").next().unwrap_or_default().to_owned();
        let code =
            self.section().data.get(function.value as usize..(function.value + function.size) as usize);
        let mut decoder =
            Decoder::with_ip(64, code.unwrap_or_default(), function.value, DecoderOptions::NONE);
        while decoder.can_decode() {
            let instruction = decoder.decode();
            if !(instruction.ip()..instruction.next_ip()).contains(&relocation.offset) {
                continue;
            }
            let to_end = instruction.next_ip() - relocation.offset;
            let is_branch = branch_target(&instruction).is_some();
            if is_branch || !points_into(self.object, relocation, to_end, self.symbol) {
                return Vec::new();
            }
            let fates = self.fates(function, &decoder, &instruction, relocation);
            return fates.into_iter().map(|fate| (by.clone(), fate)).collect();
        }
        vec![(by, Fate::Unknown)]
    }

    fn fates(
        &self,
        function: &Symbol,
        decoder: &Decoder,
        instruction: &Instruction,
        relocation: &Relocation,
    ) -> Vec<Fate> {
        let places = decoder.get_constant_offsets(instruction);
        let at = (relocation.offset - instruction.ip()) as usize;
        let is_lea = instruction.mnemonic() == Mnemonic::Lea;
        if places.has_displacement() && places.displacement_offset() == at && !is_lea {
            // An access to the variable itself.
            return Vec::new();
        }
        match (instruction.mnemonic(), instruction.op0_kind()) {
            (Mnemonic::Cmp | Mnemonic::Test, _) => Vec::new(),
            (_, OpKind::Register) => {
                self.register(function, instruction.next_ip(), instruction.op0_register().full_register())
            }
            (Mnemonic::Push, _) | (_, OpKind::Memory) => vec![Fate::Stored],
            _ => vec![Fate::Unknown],
        }
    }

    /// Follows the code behind `start`, where `register` holds the address.
    fn register(&self, function: &Symbol, start: u64, register: Register) -> Vec<Fate> {
        let mut fates = Vec::new();
        let mut info = InstructionInfoFactory::new();
        let mut open = vec![(start, register)];
        let mut seen = HashSet::new();
        let mut budget = DISTANCE_MAX;
        let end = function.value + function.size;
        while let Some((start, register)) = open.pop() {
            if !seen.insert((start, register)) {
                continue;
            }
            let code = self.section().data.get(start as usize..end as usize).unwrap_or_default();
            for instruction in Decoder::with_ip(64, code, start, DecoderOptions::NONE) {
                if budget == 0 {
                    fates.push(Fate::Unknown);
                    return fates;
                }
                budget -= 1;
                if let Some(next) = branch_target(&instruction) {
                    let callee = self.callee(&instruction);
                    if callee.as_deref() == Some(PROFILER) {
                        continue;
                    }
                    let is_call = instruction.flow_control() == FlowControl::Call;
                    if callee.is_none() && !is_call && (function.value..end).contains(&next) {
                        open.push((next, register));
                    } else if let Some(argument) = argument(register)
                        && (is_call || instruction.flow_control() == FlowControl::UnconditionalBranch)
                    {
                        let to = callee.unwrap_or_else(|| "a pointer".to_owned());
                        fates.push(Fate::Passed { to, argument });
                    }
                    match instruction.flow_control() {
                        FlowControl::ConditionalBranch => continue,
                        FlowControl::Call if is_kept_by_calls(register) => continue,
                        _ => break,
                    }
                }
                match instruction.flow_control() {
                    FlowControl::Next => {}
                    FlowControl::IndirectCall | FlowControl::IndirectBranch => {
                        if let Some(argument) = argument(register) {
                            fates.push(Fate::Passed { to: "a pointer".to_owned(), argument });
                        }
                        if instruction.flow_control() == FlowControl::IndirectBranch
                            || !is_kept_by_calls(register)
                        {
                            break;
                        }
                        continue;
                    }
                    FlowControl::Return => {
                        if register == Register::RAX {
                            fates.push(Fate::Unknown);
                        }
                        break;
                    }
                    _ => break,
                }
                if stores(&instruction, register) {
                    fates.push(Fate::Stored);
                }
                if let Some(copy) = copies(&instruction, register) {
                    open.push((instruction.next_ip(), copy));
                }
                if overwrites(&mut info, &instruction, register) {
                    break;
                }
            }
        }
        fates
    }

    /// The function that a branch leads to, if a relocation says so.
    fn callee(&self, instruction: &Instruction) -> Option<String> {
        let range = instruction.ip()..instruction.next_ip();
        let relocation = relocations_in(self.section(), &range).first()?;
        self.callee_of(relocation, instruction.next_ip() - relocation.offset)
    }

    /// The same by the relocation; `to_end` is the distance from the field to the end of its instruction.
    pub(super) fn callee_of(&self, relocation: &Relocation, to_end: u64) -> Option<String> {
        let symbol = self.object.symbol(relocation.symbol);
        if !symbol.name.is_empty() {
            // Retpolines call what a register holds.
            let is_thunk = symbol.name.starts_with("__x86_indirect_");
            return Some(if is_thunk { "a pointer".to_owned() } else { symbol.name.clone() });
        }
        let Place::Section(section) = symbol.place else { return None };
        let offset = symbol.value as i64 + displacement(self.object.machine, relocation, to_end);
        covering(self.object, section, u64::try_from(offset).ok()?).map(|s| s.name.clone())
    }
}

fn branch_target(instruction: &Instruction) -> Option<u64> {
    (instruction.op0_kind() == OpKind::NearBranch64).then(|| instruction.near_branch64())
}

/// The six registers in which the ABI passes integers and pointers, in order.
const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// Which argument a register passes.
fn argument(register: Register) -> Option<usize> {
    ARGUMENTS.iter().position(|argument| *argument == register)
}

/// The registers that a callee leaves as they are.
fn is_kept_by_calls(register: Register) -> bool {
    use Register::{R12, R13, R14, R15, RBP, RBX};
    [RBX, RBP, R12, R13, R14, R15].contains(&register)
}

/// Whether the register's value is written to memory.
fn stores(instruction: &Instruction, register: Register) -> bool {
    let is_source = |operand: u32| {
        instruction.op_kind(operand) == OpKind::Register
            && instruction.op_register(operand).full_register() == register
    };
    let writes = matches!(
        instruction.mnemonic(),
        Mnemonic::Mov | Mnemonic::Xchg | Mnemonic::Cmpxchg | Mnemonic::Movnti
    );
    match instruction.mnemonic() {
        Mnemonic::Push => is_source(0),
        _ => writes && instruction.op_kind(0) == OpKind::Memory && is_source(1),
    }
}

/// The register that the address, or one near it, is copied to.
fn copies(instruction: &Instruction, register: Register) -> Option<Register> {
    if instruction.op0_kind() != OpKind::Register {
        return None;
    }
    let is_source = match instruction.mnemonic() {
        Mnemonic::Mov => {
            instruction.op1_kind() == OpKind::Register
                && instruction.op1_register().full_register() == register
        }
        Mnemonic::Lea => instruction.memory_base() == register || instruction.memory_index() == register,
        // A conditional move, too.
        mnemonic if mnemonic == Mnemonic::Add || instruction.condition_code() != ConditionCode::None => {
            instruction.op1_kind() == OpKind::Register
                && instruction.op1_register().full_register() == register
        }
        _ => false,
    };
    let to = instruction.op0_register().full_register();
    (is_source && to != register).then_some(to)
}

fn overwrites(info: &mut InstructionInfoFactory, instruction: &Instruction, register: Register) -> bool {
    // What is added to an address makes another one near it.
    if matches!(instruction.mnemonic(), Mnemonic::Add | Mnemonic::Sub | Mnemonic::Lea)
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register().full_register() == register
    {
        return instruction.mnemonic() == Mnemonic::Lea
            && instruction.memory_base() != register
            && instruction.memory_index() != register;
    }
    let writes = |access| matches!(access, OpAccess::Write | OpAccess::ReadWrite);
    let used = info.info(instruction).used_registers();
    used.iter().any(|used| used.register().full_register() == register && writes(used.access()))
}

/// Functions of an object that refer to another function of it, calls included.
pub fn users(object: &Object, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let Some(symbol) = object.symbols.iter().find(|s| s.name == name) else { return found };
    let Place::Section(target) = symbol.place else { return found };
    let range = symbol.value as i64..(symbol.value + symbol.size.max(1)) as i64;
    if let Some(arch) = arch::of_elf(object.machine).filter(|arch| arch.instruction_bytes().is_some()) {
        found.extend(local_users(object, arch, target, symbol));
    }
    for (index, section) in object.sections.iter().enumerate() {
        if !carries_code(&section.name, section.flags) {
            continue;
        }
        for relocation in &section.relocations {
            let to = object.symbol(relocation.symbol);
            // Branches and addresses count from 4 bytes behind the field or from the field: either way, inside.
            let offset = to.value as i64 + displacement(object.machine, relocation, 4);
            if to.place == Place::Section(target)
                && range.contains(&offset)
                && let Some(user) = covering(object, SectionId(index as u32), relocation.offset)
            {
                found.insert(user.name.split(".cold").next().unwrap_or_default().to_owned());
            }
        }
    }
    found
}

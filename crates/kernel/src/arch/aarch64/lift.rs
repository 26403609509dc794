//! What an A64 instruction does.

use super::super::step::{
    Abi, Access, Condition, Effect, Flow, Operand, Place, Register, Registers, Step, Touched,
};
use super::load_store::{LoadStore, LoadStoreKind, Update};
use super::transfer::{Direct, Transfer};
use super::word::{BYTES, LR, SP, Word, condition};
use crate::address::Addr;

/// AAPCS64, as the kernel uses it: x18 is a register like any other.
pub(super) const ABI: Abi = Abi {
    registers: 32,
    stack_pointer: SP,
    frame_pointer: 29,
    link: Some(LR),
    entry_sp: 0,
    arguments: &[0, 1, 2, 3, 4, 5, 6, 7],
    results: &[0, 1],
    callee_saved: &[19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29],
    name: register_name,
};

fn register_name(register: Register) -> String {
    if register == SP { "sp".to_owned() } else { format!("x{register}") }
}

const PACIASP: u32 = 0xd503_233f;
const AUTIASP: u32 = 0xd503_23bf;
const PACIBSP: u32 = 0xd503_237f;
const AUTIBSP: u32 = 0xd503_23ff;

/// The instruction in the terms of all machines; `None` for one that is not of the general ones.
pub(super) fn lift(word: Word, at: Addr) -> Option<Step> {
    let used = word.registers();
    let flow = match word.transfer() {
        None => Flow::Next,
        Some(transfer) => flow(word, transfer, at),
    };
    let used = match flow {
        Flow::Trap => used.unwrap_or_default(),
        _ => used?,
    };
    let touched = Touched { reads: used.reads, writes: used.writes, loads: Vec::new(), stores: Vec::new() };
    let effects = match flow {
        Flow::Next => effects(word, touched),
        Flow::Branch { .. } if used.reads != Registers::default() => vec![Effect::Touch(touched)],
        _ => Vec::new(),
    };
    Some(Step { at, len: BYTES, form: format!("{:08x}", word.0), flow, effects, sets_flags: used.sets_flags })
}

fn flow(word: Word, transfer: Transfer, at: Addr) -> Flow {
    match transfer {
        Transfer::Direct { kind, distance } => {
            let target = at.offset(distance);
            match kind {
                Direct::Jump => Flow::Jump(target),
                Direct::Call => Flow::Call(target),
                Direct::Condition(code) => Flow::Branch { target, condition: condition(code.into()) },
                Direct::Zero(_) | Direct::Bit(_) => Flow::Branch { target, condition: Condition::Other },
            }
        }
        Transfer::Jump(_) => Flow::JumpIndirect,
        Transfer::Call => Flow::CallIndirect(word.rn()),
        Transfer::Return => Flow::Return,
        Transfer::Trap => Flow::Trap,
        Transfer::Other => Flow::Other,
    }
}

fn effects(word: Word, touched: Touched) -> Vec<Effect> {
    if let Some(access) = word.load_store() {
        return of_load_store(&access);
    }
    if let Some((to, from, by)) = word.add_immediate() {
        return vec![Effect::Add { to, from, by }];
    }
    if let Some((to, from)) = word.moved() {
        return vec![Effect::Copy { to, from }];
    }
    if let Some((to, value)) = word.number() {
        return vec![Effect::Set { to, value }];
    }
    if let Some((to, condition)) = word.truth() {
        return vec![Effect::Truth { to, condition }];
    }
    match word.0 {
        PACIASP | PACIBSP => return vec![Effect::Sign { register: LR, modifier: SP }],
        AUTIASP | AUTIBSP => return vec![Effect::Authenticate { register: LR, modifier: SP }],
        _ => {}
    }
    // mrs …, sp_el0, where the kernel keeps the running thread
    if let Some(to) = word.rd().filter(|_| word.is(0xffff_ffe0, 0xd538_4100)) {
        return vec![Effect::Current { to }];
    }
    // subs and eor of two registers of 64 bits
    let is_subtraction = word.is(0xffe0_fc00, 0xeb00_0000);
    let is_difference = word.is(0xffe0_fc00, 0xca00_0000);
    if let Some((left, right)) = word.rn().zip(word.rm()).filter(|_| is_subtraction || is_difference) {
        let [left, right] = [left, right].map(Operand::Register);
        return vec![Effect::Compare { left, right, touched }];
    }
    if touched == Touched::default() {
        return Vec::new();
    }
    vec![Effect::Touch(other_load_store(word, touched))]
}

/// Loads and stores that [`Word::load_store`] does not describe: where they go is not known.
fn other_load_store(word: Word, mut touched: Touched) -> Touched {
    let is_memory = word.is(0x0a00_0000, 0x0800_0000);
    let is_literal = word.is(0x3b00_0000, 0x1800_0000);
    if is_memory && !is_literal {
        // Whatever the offset is: an address in the frame must not be part of it.
        let place = Place::Other(touched.reads);
        touched.loads.push(Access { place, bytes: 16 });
        touched.stores.push(Access { place, bytes: 16 });
    }
    touched
}

fn of_load_store(access: &LoadStore) -> Vec<Effect> {
    let LoadStore { base, offset, update, .. } = *access;
    let mut effects = Vec::new();
    if update == Update::Before {
        effects.push(Effect::Add { to: base, from: base, by: offset });
    }
    let start = if update == Update::No { offset } else { 0 };
    let mut each: Vec<(Option<Register>, Place)> = access.registers[..access.count]
        .iter()
        .zip(0i64..)
        .map(|(register, n)| (*register, Place::Based { base, offset: start + n * access.bytes }))
        .collect();
    // What is loaded over the base is loaded last.
    each.sort_by_key(|(register, _)| access.kind == LoadStoreKind::Load && *register == Some(base));
    for (register, place) in each {
        let memory = || vec![Access { place, bytes: access.bytes }];
        let set = |register: Option<Register>| register.into_iter().collect::<Registers>();
        effects.push(match (access.kind, register) {
            (LoadStoreKind::Load, Some(to)) if access.whole => Effect::Load { to, from: place },
            (LoadStoreKind::Store, Some(from)) if access.whole => Effect::Store { to: place, from },
            (LoadStoreKind::Load, to) => {
                Effect::Touch(Touched { writes: set(to), loads: memory(), ..Touched::default() })
            }
            (LoadStoreKind::Store, from) => {
                Effect::Touch(Touched { reads: set(from), stores: memory(), ..Touched::default() })
            }
            (LoadStoreKind::Prefetch, _) => {
                Effect::Touch(Touched { reads: set(Some(base)), ..Touched::default() })
            }
        });
    }
    if update == Update::After {
        effects.push(Effect::Add { to: base, from: base, by: offset });
    }
    effects
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifted(word: u32) -> Step {
        lift(Word(word), Addr(0x1000)).unwrap()
    }

    #[test]
    fn frames_are_made_and_undone() {
        let at = |offset| Place::Based { base: SP, offset };
        // stp x29, x30, [sp, #-16]!
        let made = [
            Effect::Add { to: SP, from: SP, by: -16 },
            Effect::Store { to: at(0), from: 29 },
            Effect::Store { to: at(8), from: 30 },
        ];
        assert_eq!(lifted(0xa9bf_7bfd).effects, made);
        // ldp x29, x30, [sp], #32
        let undone = [
            Effect::Load { to: 29, from: at(0) },
            Effect::Load { to: 30, from: at(8) },
            Effect::Add { to: SP, from: SP, by: 32 },
        ];
        assert_eq!(lifted(0xa8c2_7bfd).effects, undone);
        // add x29, sp, #32; sub sp, sp, #128
        assert_eq!(lifted(0x9100_83fd).effects, [Effect::Add { to: 29, from: SP, by: 32 }]);
        assert_eq!(lifted(0xd102_03ff).effects, [Effect::Add { to: SP, from: SP, by: -128 }]);
    }

    #[test]
    fn a_base_that_is_loaded_over_is_read_first() {
        // ldp x20, x1, [x20]
        let at = |offset| Place::Based { base: 20, offset };
        let expected = [Effect::Load { to: 1, from: at(8) }, Effect::Load { to: 20, from: at(0) }];
        assert_eq!(lifted(0xa940_0694).effects, expected);
    }

    #[test]
    fn signatures_and_the_guard() {
        assert_eq!(lifted(PACIASP).effects, [Effect::Sign { register: LR, modifier: SP }]);
        assert_eq!(lifted(AUTIASP).effects, [Effect::Authenticate { register: LR, modifier: SP }]);
        assert_eq!(lifted(0xd538_4100).effects, [Effect::Current { to: 0 }]);
        // subs x2, x2, x1
        let step = lifted(0xeb01_0042);
        let [Effect::Compare { left, right, touched }] = step.effects.as_slice() else { panic!("{step:?}") };
        assert_eq!([*left, *right], [Operand::Register(2), Operand::Register(1)]);
        assert!(step.sets_flags && touched.writes.contains(2));
        // cset w20, ne; mov w20, #1; cset w0, lt, of which no more is known than that
        let truth = Effect::Truth { to: 20, condition: Condition::NotEqual };
        assert_eq!(lifted(0x1a9f_07f4).effects, [truth]);
        assert_eq!(lifted(0x5280_0034).effects, [Effect::Set { to: 20, value: 1 }]);
        assert!(matches!(lifted(0x1a9f_a7e0).effects.as_slice(), [Effect::Touch(_)]));
        // mov x1, #0 leaves the comparison alone
        assert!(!lifted(0xd280_0001).sets_flags);
        // b.ne .+0x5b8
        let branch = Flow::Branch { target: Addr(0x15b8), condition: Condition::NotEqual };
        assert_eq!(lifted(0x5400_2dc1).flow, branch);
    }

    #[test]
    fn what_is_not_general_is_not_lifted() {
        // fmov x0, d0; an SVE instruction
        assert_eq!(lift(Word(0x9e66_0000), Addr(0)), None);
        assert_eq!(lift(Word(0x2518_e000), Addr(0)), None);
    }
}

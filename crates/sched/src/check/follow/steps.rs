//! Where an address goes in code of a machine whose instructions all have one length: by what each does, in the terms
//! of [`schedswap_kernel::arch`]. What is not understood is said to be unknown, which is refused.

use super::{Fate, InCode, covering, points_into};
use crate::check::compare::relocations_in;
use schedswap_kernel::arch::Arch;
use schedswap_kernel::arch::relocation::{Fields, Kind};
use schedswap_kernel::arch::step::{Effect, Flow, Register, Step};
use schedswap_kernel::objects::{Object, Relocation, SectionId, Symbol};
use std::collections::{BTreeSet, HashSet};

/// Instructions looked at, at most, behind the one that takes an address.
const DISTANCE_MAX: usize = 512;

/// One section of code.
pub(super) struct Steps<'a> {
    pub code: &'a InCode<'a>,
    pub arch: &'static dyn Arch,
}

/// What one instruction makes of an address in a register.
#[derive(Default)]
struct Outcome {
    fates: Vec<Fate>,
    /// Registers that hold it too, or one near it, from here on.
    copies: Vec<Register>,
    /// The register holds something else.
    is_over: bool,
}

impl Steps<'_> {
    /// What becomes of an address at the instruction that a relocation is in, with the function's name.
    pub fn follow(&self, relocation: &Relocation) -> Vec<(String, Fate)> {
        let InCode { object, section, symbol } = self.code;
        let Some(function) = covering(object, *section, relocation.offset) else { return Vec::new() };
        if !points_into(object, relocation, 0, symbol) {
            return Vec::new();
        }
        let by = function.name.split(".cold").next().unwrap_or_default();
        let fates = self.fates(function, relocation);
        fates.into_iter().map(|fate| (by.to_owned(), fate)).collect()
    }

    fn fates(&self, function: &Symbol, relocation: &Relocation) -> Vec<Fate> {
        let Some(rule) = self.arch.field(relocation.kind) else { return vec![Fate::Unknown] };
        let at = relocation.offset;
        let written = match (rule.kind, self.step(at).map(|step| step.effects)) {
            // A call, or half an address: the instruction with the other half has a relocation of its own.
            (Kind::Branch { .. } | Kind::Page, _) => return Vec::new(),
            (Kind::Low12 { .. }, Some(effects)) => match effects[..] {
                [Effect::Add { to, .. }] => to,
                // An access to the variable itself.
                [Effect::Load { .. } | Effect::Store { .. }] => return Vec::new(),
                [Effect::Touch(ref touched)] if !touched.loads.is_empty() || !touched.stores.is_empty() => {
                    return Vec::new();
                }
                _ => return vec![Fate::Unknown],
            },
            _ => return vec![Fate::Unknown],
        };
        self.register(function, at + self.length(), written)
    }

    fn length(&self) -> u64 {
        self.arch.instruction_bytes().unwrap_or(1)
    }

    fn step(&self, at: u64) -> Option<Step> {
        let section = self.code.object.section(self.code.section);
        let end = at.checked_add(self.length())?;
        self.arch.step(section.data.get(at as usize..end as usize)?, schedswap_kernel::address::Addr(at))
    }

    /// What becomes of an argument, by its number.
    pub fn argument(&self, function: &Symbol, argument: usize) -> Vec<Fate> {
        match self.arch.abi().arguments.get(argument) {
            Some(register) => self.register(function, function.value, *register),
            None => Vec::new(),
        }
    }

    /// Follows the code behind `start`, where `register` holds the address.
    fn register(&self, function: &Symbol, start: u64, register: Register) -> Vec<Fate> {
        let mut fates = Vec::new();
        let mut open = vec![(start, register)];
        let mut seen = HashSet::new();
        let within = function.value..function.value + function.size;
        while let Some((at, register)) = open.pop() {
            if !within.contains(&at) || !seen.insert((at, register)) {
                continue;
            }
            let Some(step) = self.step(at).filter(|_| seen.len() <= DISTANCE_MAX) else {
                fates.push(Fate::Unknown);
                return fates;
            };
            let next = at + step.len;
            match step.flow {
                Flow::Next => {
                    let outcome = self.outcome(&step, register);
                    fates.extend(outcome.fates);
                    open.extend(outcome.copies.into_iter().map(|copy| (next, copy)));
                    if !outcome.is_over {
                        open.push((next, register));
                    }
                }
                // Into the function's cold part, which is not followed.
                Flow::Branch { .. } | Flow::Jump(_)
                    if self.callee(at).is_some_and(|to| to.contains(".cold")) =>
                {
                    fates.push(Fate::Unknown);
                }
                Flow::Branch { target, .. } => open.extend([(target.0, register), (next, register)]),
                Flow::Jump(target) if self.callee(at).is_none() && within.contains(&target.0) => {
                    open.push((target.0, register));
                }
                Flow::Call(_) | Flow::CallIndirect(_) | Flow::Jump(_) => {
                    let to = self.callee_at(at, step.flow);
                    fates.extend(self.passed(register, to));
                    let comes_back = !matches!(step.flow, Flow::Jump(_));
                    if comes_back && self.arch.abi().callee_saved.contains(&register) {
                        open.push((next, register));
                    }
                }
                Flow::Return => {
                    if self.arch.abi().results.contains(&register) {
                        fates.push(Fate::Unknown);
                    }
                }
                // A warning goes on behind it.
                Flow::Trap => open.push((next, register)),
                Flow::JumpIndirect | Flow::Other => fates.push(Fate::Unknown),
            }
        }
        fates
    }

    fn passed(&self, register: Register, to: String) -> Option<Fate> {
        let argument = self.arch.abi().arguments.iter().position(|argument| *argument == register)?;
        Some(Fate::Passed { to, argument })
    }

    fn outcome(&self, step: &Step, register: Register) -> Outcome {
        let mut outcome = Outcome::default();
        let mut written = |to: Register, is_copy: bool| match (is_copy, to == register) {
            (true, false) => outcome.copies.push(to),
            (false, true) => outcome.is_over = true,
            _ => {}
        };
        for effect in &step.effects {
            match effect {
                Effect::Copy { to, from } | Effect::Add { to, from, .. } => written(*to, *from == register),
                Effect::Load { to, .. }
                | Effect::Set { to, .. }
                | Effect::Truth { to, .. }
                | Effect::Current { to } => written(*to, false),
                Effect::Store { from, .. } if *from == register => outcome.fates.push(Fate::Stored),
                Effect::Store { .. } | Effect::Sign { .. } | Effect::Authenticate { .. } => {}
                // Compared it does no harm, and the difference is no address.
                Effect::Compare { touched, .. } => {
                    touched.writes.iter().for_each(|to| written(to, false));
                }
                Effect::Touch(touched) => {
                    let reads = touched.reads.contains(register);
                    touched.writes.iter().for_each(|to| written(to, reads));
                    if reads && !touched.stores.is_empty() {
                        outcome.fates.push(Fate::Stored);
                    }
                }
            }
        }
        outcome
    }

    /// The function that the branch at `at` leads to, if a relocation says so.
    fn callee(&self, at: u64) -> Option<String> {
        let object = self.code.object;
        let relocation =
            relocations_in(object.section(self.code.section), &(at..at + self.length())).first()?;
        self.code.callee_of(relocation, 0)
    }

    fn callee_at(&self, at: u64, flow: Flow) -> String {
        let local = || match flow {
            // The assembler has resolved it.
            Flow::Call(target) | Flow::Jump(target) => {
                covering(self.code.object, self.code.section, target.0)
            }
            _ => None,
        };
        let callee = self.callee(at).or_else(|| local().map(|symbol| symbol.name.clone()));
        callee.unwrap_or_else(|| "a pointer".to_owned())
    }
}

/// Functions of a section that branch to `target`, which is in the same one, so that the assembler has resolved it.
pub(super) fn local_users(
    object: &Object,
    arch: &dyn Arch,
    id: SectionId,
    target: &Symbol,
) -> BTreeSet<String> {
    let section = object.section(id);
    let mut fields = Fields::default();
    arch.fields(&section.data, 0, &mut fields);
    let range = target.value..target.value + target.size.max(1);
    let has_relocation = |at: u64| !relocations_in(section, &(at..at + 1)).is_empty();
    let branches = fields.branches.iter().filter(|b| range.contains(&b.target) && !has_relocation(b.field));
    let users = branches.filter_map(|branch| covering(object, id, branch.field));
    users.map(|user| user.name.split(".cold").next().unwrap_or_default().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Target, Use, uses};
    use super::*;
    use object::elf;
    use schedswap_kernel::objects::{Place, Section, SymbolId};

    const ADRP_X2: u32 = 0x9000_0002;
    const ADD_X2: u32 = 0x9100_0042;
    const BL: u32 = 0x9400_0000;
    const RET: u32 = 0xd65f_03c0;

    /// What becomes of the address of `fire`, which the first two words of `user` put into a register. `calls`: words
    /// that are calls of `call_later`.
    fn fates(words: &[u32], calls: &[u64]) -> Vec<Fate> {
        let code = |name: &str, words: &[u32], relocations| Section {
            name: name.into(),
            kind: elf::SHT_PROGBITS.0,
            flags: elf::SHF_ALLOC.0 | elf::SHF_EXECINSTR.0,
            data: words.iter().flat_map(|word| word.to_le_bytes()).collect(),
            size: 4 * words.len() as u64,
            relocations,
            ..Section::default()
        };
        let symbol = |name: &str, place, size| Symbol {
            name: name.into(),
            place,
            value: 0,
            size,
            binding: elf::STB_LOCAL.0,
            kind: elf::STT_FUNC.0,
            other: 0,
        };
        let relocation = |word: u64, kind: elf::RelocationType, symbol| Relocation {
            offset: 4 * word,
            kind: kind.0,
            symbol: SymbolId(symbol),
            addend: 0,
        };
        let mut relocations = vec![
            relocation(0, elf::R_AARCH64_ADR_PREL_PG_HI21, 1),
            relocation(1, elf::R_AARCH64_ADD_ABS_LO12_NC, 1),
        ];
        relocations.extend(calls.iter().map(|word| relocation(*word, elf::R_AARCH64_CALL26, 2)));
        let object = Object {
            name: "a.o".into(),
            machine: elf::EM_AARCH64.0,
            sections: vec![code(".text.user", words, relocations), code(".text.fire", &[RET], Vec::new())],
            symbols: vec![
                symbol("user", Place::Section(SectionId(0)), 4 * words.len() as u64),
                symbol("fire", Place::Section(SectionId(1)), 4),
                symbol("call_later", Place::Undefined, 0),
            ],
        };
        let target = Target { unit: "a.c".into(), name: "fire".into() };
        let found = uses(&[("a.c".into(), object)], &target);
        assert!(found.iter().all(|Use { by, .. }| by == "user"));
        found.into_iter().map(|found| found.fate).collect()
    }

    #[test]
    fn an_address_is_followed_to_a_call_and_over_one() {
        let passed = |argument| Fate::Passed { to: "call_later".into(), argument };
        assert_eq!(fates(&[ADRP_X2, ADD_X2, BL, RET], &[2]), [passed(2)]);
        // adrp x19; add x19, x19; bl call_later; mov x1, x19; bl call_later
        let kept = [0x9000_0013, 0x9100_0273, BL, 0xaa13_03e1, BL, RET];
        assert_eq!(fates(&kept, &[2, 4]), [passed(1)]);
    }

    #[test]
    fn an_address_that_is_stored_or_returned_escapes() {
        // str x2, [x1]
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0xf900_0022, RET], &[]), [Fate::Stored]);
        // stp x2, x3, [x1]
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0xa900_0c22, RET], &[]), [Fate::Stored]);
        // mov x0, x2
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0xaa02_03e0, RET], &[]), [Fate::Unknown]);
        // csel x3, x2, x4, eq; str x3, [x1]
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0x9a84_0043, 0xf900_0023, RET], &[]), [Fate::Stored]);
        // br x3
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0xd61f_0060], &[]), [Fate::Unknown]);
    }

    #[test]
    fn both_ways_of_a_branch_are_followed() {
        // cbz x0, .+8; str x2, [x1]; ret
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0xb400_0040, 0xf900_0022, RET], &[]), [Fate::Stored]);
        // cbz x0, .+8; ret; str x2, [x1]; ret
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0xb400_0040, RET, 0xf900_0022, RET], &[]), [Fate::Stored]);
    }

    #[test]
    fn what_is_compared_called_or_overwritten_does_not_escape() {
        // adrp x9; add x9, x9; cmp x9, x1; blr x9
        assert_eq!(fates(&[0x9000_0009, 0x9100_0129, 0xeb01_013f, 0xd63f_0120, RET], &[]), []);
        // mov x2, x3; str x2, [x1]
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0xaa03_03e2, 0xf900_0022, RET], &[]), []);
        // ldr x2, [x2]; str x2, [x1]
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0xf940_0042, 0xf900_0022, RET], &[]), []);
    }
}

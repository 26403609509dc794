//! A register that holds an address, followed from instruction to instruction through a function.

use super::code::{At, Destination, Function};
use super::effects::{has_access, has_store, outcome, written};
use super::{A_POINTER, AddressFate, Known, PROFILER};
use schedswap_kernel::arch::relocation::{Fields, Kind};
use schedswap_kernel::arch::step::{Flow, Register, Step};
use schedswap_kernel::objects::{Relocation, SectionId};
use std::collections::HashSet;

/// Instructions looked at, at most, after the one that takes an address.
const DISTANCE_MAX: usize = 512;

impl Function<'_> {
    /// What becomes of a target's address at the instruction that a relocation is in.
    pub fn fates_at(&self, section: SectionId, relocation: &Relocation, known: &Known) -> Vec<AddressFate> {
        let at = self.instruction_around((section, relocation.offset));
        let Some((at, step)) = at.and_then(|at| Some((at, self.step(at)?))) else {
            return vec![AddressFate::Unknown];
        };
        if !known.is_meant(self.code.object, relocation, step.end().0 - relocation.offset) {
            return Vec::new();
        }
        match self.code.arch.field(relocation.kind).map(|field| field.kind) {
            None | Some(Kind::Opaque) => return vec![AddressFate::Unknown],
            // Half an address: the instruction with the other half has a relocation of its own.
            Some(Kind::Page) => return Vec::new(),
            Some(_) => {}
        }
        // A branch to it, or through it.
        if step.flow != Flow::Next {
            return Vec::new();
        }
        if !self.is_value(at, &step, relocation) && has_access(&step.effects) {
            // An access to the variable itself.
            return Vec::new();
        }
        if has_store(&step.effects) {
            return vec![AddressFate::Stored];
        }
        let next = (section, step.end().0);
        written(&step.effects).iter().flat_map(|register| self.fates_from(next, register)).collect()
    }

    /// Whether the instruction has the relocated field as a value, rather than as a part of where its memory operand is.
    fn is_value(&self, at: At, step: &Step, relocation: &Relocation) -> bool {
        let mut fields = Fields::default();
        let code = self.bytes_from(at).and_then(|bytes| bytes.get(..step.len as usize));
        self.code.arch.fields(code.unwrap_or_default(), at.1, &mut fields);
        fields.by_offset.get(&relocation.offset).is_some_and(|field| field.is_value)
    }

    /// What becomes of an argument, by its number.
    pub fn fates_of_argument(&self, argument: usize) -> Vec<AddressFate> {
        match (self.entry(), self.code.arch.abi().arguments.get(argument)) {
            (Some(entry), Some(register)) => self.fates_from(entry, *register),
            _ => Vec::new(),
        }
    }

    /// Follows the code from `start` on, where `register` holds the address.
    fn fates_from(&self, start: At, register: Register) -> Vec<AddressFate> {
        let mut walk = Walk { function: self, fates: Vec::new(), open: vec![(start, register)] };
        let mut seen = HashSet::new();
        while let Some((at, register)) = walk.open.pop() {
            if !self.holds(at) || !seen.insert((at, register)) {
                continue;
            }
            let Some(step) = self.step(at).filter(|_| seen.len() <= DISTANCE_MAX) else {
                walk.fates.push(AddressFate::Unknown);
                break;
            };
            walk.go(at, &step, register);
        }
        walk.fates
    }
}

/// A walk through a function.
struct Walk<'a> {
    function: &'a Function<'a>,
    fates: Vec<AddressFate>,
    /// Where it goes on, with the register that holds the address there.
    open: Vec<(At, Register)>,
}

impl Walk<'_> {
    /// Looks at one instruction, before which the register holds the address.
    fn go(&mut self, at: At, step: &Step, register: Register) {
        let arch = self.function.code.arch;
        let next = (at.0, step.end().0);
        match step.flow {
            Flow::Next => {
                let outcome = outcome(&step.effects, register);
                self.fates.extend(outcome.fates);
                self.open.extend(outcome.copies.into_iter().map(|copy| (next, copy)));
                if !outcome.is_over {
                    self.open.push((next, register));
                }
            }
            Flow::Jump(target) => self.branch(self.function.destination(at, step, target), register),
            Flow::Branch { target, .. } => {
                self.branch(self.function.destination(at, step, target), register);
                self.open.push((next, register));
            }
            Flow::Call(target) => self.call(self.function.destination(at, step, target), next, register),
            Flow::CallIndirect(_) => {
                self.call(Destination::Function(A_POINTER.to_owned()), next, register);
            }
            Flow::Return => self.branch(Destination::Return, register),
            // A warning goes on after it.
            Flow::Trap => self.open.push((next, register)),
            // Of a switch, or a call at the function's end.
            Flow::JumpIndirect if arch.has_jump_tables() => self.fates.push(AddressFate::Unknown),
            // A call at the function's end, as far as arguments go. The compiler was not to make tables of switches, but a
            // kernel that was built without retpolines may have one, and then other registers live on.
            Flow::JumpIndirect if arch.abi().arguments.contains(&register) => {
                self.branch(Destination::Function(A_POINTER.to_owned()), register);
            }
            Flow::JumpIndirect => self.fates.push(AddressFate::Unknown),
            Flow::Other => self.fates.push(AddressFate::Unknown),
        }
    }

    fn branch(&mut self, to: Destination, register: Register) {
        let abi = self.function.code.arch.abi();
        match to {
            Destination::Inside(at) => self.open.push((at, register)),
            Destination::Function(to) => {
                let argument = abi.arguments.iter().position(|argument| *argument == register);
                self.fates.extend(argument.map(|argument| AddressFate::Passed { to, argument }));
            }
            Destination::Return if abi.results.contains(&register) => {
                self.fates.push(AddressFate::Unknown);
            }
            Destination::Return => {}
        }
    }

    fn call(&mut self, to: Destination, next: At, register: Register) {
        let is_profiler = matches!(&to, Destination::Function(name) if name == PROFILER);
        if !is_profiler {
            self.branch(to, register);
        }
        if is_profiler || self.function.code.arch.abi().callee_saved.contains(&register) {
            self.open.push((next, register));
        }
    }
}

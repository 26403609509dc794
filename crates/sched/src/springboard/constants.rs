//! Which callee-saved registers hold the same number at the springboard, whichever way execution came there.
//!
//! The tail may go on with what `__schedule` found out before it switched, as long as the compiler had it in such a
//! register: that it switches at all, for one (`is_switch`, the difference of two threads). On the way to the
//! springboard that is not a variable any more. What can be shown here: a number that was put into a register, and the
//! outcome of a comparison of two registers, once a branch on the same comparison was taken. Where one is a copy of the
//! other, a number may stand for that outcome.

use super::error::Error;
use super::paths::{At, Code, Join};
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::step::{Condition, Effect, Flow, Operand, Register, Step};
use std::collections::{BTreeMap, BTreeSet};

/// The largest number that each machine has an instruction for.
const NUMBER_MAX: u64 = 0xffff;

/// What is known of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Value {
    Unknown,
    Number(u64),
    /// 1 if these two registers, which have not been written since, are equal, or if they differ; else 0.
    Outcome(Pair, Condition),
}

/// Two registers that are compared; the lower number first.
type Pair = (Register, Register);

fn pair(a: Register, b: Register) -> Pair {
    (a.min(b), a.max(b))
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Known {
    registers: BTreeMap<Register, Value>,
    /// What the flags are about.
    compared: Option<Pair>,
    /// Registers that are equal.
    equal: BTreeSet<Pair>,
}

impl Join for Known {
    fn join(&mut self, other: &Known) -> bool {
        let before = self.clone();
        self.registers = self
            .registers
            .iter()
            .filter_map(|(register, ours)| {
                let theirs = *other.registers.get(register)?;
                let both = match (*ours, theirs) {
                    (ours, theirs) if ours == theirs => Some(ours),
                    (outcome, number) if other.is_outcome(number, outcome) => Some(outcome),
                    (number, outcome) if before.is_outcome(number, outcome) => Some(outcome),
                    _ => None,
                };
                both.map(|value| (*register, value))
            })
            .collect();
        self.equal.retain(|pair| other.equal.contains(pair));
        self.compared = self.compared.filter(|_| self.compared == other.compared);
        *self != before
    }
}

/// The callee-saved registers that are numbers at `springboard`, and which.
///
/// # Errors
/// When code on the way does not decode.
pub fn at_springboard(code: &Code<'_>, springboard: Addr) -> Result<BTreeMap<Register, u64>, Error> {
    let nothing = Known { registers: BTreeMap::new(), compared: None, equal: BTreeSet::new() };
    let starts = code.arrive(code.entry()).into_iter().map(|at| (at, nothing.clone())).collect();
    let known = code.explore(starts, |at, step, known| {
        if at.addr == springboard {
            return Ok(Vec::new());
        }
        let after = known.after(step, code);
        let taken = match step.flow {
            Flow::Branch { target, .. } if target != step.end() => code.arrive(target),
            _ => Vec::new(),
        };
        // As for the stack pointer, what is not code of this function is left out.
        let places = code.next(at, step).inside.into_iter().filter(|at| code.decode(*at).is_ok());
        Ok(places.filter_map(|at| Some((at, after.on_the_way(step, taken.contains(&at))?))).collect())
    })?;
    let there = known.get(&At { addr: springboard, alternative: None });
    let saved = &code.abi().callee_saved;
    Ok(there
        .into_iter()
        .flat_map(|known| &known.registers)
        .filter_map(|(register, value)| match value {
            Value::Number(number) if *number <= NUMBER_MAX && saved.contains(register) => {
                Some((*register, *number))
            }
            _ => None,
        })
        .collect())
}

impl Known {
    fn get(&self, register: Register) -> Value {
        self.registers.get(&register).copied().unwrap_or(Value::Unknown)
    }

    /// Whether a number is what such a comparison has for its outcome, with what is known here.
    fn is_outcome(&self, number: Value, outcome: Value) -> bool {
        match (number, outcome) {
            (Value::Number(number), Value::Outcome(pair, condition)) => {
                self.equal.contains(&pair) && number == u64::from(condition == Condition::Equal)
            }
            _ => false,
        }
    }

    /// A register is written: what was known about it is over.
    fn set(&mut self, register: Register, value: Value) {
        let concerns = |pair: Pair| pair.0 == register || pair.1 == register;
        self.registers.retain(|_, value| !matches!(value, Value::Outcome(pair, _) if concerns(*pair)));
        self.compared = self.compared.filter(|pair| !concerns(*pair));
        self.equal.retain(|pair| !concerns(*pair));
        let is_about_itself = matches!(value, Value::Outcome(pair, _) if concerns(pair));
        if value == Value::Unknown || is_about_itself {
            self.registers.remove(&register);
        } else {
            self.registers.insert(register, value);
        }
    }

    fn after(&self, step: &Step, code: &Code<'_>) -> Known {
        let mut known = self.clone();
        if matches!(step.flow, Flow::Call(_) | Flow::CallIndirect(_)) {
            let abi = code.abi();
            for register in (0..abi.registers).filter(|register| !abi.callee_saved.contains(register)) {
                known.set(register, Value::Unknown);
            }
            known.compared = None;
            return known;
        }
        if step.sets_flags {
            known.compared = None;
        }
        for effect in &step.effects {
            match effect {
                Effect::Copy { to, from } => {
                    known.set(*to, known.get(*from));
                    if to != from {
                        known.equal.insert(pair(*to, *from));
                    }
                }
                Effect::Set { to, value } => known.set(*to, Value::Number(*value)),
                Effect::Truth { to, condition } => {
                    let outcome = self.compared.map(|pair| Value::Outcome(pair, *condition));
                    known.set(*to, outcome.unwrap_or(Value::Unknown));
                }
                Effect::Add { to, .. } | Effect::Load { to, .. } | Effect::Current { to } => {
                    known.set(*to, Value::Unknown);
                }
                Effect::Sign { register, .. } | Effect::Authenticate { register, .. } => {
                    known.set(*register, Value::Unknown);
                }
                Effect::Store { .. } => {}
                Effect::Compare { left, right, touched } => {
                    if let (Operand::Register(left), Operand::Register(right)) = (left, right)
                        && step.sets_flags
                    {
                        known.compared = Some(pair(*left, *right));
                    }
                    touched.writes.iter().for_each(|register| known.set(register, Value::Unknown));
                }
                Effect::Touch(touched) => {
                    touched.writes.iter().for_each(|register| known.set(register, Value::Unknown));
                }
            }
        }
        known
    }

    /// With what the branch tells, if it is taken or not. `None` if that cannot be.
    fn on_the_way(&self, step: &Step, taken: bool) -> Option<Known> {
        let mut known = self.clone();
        let (Flow::Branch { target, condition }, Some(pair)) = (step.flow, self.compared) else {
            return Some(known);
        };
        if target == step.end() || condition == Condition::Other {
            return Some(known);
        }
        let holds = if taken { condition } else { condition.opposite() };
        if holds == Condition::NotEqual && known.equal.contains(&pair) {
            return None;
        }
        for value in known.registers.values_mut() {
            if let Value::Outcome(of, condition) = *value
                && of == pair
            {
                *value = Value::Number(u64::from(condition == holds));
            }
        }
        Some(known)
    }
}

//! Where the stack pointer and the frame pointer are at the springboard.
//!
//! Found by following the code from the entry, whatever it looks like: only instructions that change the two
//! registers count. What differs between paths is unknown; the springboard itself must be known.

use super::error::Error;
use super::paths::{At, Code, Join, Next};
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::step::{Abi, Effect, Flow, Register, Step};

/// The two registers as offsets from the CFA, where they are known to be such.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Height {
    /// The stack pointer.
    pub sp: Option<i64>,
    /// The frame pointer, when it points into the frame.
    pub fp: Option<i64>,
}

impl Join for Height {
    fn join(&mut self, other: &Height) -> bool {
        let before = *self;
        self.sp = self.sp.filter(|_| self.sp == other.sp);
        self.fp = self.fp.filter(|_| self.fp == other.fp);
        *self != before
    }
}

/// The registers when execution arrives at `springboard`.
///
/// # Errors
/// When no path leads there, or code on the way does not decode.
pub fn at_springboard(code: &Code<'_>, springboard: Addr) -> Result<Height, Error> {
    let abi = code.abi();
    let entry = Height { sp: Some(abi.entry_sp), fp: None };
    let starts = code.arrive(code.entry()).into_iter().map(|at| (at, entry)).collect();
    let known = code.explore(starts, |at, step, height| {
        if at.addr == springboard {
            return Ok(Vec::new());
        }
        let Next { inside, .. } = code.next(at, step);
        let after = height.after(step, abi);
        // Code after a call that does not return is on no path, and may not be code of this function.
        Ok(inside.into_iter().filter(|at| code.decode(*at).is_ok()).map(|at| (at, after)).collect())
    })?;
    known
        .get(&At { addr: springboard, alternative: None })
        .copied()
        .filter(|height| height.sp.is_some())
        .ok_or(Error::StackPointerUnknown { at: springboard })
}

impl Height {
    fn get(&self, register: Register, abi: &Abi) -> Option<i64> {
        match register {
            sp if sp == abi.stack_pointer => self.sp,
            fp if fp == abi.frame_pointer => self.fp,
            _ => None,
        }
    }

    fn set(&mut self, register: Register, value: Option<i64>, abi: &Abi) {
        match register {
            sp if sp == abi.stack_pointer => self.sp = value,
            fp if fp == abi.frame_pointer => self.fp = value,
            _ => {}
        }
    }

    /// The registers after an instruction. A call leaves both as they were.
    fn after(mut self, step: &Step, abi: &Abi) -> Height {
        if matches!(step.flow, Flow::Call(_) | Flow::CallIndirect(_)) {
            return self;
        }
        for effect in &step.effects {
            match effect {
                Effect::Copy { to, from } => self.set(*to, self.get(*from, abi), abi),
                Effect::Add { to, from, by } => {
                    self.set(*to, self.get(*from, abi).map(|at| at.wrapping_add(*by)), abi);
                }
                Effect::Load { to, .. }
                | Effect::Set { to, .. }
                | Effect::Truth { to, .. }
                | Effect::Current { to } => self.set(*to, None, abi),
                Effect::Sign { register, .. } | Effect::Authenticate { register, .. } => {
                    self.set(*register, None, abi);
                }
                Effect::Store { .. } => {}
                Effect::Compare { touched, .. } | Effect::Touch(touched) => {
                    touched.writes.iter().for_each(|register| self.set(register, None, abi));
                }
            }
        }
        self
    }
}

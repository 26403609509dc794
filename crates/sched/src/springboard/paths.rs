//! `__schedule` as a graph of instructions, with every branch that the kernel may patch in or out of it.

use super::error::{Error, Instruction as Named};
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::Arch;
use schedswap_kernel::arch::step::{Abi, Flow, Register, Step};
use std::collections::{BTreeMap, BTreeSet};

/// A run of code.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Address of its first byte.
    pub addr: Addr,
    /// The code.
    pub bytes: &'a [u8],
}

impl Chunk<'_> {
    /// One past the last byte.
    pub fn end(&self) -> Addr {
        self.addr + self.bytes.len() as u64
    }

    fn contains(&self, addr: Addr) -> bool {
        (self.addr..self.end()).contains(&addr)
    }
}

/// An entry of `.altinstructions`: boot may put `replacement` in place of the `len` bytes at `at`.
#[derive(Clone, Copy, Debug)]
pub struct Alternative<'a> {
    /// First byte replaced.
    pub at: Addr,
    /// Bytes replaced; what the replacement does not fill becomes nops.
    pub len: u64,
    /// The replacement, where the linker put it: its branches are right as seen from there.
    pub replacement: Chunk<'a>,
}

/// What a function is to the code that calls it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Callee {
    /// The function that switches stacks.
    Switch,
    /// The return thunk: a jump to it is a return.
    Return,
    /// A retpoline: calls the function whose address is in the general register of that number.
    Thunk(Register),
    /// Does not come back.
    Diverges(String),
    /// A function that keeps to the C calling convention and that the tail may call.
    Known(String),
    /// Anything else.
    Unknown(String),
}

/// A function's code and what may be patched in it.
pub struct Code<'a> {
    /// Whose instructions these are.
    pub arch: &'static dyn Arch,
    /// Symbol.
    pub function: &'a str,
    /// Its parts; the first one begins with the entry.
    pub chunks: Vec<Chunk<'a>>,
    /// Jump labels: the site, and where it jumps when it is not a nop.
    pub labels: BTreeMap<Addr, Addr>,
    /// Alternatives within the function.
    pub alternatives: Vec<Alternative<'a>>,
    /// The traps of WARN(), after which the code goes on.
    pub warns: BTreeSet<Addr>,
    /// Indirect calls that the kernel patches into direct ones (paravirt operations).
    pub patched_calls: BTreeSet<Addr>,
    /// What is at an address outside.
    pub callee: &'a dyn Fn(Addr) -> Callee,
}

/// A place in the code: in the function itself, or in the replacement of an alternative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct At {
    /// Address.
    pub addr: Addr,
    /// Index of the alternative whose replacement it is in. (Replacements lie side by side, so that an
    /// address alone does not tell the end of one from the beginning of the next.)
    pub alternative: Option<usize>,
}

/// What happens after an instruction.
#[derive(Debug, Default)]
pub struct Next {
    /// Goes on at these places of the function.
    pub inside: Vec<At>,
    /// Jumps out of the function, to these addresses.
    pub outside: Vec<Addr>,
    /// Returns.
    pub returns: bool,
}

/// Distinguishes what flows together from several paths.
pub trait Join: Clone {
    /// Takes in what `other` knows; whether that changed anything.
    fn join(&mut self, other: &Self) -> bool;
}

impl<'a> Code<'a> {
    /// Entry of the function.
    pub fn entry(&self) -> Addr {
        self.chunks[0].addr
    }

    /// The places where execution may be when it arrives at an address: there, or in a replacement.
    pub fn arrive(&self, addr: Addr) -> Vec<At> {
        let mut places = vec![At { addr, alternative: None }];
        for (index, alternative) in self.alternatives.iter().enumerate() {
            if alternative.at != addr {
                continue;
            }
            if alternative.replacement.bytes.is_empty() {
                places.extend(self.arrive(addr + alternative.len.max(1)));
            } else {
                places.push(At { addr: alternative.replacement.addr, alternative: Some(index) });
            }
        }
        places
    }

    /// How its functions call each other.
    pub fn abi(&self) -> &'static Abi {
        self.arch.abi()
    }

    /// The instruction at a place.
    pub fn decode(&self, at: At) -> Result<Step, Error> {
        let chunk = match at.alternative {
            Some(index) => self.alternatives[index].replacement,
            None => *self
                .chunks
                .iter()
                .find(|chunk| chunk.contains(at.addr))
                .ok_or(Error::FallsOff { at: at.addr })?,
        };
        decode(self.arch, chunk, at.addr)
    }

    /// Where execution goes after `step`, which is at `at`.
    pub fn next(&self, at: At, step: &Step) -> Next {
        let mut next = Next::default();
        let after = step.end();
        let diverges = match step.flow {
            Flow::Call(target) => matches!((self.callee)(target), Callee::Diverges(_)),
            _ => false,
        };
        match step.flow {
            Flow::Call(_) if diverges => {}
            Flow::Next | Flow::Call(_) | Flow::CallIndirect(_) | Flow::Branch { .. } => {
                self.fall_through(at, after, &mut next);
            }
            Flow::Return => next.returns = true,
            Flow::Trap if self.warns.contains(&at.addr) => self.fall_through(at, after, &mut next),
            Flow::Trap | Flow::Jump(_) | Flow::JumpIndirect | Flow::Other => {}
        }
        if let Flow::Jump(target) | Flow::Branch { target, .. } = step.flow {
            self.branch(target, &mut next);
        }
        if let Some(&target) = self.labels.get(&at.addr).filter(|_| at.alternative.is_none()) {
            // A nop in the file may become a jump, and a jump a nop.
            self.branch(target, &mut next);
            self.fall_through(at, after, &mut next);
        }
        next
    }

    fn branch(&self, target: Addr, next: &mut Next) {
        if self.chunks.iter().any(|chunk| chunk.contains(target)) {
            next.inside.extend(self.arrive(target));
        } else {
            next.outside.push(target);
        }
    }

    fn fall_through(&self, at: At, after: Addr, next: &mut Next) {
        match at.alternative.map(|index| &self.alternatives[index]) {
            Some(alternative) if after >= alternative.replacement.end() => {
                next.inside.extend(self.arrive(alternative.at + alternative.len));
            }
            Some(_) => next.inside.push(At { addr: after, ..at }),
            None => next.inside.extend(self.arrive(after)),
        }
    }

    /// Runs `step` over everything reachable from `starts` until nothing new is learnt. It is given a place, its
    /// instruction and what is known on arrival, and says where to go on with which knowledge.
    pub fn explore<S: Join>(
        &self,
        starts: Vec<(At, S)>,
        mut step: impl FnMut(At, &Step, &S) -> Result<Vec<(At, S)>, Error>,
    ) -> Result<BTreeMap<At, S>, Error> {
        let mut known: BTreeMap<At, S> = BTreeMap::new();
        let mut pending = starts;
        while let Some((at, state)) = pending.pop() {
            let state = match known.get_mut(&at) {
                None => known.entry(at).or_insert(state),
                Some(earlier) => {
                    if !earlier.join(&state) {
                        continue;
                    }
                    earlier
                }
            };
            pending.extend(step(at, &self.decode(at)?, state)?);
        }
        Ok(known)
    }

    /// The addresses of all calls to a function, in the order of the code.
    pub fn calls_to(&self, wanted: &Callee) -> Vec<Addr> {
        let mut calls = Vec::new();
        for chunk in &self.chunks {
            for outline in self.arch.outlines(chunk.bytes, chunk.addr.0) {
                if let Some(target) = outline.target
                    && (self.callee)(Addr(target)) == *wanted
                    && self.is_call(*chunk, Addr(outline.at))
                {
                    calls.push(Addr(outline.at));
                }
            }
        }
        calls
    }

    fn is_call(&self, chunk: Chunk<'_>, at: Addr) -> bool {
        decode(self.arch, chunk, at).is_ok_and(|step| matches!(step.flow, Flow::Call(_)))
    }
}

/// The instruction at `addr` of a chunk.
pub fn decode(arch: &dyn Arch, chunk: Chunk<'_>, addr: Addr) -> Result<Step, Error> {
    let bytes = chunk.bytes.get((addr - chunk.addr) as usize..).unwrap_or(&[]);
    arch.step(bytes, addr).ok_or(Error::Undecodable { at: addr })
}

/// An instruction as messages show it.
pub fn named(step: &Step) -> Named {
    Named { at: step.at, form: step.form.clone() }
}

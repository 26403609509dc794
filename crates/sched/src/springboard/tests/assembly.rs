//! Hand-assembled `__schedule`s: the smallest functions that switch, in the shapes that compilers make.

use super::super::contract::Contract;
use super::super::derive::derive_from;
use super::super::error::Error;
use super::super::orc::Orc;
use super::super::paths::{Alternative, Callee, Chunk, Code};
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch;
use schedswap_kernel::vmlinux::Machine;
use std::collections::{BTreeMap, BTreeSet};

/// Where the function is, and what is around it.
pub const ENTRY: Addr = Addr(0xffff_ffff_8100_0000);
pub const SWITCH: Addr = Addr(0xffff_ffff_8200_0000);
pub const FINISH_TASK_SWITCH: Addr = Addr(0xffff_ffff_8200_0100);
pub const STACK_CHK_FAIL: Addr = Addr(0xffff_ffff_8200_0200);
pub const RETURN_THUNK: Addr = Addr(0xffff_ffff_8200_0300);
pub const STRANGER: Addr = Addr(0xffff_ffff_8200_0400);
/// `__x86_indirect_thunk_rax` and `__x86_indirect_thunk_r12`.
pub const THUNKS: [(Addr, u8); 2] = [(Addr(0xffffffff82000500), 0), (Addr(0xffffffff82000520), 12)];
/// The exported symbol that the stub's addresses are relative to.
pub const PRINTK: Addr = Addr(0xffff_ffff_8100_8000);
/// Where the replacements of alternatives are put.
const REPLACEMENTS: Addr = Addr(0xffff_ffff_8300_0000);

/// A piece of assembly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Bytes as they are.
    B(&'static [u8]),
    /// `call` of something outside.
    Call(Addr),
    /// `jmp` to something outside.
    Leave(Addr),
    /// `jmp` to a label, 5 bytes.
    Jmp(&'static str),
    /// `jne` to a label, 6 bytes.
    Jne(&'static str),
    /// A 5-byte nop that a jump label may turn into a jump to this label.
    JumpLabel(&'static str),
    /// `ud2` of a WARN().
    Warn,
    /// A 5-byte nop that an alternative may replace by these bytes.
    Alternative(&'static [u8]),
    /// A label.
    L(&'static str),
}
use Piece::*;

pub const PUSH_RBX: Piece = B(&[0x53]);
pub const PUSH_RBP: Piece = B(&[0x55]);
pub const PUSH_R12: Piece = B(&[0x41, 0x54]);
pub const POP_RBX: Piece = B(&[0x5b]);
pub const POP_RBP: Piece = B(&[0x5d]);
pub const POP_R12: Piece = B(&[0x41, 0x5c]);
pub const POP_R13: Piece = B(&[0x41, 0x5d]);
pub const RET: Piece = B(&[0xc3]);
/// `mov %rax,%rdi`: the previous thread, for finish_task_switch.
pub const PREV_TO_ARGUMENT: Piece = B(&[0x48, 0x89, 0xc7]);
/// `mov -0x30(%rbp),%rax`
pub const LOAD_CANARY: Piece = B(&[0x48, 0x8b, 0x45, 0xd0]);
/// `sub %gs:0x28,%rax`
pub const COMPARE_CANARY: Piece = B(&[0x65, 0x48, 0x2b, 0x04, 0x25, 0x28, 0, 0, 0]);
/// `add $0x20,%rsp`
pub const DROP_LOCALS: Piece = B(&[0x48, 0x83, 0xc4, 0x20]);

/// As gcc 12 compiles 6.1: rbp is the frame base, all registers pushed, a canary.
pub fn with_frame_base() -> Vec<Piece> {
    vec![
        PUSH_RBP,
        B(&[0x48, 0x89, 0xe5]), // mov %rsp,%rbp
        B(&[0x41, 0x57]),       // push %r15
        B(&[0x41, 0x56]),       // push %r14
        B(&[0x41, 0x55]),       // push %r13
        PUSH_R12,
        PUSH_RBX,
        B(&[0x48, 0x83, 0xec, 0x20]),                      // sub $0x20,%rsp
        B(&[0x65, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0]), // mov %gs:0x28,%rax
        B(&[0x48, 0x89, 0x45, 0xd0]),                      // mov %rax,-0x30(%rbp)
        L("body"),
        B(&[0x85, 0xff]), // test %edi,%edi
        Jne("epilogue"),
        Call(SWITCH),
        L("after"),
        PREV_TO_ARGUMENT,
        Call(FINISH_TASK_SWITCH),
        L("epilogue"),
        LOAD_CANARY,
        COMPARE_CANARY,
        Jne("fail"),
        DROP_LOCALS,
        POP_RBX,
        POP_R12,
        POP_R13,
        B(&[0x41, 0x5e]), // pop %r14
        B(&[0x41, 0x5f]), // pop %r15
        POP_RBP,
        RET,
        L("fail"),
        Call(STACK_CHK_FAIL),
    ]
}

/// As gcc 16 saves registers: by `mov`, relative to rsp, without stack protector, r15 last of all; r14 is never
/// used and rbp neither.
pub fn without_frame_base() -> Vec<Piece> {
    vec![
        B(&[0x48, 0x83, 0xec, 0x28]),       // sub $0x28,%rsp
        B(&[0x48, 0x89, 0x5c, 0x24, 0x08]), // mov %rbx,0x8(%rsp)
        B(&[0x4c, 0x89, 0x64, 0x24, 0x10]), // mov %r12,0x10(%rsp)
        B(&[0x4c, 0x89, 0x6c, 0x24, 0x18]), // mov %r13,0x18(%rsp)
        B(&[0x4c, 0x89, 0x7c, 0x24, 0x20]), // mov %r15,0x20(%rsp)
        Call(SWITCH),
        PREV_TO_ARGUMENT,
        Call(FINISH_TASK_SWITCH),
        B(&[0x48, 0x8b, 0x5c, 0x24, 0x08]), // mov 0x8(%rsp),%rbx
        B(&[0x4c, 0x8b, 0x64, 0x24, 0x10]), // mov 0x10(%rsp),%r12
        B(&[0x4c, 0x8b, 0x6c, 0x24, 0x18]), // mov 0x18(%rsp),%r13
        B(&[0x4c, 0x8b, 0x7c, 0x24, 0x20]), // mov 0x20(%rsp),%r15
        B(&[0x48, 0x83, 0xc4, 0x28]),       // add $0x28,%rsp
        Leave(RETURN_THUNK),
    ]
}

/// A function with `old`, which must occur once, replaced.
pub fn replacing(mut pieces: Vec<Piece>, old: Piece, new: &[Piece]) -> Vec<Piece> {
    let places: Vec<usize> = (0..pieces.len()).filter(|index| pieces[*index] == old).collect();
    let [place] = places.as_slice() else { panic!("{old:?} occurs {} times", places.len()) };
    pieces.splice(place..=place, new.iter().copied());
    pieces
}

/// Assembled code, with the tables about it.
pub struct Assembled {
    bytes: Vec<u8>,
    labels: BTreeMap<Addr, Addr>,
    warns: BTreeSet<Addr>,
    alternatives: Vec<(Addr, &'static [u8])>,
}

fn length(piece: &Piece) -> u64 {
    match piece {
        B(bytes) => bytes.len() as u64,
        Call(_) | Leave(_) | Jmp(_) | JumpLabel(_) | Alternative(_) => 5,
        Jne(_) => 6,
        Warn => 2,
        L(_) => 0,
    }
}

/// Assembles a function at [`ENTRY`].
pub fn assemble(pieces: &[Piece]) -> Assembled {
    const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
    let mut places = BTreeMap::new();
    let mut at = ENTRY;
    for piece in pieces {
        if let L(name) = piece {
            places.insert(*name, at);
        }
        at = at + length(piece);
    }
    let mut assembled = Assembled {
        bytes: Vec::new(),
        labels: BTreeMap::new(),
        warns: BTreeSet::new(),
        alternatives: Vec::new(),
    };
    for piece in pieces {
        let at = ENTRY + assembled.bytes.len() as u64;
        let distance = |target: Addr| (target.distance_from(at + length(piece)) as i32).to_le_bytes();
        match piece {
            B(bytes) => assembled.bytes.extend_from_slice(bytes),
            Call(target) => assembled.bytes.extend([&[0xe8][..], &distance(*target)].concat()),
            Leave(target) => assembled.bytes.extend([&[0xe9][..], &distance(*target)].concat()),
            Jmp(label) => assembled.bytes.extend([&[0xe9][..], &distance(places[label])].concat()),
            Jne(label) => assembled.bytes.extend([&[0x0f, 0x85][..], &distance(places[label])].concat()),
            JumpLabel(label) => {
                assembled.labels.insert(at, places[label]);
                assembled.bytes.extend(NOP5);
            }
            Warn => {
                assembled.warns.insert(at);
                assembled.bytes.extend([0x0f, 0x0b]);
            }
            Alternative(replacement) => {
                assembled.alternatives.push((at, replacement));
                assembled.bytes.extend(NOP5);
            }
            L(_) => {}
        }
    }
    assembled
}

fn callee(addr: Addr) -> Callee {
    match addr {
        SWITCH => Callee::Switch,
        FINISH_TASK_SWITCH => Callee::Known("finish_task_switch".into()),
        STACK_CHK_FAIL => Callee::Diverges("__stack_chk_fail".into()),
        RETURN_THUNK => Callee::Return,
        STRANGER => Callee::Unknown("stranger".into()),
        other => THUNKS
            .iter()
            .find(|(thunk, _)| *thunk == other)
            .map_or_else(|| Callee::Unknown(other.to_string()), |(_, register)| Callee::Thunk(*register)),
    }
}

impl Assembled {
    /// As the derivation sees it.
    pub fn code(&self) -> Code<'_> {
        let mut addr = REPLACEMENTS;
        let mut alternatives = Vec::new();
        for (at, bytes) in &self.alternatives {
            alternatives.push(Alternative { at: *at, len: 5, replacement: Chunk { addr, bytes } });
            addr = addr + bytes.len() as u64;
        }
        Code {
            arch: arch::of(Machine::X86_64),
            function: "__schedule",
            chunks: vec![Chunk { addr: ENTRY, bytes: &self.bytes }],
            labels: self.labels.clone(),
            alternatives,
            warns: self.warns.clone(),
            patched_calls: BTreeSet::new(),
            callee: &callee,
        }
    }
}

/// The contract of a function without unwind table.
pub fn contract_of(pieces: &[Piece]) -> Result<Contract, Error> {
    derive_from(&assemble(pieces).code(), None)
}

/// The contract of a function whose unwind table says `orc` at the springboard.
pub fn contract_with_orc(pieces: &[Piece], orc: Orc) -> Result<Contract, Error> {
    derive_from(&assemble(pieces).code(), Some(&|_| Some(orc)))
}

//! What depends on the machine's instruction set. One folder an architecture, and one interface, [`Arch`], through
//! which all phases reach them; which one it is follows from the ELF machine of vmlinux, or of an object.
//!
//! | file | says |
//! |---|---|
//! | `step` | what an instruction does, in the same terms for all machines |
//! | `relocation` | which bits of an instruction or of data a relocation fills in |
//! | `scan` | all functions, in parallel |

mod aarch64;
mod entries;
mod places;
pub mod relocation;
mod scan;
pub mod step;
mod uses;
mod x86_64;

pub use entries::Entries;
pub use places::VariablePlaces;
pub use uses::*;

use crate::address::Addr;
use crate::elf::{Elf, Machine, SymbolId};
use relocation::{Field, Fields};
use std::ops::Range;
use step::{Abi, Outline, Register, Step};

/// What has to be known of a kernel before its code can be gone through.
pub struct Known<'a> {
    /// Where functions begin.
    pub entries: &'a Entries,
    /// Where the scheduler's variables are.
    pub places: &'a VariablePlaces,
    /// What the kernel rewrites, sorted by address.
    pub sites: &'a [Site],
}

/// One architecture.
pub trait Arch: Sync {
    /// Whose it is.
    fn machine(&self) -> Machine;

    /// The kernel's own name of it: the directory below `arch/`.
    fn directory(&self) -> &'static str;

    /// How compilers and binutils for it are called on other machines.
    fn triplet(&self) -> &'static str;

    /// How functions call each other.
    fn abi(&self) -> &'static Abi;

    /// The register whose value a retpoline calls, if a function of that name is one.
    fn retpoline(&self, name: &str) -> Option<Register>;

    /// The function that `__schedule` calls to switch stacks: every sleeping thread is inside it.
    fn stack_switch(&self) -> &'static str;

    /// Functions, by how their names begin, a jump to which is a return.
    fn return_thunk(&self) -> Option<&'static str>;

    /// Which function calls, jumps to, or takes the address of which, and who refers to the scheduler's variables.
    /// `Uses::stored` and `Uses::held` are left empty.
    fn uses(&self, elf: &Elf, known: &Known<'_>) -> Uses;

    /// Whether a symbol only says that code or data begins there.
    fn is_marker(&self, symbol: &str) -> bool;

    /// Where ftrace's nops are that an entry of its table means.
    fn fentry(&self, elf: &Elf, listed: Addr) -> Addr;

    /// Bytes that may change at a place of that kind, where `code` begins there. For those kinds whose table has
    /// no length of its own.
    fn site_len(&self, kind: SiteKind, addr: Addr, code: &[u8]) -> u8;

    /// The members of `struct alt_instr` that say where, how many bytes, and how many the replacement has.
    fn alternative_members(&self) -> [&'static str; 3];

    /// Bytes at a function's entry that must stay where they are: what an indirect branch has to land on.
    fn landing_pad(&self, entry: &[u8]) -> u64;

    /// Whether these bytes, from a function's entry on, are none that the compiler made of its source: landing pad and
    /// nops for ftrace, which its debug information leaves out.
    fn is_before_body(&self, bytes: &[u8]) -> bool;

    /// Bytes of the jump that diverts a function.
    fn jump_bytes(&self) -> u64;

    /// Bytes of an instruction, where all have as many: then code is instructions wherever one begins to read.
    fn instruction_bytes(&self) -> Option<u64>;

    /// Whether kernels for it are compiled with tables of the cases of a switch, so that an indirect jump may stay in its
    /// function.
    fn has_jump_tables(&self) -> bool;

    /// The section of an object that lists the places of ftrace's nops; vmlinux has it as `__mcount_loc`.
    fn ftrace_table(&self) -> &'static str;

    /// Where the image of the kernel may be at run time, and so all that a module refers to in it.
    fn kernel_addresses(&self) -> Range<u64>;

    /// Whether these bytes, between two functions, are never executed.
    fn is_padding(&self, bytes: &[u8]) -> bool;

    /// The instruction at `at`, which `code` begins with; `None` for what is none.
    fn step(&self, code: &[u8], at: Addr) -> Option<Step>;

    /// All instructions of `code`, which begins at `at`. What is no instruction has no target.
    fn outlines(&self, code: &[u8], at: u64) -> Vec<Outline>;

    /// The field of a relocation; `None` for a type that is not known.
    fn field(&self, relocation: u32) -> Option<Field>;

    /// Decodes `code`, which lies at `start` of its section, and adds what fields it has.
    fn fields(&self, code: &[u8], start: u64, fields: &mut Fields);

    /// The relocation that puts a whole address into data.
    fn address_relocation(&self) -> u32;

    /// … that puts the distance to something into 32 bits of data.
    fn distance_relocation(&self) -> u32;
}

/// The architecture of a kernel.
pub fn of(machine: Machine) -> &'static dyn Arch {
    match machine {
        Machine::X86_64 => &x86_64::X86_64,
        Machine::Aarch64 => &aarch64::Aarch64,
    }
}

/// How many instructions a function's code decodes to, those that are none included.
pub fn instructions(elf: &Elf, function: SymbolId) -> usize {
    let symbol = elf.symbol(function);
    let code = elf.bytes(symbol.addr, symbol.size).unwrap_or_default();
    of(elf.machine).outlines(code, symbol.addr.0).len()
}

/// The architecture of an object, by `e_machine`.
pub fn of_elf(machine: u16) -> Option<&'static dyn Arch> {
    Machine::of_elf(machine).map(of)
}

//! What depends on the machine's instruction set. Each architecture has a folder; all phases reach it through one
//! interface, [`Arch`]. The ELF machine of vmlinux, or of an object, says which architecture it is.
//!
//! | file | says |
//! |---|---|
//! | [`step`] | what an instruction does, in the same terms for all machines |
//! | [`relocation`] | which bits of an instruction or of data a relocation fills in |
//! | `function_entries`, `variable_ranges` | whether a number is the address of a function, or of a variable |
//! | `uses` | what is found in code ([`CodeUses`]), and the places that the kernel rewrites ([`Site`]) |
//! | `scan` | goes through all functions, in parallel |

mod aarch64;
mod function_entries;
pub mod relocation;
mod scan;
pub mod step;
mod uses;
mod variable_ranges;
mod x86_64;

pub use function_entries::FunctionEntries;
pub use uses::*;
pub use variable_ranges::VariableRanges;

use crate::address::Addr;
use crate::elf::{Elf, Machine, SymbolId};
use relocation::{Field, Fields};
use std::ops::Range;
use step::{Abi, Outline, Register, Step};

/// What has to be known of a kernel before [`Arch::uses`] can go through its code.
pub struct Known<'a> {
    /// Where functions begin.
    pub entries: &'a FunctionEntries,
    /// Where the scheduler's variables are.
    pub variables: &'a VariableRanges,
    /// Places that the kernel rewrites, sorted by address.
    pub sites: &'a [Site],
}

/// One architecture.
pub trait Arch: Sync {
    /// The machine that it is for.
    fn machine(&self) -> Machine;

    /// The kernel's own name of it: the directory below `arch/`.
    fn directory(&self) -> &'static str;

    /// The prefix of the compilers and binutils for it on other machines, without the last `-`.
    fn triplet(&self) -> &'static str;

    /// How functions call each other.
    fn abi(&self) -> &'static Abi;

    /// The register whose value a retpoline calls, if a function of that name is one.
    fn retpoline(&self, name: &str) -> Option<Register>;

    /// The function that `__schedule` calls to switch stacks: every sleeping thread is inside it.
    fn stack_switch(&self) -> &'static str;

    /// How the names of functions begin to which a jump is a return; `None` where returns are instructions.
    fn return_thunk(&self) -> Option<&'static str>;

    /// Which function calls, jumps to, or takes the address of which, and which instructions refer to the
    /// scheduler's variables.
    fn uses(&self, elf: &Elf, known: &Known<'_>) -> CodeUses;

    /// Whether a symbol only says that code or data begins there.
    fn is_marker(&self, symbol: &str) -> bool;

    /// Where ftrace's nops are, for an entry of ftrace's table.
    fn fentry(&self, elf: &Elf, listed: Addr) -> Addr;

    /// How many bytes may change at a place of that kind, whose bytes `code` begins with. For kinds whose table does
    /// not say.
    fn site_len(&self, kind: SiteKind, addr: Addr, code: &[u8]) -> u8;

    /// The members of `struct alt_instr` with the place, its length, and the replacement's length.
    fn alternative_members(&self) -> [&'static str; 3];

    /// How many bytes at a function's entry must stay as they are, because an indirect branch has to land on them
    /// (`endbr64`, `bti c`).
    fn landing_pad(&self, entry: &[u8]) -> u64;

    /// Whether these bytes, from a function's entry on, are landing pad and nops for ftrace only. The debug information
    /// describes the function from after them.
    fn is_before_body(&self, bytes: &[u8]) -> bool;

    /// How many bytes the jump has that diverts a function.
    fn jump_bytes(&self) -> u64;

    /// How many bytes an instruction has, if all have as many. Then decoding may begin at any multiple of it.
    fn instruction_bytes(&self) -> Option<u64>;

    /// Whether kernels for it are compiled with tables of the cases of a switch, so that an indirect jump may stay in its
    /// function.
    fn has_jump_tables(&self) -> bool;

    /// What the kernel writes over the call that the compiler puts at a function's entry for ftrace; `None` where the
    /// compiler writes nops.
    fn fentry_nop(&self) -> Option<&'static [u8]>;

    /// The section of an object that lists where ftrace's nops are; in vmlinux it is called `__mcount_loc`.
    fn ftrace_table(&self) -> &'static str;

    /// The addresses that the kernel's image may have at run time, and so everything in it that a module refers to.
    fn kernel_addresses(&self) -> Range<u64>;

    /// Whether these bytes, between two functions, are never executed.
    fn is_padding(&self, bytes: &[u8]) -> bool;

    /// The instruction that `code` begins with, which is at `at`; `None` if it is not an instruction that is known.
    fn step(&self, code: &[u8], at: Addr) -> Option<Step>;

    /// All instructions of `code`, which begins at `at`. What is not an instruction is listed too, without a target.
    fn outlines(&self, code: &[u8], at: u64) -> Vec<Outline>;

    /// The field of a relocation type; `None` if the type is not known.
    fn field(&self, relocation: u32) -> Option<Field>;

    /// Decodes `code`, which is at offset `start` of its section, and adds its fields to `fields`.
    fn fields(&self, code: &[u8], start: u64, fields: &mut Fields);

    /// The relocation type for an address of 64 bits in data.
    fn address_relocation(&self) -> u32;

    /// The relocation type for a distance of 32 bits in data.
    fn distance_relocation(&self) -> u32;
}

/// The architecture of a kernel.
pub fn of(machine: Machine) -> &'static dyn Arch {
    match machine {
        Machine::X86_64 => &x86_64::X86_64,
        Machine::Aarch64 => &aarch64::Aarch64,
    }
}

/// How many instructions a function's code decodes to. What is not an instruction counts too.
pub fn instructions(elf: &Elf, function: SymbolId) -> usize {
    let symbol = elf.symbol(function);
    let code = elf.bytes(symbol.addr, symbol.size).unwrap_or_default();
    of(elf.machine).outlines(code, symbol.addr.0).len()
}

/// The architecture of an object, by `e_machine`; `None` if it is not supported.
pub fn of_elf(machine: u16) -> Option<&'static dyn Arch> {
    Machine::of_elf(machine).map(of)
}

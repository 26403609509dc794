//! The values that reading a vmlinux yields.

use super::uses::Uses;
use crate::address::Addr;
pub use crate::arch::{Branch, DataUse, Passed, Site, SiteKind, Taken};
pub use crate::elf::{Elf, FileBytes, Machine, Section, Symbol, SymbolId};
pub use crate::types::{Held, HeldKind, LOCK_TYPES};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{Deref, Range};

/// All that is known of one vmlinux.
pub struct Image {
    /// The file: its bytes, sections and symbols.
    pub elf: Elf,
    /// `uname -r`, from `linux_banner`.
    pub release: String,
    /// The GNU build-id note (owner GNU, type 3), raw bytes.
    pub build_id: Vec<u8>,
    /// DW_AT_producer of the scheduler's first unit, e.g. `GNU C11 12.2.0 -mno-sse …`.
    pub producer: String,
    /// `.comment` of vmlinux: compiler with its package revision, e.g. `GCC: (Debian 12.2.0-14+deb12u1) 12.2.0`.
    pub compiler: String,
    /// Exported symbols, from `__ksymtab*` symbols: name → GPL only?
    pub exports: HashMap<String, bool>,
    /// Translation units below `kernel/sched/`, and those of sidecars, sorted by name.
    pub units: Vec<Unit>,
    /// Functions defined below `kernel/sched/`, or beside a sidecar, that were inlined into functions of other
    /// units.
    pub inlined_outside: Vec<InlinedCopy>,
    /// Who calls, or takes the address of, what. For every function symbol, not just the scheduler's.
    pub uses: Uses,
    /// Places in the text that the kernel itself rewrites, sorted by address.
    pub sites: Vec<Site>,
    /// Sizes in bytes of the structures in which special sections keep their entries, from DWARF:
    /// `jump_entry`, `alt_instr`, `bug_entry`, `exception_table_entry`, `orc_entry`, `static_call_site`,
    /// `paravirt_patch_site`, … (absent when the kernel has no such type).
    pub entry_sizes: BTreeMap<String, u64>,
    /// Where `struct alt_instr` has its two lengths, of one byte each: of what is replaced, and of the replacement.
    /// From DWARF; `None` where the kernel has no alternatives.
    pub alternative_lengths: Option<[u64; 2]>,
    /// Offsets of the members of `struct sched_class`, from DWARF.
    pub class_members: BTreeMap<String, u64>,
}

/// Functions outside the scheduler that are to be replaced with it: translation unit (`kernel/cgroup/cpuset.c`) →
/// names in its source.
pub type Sidecars = BTreeMap<String, BTreeSet<String>>;

/// One translation unit of the scheduler, or a sidecar's.
#[derive(Clone, Debug)]
pub struct Unit {
    /// DW_AT_name, relative to the kernel source: `kernel/sched/core.c`.
    pub name: String,
    /// The functions of a sidecar that are replaced; `None` for a unit of the scheduler, which is replaced whole.
    pub sidecar: Option<BTreeSet<String>>,
    /// DW_AT_comp_dir.
    pub comp_dir: String,
    /// DW_AT_producer: compiler and flags.
    pub producer: String,
    /// Functions with code in vmlinux.
    pub functions: Vec<Function>,
    /// Variables with a place in vmlinux (static storage).
    pub variables: Vec<Variable>,
    /// Functions inlined somewhere in this unit: which, and into what.
    pub inlined: Vec<InlinedCopy>,
    /// Weak functions of this unit of which vmlinux runs another unit's definition.
    pub overridden: Vec<Overridden>,
}

/// A weak function that another unit's definition overrides (`arch_cpu_idle`, `sched_clock`). Its code is still
/// in vmlinux, but no symbol names it and nothing reaches it.
#[derive(Clone, Debug)]
pub struct Overridden {
    /// DW_AT_name.
    pub name: String,
    /// The code that is never run.
    pub ranges: Vec<Range<Addr>>,
    /// The definition that vmlinux runs.
    pub by: SymbolId,
    /// Source file.
    pub decl_file: String,
    /// Source line.
    pub decl_line: u32,
}

/// An out-of-line function of a scheduler unit, with code in vmlinux. Clones (`.isra.0`, `.part.0`,
/// `.constprop.0`) are functions of their own; `.cold` parts are ranges of their parent.
#[derive(Clone, Debug)]
pub struct Function {
    /// ELF symbol name, with a clone's suffix.
    pub name: String,
    /// DW_AT_name, without suffix.
    pub source_name: String,
    /// The ELF symbol.
    pub symbol: SymbolId,
    /// Entry.
    pub addr: Addr,
    /// All its code: first the range with the entry, then `.cold` parts.
    pub ranges: Vec<Range<Addr>>,
    /// DW_AT_external.
    pub external: bool,
    /// Source file, relative to the kernel source (`kernel/sched/fair.c`, `include/linux/sched.h`).
    pub decl_file: String,
    /// Source line.
    pub decl_line: u32,
    /// Declared `inline` (DW_AT_inline 2 or 3, "declared" inlined or not). In the kernel that implies notrace.
    pub declared_inline: bool,
}

/// A variable with static storage in a scheduler unit.
#[derive(Clone, Debug)]
pub struct Variable {
    /// DW_AT_name (no `.N`).
    pub name: String,
    /// Address (for per-CPU data, the address in the per-CPU section).
    pub addr: Addr,
    /// Bytes, from its type; 0 when unknown.
    pub size: u64,
    /// DW_AT_external.
    pub external: bool,
    /// Name of its type, where that is a structure (`sched_class`).
    pub type_name: Option<String>,
    /// The function it is local to, if any.
    pub in_function: Option<String>,
    /// Source file.
    pub decl_file: String,
    /// Source line.
    pub decl_line: u32,
    /// What of its content is more than a value.
    pub holds: Vec<Held>,
}

/// A structure or union as the debug information describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Structure {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Source file.
    pub decl_file: String,
    /// Source line.
    pub decl_line: u32,
    /// Its members; those of members without a name are listed as its own.
    pub members: Vec<Member>,
    /// Translation units outside the scheduler that know all of it, by name.
    pub known_to: Vec<String>,
}

/// A member of a structure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its type, as it is declared.
    pub type_name: String,
    /// Bits from the start of the structure.
    pub bit_offset: u64,
    /// Bits that it takes; 0 where that is not known (an array of no fixed length).
    pub bits: u64,
}

/// One inlined copy of a function.
#[derive(Clone, Debug)]
pub struct InlinedCopy {
    /// The inlined function's DW_AT_name.
    pub name: String,
    /// Where it is defined.
    pub decl_file: String,
    /// Line of its definition.
    pub decl_line: u32,
    /// DW_AT_name of the outermost function that it was inlined into.
    pub into: String,
    /// First address of that function's code.
    pub into_addr: Addr,
    /// Name of the unit.
    pub unit: String,
    /// First address of the inlined code.
    pub addr: Addr,
}

impl Unit {
    /// Whether a function of that symbol name is among its own.
    pub fn has_function(&self, name: &str) -> bool {
        self.functions.iter().any(|f| f.name == name)
    }
}

impl Deref for Image {
    type Target = Elf;
    fn deref(&self) -> &Elf {
        &self.elf
    }
}

//! The values that reading a vmlinux yields.

use crate::address::Addr;
use memmap2::Mmap;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::PathBuf;

/// Index into [`Image::symbols`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SymbolId(pub u32);

/// Machine architecture of a vmlinux.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Machine {
    /// EM_X86_64
    X86_64,
    /// EM_AARCH64
    Aarch64,
}

/// All that is known of one vmlinux.
pub struct Image {
    /// The file it was read from.
    pub path: PathBuf,
    /// The whole file.
    pub map: Mmap,
    /// Architecture.
    pub machine: Machine,
    /// `uname -r`, from `linux_banner`.
    pub release: String,
    /// The GNU build-id note (owner GNU, type 3), raw bytes.
    pub build_id: Vec<u8>,
    /// DW_AT_producer of the scheduler's first unit, e.g. `GNU C11 12.2.0 -mno-sse …`.
    pub producer: String,
    /// `.comment` of vmlinux: compiler with its package revision, e.g. `GCC: (Debian 12.2.0-14+deb12u1) 12.2.0`.
    pub compiler: String,
    /// ELF sections.
    pub sections: Vec<Section>,
    /// Every named ELF symbol, in the symbol table's order.
    pub symbols: Vec<Symbol>,
    /// Name → symbols of that name (locals may share one).
    pub by_name: HashMap<String, Vec<SymbolId>>,
    /// FUNC symbols (and NOTYPE symbols in text) sorted by address, for [`Image::function_at`].
    pub functions_by_addr: Vec<SymbolId>,
    /// Exported symbols, from `__ksymtab*` symbols: name → GPL only?
    pub exports: HashMap<String, bool>,
    /// Translation units below `kernel/sched/`, sorted by name.
    pub units: Vec<Unit>,
    /// Functions defined below `kernel/sched/` that were inlined into functions of other units.
    pub inlined_outside: Vec<InlinedCopy>,
    /// Who calls, or takes the address of, what. For every function symbol, not just the scheduler's.
    pub uses: Uses,
    /// Places in the text that the kernel itself rewrites, sorted by address.
    pub sites: Vec<Site>,
    /// Sizes in bytes of the structures in which special sections keep their entries, from DWARF:
    /// `jump_entry`, `alt_instr`, `bug_entry`, `exception_table_entry`, `orc_entry`, `static_call_site`,
    /// `paravirt_patch_site`, … (absent when the kernel has no such type).
    pub entry_sizes: BTreeMap<String, u64>,
}

/// One ELF section of vmlinux.
#[derive(Clone, Debug)]
pub struct Section {
    /// Name.
    pub name: String,
    /// sh_type.
    pub kind: u32,
    /// sh_flags.
    pub flags: u64,
    /// sh_addr.
    pub addr: Addr,
    /// sh_size.
    pub size: u64,
    /// Where its bytes are in the file (empty for NOBITS).
    pub file: Range<usize>,
}

/// One ELF symbol of vmlinux.
#[derive(Clone, Debug)]
pub struct Symbol {
    /// Name.
    pub name: String,
    /// st_value.
    pub addr: Addr,
    /// st_size, bytes.
    pub size: u64,
    /// STT_*.
    pub kind: u8,
    /// STB_*.
    pub binding: u8,
    /// Index of its section in [`Image::sections`]; `None` for absolute or undefined ones.
    pub section: Option<usize>,
    /// The STT_FILE symbol that precedes a local one (e.g. `core.c`).
    pub file: Option<SymbolId>,
}

/// One translation unit of the scheduler.
#[derive(Clone, Debug)]
pub struct Unit {
    /// DW_AT_name, relative to the kernel source: `kernel/sched/core.c`.
    pub name: String,
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
    /// Declared `inline` (DW_AT_inline 1 or 3 in the abstract instance, or declared so).
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
    /// The function it is local to, if any.
    pub in_function: Option<String>,
    /// Source file.
    pub decl_file: String,
    /// Source line.
    pub decl_line: u32,
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

/// References found in code and data.
#[derive(Default)]
pub struct Uses {
    /// Direct branches (call, jmp, jcc) from one function to the entry of another. Sorted by callee.
    pub branches: Vec<Branch>,
    /// Instructions that take a function's address (`lea`, `mov $imm`, …). Sorted by target.
    pub taken: Vec<Taken>,
    /// Words of data that hold a function's address. Sorted by target. Tables that merely describe code
    /// (ksymtab, mcount_loc, ORC, bug table, initcalls' own sections, …) are not uses and are left out.
    pub stored: Vec<Stored>,
}

/// A direct branch to a function's entry.
#[derive(Clone, Copy, Debug)]
pub struct Branch {
    /// Address of the instruction.
    pub at: Addr,
    /// Function that holds it.
    pub caller: SymbolId,
    /// Entry address of the function reached.
    pub callee: Addr,
    /// `call`, as against a jump.
    pub is_call: bool,
}

/// An instruction that yields a function's address.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Address of the instruction.
    pub at: Addr,
    /// Function that holds it.
    pub function: SymbolId,
    /// Entry address that it yields.
    pub target: Addr,
}

/// A data word that holds a function's address.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Where.
    pub at: Addr,
    /// Section index.
    pub section: usize,
    /// The object symbol that holds the word, if one covers it.
    pub object: Option<SymbolId>,
    /// Entry address stored.
    pub target: Addr,
}

/// Why the kernel may rewrite a place in its own text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SiteKind {
    /// ftrace's nop at a function's entry (`__mcount_loc`, `__patchable_function_entries`).
    Fentry,
    /// `__jump_table`: toggles at run time.
    JumpLabel,
    /// `.static_call_sites`: toggles at run time.
    StaticCall,
    /// `.altinstructions`: rewritten once at boot.
    Alternative,
    /// `.parainstructions`: rewritten once at boot.
    Paravirt,
    /// `.smp_locks`: a lock prefix, rewritten when CPUs come and go.
    SmpLock,
    /// `.return_sites`: rewritten once at boot.
    Return,
    /// `.retpoline_sites`: rewritten once at boot.
    Retpoline,
    /// `.call_sites`: rewritten once at boot (call-depth tracking).
    Call,
    /// `.ibt_endbr_seal`: endbr turned into a nop at boot.
    SealedEndbr,
}

/// A place in the text that the kernel itself rewrites.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// First byte.
    pub addr: Addr,
    /// Bytes that may change.
    pub len: u8,
    /// Why.
    pub kind: SiteKind,
}

impl Image {
    /// The file's bytes for `len` bytes at `addr`; `None` outside the sections that have bytes.
    pub fn bytes(&self, addr: Addr, len: u64) -> Option<&[u8]> {
        let section = self
            .sections
            .iter()
            .find(|s| s.addr.0 != 0 && s.addr <= addr && addr.0.saturating_add(len) <= s.addr.0 + s.size)?;
        let start = section.file.start + (addr - section.addr) as usize;
        self.map.get(start..start + len as usize).filter(|_| !section.file.is_empty())
    }

    /// A symbol by its id.
    pub fn symbol(&self, id: SymbolId) -> &Symbol {
        &self.symbols[id.0 as usize]
    }

    /// The only symbol of that name, or `None` if there is none or more than one.
    pub fn unique_symbol(&self, name: &str) -> Option<&Symbol> {
        match self.by_name.get(name)?.as_slice() {
            [id] => Some(self.symbol(*id)),
            _ => None,
        }
    }

    /// The function whose code covers `addr`.
    pub fn function_at(&self, addr: Addr) -> Option<SymbolId> {
        let after = self.functions_by_addr.partition_point(|id| self.symbol(*id).addr <= addr);
        self.functions_by_addr[..after]
            .iter()
            .rev()
            .take(8)
            .copied()
            .find(|id| addr.0 < self.symbol(*id).addr.0 + self.symbol(*id).size.max(1))
    }
}

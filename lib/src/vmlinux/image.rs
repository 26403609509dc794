//! The values that reading a vmlinux yields.

use crate::address::Addr;
use memmap2::Mmap;
use object::elf;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{Deref, Range};
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

impl Machine {
    /// What this program runs on; `None` for a machine that no kernel here is for.
    pub fn host() -> Option<Machine> {
        Machine::named(std::env::consts::ARCH)
    }

    /// By its name, as `uname -m` prints it.
    pub fn named(name: &str) -> Option<Machine> {
        [Machine::X86_64, Machine::Aarch64].into_iter().find(|machine| machine.name() == name)
    }

    /// As `uname -m` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Machine::X86_64 => "x86_64",
            Machine::Aarch64 => "aarch64",
        }
    }

    /// Of an ELF file, by `e_machine`.
    pub fn of_elf(number: u16) -> Option<Machine> {
        match elf::Machine(number) {
            elf::EM_X86_64 => Some(Machine::X86_64),
            elf::EM_AARCH64 => Some(Machine::Aarch64),
            _ => None,
        }
    }
}

/// The bytes of a vmlinux: mapped from a file, or held in memory (tests, fuzzing).
pub enum FileBytes {
    /// Mapped read-only; only the pages that are looked at take memory.
    Mapped(Mmap),
    /// Read by the caller.
    Owned(Vec<u8>),
}

impl Deref for FileBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            FileBytes::Mapped(map) => map,
            FileBytes::Owned(bytes) => bytes,
        }
    }
}

/// All that is known of one vmlinux.
pub struct Image {
    /// The file it was read from.
    pub path: PathBuf,
    /// The whole file.
    pub map: FileBytes,
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
    /// ELF sections, by their ELF index (the null section is number 0).
    pub sections: Vec<Section>,
    /// Every named ELF symbol, in the symbol table's order.
    pub symbols: Vec<Symbol>,
    /// Name → symbols of that name (locals may share one). FILE symbols are left out.
    pub by_name: HashMap<String, Vec<SymbolId>>,
    /// FUNC symbols (and NOTYPE symbols in text) sorted by address, for [`Image::function_at`]. Of several
    /// at one address the last is the one to show: a FUNC rather than a label, a global rather than a local.
    pub functions_by_addr: Vec<SymbolId>,
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

/// A part of a variable that is more than a value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Held {
    /// What it is.
    pub kind: HeldKind,
    /// The members and subscripts that lead to it; empty if it is the variable itself.
    pub path: String,
    /// Name of its type, if it has one.
    pub type_name: String,
}

/// What a part of a variable may be that cannot simply be copied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum HeldKind {
    /// An end or an element of a list or tree: a small structure whose pointers lead to its like.
    Link,
    /// A lock: a structure of one of the types named in [`LOCK_TYPES`].
    Lock,
    /// Another pointer.
    Pointer,
    /// Not described by the debug information.
    Unknown,
}

/// Structures that make a type that holds one a lock: every other lock of the kernel is built around one of these. The
/// binary cannot tell them from numbers.
pub const LOCK_TYPES: &[&str] = &["raw_spinlock", "qspinlock", "qrwlock", "seqcount"];

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
    /// Functions' addresses handed to a function that is called directly. Sorted by target.
    pub passed: Vec<Passed>,
    /// Functions that call or jump through a pointer (on retpoline kernels, through `__x86_indirect_thunk_*`).
    /// Calls that boot code makes direct (paravirt, alternatives) and static calls do not count. Sorted.
    pub indirect: Vec<SymbolId>,
    /// Instructions that refer to a variable of the scheduler's units. Sorted by target.
    pub data: Vec<DataUse>,
    /// Words of data that hold the address of a variable of the scheduler's units, or of a part of it. Sorted by
    /// target.
    pub held: Vec<Stored>,
}

/// An instruction that refers to a variable of the scheduler; or a static branch, which asks its key.
///
/// Per-CPU variables linked at 0 are recognised where the instruction goes through this CPU's segment, and in
/// functions that use the table of all CPUs' offsets; there a number that happens to be such an offset is taken for
/// one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataUse {
    /// Address of the instruction.
    pub at: Addr,
    /// Function that holds it.
    pub function: SymbolId,
    /// The address it refers to: of the variable, or of a byte inside it.
    pub target: Addr,
    /// It yields the address, rather than reading or writing what is there.
    pub is_taken: bool,
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

/// A function's address in an argument register when another function is called directly, as in
/// `wait_for_common(x, schedule_timeout)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Passed {
    /// The function whose address is passed.
    pub target: Addr,
    /// The function called with it.
    pub callee: Addr,
    /// Address of the instruction that loads the register.
    pub at: Addr,
    /// Function that holds the instruction.
    pub caller: SymbolId,
}

/// A data word that holds the address of a function, or of a variable.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Where.
    pub at: Addr,
    /// Section index.
    pub section: usize,
    /// The object symbol that holds the word, if one covers it.
    pub object: Option<SymbolId>,
    /// The address stored: a function's entry, or a byte of a variable.
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

impl Section {
    /// Whether it is part of the kernel in memory.
    pub fn is_alloc(&self) -> bool {
        self.flags & elf::SHF_ALLOC.0 != 0
    }

    /// Whether its code is code: 7.3 flags `.data` executable, which it is not.
    pub fn is_text(&self) -> bool {
        let executable = self.is_alloc() && self.flags & elf::SHF_EXECINSTR.0 != 0;
        executable && (self.flags & elf::SHF_WRITE.0 == 0 || self.name.contains("text"))
    }

    /// Whether `len` bytes at `addr` are part of it.
    fn holds(&self, addr: Addr, len: u64) -> bool {
        let Some(offset) = addr.0.checked_sub(self.addr.0) else { return false };
        self.is_alloc() && offset.checked_add(len).is_some_and(|end| end <= self.size)
    }
}

impl Unit {
    /// Whether a function of that symbol name is among its own.
    pub fn has_function(&self, name: &str) -> bool {
        self.functions.iter().any(|f| f.name == name)
    }
}

impl Symbol {
    /// One past its last byte.
    pub fn end(&self) -> Addr {
        Addr(self.addr.0.saturating_add(self.size))
    }

    /// Whether `addr` is one of its bytes; a symbol without a size has one.
    fn covers(&self, addr: Addr) -> bool {
        self.addr <= addr && addr.0 - self.addr.0 < self.size.max(1)
    }

    /// STT_FUNC.
    pub fn is_function(&self) -> bool {
        self.kind == elf::STT_FUNC.0
    }

    /// STB_LOCAL.
    pub fn is_local(&self) -> bool {
        self.binding == elf::STB_LOCAL.0
    }
}

impl Image {
    /// The file's bytes for `len` bytes at `addr`; `None` outside the sections that have bytes.
    pub fn bytes(&self, addr: Addr, len: u64) -> Option<&[u8]> {
        let section = self.sections.iter().find(|s| s.holds(addr, len) && !s.file.is_empty())?;
        let offset = usize::try_from(addr.0 - section.addr.0).ok()?;
        self.map.get(section.file.clone())?.get(offset..offset.checked_add(usize::try_from(len).ok()?)?)
    }

    /// The bytes at `addr` that come before the next zero byte of its section.
    pub fn string(&self, addr: Addr) -> Option<&[u8]> {
        let section = self.sections.iter().find(|s| s.holds(addr, 1) && !s.file.is_empty())?;
        let rest = self.section_bytes(section).get(usize::try_from(addr - section.addr).ok()?..)?;
        rest.split(|byte| *byte == 0).next()
    }

    /// The file's bytes of a section; empty for NOBITS.
    pub fn section_bytes(&self, section: &Section) -> &[u8] {
        self.map.get(section.file.clone()).unwrap_or_default()
    }

    /// The section of that name.
    pub fn section_named(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// The part of the kernel in memory that covers `addr`, and its index.
    pub fn section_at(&self, addr: Addr) -> Option<(usize, &Section)> {
        self.sections.iter().enumerate().find(|(_, s)| s.holds(addr, 1))
    }

    /// A symbol by its id.
    pub fn symbol(&self, id: SymbolId) -> &Symbol {
        &self.symbols[id.0 as usize]
    }

    /// All symbols of that name.
    pub fn symbols_named(&self, name: &str) -> &[SymbolId] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The only symbol of that name, or `None` if there is none or more than one.
    pub fn unique_symbol(&self, name: &str) -> Option<&Symbol> {
        match self.symbols_named(name) {
            [id] => Some(self.symbol(*id)),
            _ => None,
        }
    }

    /// Which of the symbols of a name is at an address, in kallsyms' order (by address), counted from 1 as
    /// livepatch does; and how many there are.
    pub fn symbol_position(&self, name: &str, addr: Addr) -> (u32, u32) {
        let mut namesakes: Vec<Addr> =
            self.symbols_named(name).iter().map(|id| self.symbol(*id).addr).collect();
        namesakes.sort();
        let position = namesakes.iter().position(|a| *a == addr).unwrap_or_default();
        (position as u32 + 1, namesakes.len() as u32)
    }

    /// The function whose code covers `addr`; inside assembly, the function rather than a label within it.
    pub fn function_at(&self, addr: Addr) -> Option<SymbolId> {
        let after = self.functions_by_addr.partition_point(|id| self.symbol(*id).addr <= addr);
        let mut label = None;
        for id in self.functions_by_addr[..after].iter().rev().take(NESTED_LABELS_MAX) {
            let symbol = self.symbol(*id);
            if symbol.covers(addr) {
                if symbol.size > 0 {
                    return Some(*id);
                }
                label = label.or(Some(*id));
            }
        }
        label
    }

    /// Functions that begin at `addr`: more than one where names are aliases.
    pub fn functions_entered_at(&self, addr: Addr) -> &[SymbolId] {
        let start = self.functions_by_addr.partition_point(|id| self.symbol(*id).addr < addr);
        let count = self.functions_by_addr[start..].partition_point(|id| self.symbol(*id).addr == addr);
        &self.functions_by_addr[start..start + count]
    }
}

/// How many labels, and functions within the function, may lie between an address and the start of the
/// assembly function around it.
const NESTED_LABELS_MAX: usize = 64;

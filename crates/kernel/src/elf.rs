//! An ELF file as values: bytes, sections, symbols, and what is at which address.

use crate::address::Addr;
use memmap2::Mmap;
use object::elf;
use std::collections::HashMap;
use std::ops::{Deref, Range};
use std::path::PathBuf;

/// Index into [`Elf::symbols`].
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
    /// The machine that this program was compiled for; `None` if it is not one whose kernels can be read.
    pub fn host() -> Option<Machine> {
        Machine::named(std::env::consts::ARCH)
    }

    /// The machine of that name, as `uname -m` prints it.
    pub fn named(name: &str) -> Option<Machine> {
        [Machine::X86_64, Machine::Aarch64].into_iter().find(|machine| machine.name() == name)
    }

    /// Its name, as `uname -m` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Machine::X86_64 => "x86_64",
            Machine::Aarch64 => "aarch64",
        }
    }

    /// The machine of an ELF file, by `e_machine`; `None` if its kernels cannot be read.
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
    /// Mapped read-only; only the pages that are read take memory.
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

/// An ELF file: what is in it and where, without what it means.
pub struct Elf {
    /// The file it was read from.
    pub path: PathBuf,
    /// The whole file.
    pub map: FileBytes,
    /// Architecture.
    pub machine: Machine,
    /// ELF sections, by their ELF index (the null section is number 0).
    pub sections: Vec<Section>,
    /// Every named ELF symbol, in the symbol table's order.
    pub symbols: Vec<Symbol>,
    /// Name → symbols of that name (locals may share one). FILE symbols are left out.
    pub by_name: HashMap<String, Vec<SymbolId>>,
    /// FUNC symbols (and NOTYPE symbols in text) sorted by address, for [`Elf::function_at`]. Of several
    /// at one address the last is the one to show: a FUNC rather than a label, a global rather than a local.
    pub functions_by_addr: Vec<SymbolId>,
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
    /// Index of its section in [`Elf::sections`]; `None` for absolute or undefined ones.
    pub section: Option<usize>,
    /// The STT_FILE symbol that precedes a local one (e.g. `core.c`).
    pub file: Option<SymbolId>,
}

impl Section {
    /// Whether it is part of the kernel in memory.
    pub fn is_alloc(&self) -> bool {
        self.flags & elf::SHF_ALLOC.0 != 0
    }

    /// Whether it holds code. The flag alone does not tell: 7.3 flags `.data` executable.
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

impl Symbol {
    /// One past its last byte.
    pub fn end(&self) -> Addr {
        Addr(self.addr.0.saturating_add(self.size))
    }

    /// Whether `addr` is one of its bytes; a symbol without a size counts as one byte.
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

impl Elf {
    /// The `len` bytes at `addr`; `None` if they are not all in one section that has bytes in the file.
    pub fn bytes(&self, addr: Addr, len: u64) -> Option<&[u8]> {
        let section = self.sections.iter().find(|s| s.holds(addr, len) && !s.file.is_empty())?;
        let offset = usize::try_from(addr.0 - section.addr.0).ok()?;
        self.map.get(section.file.clone())?.get(offset..offset.checked_add(usize::try_from(len).ok()?)?)
    }

    /// The bytes from `addr` to the next zero byte, or to the end of the section.
    pub fn string(&self, addr: Addr) -> Option<&[u8]> {
        let section = self.sections.iter().find(|s| s.holds(addr, 1) && !s.file.is_empty())?;
        let rest = self.section_bytes(section).get(usize::try_from(addr - section.addr).ok()?..)?;
        rest.split(|byte| *byte == 0).next()
    }

    /// The bytes of a section; empty for NOBITS.
    pub fn section_bytes(&self, section: &Section) -> &[u8] {
        self.map.get(section.file.clone()).unwrap_or_default()
    }

    /// The section of that name.
    pub fn section_named(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// The section that `addr` is in when the kernel is in memory, with its index.
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

    /// Which of the symbols of a name is at an address (its `sympos`: counted from 1 in kallsyms' order, which is by
    /// address), and how many there are.
    pub fn symbol_position(&self, name: &str, addr: Addr) -> (u32, u32) {
        let mut namesakes: Vec<Addr> =
            self.symbols_named(name).iter().map(|id| self.symbol(*id).addr).collect();
        namesakes.sort();
        let position = namesakes.iter().position(|a| *a == addr).unwrap_or_default();
        (position as u32 + 1, namesakes.len() as u32)
    }

    /// The function whose code covers `addr`. In assembly that is the function rather than a label inside it.
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

    /// The functions that begin at `addr`; more than one if names are aliases.
    pub fn functions_entered_at(&self, addr: Addr) -> &[SymbolId] {
        let start = self.functions_by_addr.partition_point(|id| self.symbol(*id).addr < addr);
        let count = self.functions_by_addr[start..].partition_point(|id| self.symbol(*id).addr == addr);
        &self.functions_by_addr[start..start + count]
    }
}

/// How many labels and inner functions there may be between an address and the start of the assembly function around
/// it.
const NESTED_LABELS_MAX: usize = 64;

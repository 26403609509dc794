//! ELF headers, sections and symbols of a vmlinux. Relocation sections that the linker kept (`.rela.*`) are
//! not looked at: the values are in place. (arm64's are not; see `relocate`.)

use super::error::Error;
use super::relocate;
use crate::address::Addr;
use crate::arch::{self, Arch};
use crate::elf::{Elf, FileBytes, Machine, Section, Symbol, SymbolId};
use object::elf;
use object::read::elf::{FileHeader, SectionHeader, SectionTable, Sym};
use object::{LittleEndian, SectionIndex};
use std::collections::HashMap;
use std::path::Path;

type Header = elf::FileHeader64<LittleEndian>;

const EXPECTED: &str = "a 64-bit little-endian vmlinux for x86-64 or arm64";

/// Reads headers, sections and symbols.
pub(super) fn read(path: &Path, map: FileBytes) -> Result<Elf, Error> {
    let file: &[u8] = &map;
    let header = read_header(path, file)?;
    let table = header
        .sections(LittleEndian, file)
        .map_err(|e| malformed(path, "the section header table", &e.to_string()))?;
    let sections = read_sections(path, file, &table)?;
    let machine = machine(path, header)?;
    let symbols = read_symbols(path, file, &table, sections.len(), arch::of(machine))?;
    let mut by_name: HashMap<String, Vec<SymbolId>> = HashMap::with_capacity(symbols.len());
    for (index, symbol) in symbols.iter().enumerate().filter(|(_, s)| s.kind != elf::STT_FILE.0) {
        let id = SymbolId(index as u32);
        match by_name.get_mut(&symbol.name) {
            Some(ids) => ids.push(id),
            None => drop(by_name.insert(symbol.name.clone(), vec![id])),
        }
    }
    let functions_by_addr = functions_by_addr(&sections, &symbols);
    let map = match machine {
        Machine::X86_64 => map,
        Machine::Aarch64 => relocate::relocated(path, map, &sections)?,
    };
    Ok(Elf { path: path.to_owned(), map, machine, sections, symbols, by_name, functions_by_addr })
}

fn malformed(path: &Path, what: &str, detail: &str) -> Error {
    Error::Malformed { path: path.to_owned(), what: what.to_owned(), detail: detail.to_owned() }
}

fn read_header<'a>(path: &Path, file: &'a [u8]) -> Result<&'a Header, Error> {
    let foreign =
        |found: &str| Error::Foreign { path: path.to_owned(), found: found.to_owned(), expected: EXPECTED };
    let truncated = |what: &str, need: u64| Error::Truncated {
        path: path.to_owned(),
        what: what.to_owned(),
        need,
        have: file.len() as u64,
    };
    let magic = file.get(..4).unwrap_or(file);
    if magic != elf::ELFMAG {
        let found = match magic {
            [] => "it is empty".to_owned(),
            _ => format!("it begins with {magic:02x?}"),
        };
        return Err(Error::NotElf { path: path.to_owned(), found });
    }
    if file.len() < size_of::<Header>() {
        return Err(truncated("the ELF header", size_of::<Header>() as u64));
    }
    if file[4] != elf::ELFCLASS64.0 {
        return Err(foreign("a 32-bit ELF file"));
    }
    if file[5] != elf::ELFDATA2LSB.0 {
        return Err(foreign("a big-endian ELF file"));
    }
    let header = Header::parse(file).map_err(|e| malformed(path, "the ELF header", &e.to_string()))?;
    machine(path, header)?;
    match header.e_type(LittleEndian) {
        elf::ET_EXEC | elf::ET_DYN => {}
        elf::ET_REL => return Err(foreign("a relocatable object (a module or a .o file)")),
        elf::ET_CORE => return Err(foreign("a core dump")),
        other => return Err(foreign(&format!("an ELF file of type {}", other.0))),
    }
    let table_bytes = u64::from(header.e_shnum(LittleEndian)) * u64::from(header.e_shentsize(LittleEndian));
    let table_end = header.e_shoff(LittleEndian).saturating_add(table_bytes);
    if table_end > file.len() as u64 {
        return Err(truncated("the section header table", table_end));
    }
    Ok(header)
}

fn machine(path: &Path, header: &Header) -> Result<Machine, Error> {
    let found = header.e_machine(LittleEndian).0;
    let found_text = || format!("for ELF machine {found}");
    Machine::of_elf(found).ok_or_else(|| Error::Foreign {
        path: path.to_owned(),
        found: found_text(),
        expected: EXPECTED,
    })
}

fn read_sections(path: &Path, file: &[u8], table: &SectionTable<'_, Header>) -> Result<Vec<Section>, Error> {
    let mut sections = Vec::with_capacity(table.len());
    for header in table.iter() {
        let name = table
            .section_name(LittleEndian, header)
            .map_err(|e| malformed(path, "a section's name", &e.to_string()))?;
        let name = String::from_utf8_lossy(name).into_owned();
        let range = match header.file_range(LittleEndian) {
            Some((start, size)) => {
                let end = start.saturating_add(size);
                // Kept relocations are not read, so a copy that lost them does no harm.
                if end > file.len() as u64 && header.sh_type(LittleEndian) != elf::SHT_RELA {
                    return Err(Error::Truncated {
                        path: path.to_owned(),
                        what: format!("section {name}"),
                        need: end,
                        have: file.len() as u64,
                    });
                }
                let clamp = |at: u64| at.min(file.len() as u64) as usize;
                clamp(start)..clamp(end)
            }
            None => 0..0,
        };
        sections.push(Section {
            name,
            kind: header.sh_type(LittleEndian).0,
            flags: header.sh_flags(LittleEndian).0,
            addr: Addr(header.sh_addr(LittleEndian)),
            size: header.sh_size(LittleEndian),
            file: range,
        });
    }
    Ok(sections)
}

fn read_symbols(
    path: &Path,
    file: &[u8],
    table: &SectionTable<'_, Header>,
    section_count: usize,
    arch: &dyn Arch,
) -> Result<Vec<Symbol>, Error> {
    let bad = |e: object::read::Error| malformed(path, "the symbol table", &e.to_string());
    let elf_symbols = table.symbols(LittleEndian, file, elf::SHT_SYMTAB).map_err(bad)?;
    if elf_symbols.is_empty() {
        return Err(Error::NoSymbols { path: path.to_owned() });
    }
    let mut symbols: Vec<Symbol> = Vec::with_capacity(elf_symbols.len());
    let mut group = None;
    for (index, symbol) in elf_symbols.enumerate() {
        let name = elf_symbols.symbol_name(LittleEndian, symbol).map_err(bad)?;
        let kind = symbol.st_type();
        let local = symbol.st_bind() == elf::STB_LOCAL;
        if kind == elf::STT_FILE {
            // The linker closes the last group with a nameless FILE symbol.
            group = (!name.is_empty()).then_some(SymbolId(symbols.len() as u32));
        }
        if name.is_empty() {
            continue;
        }
        let section = elf_symbols.symbol_section(LittleEndian, symbol, index).map_err(bad)?;
        let name = String::from_utf8_lossy(name);
        if arch.is_marker(&name) {
            continue;
        }
        symbols.push(Symbol {
            name: name.into_owned(),
            addr: Addr(symbol.st_value(LittleEndian)),
            size: symbol.st_size(LittleEndian),
            kind: kind.0,
            binding: symbol.st_bind().0,
            section: section.map(|SectionIndex(i)| i).filter(|i| *i > 0 && *i < section_count),
            file: group.filter(|_| local && kind != elf::STT_FILE),
        });
    }
    Ok(symbols)
}

fn functions_by_addr(sections: &[Section], symbols: &[Symbol]) -> Vec<SymbolId> {
    let text: Vec<bool> = sections.iter().map(Section::is_text).collect();
    let mut functions: Vec<SymbolId> = (0..symbols.len() as u32)
        .map(SymbolId)
        .filter(|id| {
            let symbol = &symbols[id.0 as usize];
            let in_text = symbol.section.is_some_and(|s| text[s]);
            // `__pfx_` symbols name the padding before a function, not code.
            in_text
                && (symbol.is_function() && !symbol.name.starts_with("__pfx_")
                    || symbol.kind == elf::STT_NOTYPE.0)
        })
        .collect();
    functions.sort_by_key(|id| {
        let symbol = &symbols[id.0 as usize];
        (symbol.addr, symbol.is_function(), symbol.size > 0, symbol.binding == elf::STB_GLOBAL.0, *id)
    });
    functions
}

//! Reading a relocatable object into plain values. Any bytes may be handed in; none may cause a panic.
//!
//! Four phases, each of which needs only what those before it yield: the file's own tables ([`File`]), which sections
//! are kept ([`Kept`]), symbols ([`Symbols`]), relocations. The sections are then made whole.

use super::{Error, Object, Place, Relocation, Section, SectionId, Symbol, SymbolId};
use object::elf;
use object::read::elf::{
    FileHeader as _, Rela as _, SectionHeader as _, SectionTable, Sym as _, SymbolTable,
};
use object::{LittleEndian, SectionIndex};

type Header = elf::FileHeader64<LittleEndian>;
type SectionHeader = elf::SectionHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;

/// Reads an ELF64 little-endian relocatable object. `name` is what messages call it.
///
/// Section groups (COMDAT) are dissolved: their members stay, as a kernel object has no second copy of them.
///
/// # Errors
/// [`Error::NotAnObject`] if the bytes are not an ELF64 little-endian relocatable object; [`Error::Damaged`] if its
/// tables contradict each other, or it has what the kernel's compilers do not write (common symbols, relocations
/// without addends).
pub fn read(name: &str, bytes: &[u8]) -> Result<Object, Error> {
    let file = File::parse(name, bytes)?;
    let kept = Kept::of(&file);
    let mut symbols = Symbols::read(&file, &kept)?;
    let relocations = read_relocations(&file, &kept, &mut symbols)?;
    let sections = read_sections(&file, &kept, relocations)?;
    Ok(Object { name: name.into(), machine: file.header.e_machine(LE).0, sections, symbols: symbols.list })
}

/// The file and the tables that describe it.
struct File<'a> {
    name: &'a str,
    bytes: &'a [u8],
    header: &'a Header,
    sections: SectionTable<'a, Header>,
    symbols: SymbolTable<'a, Header>,
}

impl<'a> File<'a> {
    fn parse(name: &'a str, bytes: &'a [u8]) -> Result<File<'a>, Error> {
        let not_an_object = |what: String| Error::NotAnObject { name: name.into(), what };
        let bad = |e: object::read::Error| Error::Damaged { name: name.into(), what: e.to_string() };
        if bytes.get(..4) != Some(&elf::ELFMAG[..]) {
            return Err(not_an_object("it does not begin with the ELF magic".into()));
        }
        let header = Header::parse(bytes).map_err(|e| not_an_object(e.to_string()))?;
        header.endian().map_err(|_| not_an_object("it is big-endian".into()))?;
        if header.e_type(LE) != elf::ET_REL {
            return Err(not_an_object(format!("its ELF type is {}, not ET_REL", header.e_type(LE).0)));
        }
        let sections = header.sections(LE, bytes).map_err(bad)?;
        let symbols = sections.symbols(LE, bytes, elf::SHT_SYMTAB).map_err(bad)?;
        Ok(File { name, bytes, header, sections, symbols })
    }

    fn damaged(&self, what: impl ToString) -> Error {
        Error::Damaged { name: self.name.into(), what: what.to_string() }
    }

    fn section_name(&self, section: &SectionHeader) -> Result<&'a str, Error> {
        let name = self.sections.section_name(LE, section).map_err(|e| self.damaged(e))?;
        text(name).ok_or_else(|| self.damaged("a section's name is not text"))
    }

    fn data(&self, section: &SectionHeader) -> Result<&'a [u8], Error> {
        section.data(LE, self.bytes).map_err(|e| self.damaged(e))
    }
}

/// The sections that hold something of the object itself, rather than a table that describes the file.
struct Kept {
    /// By ELF index.
    ids: Vec<Option<SectionId>>,
    count: usize,
}

impl Kept {
    fn of(file: &File<'_>) -> Kept {
        let mut kept = Kept { ids: Vec::with_capacity(file.sections.len()), count: 0 };
        for section in file.sections.iter() {
            let id = carries_content(section.sh_type(LE)).then_some(SectionId(kept.count as u32));
            kept.count += usize::from(id.is_some());
            kept.ids.push(id);
        }
        kept
    }

    /// By the index that another header gives, which may be of no section at all.
    fn id(&self, index: u32) -> Option<SectionId> {
        self.ids.get(index as usize).copied().flatten()
    }
}

/// The symbols, and where each of the file's has gone.
struct Symbols {
    list: Vec<Symbol>,
    /// By ELF index.
    ids: Vec<Option<SymbolId>>,
    /// The symbol that stands for "no symbol", once a relocation needs it.
    absolute: Option<SymbolId>,
}

impl Symbols {
    fn read(file: &File<'_>, kept: &Kept) -> Result<Symbols, Error> {
        let mut symbols = Symbols { list: Vec::new(), ids: vec![None; file.symbols.len()], absolute: None };
        for (index, symbol) in file.symbols.enumerate().filter(|(index, _)| index.0 != 0) {
            let name = symbol.name(LE, file.symbols.strings()).map_err(|e| file.damaged(e))?;
            let name = text(name).ok_or_else(|| file.damaged("a symbol's name is not text"))?;
            let place = match symbol.st_shndx(LE) {
                elf::SHN_UNDEF => Place::Undefined,
                elf::SHN_ABS => Place::Absolute,
                elf::SHN_COMMON => {
                    let what = format!("{name} is a common symbol; kernels are compiled with -fno-common");
                    return Err(file.damaged(what));
                }
                _ => {
                    let section = file.symbols.symbol_section(LE, symbol, index);
                    let Some(SectionIndex(section)) = section.map_err(|e| file.damaged(e))? else {
                        return Err(file.damaged(format!("{name} is in a reserved section")));
                    };
                    match kept.ids.get(section) {
                        Some(Some(id)) => Place::Section(*id),
                        // Section symbols of tables that are made anew when the object is written.
                        Some(None) => continue,
                        None => {
                            let what = format!("{name} is in section {section}, which does not exist");
                            return Err(file.damaged(what));
                        }
                    }
                }
            };
            symbols.ids[index.0] = Some(SymbolId(symbols.list.len() as u32));
            symbols.list.push(Symbol {
                name: name.into(),
                place,
                value: symbol.st_value(LE),
                size: symbol.st_size(LE),
                binding: symbol.st_bind().0,
                kind: symbol.st_type().0,
                other: symbol.st_other().0,
            });
        }
        Ok(symbols)
    }

    /// The symbol that a relocation means by an ELF index. The null symbol means that the addend is the whole value:
    /// an absolute symbol of value 0.
    fn referred_to(&mut self, index: usize) -> Option<SymbolId> {
        if index != 0 {
            return self.ids.get(index).copied().flatten();
        }
        let list = &mut self.list;
        Some(*self.absolute.get_or_insert_with(|| {
            list.push(Symbol {
                name: String::new(),
                place: Place::Absolute,
                value: 0,
                size: 0,
                binding: elf::STB_LOCAL.0,
                kind: elf::STT_NOTYPE.0,
                other: 0,
            });
            SymbolId(list.len() as u32 - 1)
        }))
    }
}

/// The relocations of each section that is kept, sorted by offset.
fn read_relocations(
    file: &File<'_>,
    kept: &Kept,
    symbols: &mut Symbols,
) -> Result<Vec<Vec<Relocation>>, Error> {
    let mut by_section = vec![Vec::new(); kept.count];
    for table in file.sections.iter() {
        let target = kept.id(table.sh_info(LE));
        if table.sh_type(LE) == elf::SHT_REL && target.is_some() {
            return Err(file.damaged("it has relocations without addends (SHT_REL)"));
        }
        let Some((entries, _)) = table.rela(LE, file.bytes).map_err(|e| file.damaged(e))? else { continue };
        let Some(target) = target else { continue };
        let section = file.sections.section(SectionIndex(table.sh_info(LE) as usize));
        let section = section.map_err(|e| file.damaged(e))?;
        let limit = file.data(section)?.len() as u64;
        let list: &mut Vec<Relocation> = &mut by_section[target.0 as usize];
        for entry in entries {
            let kind = entry.r_type(LE, false).0;
            // R_*_NONE of every machine.
            if kind == 0 {
                continue;
            }
            let offset = entry.r_offset(LE);
            if offset >= limit {
                let name = file.section_name(section)?;
                let what = format!("a relocation of {name} is at {offset:#x}, past its end {limit:#x}");
                return Err(file.damaged(what));
            }
            let index = entry.r_sym(LE, false) as usize;
            let symbol = symbols.referred_to(index).ok_or_else(|| {
                file.damaged(format!("a relocation refers to symbol {index}, which does not exist"))
            })?;
            list.push(Relocation { offset, kind, symbol, addend: entry.r_addend(LE) });
        }
        list.sort_by_key(|relocation| relocation.offset);
    }
    Ok(by_section)
}

/// The sections that are kept, each with its relocations.
fn read_sections(
    file: &File<'_>,
    kept: &Kept,
    relocations: Vec<Vec<Relocation>>,
) -> Result<Vec<Section>, Error> {
    let headers = file.sections.iter().zip(&kept.ids).filter(|(_, id)| id.is_some());
    let section = |(header, relocations): (&SectionHeader, Vec<Relocation>)| {
        let name = file.section_name(header)?;
        let align = header.sh_addralign(LE);
        if align > 1 && !align.is_power_of_two() {
            return Err(file.damaged(format!("section {name} has alignment {align}")));
        }
        let is_linked = header.sh_flags(LE).0 & elf::SHF_LINK_ORDER.0 != 0;
        Ok(Section {
            name: name.into(),
            kind: header.sh_type(LE).0,
            flags: header.sh_flags(LE).0 & !elf::SHF_GROUP.0,
            align: align.max(1),
            entry_size: header.sh_entsize(LE),
            data: file.data(header)?.to_vec(),
            size: header.sh_size(LE),
            link: if is_linked { kept.id(header.sh_link(LE)) } else { None },
            relocations,
        })
    };
    headers.map(|(header, _)| header).zip(relocations).map(section).collect()
}

/// Whether a section holds something of its own, rather than a table that describes the file.
fn carries_content(kind: elf::SectionType) -> bool {
    !matches!(
        kind,
        elf::SHT_NULL
            | elf::SHT_SYMTAB
            | elf::SHT_SYMTAB_SHNDX
            | elf::SHT_STRTAB
            | elf::SHT_REL
            | elf::SHT_RELA
            | elf::SHT_GROUP
    )
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::write;
    use proptest::prelude::*;

    /// An object with one of everything that a kernel object has.
    fn sample() -> Object {
        let section = |name: &str, kind: u32, flags: u64, data: &[u8], size| Section {
            name: name.into(),
            kind,
            flags,
            align: 8,
            entry_size: if flags & 0x30 != 0 { 1 } else { 0 },
            data: data.to_vec(),
            size,
            link: None,
            relocations: Vec::new(),
        };
        let symbol = |name: &str, place, value, binding, kind, other| Symbol {
            name: name.into(),
            place,
            value,
            size: 4,
            binding,
            kind,
            other,
        };
        let mut object = Object {
            name: "sample.o".into(),
            machine: elf::EM_X86_64.0,
            sections: vec![
                section(".text", 1, 6, &[0xe8, 0, 0, 0, 0, 0xc3], 6),
                section(".bss", 8, 3, &[], 64),
                section(".rodata.str1.1", 1, 0x32, b"one\0two\0", 8),
                section("__patchable_function_entries", 1, 0x82, &[0; 8], 8),
            ],
            symbols: vec![
                symbol("sample.c", Place::Absolute, 0, 0, 4, 0),
                symbol("", Place::Section(SectionId(0)), 0, 0, 3, 0),
                symbol("weak", Place::Section(SectionId(0)), 0, 2, 2, 2),
                symbol("variable", Place::Section(SectionId(1)), 8, 1, 1, 0),
                symbol("elsewhere", Place::Undefined, 0, 1, 0, 0),
            ],
        };
        object.sections[3].link = Some(SectionId(0));
        let relocation =
            |offset, kind, symbol, addend| Relocation { offset, kind, symbol: SymbolId(symbol), addend };
        object.sections[0].relocations.push(relocation(1, 4, 4, -4));
        object.sections[3].relocations.push(relocation(0, 1, 1, i64::MIN));
        object
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = write(&sample()).unwrap();
        assert_eq!(format!("{:?}", read("sample.o", &bytes).unwrap()), format!("{:?}", sample()));
    }

    #[test]
    fn locals_come_before_globals() {
        let mut object = sample();
        object.symbols.reverse();
        for relocation in object.sections.iter_mut().flat_map(|s| &mut s.relocations) {
            relocation.symbol = SymbolId(4 - relocation.symbol.0);
        }
        let again = read("sample.o", &write(&object).unwrap()).unwrap();
        let bindings: Vec<u8> = again.symbols.iter().map(|s| s.binding).collect();
        assert!(bindings.is_sorted_by_key(|b| *b != 0), "{bindings:?}");
        let call = again.section(SectionId(0)).relocations[0];
        assert_eq!(again.symbol(call.symbol).name, "elsewhere");
    }

    #[test]
    fn other_files_are_refused() {
        let bytes = write(&sample()).unwrap();
        let mut executable = bytes.clone();
        executable[16] = 2;
        for wrong in [&b""[..], b"#!/bin/sh", &bytes[..40], &executable] {
            assert!(matches!(read("x", wrong), Err(Error::NotAnObject { .. })));
        }
    }

    /// The object of `sample`, written, up to the phase that is looked at.
    fn with_file(check: impl FnOnce(&File<'_>, &Kept)) {
        let bytes = write(&sample()).unwrap();
        let file = File::parse("sample.o", &bytes).unwrap();
        check(&file, &Kept::of(&file));
    }

    #[test]
    fn tables_of_the_file_are_not_kept() {
        with_file(|file, kept| {
            assert_eq!((kept.count, kept.ids.len()), (sample().sections.len(), file.sections.len()));
            for (header, id) in file.sections.iter().zip(&kept.ids) {
                let name = file.section_name(header).unwrap();
                let is_table = name.starts_with(".rela") || name.ends_with("tab") || name.is_empty();
                assert_eq!(id.is_none(), is_table, "{name}");
            }
            assert_eq!(kept.id(u32::MAX), None);
        });
    }

    #[test]
    fn the_null_symbol_becomes_one_absolute_symbol() {
        with_file(|file, kept| {
            let mut symbols = Symbols::read(file, kept).unwrap();
            let before = symbols.list.len();
            assert_eq!(before, sample().symbols.len());
            let absolute = symbols.referred_to(0).unwrap();
            assert_eq!(symbols.referred_to(0), Some(absolute));
            assert_eq!((symbols.list.len(), absolute), (before + 1, SymbolId(before as u32)));
            assert_eq!(symbols.list[before].place, Place::Absolute);
            assert_eq!(symbols.referred_to(1), Some(SymbolId(0)));
            assert_eq!(symbols.referred_to(before + 7), None);
        });
    }

    #[test]
    fn relocations_belong_to_the_section_that_they_fill() {
        with_file(|file, kept| {
            let mut symbols = Symbols::read(file, kept).unwrap();
            let relocations = read_relocations(file, kept, &mut symbols).unwrap();
            let counts: Vec<usize> = relocations.iter().map(Vec::len).collect();
            assert_eq!(counts, [1, 0, 0, 1]);
        });
        // One that fills what the section does not have.
        let mut object = sample();
        object.sections[0].relocations[0].offset = 6;
        let error = read("sample.o", &write(&object).unwrap()).unwrap_err().to_string();
        assert!(error.contains("a relocation of .text is at 0x6, past its end 0x6"), "{error}");
    }

    proptest! {
        #[test]
        fn damage_is_never_a_panic(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>()) {
            let mut bytes = write(&sample()).unwrap();
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let _ = read("damaged", &bytes);
            bytes.truncate(cut.index(bytes.len()));
            let _ = read("damaged", &bytes);
        }
    }
}

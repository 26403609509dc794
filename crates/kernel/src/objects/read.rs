//! Reading a relocatable object into plain values. Any bytes may be handed in; none may cause a panic.

use super::{Error, Object, Place, Relocation, Section, SectionId, Symbol, SymbolId};
use object::elf;
use object::read::elf::{FileHeader as _, Rela as _, SectionHeader as _, Sym as _};
use object::{LittleEndian, SectionIndex};

type Header = elf::FileHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;

/// Reads an ELF64 little-endian relocatable object. `name` is what messages call it.
///
/// Section groups (COMDAT) are dissolved: their members stay, as a kernel object has no second copy of them.
pub fn read(name: &str, bytes: &[u8]) -> Result<Object, Error> {
    let no_object = |what: String| Error::NotAnObject { name: name.into(), what };
    let damaged = |what: String| Error::Damaged { name: name.into(), what };
    let bad = |e: object::read::Error| Error::Damaged { name: name.into(), what: e.to_string() };

    if bytes.get(..4) != Some(&elf::ELFMAG[..]) {
        return Err(no_object("it does not begin with the ELF magic".into()));
    }
    let header = Header::parse(bytes).map_err(|e| no_object(e.to_string()))?;
    header.endian().map_err(|_| no_object("it is big-endian".into()))?;
    if header.e_type(LE) != elf::ET_REL {
        return Err(no_object(format!("its ELF type is {}, not ET_REL", header.e_type(LE).0)));
    }
    let headers = header.sections(LE, bytes).map_err(bad)?;
    let table = headers.symbols(LE, bytes, elf::SHT_SYMTAB).map_err(bad)?;

    let mut object = Object { name: name.into(), machine: header.e_machine(LE).0, ..Object::default() };
    let mut section_ids: Vec<Option<SectionId>> = vec![None; headers.len()];
    for (index, section) in headers.enumerate() {
        if !carries_content(section.sh_type(LE)) {
            continue;
        }
        let section_name = headers.section_name(LE, section).map_err(bad)?;
        let section_name =
            text(section_name).ok_or_else(|| damaged("a section's name is not text".into()))?;
        let data = section.data(LE, bytes).map_err(bad)?.to_vec();
        let size = section.sh_size(LE);
        let align = section.sh_addralign(LE);
        if align > 1 && !align.is_power_of_two() {
            return Err(damaged(format!("section {section_name} has alignment {align}")));
        }
        section_ids[index.0] = Some(SectionId(object.sections.len() as u32));
        object.sections.push(Section {
            name: section_name.into(),
            kind: section.sh_type(LE).0,
            flags: section.sh_flags(LE).0 & !elf::SHF_GROUP.0,
            align: align.max(1),
            entry_size: section.sh_entsize(LE),
            data,
            size,
            link: None,
            relocations: Vec::new(),
        });
    }
    for (index, section) in headers.enumerate() {
        let Some(id) = section_ids[index.0] else { continue };
        if section.sh_flags(LE).0 & elf::SHF_LINK_ORDER.0 != 0 {
            object.sections[id.0 as usize].link =
                section_ids.get(section.sh_link(LE) as usize).copied().flatten();
        }
    }

    let mut symbol_ids: Vec<Option<SymbolId>> = vec![None; table.len()];
    for (index, symbol) in table.enumerate() {
        if index.0 == 0 {
            continue;
        }
        let symbol_name = symbol.name(LE, table.strings()).map_err(bad)?;
        let symbol_name = text(symbol_name).ok_or_else(|| damaged("a symbol's name is not text".into()))?;
        let place = match symbol.st_shndx(LE) {
            elf::SHN_UNDEF => Place::Undefined,
            elf::SHN_ABS => Place::Absolute,
            elf::SHN_COMMON => {
                return Err(damaged(format!(
                    "{symbol_name} is a common symbol; kernels are compiled with -fno-common"
                )));
            }
            _ => {
                let section = table.symbol_section(LE, symbol, index).map_err(bad)?;
                let Some(SectionIndex(section)) = section else {
                    return Err(damaged(format!("{symbol_name} is in a reserved section")));
                };
                match section_ids.get(section) {
                    Some(Some(id)) => Place::Section(*id),
                    // Section symbols of tables that are made anew when the object is written.
                    Some(None) => continue,
                    None => {
                        return Err(damaged(format!("{symbol_name} is in section {section}, which is none")));
                    }
                }
            }
        };
        symbol_ids[index.0] = Some(SymbolId(object.symbols.len() as u32));
        object.symbols.push(Symbol {
            name: symbol_name.into(),
            place,
            value: symbol.st_value(LE),
            size: symbol.st_size(LE),
            binding: symbol.st_bind().0,
            kind: symbol.st_type().0,
            other: symbol.st_other().0,
        });
    }

    let mut absolute = None;
    for section in headers.iter() {
        let kind = section.sh_type(LE);
        let target = section_ids.get(section.sh_info(LE) as usize).copied().flatten();
        if kind == elf::SHT_REL && target.is_some() {
            return Err(damaged("it has relocations without addends (SHT_REL)".into()));
        }
        let Some((relocations, _)) = section.rela(LE, bytes).map_err(bad)? else { continue };
        let Some(target) = target else { continue };
        let mut list = Vec::with_capacity(relocations.len());
        let limit = object.section(target).data.len() as u64;
        for relocation in relocations {
            let kind = relocation.r_type(LE, false).0;
            if kind == 0 {
                continue;
            }
            let offset = relocation.r_offset(LE);
            if offset >= limit {
                return Err(damaged(format!(
                    "a relocation of {} lies at {offset:#x}, behind its end {limit:#x}",
                    object.section(target).name
                )));
            }
            let symbol = match relocation.r_sym(LE, false) as usize {
                // The null symbol: the addend is the whole value.
                0 => *absolute.get_or_insert_with(|| add_absolute(&mut object)),
                index => symbol_ids.get(index).copied().flatten().ok_or_else(|| {
                    damaged(format!("a relocation refers to symbol {index}, which is none"))
                })?,
            };
            list.push(Relocation { offset, kind, symbol, addend: relocation.r_addend(LE) });
        }
        let section = &mut object.sections[target.0 as usize];
        section.relocations.append(&mut list);
        section.relocations.sort_by_key(|r| r.offset);
    }
    Ok(object)
}

/// The symbol that stands for "no symbol": absolute, value 0.
fn add_absolute(object: &mut Object) -> SymbolId {
    object.symbols.push(Symbol {
        name: String::new(),
        place: Place::Absolute,
        value: 0,
        size: 0,
        binding: elf::STB_LOCAL.0,
        kind: elf::STT_NOTYPE.0,
        other: 0,
    });
    SymbolId(object.symbols.len() as u32 - 1)
}

/// Whether a section holds something of its own, not one of the tables that describe the file.
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
    fn what_is_no_object_is_said_to_be_none() {
        let bytes = write(&sample()).unwrap();
        let mut executable = bytes.clone();
        executable[16] = 2;
        for wrong in [&b""[..], b"#!/bin/sh", &bytes[..40], &executable] {
            assert!(matches!(read("x", wrong), Err(Error::NotAnObject { .. })));
        }
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

//! Writing an object: tables that describe the file (symbols, strings, relocations) are made here.

use super::{Error, Object, Place};
use object::Endianness;
use object::elf;
use object::write::elf::{FileHeader, Rel, SectionHeader, SectionIndex, Sym, SymbolIndex, Writer};

/// Writes an object as ELF64 little-endian. Locals are put before globals, as ELF demands; otherwise sections,
/// symbols and relocations keep their order.
pub fn write(object: &Object) -> Result<Vec<u8>, Error> {
    let fail = |what: String| Error::Write { name: object.name.clone(), what };
    check(object).map_err(fail)?;

    let mut buffer = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut buffer);

    // Phase one: indexes and names.
    let section_names: Vec<_> =
        object.sections.iter().map(|s| writer.add_section_name(s.name.as_bytes())).collect();
    let section_indexes: Vec<SectionIndex> =
        object.sections.iter().map(|_| writer.reserve_section_index()).collect();
    let rela_names: Vec<String> = object.sections.iter().map(|s| format!(".rela{}", s.name)).collect();
    let rela: Vec<_> = object
        .sections
        .iter()
        .zip(&rela_names)
        .map(|(section, name)| {
            (!section.relocations.is_empty()).then(|| {
                let name = writer.add_section_name(name.as_bytes());
                writer.reserve_section_index();
                name
            })
        })
        .collect();
    writer.reserve_symtab_section_index();
    // Which, and so whether, is only known when the symbols are reserved; kernel objects stay below 65,280 sections.
    if object.sections.len() * 2 + 8 >= usize::from(elf::SHN_LORESERVE) {
        return Err(fail(format!("it has {} sections", object.sections.len())));
    }
    writer.reserve_strtab_section_index();
    writer.reserve_shstrtab_section_index();

    let (locals, globals): (Vec<_>, Vec<_>) =
        (0..object.symbols.len()).partition(|i| object.symbols[*i].binding == elf::STB_LOCAL.0);
    let order: Vec<usize> = locals.iter().chain(&globals).copied().collect();
    let mut symbol_indexes = vec![SymbolIndex(0); object.symbols.len()];
    let mut symbol_names = vec![None; object.symbols.len()];
    writer.reserve_null_symbol_index();
    for &i in &order {
        let symbol = &object.symbols[i];
        let section = match symbol.place {
            Place::Section(id) => Some(section_indexes[id.0 as usize]),
            Place::Undefined | Place::Absolute => None,
        };
        symbol_indexes[i] = writer.reserve_symbol_index(section);
        if !symbol.name.is_empty() {
            symbol_names[i] = Some(writer.add_string(symbol.name.as_bytes()));
        }
    }

    // Phase two: where everything is.
    writer.reserve_file_header();
    let offsets: Vec<u64> =
        object.sections.iter().map(|s| writer.reserve(s.data.len() as u64, s.align.max(1))).collect();
    let rela_offsets: Vec<u64> =
        object
            .sections
            .iter()
            .map(|s| {
                if s.relocations.is_empty() {
                    0
                } else {
                    writer.reserve_relocations(s.relocations.len(), true)
                }
            })
            .collect();
    writer.reserve_symtab();
    writer.reserve_strtab().map_err(|e| fail(e.to_string()))?;
    writer.reserve_shstrtab().map_err(|e| fail(e.to_string()))?;
    writer.reserve_section_headers();

    // Phase three: the bytes.
    writer
        .write_file_header(&FileHeader {
            os_abi: elf::ELFOSABI_NONE,
            abi_version: 0,
            e_type: elf::ET_REL,
            e_machine: elf::Machine(object.machine),
            e_entry: 0,
            e_flags: elf::FileFlags(0),
        })
        .map_err(|e| fail(e.to_string()))?;
    for (section, offset) in object.sections.iter().zip(&offsets) {
        writer.pad_until(*offset);
        writer.write(&section.data);
    }
    for section in object.sections.iter().filter(|s| !s.relocations.is_empty()) {
        writer.write_align_relocation();
        for relocation in &section.relocations {
            writer.write_relocation(
                true,
                &Rel {
                    r_offset: relocation.offset,
                    r_sym: symbol_indexes[relocation.symbol.0 as usize].0,
                    r_type: elf::RelocationType(relocation.kind),
                    r_addend: relocation.addend,
                },
            );
        }
    }
    writer.write_null_symbol();
    for &i in &order {
        let symbol = &object.symbols[i];
        let (section, special) = match symbol.place {
            Place::Undefined => (None, elf::SHN_UNDEF),
            Place::Absolute => (None, elf::SHN_ABS),
            Place::Section(id) => (Some(section_indexes[id.0 as usize].0), elf::SHN_UNDEF),
        };
        writer.write_symbol(&Sym {
            section,
            st_name: writer.string_offset(symbol_names[i]),
            st_info: elf::SymbolInfo(symbol.binding << 4 | symbol.kind & 0xf),
            st_other: elf::SymbolOther(symbol.other),
            st_shndx: special,
            st_value: symbol.value,
            st_size: symbol.size,
        });
    }
    writer.write_strtab();
    writer.write_shstrtab();
    writer.write_null_section_header();
    for (i, section) in object.sections.iter().enumerate() {
        writer.write_section_header(&SectionHeader {
            sh_name: writer.section_name_offset(Some(section_names[i])),
            sh_type: elf::SectionType(section.kind),
            sh_flags: elf::SectionFlags(section.flags),
            sh_addr: 0,
            sh_offset: offsets[i],
            sh_size: if section.kind == elf::SHT_NOBITS.0 { section.size } else { section.data.len() as u64 },
            sh_link: section.link.map_or(0, |id| section_indexes[id.0 as usize].0),
            sh_info: 0,
            sh_addralign: section.align,
            sh_entsize: section.entry_size,
        });
    }
    let symtab = writer.symtab_index();
    for (i, section) in object.sections.iter().enumerate() {
        if let Some(name) = rela[i] {
            let count = section.relocations.len();
            writer.write_relocation_section_header(
                name,
                section_indexes[i],
                symtab,
                rela_offsets[i],
                count,
                true,
            );
        }
    }
    writer.write_symtab_section_header(locals.len() as u32 + 1);
    writer.write_strtab_section_header();
    writer.write_shstrtab_section_header();
    Ok(buffer)
}

/// The writer indexes without asking, so ids must be good and text free of NULs.
fn check(object: &Object) -> Result<(), String> {
    let sections = object.sections.len() as u32;
    let symbols = object.symbols.len() as u32;
    for section in &object.sections {
        if section.name.contains('\0') {
            return Err(format!("section name {:?} holds a NUL", section.name));
        }
        if section.link.is_some_and(|id| id.0 >= sections) {
            return Err(format!("section {} is linked to no section", section.name));
        }
        if !section.align.max(1).is_power_of_two() {
            return Err(format!("section {} has alignment {}", section.name, section.align));
        }
        if let Some(bad) = section.relocations.iter().find(|r| r.symbol.0 >= symbols) {
            return Err(format!("a relocation of {} at {:#x} refers to no symbol", section.name, bad.offset));
        }
    }
    for symbol in &object.symbols {
        if symbol.name.contains('\0') {
            return Err(format!("symbol name {:?} holds a NUL", symbol.name));
        }
        if matches!(symbol.place, Place::Section(id) if id.0 >= sections) {
            return Err(format!("symbol {} is in no section", symbol.name));
        }
    }
    Ok(())
}

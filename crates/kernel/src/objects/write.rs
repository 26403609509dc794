//! Writing an object. The tables that describe the file (symbols, strings, relocations) are made here.
//!
//! First the object is checked; then every section and symbol gets its number ([`Numbers`]), every piece of content
//! its offset in the file ([`Offsets`]), and only then are bytes written, in the file's order: content, relocations,
//! symbols, section headers.

use super::{Error, Object, Place, Section};
use object::Endianness;
use object::elf;
use object::write::StringId;
use object::write::elf::{FileHeader, Rel, SectionHeader, SectionIndex, Sym, SymbolIndex, Writer};

/// Writes an object as ELF64 little-endian. Locals are put before globals, as ELF demands; otherwise sections,
/// symbols and relocations keep their order.
///
/// # Errors
/// [`Error::Write`] if an id leads nowhere, a name holds a NUL, an alignment is not a power of two, or the object has
/// more sections or bytes than the format can number.
pub fn write(object: &Object) -> Result<Vec<u8>, Error> {
    written(object).map_err(|what| Error::Write { name: object.name.clone(), what })
}

fn written(object: &Object) -> Result<Vec<u8>, String> {
    check(object)?;
    let names = Names::of(object);
    let mut buffer = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut buffer);
    let numbers = Numbers::reserve(object, &names, &mut writer);
    let offsets = Offsets::reserve(object, &mut writer)?;

    write_header(object, &mut writer)?;
    write_content(object, &offsets, &mut writer);
    write_relocations(object, &numbers, &mut writer);
    write_symbols(object, &numbers, &mut writer);
    write_section_headers(object, &numbers, &offsets, &mut writer);
    Ok(buffer)
}

/// Each section may bring a section of relocations; what else the file needs (the null section, symbols, two tables of
/// strings) is fewer than this.
const OTHER_SECTIONS_MAX: usize = 8;

/// The writer indexes without asking, so ids must be good and text free of NULs.
fn check(object: &Object) -> Result<(), String> {
    // With more sections, symbols need a table of their sections' numbers; the objects of kernels stay far below.
    if object.sections.len() * 2 + OTHER_SECTIONS_MAX >= usize::from(elf::SHN_LORESERVE) {
        return Err(format!("it has {} sections", object.sections.len()));
    }
    let sections = object.sections.len() as u32;
    let symbols = object.symbols.len() as u32;
    for section in &object.sections {
        if section.name.contains('\0') {
            return Err(format!("section name {:?} holds a NUL", section.name));
        }
        if section.link.is_some_and(|id| id.0 >= sections) {
            return Err(format!("section {} is linked to a section that does not exist", section.name));
        }
        if !section.align.max(1).is_power_of_two() {
            return Err(format!("section {} has alignment {}", section.name, section.align));
        }
        if let Some(bad) = section.relocations.iter().find(|r| r.symbol.0 >= symbols) {
            return Err(format!(
                "a relocation of {} at {:#x} refers to a symbol that does not exist",
                section.name, bad.offset
            ));
        }
    }
    for symbol in &object.symbols {
        if symbol.name.contains('\0') {
            return Err(format!("symbol name {:?} holds a NUL", symbol.name));
        }
        if matches!(symbol.place, Place::Section(id) if id.0 >= sections) {
            return Err(format!("symbol {} is in a section that does not exist", symbol.name));
        }
    }
    Ok(())
}

/// Names of the sections of relocations, which the object does not have. The writer borrows them.
struct Names {
    /// By section.
    relocations: Vec<String>,
}

impl Names {
    fn of(object: &Object) -> Names {
        Names { relocations: object.sections.iter().map(|s| format!(".rela{}", s.name)).collect() }
    }
}

/// The numbers by which the tables of the file name sections, symbols and strings.
struct Numbers {
    /// By section: the number, and the name.
    sections: Vec<(SectionIndex, StringId)>,
    /// By section: the name of its section of relocations, if it has any.
    relocations: Vec<Option<StringId>>,
    /// Symbols as they are written: locals, then globals.
    order: Vec<usize>,
    /// How many of them are local.
    locals: u32,
    /// By symbol: the number, and the name, if it has one.
    symbols: Vec<(SymbolIndex, Option<StringId>)>,
}

impl Numbers {
    fn reserve<'a>(object: &'a Object, names: &'a Names, writer: &mut Writer<'a>) -> Numbers {
        let section_names: Vec<StringId> =
            object.sections.iter().map(|s| writer.add_section_name(s.name.as_bytes())).collect();
        let sections: Vec<_> =
            section_names.into_iter().map(|name| (writer.reserve_section_index(), name)).collect();
        let with_names = object.sections.iter().zip(&names.relocations);
        let relocations = with_names
            .map(|(section, name)| {
                (!section.relocations.is_empty()).then(|| {
                    let name = writer.add_section_name(name.as_bytes());
                    writer.reserve_section_index();
                    name
                })
            })
            .collect();
        writer.reserve_symtab_section_index();
        writer.reserve_strtab_section_index();
        writer.reserve_shstrtab_section_index();

        let (order, locals) = symbol_order(object);
        let mut symbols = vec![(SymbolIndex(0), None); object.symbols.len()];
        writer.reserve_null_symbol_index();
        for &i in &order {
            let symbol = &object.symbols[i];
            let section = match symbol.place {
                Place::Section(id) => Some(sections[id.0 as usize].0),
                Place::Undefined | Place::Absolute => None,
            };
            let number = writer.reserve_symbol_index(section);
            let name = (!symbol.name.is_empty()).then(|| writer.add_string(symbol.name.as_bytes()));
            symbols[i] = (number, name);
        }
        Numbers { sections, relocations, order, locals: locals as u32, symbols }
    }
}

/// Locals before globals, each in their order; and how many are local.
fn symbol_order(object: &Object) -> (Vec<usize>, usize) {
    let (mut order, globals): (Vec<usize>, Vec<usize>) =
        (0..object.symbols.len()).partition(|i| object.symbols[*i].binding == elf::STB_LOCAL.0);
    let locals = order.len();
    order.extend(globals);
    (order, locals)
}

/// Where in the file everything is.
struct Offsets {
    /// By section: its content.
    content: Vec<u64>,
    /// By section: its relocations; 0 where it has none.
    relocations: Vec<u64>,
}

impl Offsets {
    fn reserve(object: &Object, writer: &mut Writer<'_>) -> Result<Offsets, String> {
        writer.reserve_file_header();
        let sections = object.sections.iter();
        let content = sections.map(|s| writer.reserve(s.data.len() as u64, s.align.max(1))).collect();
        let of_relocations = |section: &Section| match section.relocations.len() {
            0 => 0,
            count => writer.reserve_relocations(count, true),
        };
        let relocations = object.sections.iter().map(of_relocations).collect();
        writer.reserve_symtab();
        writer.reserve_strtab().map_err(|e| e.to_string())?;
        writer.reserve_shstrtab().map_err(|e| e.to_string())?;
        writer.reserve_section_headers();
        Ok(Offsets { content, relocations })
    }
}

fn write_header(object: &Object, writer: &mut Writer<'_>) -> Result<(), String> {
    let header = FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: elf::ET_REL,
        e_machine: elf::Machine(object.machine),
        e_entry: 0,
        e_flags: elf::FileFlags(0),
    };
    writer.write_file_header(&header).map_err(|e| e.to_string())
}

fn write_content(object: &Object, offsets: &Offsets, writer: &mut Writer<'_>) {
    for (section, offset) in object.sections.iter().zip(&offsets.content) {
        writer.pad_until(*offset);
        writer.write(&section.data);
    }
}

fn write_relocations(object: &Object, numbers: &Numbers, writer: &mut Writer<'_>) {
    for section in object.sections.iter().filter(|s| !s.relocations.is_empty()) {
        writer.write_align_relocation();
        for relocation in &section.relocations {
            let entry = Rel {
                r_offset: relocation.offset,
                r_sym: numbers.symbols[relocation.symbol.0 as usize].0.0,
                r_type: elf::RelocationType(relocation.kind),
                r_addend: relocation.addend,
            };
            writer.write_relocation(true, &entry);
        }
    }
}

/// Symbols, and the two tables of strings that come after them.
fn write_symbols(object: &Object, numbers: &Numbers, writer: &mut Writer<'_>) {
    writer.write_null_symbol();
    for &i in &numbers.order {
        let symbol = &object.symbols[i];
        let (section, special) = match symbol.place {
            Place::Undefined => (None, elf::SHN_UNDEF),
            Place::Absolute => (None, elf::SHN_ABS),
            Place::Section(id) => (Some(numbers.sections[id.0 as usize].0.0), elf::SHN_UNDEF),
        };
        writer.write_symbol(&Sym {
            section,
            st_name: writer.string_offset(numbers.symbols[i].1),
            st_info: elf::SymbolInfo(symbol.binding << 4 | symbol.kind & 0xf),
            st_other: elf::SymbolOther(symbol.other),
            st_shndx: special,
            st_value: symbol.value,
            st_size: symbol.size,
        });
    }
    writer.write_strtab();
    writer.write_shstrtab();
}

fn write_section_headers(object: &Object, numbers: &Numbers, offsets: &Offsets, writer: &mut Writer<'_>) {
    writer.write_null_section_header();
    for (i, section) in object.sections.iter().enumerate() {
        let is_nobits = section.kind == elf::SHT_NOBITS.0;
        writer.write_section_header(&SectionHeader {
            sh_name: writer.section_name_offset(Some(numbers.sections[i].1)),
            sh_type: elf::SectionType(section.kind),
            sh_flags: elf::SectionFlags(section.flags),
            sh_addr: 0,
            sh_offset: offsets.content[i],
            sh_size: if is_nobits { section.size } else { section.data.len() as u64 },
            sh_link: section.link.map_or(0, |id| numbers.sections[id.0 as usize].0.0),
            sh_info: 0,
            sh_addralign: section.align,
            sh_entsize: section.entry_size,
        });
    }
    let symtab = writer.symtab_index();
    for (i, section) in object.sections.iter().enumerate() {
        if let Some(name) = numbers.relocations[i] {
            let (target, count) = (numbers.sections[i].0, section.relocations.len());
            writer.write_relocation_section_header(name, target, symtab, offsets.relocations[i], count, true);
        }
    }
    // The first that is not local; the null symbol is.
    writer.write_symtab_section_header(numbers.locals + 1);
    writer.write_strtab_section_header();
    writer.write_shstrtab_section_header();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Relocation, SectionId, Symbol, SymbolId};

    fn symbol(name: &str, binding: u8, place: Place) -> Symbol {
        Symbol { name: name.into(), place, value: 0, size: 0, binding, kind: 0, other: 0 }
    }

    fn object() -> Object {
        let text =
            Section { name: ".text".into(), kind: 1, align: 16, data: vec![0x90; 3], ..Section::default() };
        let data =
            Section { name: ".data".into(), kind: 1, align: 8, data: vec![0; 8], ..Section::default() };
        let symbols = vec![
            symbol("global", 1, Place::Section(SectionId(0))),
            symbol("local", 0, Place::Section(SectionId(1))),
            symbol("weak", 2, Place::Undefined),
            symbol("also_local", 0, Place::Absolute),
        ];
        Object { name: "x.o".into(), machine: elf::EM_X86_64.0, sections: vec![text, data], symbols }
    }

    #[test]
    fn locals_keep_their_order_and_come_first() {
        assert_eq!(symbol_order(&object()), (vec![1, 3, 0, 2], 2));
    }

    #[test]
    fn numbers_and_offsets_are_known_before_a_byte_is_written() {
        let mut object = object();
        let relocation = Relocation { offset: 0, kind: 1, symbol: SymbolId(2), addend: 0 };
        object.sections[1].relocations.push(relocation);
        let names = Names::of(&object);
        let mut buffer = Vec::new();
        let mut writer = Writer::new(Endianness::Little, true, &mut buffer);
        let numbers = Numbers::reserve(&object, &names, &mut writer);
        let sections: Vec<u32> = numbers.sections.iter().map(|(number, _)| number.0).collect();
        assert_eq!(sections, [1, 2]);
        let symbols: Vec<u32> = numbers.symbols.iter().map(|(number, _)| number.0).collect();
        assert_eq!((symbols, numbers.locals), (vec![3, 1, 4, 2], 2));
        let has_relocations: Vec<bool> = numbers.relocations.iter().map(Option::is_some).collect();
        assert_eq!(has_relocations, [false, true]);

        let offsets = Offsets::reserve(&object, &mut writer).unwrap();
        // The header has 64 bytes; .text ends at 67, so .data begins at the next multiple of 8.
        assert_eq!(offsets.content, [64, 72]);
        assert_eq!(offsets.relocations, [0, 80]);
        assert_eq!(writer.len(), 0);
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        let refusal = |change: fn(&mut Object)| {
            let mut object = object();
            change(&mut object);
            write(&object).unwrap_err().to_string()
        };
        let relocation = Relocation { offset: 2, kind: 1, symbol: SymbolId(4), addend: 0 };
        let mut object = object();
        object.sections[0].relocations.push(relocation);
        assert!(
            write(&object).unwrap_err().to_string().contains(".text at 0x2 refers to a symbol that does")
        );
        for (message, words) in [
            (
                refusal(|o| o.sections[0].link = Some(SectionId(2))),
                ".text is linked to a section that does not",
            ),
            (refusal(|o| o.sections[1].align = 3), ".data has alignment 3"),
            (refusal(|o| o.sections[1].name.push('\0')), "holds a NUL"),
            (refusal(|o| o.symbols[2].name.insert(0, '\0')), "holds a NUL"),
            (
                refusal(|o| o.symbols[0].place = Place::Section(SectionId(9))),
                "global is in a section that does",
            ),
            (refusal(|o| o.sections.resize(32_640, Section::default())), "it has 32640 sections"),
        ] {
            assert!(message.contains(words), "{message}");
        }
    }
}

//! A relocatable ELF object as plain values: the form in which objects are rewritten.

/// Index into [`Object::sections`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SectionId(pub u32);

/// Index into [`Object::symbols`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SymbolId(pub u32);

/// A relocatable object. Its tables of symbols, sections, strings and relocations are not among `sections`: they are
/// made when it is written.
#[derive(Clone, Debug, Default)]
pub struct Object {
    /// What to call it in messages (a path).
    pub name: String,
    /// e_machine.
    pub machine: u16,
    /// Sections with content, the null section left out.
    pub sections: Vec<Section>,
    /// Symbols, the null symbol left out. Locals and globals in any order.
    pub symbols: Vec<Symbol>,
}

/// One section with the relocations that apply to it.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// Name.
    pub name: String,
    /// SHT_*.
    pub kind: u32,
    /// SHF_*.
    pub flags: u64,
    /// sh_addralign.
    pub align: u64,
    /// sh_entsize.
    pub entry_size: u64,
    /// Content; empty for NOBITS.
    pub data: Vec<u8>,
    /// Bytes it takes in memory (`data.len()` unless NOBITS).
    pub size: u64,
    /// For SHF_LINK_ORDER: the section it describes.
    pub link: Option<SectionId>,
    /// Relocations with addend, sorted by offset.
    pub relocations: Vec<Relocation>,
}

/// One RELA entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relocation {
    /// Offset of the field in the section.
    pub offset: u64,
    /// R_* number of the machine.
    pub kind: u32,
    /// Symbol referred to.
    pub symbol: SymbolId,
    /// Addend.
    pub addend: i64,
}

/// Where a symbol is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// Defined elsewhere.
    Undefined,
    /// SHN_ABS.
    Absolute,
    /// In a section, at `Symbol::value` bytes from its start.
    Section(SectionId),
}

/// One symbol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Symbol {
    /// Name; empty for section symbols.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// st_value.
    pub value: u64,
    /// st_size, bytes.
    pub size: u64,
    /// STB_*.
    pub binding: u8,
    /// STT_*.
    pub kind: u8,
    /// st_other (visibility).
    pub other: u8,
}

impl Symbol {
    /// Whether it names the padding before a function (`CONFIG_PREFIX_SYMBOLS`) rather than code.
    pub fn is_padding(&self) -> bool {
        self.name.starts_with("__pfx_")
    }
}

impl Object {
    /// A symbol by its id.
    pub fn symbol(&self, id: SymbolId) -> &Symbol {
        &self.symbols[id.0 as usize]
    }

    /// A section by its id.
    pub fn section(&self, id: SectionId) -> &Section {
        &self.sections[id.0 as usize]
    }
}

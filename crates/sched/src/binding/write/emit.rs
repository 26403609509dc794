//! The kept pieces of all units laid out as one object.

use crate::binding::Error;
use crate::binding::place::destination::Destination;
use crate::binding::place::live::Live;
use crate::binding::place::normalise::Reference;
use crate::binding::place::rename::{Names, is_global};
use crate::binding::place::resolve::{Destinations, Resolved};
use crate::binding::place::slice::{Form, PieceId};
use crate::binding::place::special::{Kept, Policy};
use crate::binding::place::tables::{TableEntry, Tables};
use crate::binding::place::through;
use crate::binding::symbols::{SWITCH_TO, TEXT, TEXT_END, TEXT_START, ZERO};
use object::elf;
use schedswap_kernel::objects::{Object, Place, Relocation, Section, SectionId, Symbol, SymbolId};
use std::collections::{BTreeMap, HashMap};

const ALLOC: u64 = elf::SHF_ALLOC.0;
const WRITE: u64 = elf::SHF_WRITE.0;
const EXEC: u64 = elf::SHF_EXECINSTR.0;

struct Layout<'a> {
    destinations: &'a Destinations<'a>,
    live: &'a Live,
    names: &'a Names,
    object: Object,
    sections: HashMap<String, SectionId>,
    section_symbols: HashMap<SectionId, SymbolId>,
    /// Where each kept piece has gone: section, offset of its origin, first symbol.
    placed: HashMap<(usize, PieceId), (SectionId, u64, Option<SymbolId>)>,
    /// Where each kept entry of a table has gone, by unit and where it was.
    entries: BTreeMap<(usize, SectionId, u64), PlacedEntry>,
    anonymous: Anonymous,
    anchor: SymbolId,
    zero: SymbolId,
    switch_to: SymbolId,
}

/// Bytes that no symbol covers: where they begin, and how many they are.
pub type Anonymous = BTreeMap<(SectionId, u64), u64>;

struct PlacedEntry {
    /// The code it describes.
    piece: PieceId,
    /// As it was.
    entry: TableEntry,
    section: SectionId,
    start: u64,
}

/// Lays out what is kept.
///
/// # Errors
/// When a reference cannot be bound.
pub fn layout(
    destinations: &Destinations,
    live: &Live,
    names: &Names,
    tables: &[Tables],
) -> Result<(Object, Anonymous), Error> {
    let machine = destinations.units.first().map_or(0, |u| u.object.machine);
    let mut layout = Layout {
        destinations,
        live,
        names,
        object: Object { name: "scheduler.o".into(), machine, ..Object::default() },
        sections: HashMap::new(),
        section_symbols: HashMap::new(),
        placed: HashMap::new(),
        entries: BTreeMap::new(),
        anonymous: Anonymous::new(),
        anchor: SymbolId(0),
        zero: SymbolId(0),
        switch_to: SymbolId(0),
    };
    layout.anchor = layout.symbol(destinations.index.binding.anchor, Place::Undefined, elf::STB_GLOBAL.0);
    layout.zero = layout.symbol(ZERO, Place::Absolute, elf::STB_LOCAL.0);
    layout.switch_to = layout.symbol(SWITCH_TO, Place::Undefined, elf::STB_GLOBAL.0);
    let text = layout.section(TEXT, elf::SHT_PROGBITS.0, ALLOC | EXEC, 16, 0);
    layout.place_pieces();
    layout.place_tables(tables);
    layout.fill_pieces(tables)?;
    layout.fill_tables()?;

    let end = layout.object.section(text).size;
    layout.symbol(TEXT_START, Place::Section(text), elf::STB_GLOBAL.0);
    let last = layout.symbol(TEXT_END, Place::Section(text), elf::STB_GLOBAL.0);
    layout.object.symbols[last.0 as usize].value = end;
    for section in &mut layout.object.sections {
        section.relocations.sort_by_key(|r| r.offset);
    }
    layout.drop_unused_symbols();
    Ok((layout.object, layout.anonymous))
}

impl Layout<'_> {
    fn symbol(&mut self, name: &str, place: Place, binding: u8) -> SymbolId {
        let kind = elf::STT_NOTYPE.0;
        self.object.symbols.push(Symbol {
            name: name.into(),
            place,
            value: 0,
            size: 0,
            binding,
            kind,
            other: 0,
        });
        SymbolId(self.object.symbols.len() as u32 - 1)
    }

    fn section(&mut self, name: &str, kind: u32, flags: u64, align: u64, entry_size: u64) -> SectionId {
        if let Some(id) = self.sections.get(name) {
            let section = &mut self.object.sections[id.0 as usize];
            section.align = section.align.max(align);
            return *id;
        }
        let id = SectionId(self.object.sections.len() as u32);
        self.object.sections.push(Section {
            name: name.into(),
            kind,
            flags,
            align: align.max(1),
            entry_size,
            ..Section::default()
        });
        self.sections.insert(name.into(), id);
        let symbol = self.symbol("", Place::Section(id), elf::STB_LOCAL.0);
        self.object.symbols[symbol.0 as usize].kind = elf::STT_SECTION.0;
        self.section_symbols.insert(id, symbol);
        id
    }

    /// The section of the module that a kept piece goes to.
    fn section_for(&mut self, unit: usize, piece: PieceId) -> SectionId {
        let owner = &self.destinations.units[unit];
        let source = owner.object.section(owner.slices.piece(piece).section);
        let progbits = elf::SHT_PROGBITS.0;
        let is_readonly = source.flags & WRITE == 0;
        let (name, kind, flags) = match owner.policy(piece).0 {
            Policy::Code => (TEXT, progbits, ALLOC | EXEC),
            Policy::Stubs => (source.name.as_str(), progbits, ALLOC | EXEC),
            Policy::Data(Kept::PerCpu) => (".data..percpu", progbits, ALLOC | WRITE),
            Policy::Data(Kept::ReadOnlyAfterInit) => (".data..ro_after_init", progbits, ALLOC | WRITE),
            Policy::Data(Kept::Bss) if source.kind == elf::SHT_NOBITS.0 => {
                (".bss", elf::SHT_NOBITS.0, ALLOC | WRITE)
            }
            Policy::Data(Kept::ReadOnly)
                if is_readonly && owner.slices.piece(piece).form == Form::Anonymous =>
            {
                (".rodata.ss_strings", progbits, ALLOC)
            }
            Policy::Data(Kept::ReadOnly) if is_readonly => (".rodata", progbits, ALLOC),
            _ => (".data", progbits, ALLOC | WRITE),
        };
        let name = name.to_owned();
        self.section(&name, kind, flags, 1, 0)
    }

    fn place_pieces(&mut self) {
        let destinations = self.destinations;
        // Cold parts come last, as the linker puts them.
        for cold in [false, true] {
            for (u, unit) in destinations.units.iter().enumerate() {
                let mut pieces: Vec<PieceId> = unit.slices.ids().filter(|p| self.live.has(u, *p)).collect();
                pieces.sort_by_key(|p| (unit.slices.piece(*p).section, unit.slices.piece(*p).start));
                for piece in pieces {
                    if matches!(destinations.of(u, piece), Destination::ColdPartOf(_)) == cold {
                        self.place(u, piece);
                    }
                }
            }
        }
    }

    fn place(&mut self, unit: usize, piece: PieceId) {
        let destinations = self.destinations;
        let owner = &destinations.units[unit];
        let slice = owner.slices.piece(piece);
        let section_id = self.section_for(unit, piece);
        let align = slice.align(owner.object);
        let section = &mut self.object.sections[section_id.0 as usize];
        section.align = section.align.max(align);
        let start = section.size.next_multiple_of(align);
        let length = slice.end - slice.start;
        if section.kind != elf::SHT_NOBITS.0 {
            // int3 between functions, or what is undefined: nothing runs there, and speculation stops.
            let is_int3 = section.flags & EXEC != 0 && owner.arch.instruction_bytes().is_none();
            let filler = if is_int3 { 0xcc } else { 0 };
            section.data.resize(start as usize, filler);
            let bytes = slice.bytes(owner.object);
            section.data.extend_from_slice(bytes);
            section.data.resize((start + length) as usize, 0);
        }
        section.size = start + length;
        let origin = start + (slice.origin - slice.start);

        let mut first = None;
        for (id, name) in slice.symbols.iter().zip(self.names.of(unit, piece)) {
            let original = owner.object.symbol(*id);
            let binding =
                if is_global(slice.form, &original.name) { elf::STB_GLOBAL.0 } else { elf::STB_LOCAL.0 };
            self.object.symbols.push(Symbol {
                name: name.clone(),
                place: Place::Section(section_id),
                value: origin,
                size: original.size,
                binding,
                kind: original.kind,
                other: 0,
            });
            first.get_or_insert(SymbolId(self.object.symbols.len() as u32 - 1));
        }
        if first.is_none() && matches!(owner.policy(piece).0, Policy::Data(_)) {
            self.anonymous.insert((section_id, start), length);
        }
        self.placed.insert((unit, piece), (section_id, origin, first));
    }

    fn fill_pieces(&mut self, tables: &[Tables]) -> Result<(), Error> {
        let destinations = self.destinations;
        for (u, unit) in destinations.units.iter().enumerate() {
            for piece in unit.slices.ids().filter(|p| self.live.has(u, *p)) {
                let slice = unit.slices.piece(piece);
                let (section, origin, _) = self.placed[&(u, piece)];
                let untraced = through::untraced(destinations, tables, u, piece);
                if let (Some(site), Some(nop)) = (&untraced, unit.arch.fentry_nop()) {
                    let start = (origin + site.start - slice.origin) as usize;
                    let code = &mut self.object.sections[section.0 as usize].data;
                    code[start..start + nop.len()].copy_from_slice(nop);
                }
                for reference in unit.references(piece) {
                    if untraced.as_ref().is_some_and(|site| site.contains(&reference.field)) {
                        continue;
                    }
                    let offset = origin + reference.field - slice.origin;
                    let relocation = self.relocation(u, piece, reference, offset, false)?;
                    let section = &mut self.object.sections[section.0 as usize];
                    // The loader refuses a field that is not zero; the assembler fills in branches by itself.
                    if let Some(field) = unit.arch.field(relocation.kind) {
                        field.clear(&mut section.data[offset as usize..]);
                    }
                    section.relocations.push(relocation);
                }
            }
        }
        Ok(())
    }

    fn relocation(
        &self,
        unit: usize,
        from: PieceId,
        reference: &Reference,
        offset: u64,
        describes: bool,
    ) -> Result<Relocation, Error> {
        let anchor = self.destinations.index.anchor;
        let (symbol, addend) = match self.destinations.resolve(unit, from, reference, describes)? {
            Resolved::Own { unit, piece, offset } => {
                let (section, origin, symbol) = self.placed[&(unit, piece)];
                match symbol {
                    Some(symbol) => (symbol, offset),
                    None => (self.section_symbols[&section], origin as i64 + offset),
                }
            }
            Resolved::TableEntry { section, offset } => self.entry(unit, from, section, offset)?,
            Resolved::Vmlinux { base, offset } if base.is_offset => {
                (self.zero, (base.addr.0 as i64).wrapping_add(offset))
            }
            Resolved::Vmlinux { base, offset } => {
                (self.anchor, base.addr.offset(offset).distance_from(anchor))
            }
            Resolved::Switch { offset } => (self.switch_to, offset),
        };
        Ok(Relocation { offset, kind: reference.kind, symbol, addend: addend.wrapping_sub(reference.to_end) })
    }

    /// Where an entry of a table has gone that a piece refers to.
    fn entry(
        &self,
        unit: usize,
        from: PieceId,
        section: SectionId,
        offset: i64,
    ) -> Result<(SymbolId, i64), Error> {
        let before = |offset| self.entries.range(..=(unit, section, offset)).next_back();
        let found = u64::try_from(offset).ok().and_then(before);
        match found {
            Some((&(u, s, start), placed))
                if (u, s) == (unit, section) && (offset as u64) < placed.entry.end =>
            {
                let inside = offset - start as i64;
                Ok((self.section_symbols[&placed.section], placed.start as i64 + inside))
            }
            _ => {
                let owner = &self.destinations.units[unit];
                Err(Error::Unbindable {
                    unit: owner.name.into(),
                    user: owner.describe(from),
                    target: format!("{}+{offset:#x}", owner.object.section(section).name),
                    why: "the entry describes code that the module does not carry".into(),
                })
            }
        }
    }

    fn place_tables(&mut self, tables: &[Tables]) {
        let destinations = self.destinations;
        for (u, unit) in destinations.units.iter().enumerate() {
            let mut entries: Vec<_> = tables[u]
                .entries
                .iter()
                .filter(|(piece, _)| self.live.has(u, **piece))
                .flat_map(|(piece, list)| list.iter().map(move |e| (*piece, *e)))
                .filter(|(piece, e)| !through::is_left_out(destinations, u, *piece, e))
                .collect();
            entries.sort_by_key(|(_, e)| (e.section, e.start));
            for (piece, entry) in entries {
                let source = unit.object.section(entry.section);
                let section =
                    self.section(&source.name, source.kind, source.flags, source.align, source.entry_size);
                let text = self.sections.get(TEXT).copied();
                let target = &mut self.object.sections[section.0 as usize];
                // All code that tables describe is in one section; the linker takes no table half in order.
                target.link = text.filter(|_| target.flags & elf::SHF_LINK_ORDER.0 != 0);
                let start = target.size;
                target.data.extend_from_slice(&source.data[entry.start as usize..entry.end as usize]);
                target.size = target.data.len() as u64;
                let placed = PlacedEntry { piece, entry, section, start };
                self.entries.insert((u, entry.section, entry.start), placed);
            }
            self.fill_orc(u, &tables[u]);
        }
    }

    fn fill_tables(&mut self) -> Result<(), Error> {
        let mut filled = Vec::new();
        for ((u, ..), PlacedEntry { piece, entry, section, start }) in &self.entries {
            for reference in self.destinations.units[*u].references_in(entry.section, entry.start, entry.end)
            {
                let offset = start + reference.field - entry.start;
                filled.push((*section, self.relocation(*u, *piece, reference, offset, true)?));
            }
        }
        for (section, relocation) in filled {
            self.object.sections[section.0 as usize].relocations.push(relocation);
        }
        Ok(())
    }

    fn fill_orc(&mut self, unit: usize, tables: &Tables) {
        let owner = &self.destinations.units[unit];
        let mut pieces: Vec<PieceId> =
            tables.orc.keys().copied().filter(|p| self.live.has(unit, *p)).collect();
        pieces.sort_unstable();
        for piece in pieces {
            let (text, origin, symbol) = self.placed[&(unit, piece)];
            let (symbol, base) = symbol.map_or((self.section_symbols[&text], origin as i64), |s| (s, 0));
            for entry in &tables.orc[&piece] {
                let source = |name: &str| owner.object.sections.iter().find(|s| s.name == name);
                let (Some(ip), Some(orc)) = (source(".orc_unwind_ip"), source(".orc_unwind")) else { return };
                let ip = self.section(&ip.name, ip.kind, ip.flags, ip.align, ip.entry_size);
                let orc = self.section(&orc.name, orc.kind, orc.flags, orc.align, orc.entry_size);
                let ip = &mut self.object.sections[ip.0 as usize];
                ip.relocations.push(Relocation {
                    offset: ip.size,
                    kind: owner.arch.distance_relocation(),
                    symbol,
                    addend: base + entry.offset,
                });
                ip.data.extend_from_slice(&[0; 4]);
                ip.size += 4;
                let orc = &mut self.object.sections[orc.0 as usize];
                orc.data.extend_from_slice(&entry.orc);
                orc.size = orc.data.len() as u64;
            }
        }
    }

    /// Symbols that stand for something outside are there only if something refers to them, and empty sections
    /// need none.
    fn drop_unused_symbols(&mut self) {
        let mut used = vec![false; self.object.symbols.len()];
        for relocation in self.object.sections.iter().flat_map(|s| &s.relocations) {
            used[relocation.symbol.0 as usize] = true;
        }
        let mut new_ids = vec![SymbolId(0); used.len()];
        let mut kept = Vec::new();
        for (i, symbol) in std::mem::take(&mut self.object.symbols).into_iter().enumerate() {
            let is_own = matches!(symbol.place, Place::Section(_)) && symbol.kind != elf::STT_SECTION.0;
            if used[i] || is_own {
                new_ids[i] = SymbolId(kept.len() as u32);
                kept.push(symbol);
            }
        }
        self.object.symbols = kept;
        for section in &mut self.object.sections {
            for relocation in &mut section.relocations {
                relocation.symbol = new_ids[relocation.symbol.0 as usize];
            }
        }
    }
}

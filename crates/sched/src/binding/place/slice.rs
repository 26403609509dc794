//! An object cut into pieces: the functions, objects and strings that are kept or dropped one by one.

use object::elf;
use schedswap_kernel::arch::Arch;
use schedswap_kernel::arch::relocation::Fields;
use schedswap_kernel::objects::{Object, Place, Section, SectionId, Symbol, SymbolId};
use std::collections::BTreeSet;

/// Index into [`Slices::pieces`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PieceId(pub u32);

/// What a piece is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A function, or the cold part of one.
    Function,
    /// Code without a symbol.
    Stub,
    /// An object with a symbol.
    Object,
    /// A string, or bytes without a symbol.
    Anonymous,
}

/// A stretch of one section.
#[derive(Clone, Debug)]
pub struct Piece {
    pub section: SectionId,
    /// First byte, padding before a function's entry included.
    pub start: u64,
    /// Where references count from: the symbol's value.
    pub origin: u64,
    /// Last byte + 1.
    pub end: u64,
    pub form: Form,
    /// Its symbols: usually one; more where names are aliases.
    pub symbols: Vec<SymbolId>,
}

impl Piece {
    pub fn is_code(&self) -> bool {
        matches!(self.form, Form::Function | Form::Stub)
    }

    /// Its bytes; empty where the section has none.
    pub fn bytes<'o>(&self, object: &'o Object) -> &'o [u8] {
        object.section(self.section).data.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The alignment it had.
    pub fn align(&self, object: &Object) -> u64 {
        let section = object.section(self.section).align.max(1);
        if self.start == 0 { section } else { section.min(1 << self.start.trailing_zeros().min(63)) }
    }
}

/// An object's pieces.
pub struct Slices {
    pub pieces: Vec<Piece>,
    /// By section, sorted by start.
    by_section: Vec<Vec<PieceId>>,
    /// By symbol: the piece it is in.
    of_symbol: Vec<Option<PieceId>>,
}

/// How a section is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// At function symbols.
    Functions,
    /// Wherever something refers to it.
    References,
    /// At object symbols; what has none, at strings' ends or not at all.
    Objects,
    /// Not at all: it has no pieces.
    Not,
}

impl Slices {
    pub fn piece(&self, id: PieceId) -> &Piece {
        &self.pieces[id.0 as usize]
    }

    pub fn ids(&self) -> impl Iterator<Item = PieceId> + use<> {
        (0..self.pieces.len() as u32).map(PieceId)
    }

    /// The piece that a symbol is in.
    pub fn of_symbol(&self, id: SymbolId) -> Option<PieceId> {
        self.of_symbol[id.0 as usize]
    }

    /// The piece that a reference to an offset of a section means. A reference past an object's end belongs
    /// to the object before it, unless another begins there: loops count up to one past the end.
    pub fn at(&self, section: SectionId, offset: i64) -> Option<PieceId> {
        let list = &self.by_section[section.0 as usize];
        let after = list.partition_point(|id| self.piece(*id).start as i64 <= offset);
        let before = &list[..after];
        before
            .iter()
            .rev()
            .take(4)
            .find(|id| offset < self.piece(**id).end as i64)
            .or(before.last())
            .or(list.first())
            .copied()
    }

    /// Cuts an object. `cut` says how, by section; `cuts` where, for sections that are cut at references and for code
    /// beside functions; `padded` where padding begins that goes with the function after it.
    pub fn new(object: &Object, cut: &[Cut], cuts: &[BTreeSet<u64>], padded: &[BTreeSet<u64>]) -> Slices {
        let mut slices = Slices {
            pieces: Vec::new(),
            by_section: vec![Vec::new(); object.sections.len()],
            of_symbol: vec![None; object.symbols.len()],
        };
        let mut in_section: Vec<Vec<SymbolId>> = vec![Vec::new(); object.sections.len()];
        for (i, symbol) in object.symbols.iter().enumerate() {
            if let Place::Section(section) = symbol.place
                && symbol.kind != elf::STT_SECTION.0
                && symbol.kind != elf::STT_FILE.0
            {
                in_section[section.0 as usize].push(SymbolId(i as u32));
            }
        }
        for (i, section) in object.sections.iter().enumerate() {
            let id = SectionId(i as u32);
            match cut[i] {
                Cut::Not => {}
                Cut::Functions => {
                    slices.cut_functions(object, id, &in_section[i], &padded[i]);
                    slices.cut_beside(id, section.size, &cuts[i]);
                }
                Cut::References => slices.cut_at(id, section.size, &cuts[i]),
                Cut::Objects => slices.cut_objects(object, id, &in_section[i]),
            }
            let mut list: Vec<PieceId> = slices.ids().filter(|p| slices.piece(*p).section == id).collect();
            list.sort_by_key(|p| (slices.piece(*p).start, slices.piece(*p).end));
            slices.by_section[i] = list;
            for symbol in &in_section[i] {
                if slices.of_symbol[symbol.0 as usize].is_none() {
                    slices.of_symbol[symbol.0 as usize] = slices.at(id, object.symbol(*symbol).value as i64);
                }
            }
        }
        slices
    }

    fn add(&mut self, piece: Piece) -> PieceId {
        let id = PieceId(self.pieces.len() as u32);
        for symbol in &piece.symbols {
            self.of_symbol[symbol.0 as usize] = Some(id);
        }
        self.pieces.push(piece);
        id
    }

    fn cut_functions(
        &mut self,
        object: &Object,
        section: SectionId,
        symbols: &[SymbolId],
        padded: &BTreeSet<u64>,
    ) {
        let end_of_section = object.section(section).size;
        let mut functions: Vec<SymbolId> =
            symbols.iter().copied().filter(|id| begins_function(object.symbol(*id))).collect();
        functions.sort_by_key(|id| object.symbol(*id).value);
        let prefixes: Vec<&Symbol> =
            symbols.iter().map(|id| object.symbol(*id)).filter(|s| s.is_padding()).collect();
        for (i, id) in functions.iter().enumerate() {
            let symbol = object.symbol(*id);
            if let Some(last) = self.pieces.last_mut().filter(|p| p.section == section) {
                if last.origin == symbol.value {
                    last.end = last.end.max((symbol.value + symbol.size).min(end_of_section));
                    last.symbols.push(*id);
                    self.of_symbol[id.0 as usize] = Some(PieceId(self.pieces.len() as u32 - 1));
                    continue;
                }
                if symbol.value < last.end {
                    // A second entry into the same code: a label of that function.
                    continue;
                }
            }
            let next = functions[i + 1..]
                .iter()
                .map(|n| object.symbol(*n).value)
                .find(|v| *v > symbol.value)
                .unwrap_or(end_of_section);
            let end = if symbol.size == 0 { next } else { symbol.value.saturating_add(symbol.size) };
            let before = self.pieces.last().filter(|p| p.section == section).map_or(0, |p| p.end);
            let start = prefixes
                .iter()
                .find(|p| p.size > 0 && p.value.saturating_add(p.size) == symbol.value)
                .map(|p| p.value)
                .or_else(|| padded.range(before..=symbol.value).next().copied())
                .unwrap_or(symbol.value);
            if symbol.value > end_of_section {
                continue;
            }
            self.add(Piece {
                section,
                start,
                origin: symbol.value,
                end: end.min(end_of_section),
                form: Form::Function,
                symbols: vec![*id],
            });
        }
    }

    /// Code after functions that has no name: arm64 has there what `.altinstructions` puts into them, which would
    /// else be too far away for their branches (`.subsection 1`).
    fn cut_beside(&mut self, section: SectionId, size: u64, cuts: &BTreeSet<u64>) {
        let functions: Vec<(u64, u64)> =
            self.pieces.iter().filter(|p| p.section == section).map(|p| (p.start, p.end)).collect();
        let is_beside =
            |at: u64| at < size && !functions.iter().any(|(start, end)| (*start..*end).contains(&at));
        let starts: Vec<u64> = cuts.iter().copied().filter(|at| is_beside(*at)).collect();
        for (i, start) in starts.iter().enumerate() {
            let next = starts.get(i + 1).copied().unwrap_or(size);
            let function = functions.iter().map(|f| f.0).filter(|f| f > start).min().unwrap_or(size);
            self.add(Piece {
                section,
                start: *start,
                origin: *start,
                end: next.min(function),
                form: Form::Stub,
                symbols: Vec::new(),
            });
        }
    }

    fn cut_at(&mut self, section: SectionId, size: u64, cuts: &BTreeSet<u64>) {
        let mut starts: Vec<u64> = cuts.iter().copied().filter(|c| *c < size).collect();
        if starts.first() != Some(&0) && size > 0 {
            starts.insert(0, 0);
        }
        for (i, start) in starts.iter().enumerate() {
            let end = starts.get(i + 1).copied().unwrap_or(size);
            self.add(Piece {
                section,
                start: *start,
                origin: *start,
                end,
                form: Form::Stub,
                symbols: Vec::new(),
            });
        }
    }

    fn cut_objects(&mut self, object: &Object, id: SectionId, symbols: &[SymbolId]) {
        let section = object.section(id);
        let mut objects: Vec<SymbolId> = symbols.to_vec();
        objects.sort_by_key(|s| {
            let symbol = object.symbol(*s);
            (symbol.value, std::cmp::Reverse(symbol.size))
        });
        let mut covered = 0;
        for s in objects {
            let symbol = object.symbol(s);
            let is_object = symbol.size > 0 || symbol.kind == elf::STT_OBJECT.0;
            let end = symbol.value.saturating_add(symbol.size);
            if !is_object || end > section.size {
                continue;
            }
            let last = self.pieces.last_mut().filter(|p| p.section == id && p.form == Form::Object);
            if let Some(last) = last
                && symbol.value < last.end
            {
                if last.origin == symbol.value && (symbol.size > 0 || last.end == symbol.value) {
                    last.symbols.push(s);
                    self.of_symbol[s.0 as usize] = Some(PieceId(self.pieces.len() as u32 - 1));
                }
                continue;
            }
            self.cut_anonymous(section, id, covered, symbol.value);
            self.add(Piece {
                section: id,
                start: symbol.value,
                origin: symbol.value,
                end,
                form: Form::Object,
                symbols: vec![s],
            });
            covered = covered.max(end);
        }
        self.cut_anonymous(section, id, covered, section.size);
    }

    /// What no symbol covers: strings one by one, anything else whole.
    fn cut_anonymous(&mut self, section: &Section, id: SectionId, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let mut add = |start, end| {
            self.add(Piece {
                section: id,
                start,
                origin: start,
                end,
                form: Form::Anonymous,
                symbols: Vec::new(),
            });
        };
        let merge_strings = elf::SHF_MERGE.0 | elf::SHF_STRINGS.0;
        let width = section.entry_size.max(1) as usize;
        let bytes = section.data.get(start as usize..end as usize).unwrap_or_default();
        if section.flags & merge_strings != merge_strings
            || !bytes.len().is_multiple_of(width)
            || bytes.is_empty()
        {
            add(start, end);
            return;
        }
        let mut first = start;
        for (i, unit) in bytes.chunks(width).enumerate() {
            let after = start + (i * width + width) as u64;
            if unit.iter().all(|b| *b == 0) {
                add(first, after);
                first = after;
            }
        }
        if first < end {
            add(first, end);
        }
    }
}

/// Decodes what a section's functions hold; code without symbols is decoded from its start.
pub fn decode(arch: &dyn Arch, object: &Object, id: SectionId, cut: Cut) -> Fields {
    let section = object.section(id);
    let mut fields = Fields::default();
    if cut == Cut::References || arch.instruction_bytes().is_some() {
        arch.fields(&section.data, 0, &mut fields);
        return fields;
    }
    let mut starts: Vec<(u64, u64)> = object
        .symbols
        .iter()
        .filter(|s| s.place == Place::Section(id) && begins_function(s))
        .map(|s| (s.value, s.size))
        .collect();
    starts.sort_unstable();
    starts.dedup();
    for (i, (start, size)) in starts.iter().enumerate() {
        let next = starts.get(i + 1).map_or(section.size, |n| n.0);
        let end = if *size == 0 { next } else { start.saturating_add(*size).min(section.size) };
        if let Some(code) = section.data.get(*start as usize..end as usize) {
            arch.fields(code, *start, &mut fields);
        }
    }
    fields
}

fn begins_function(symbol: &Symbol) -> bool {
    let is_global = symbol.binding != elf::STB_LOCAL.0;
    let is_function = symbol.kind == elf::STT_FUNC.0 || symbol.kind == elf::STT_NOTYPE.0 && is_global;
    is_function && !symbol.is_padding()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_after_functions_is_cut_where_it_is_referred_to() {
        let function = |name: &str, value, size| Symbol {
            name: name.into(),
            place: Place::Section(SectionId(0)),
            value,
            size,
            binding: elf::STB_GLOBAL.0,
            kind: elf::STT_FUNC.0,
            other: 0,
        };
        let section = Section { name: ".text".into(), data: vec![0; 0x40], size: 0x40, ..Section::default() };
        let symbols = vec![function("f", 0, 0x10), function("g", 0x20, 0x10)];
        let object = Object { sections: vec![section], symbols, ..Object::default() };
        // What is replaced lies inside functions, what replaces it after them.
        let cuts = [BTreeSet::from([0x4, 0x10, 0x18, 0x24, 0x34])];
        let slices = Slices::new(&object, &[Cut::Functions], &cuts, &[BTreeSet::new()]);
        let mut found: Vec<_> = slices.pieces.iter().map(|p| (p.start, p.end, p.form)).collect();
        found.sort_by_key(|(start, ..)| *start);
        assert_eq!(
            found,
            [
                (0, 0x10, Form::Function),
                (0x10, 0x18, Form::Stub),
                (0x18, 0x20, Form::Stub),
                (0x20, 0x30, Form::Function),
                (0x34, 0x40, Form::Stub),
            ]
        );
        let at = |offset| slices.piece(slices.at(SectionId(0), offset).unwrap()).start;
        assert_eq!([at(0x4), at(0x14), at(0x38)], [0, 0x10, 0x34]);
    }

    #[test]
    fn padding_that_is_listed_goes_with_the_function_after_it() {
        let function = |value| Symbol {
            name: format!("f{value}"),
            place: Place::Section(SectionId(0)),
            value,
            size: 0x10,
            binding: elf::STB_GLOBAL.0,
            kind: elf::STT_FUNC.0,
            other: 0,
        };
        let section = Section { name: ".text".into(), data: vec![0; 0x60], size: 0x60, ..Section::default() };
        let symbols = [0x8, 0x20, 0x40].map(function).to_vec();
        let object = Object { sections: vec![section], symbols, ..Object::default() };
        // The second is listed inside, as where ftrace needs nothing before a function.
        let padded = [BTreeSet::from([0, 0x24, 0x38])];
        let slices = Slices::new(&object, &[Cut::Functions], &[BTreeSet::new()], &padded);
        let found: Vec<_> = slices.pieces.iter().map(|p| (p.start, p.origin, p.end)).collect();
        assert_eq!(found, [(0, 0x8, 0x18), (0x20, 0x20, 0x30), (0x38, 0x40, 0x50)]);
        assert_eq!(slices.at(SectionId(0), 0x38), slices.at(SectionId(0), 0x40));
    }
}

//! A function's compiled code in a canonical form: equal for code of equal meaning, wherever the two builds put it.
//!
//! Left out of the comparison: addresses, the numbers that the compiler gives to function-local statics and
//! clones, the length of jumps, padding, line numbers (`__bug_table`), unwind information and ftrace sites.
//! Part of it: every instruction, what each relocated field refers to (strings by content), and the
//! jump labels, static calls, alternatives and exception handlers of the function.

use super::features::FeatureKeys;
use crate::binding::carries_code;
use object::elf;
use schedswap_kernel::arch::{self, Arch};
use schedswap_kernel::objects::{Object, Place, Relocation, SectionId, Symbol, SymbolId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

/// A function's code in canonical form.
#[derive(PartialEq, Eq, Debug)]
pub struct Canonical {
    instructions: Vec<Instruction>,
    /// What the special sections say about it, sorted.
    notes: Vec<Note>,
}

/// One instruction.
#[derive(PartialEq, Eq, Debug)]
enum Instruction {
    /// A direct branch; however long its displacement is.
    Branch { opcode: u32, target: Reference },
    /// Anything else: its bytes with relocated fields zeroed, and those fields.
    Plain { bytes: Vec<u8>, fields: Vec<(usize, u32, Reference)> },
}

/// What a field refers to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Reference {
    /// An instruction of the function itself, by its number.
    Inside(usize),
    /// A symbol, and the distance from its start.
    Named(String, i64),
    /// Nameless data: a string or a constant.
    Content(Vec<u8>),
}

/// An entry of a special section: which, the instruction it is about, its bytes and its other fields.
type Note = (&'static str, usize, Vec<u8>, Vec<Reference>);

/// Special sections whose entries are part of what a function does, each with the kernel's type of its entry,
/// whose first field is the place in the code.
const NOTED: [(&str, &str); 4] = [
    ("__jump_table", "jump_entry"),
    (".static_call_sites", "static_call_site"),
    (".altinstructions", "alt_instr"),
    ("__ex_table", "exception_table_entry"),
];

/// One object's functions.
pub struct Functions<'a> {
    pub(super) object: &'a Object,
    /// `None` if kernels for this machine are not supported.
    arch: Option<&'static dyn Arch>,
    /// References to these variables compare by name only: the module has its own, laid out as it likes.
    private: &'a HashSet<String>,
    /// References to the keys of feature switches compare by the feature's name.
    features: Option<&'a FeatureKeys>,
    pub(super) by_name: HashMap<&'a str, SymbolId>,
    /// Symbols with a place, by section and value.
    by_place: HashMap<SectionId, Vec<SymbolId>>,
    /// Entries of [`NOTED`] sections, by the code they are about.
    pub(super) noted: BTreeMap<(SectionId, u64), Vec<NotedEntry>>,
}

pub(super) struct NotedEntry {
    table: &'static str,
    pub section: SectionId,
    pub bytes: Range<u64>,
}

/// A variable at the top level of a unit.
pub struct Variable {
    /// Size.
    pub bytes: u64,
    /// Nothing writes to it.
    pub is_constant: bool,
    /// Each CPU has one.
    pub is_per_cpu: bool,
    /// What it begins with.
    pub content: Content,
}

/// Initial contents, equal for equal ones wherever the two builds put what they refer to.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Content {
    bytes: Vec<u8>,
    fields: Vec<(u64, Reference)>,
}

impl Content {
    /// Whether it holds addresses.
    pub fn has_references(&self) -> bool {
        !self.fields.is_empty()
    }
}

/// Where a part of a function lies, or a variable.
pub(super) struct Part {
    pub section: SectionId,
    pub range: Range<u64>,
}

impl<'a> Functions<'a> {
    /// Indexes an object. `entry_sizes` are [`schedswap_kernel::vmlinux::Image::entry_sizes`].
    pub fn new(
        object: &'a Object,
        entry_sizes: &BTreeMap<String, u64>,
        private: &'a HashSet<String>,
    ) -> Functions<'a> {
        let mut functions = Functions {
            object,
            arch: arch::of_elf(object.machine),
            private,
            features: None,
            by_name: HashMap::new(),
            by_place: HashMap::new(),
            noted: BTreeMap::new(),
        };
        for (index, symbol) in object.symbols.iter().enumerate() {
            let Place::Section(section) = symbol.place else { continue };
            let id = SymbolId(index as u32);
            if is(symbol, elf::STT_FUNC) {
                functions.by_name.insert(&symbol.name, id);
            }
            if is(symbol, elf::STT_FUNC) || is(symbol, elf::STT_OBJECT) {
                functions.by_place.entry(section).or_default().push(id);
            }
        }
        for ids in functions.by_place.values_mut() {
            ids.sort_by_key(|id| (object.symbol(*id).value, *id));
        }
        for (index, section) in object.sections.iter().enumerate() {
            let Some((table, entry)) = NOTED.iter().find(|(table, _)| *table == section.name) else {
                continue;
            };
            let Some(size) = entry_sizes.get(*entry).copied().filter(|size| *size > 0) else { continue };
            for relocation in section.relocations.iter().filter(|r| r.offset.is_multiple_of(size)) {
                let Some(place) = functions.place(relocation, 0) else { continue };
                let bytes = relocation.offset..relocation.offset + size;
                let entry = NotedEntry { table, section: SectionId(index as u32), bytes };
                functions.noted.entry(place).or_default().push(entry);
            }
        }
        functions
    }

    /// The same, with the names of the features whose keys are referred to.
    pub fn with_features(self, features: Option<&'a FeatureKeys>) -> Functions<'a> {
        Functions { features, ..self }
    }

    /// Whether the object defines a function of that name.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Every function it defines, `.cold` parts left out.
    pub fn symbols(&self) -> impl Iterator<Item = &'a Symbol> {
        let object = self.object;
        self.by_name.values().map(|id| object.symbol(*id)).filter(|symbol| !symbol.name.contains(".cold"))
    }

    /// The code of a function with its `.cold` part; `None` if the object does not define it.
    pub fn code(&self, name: &str) -> Option<Canonical> {
        Some(self.read(&self.parts(name)?))
    }

    /// Where a function and its `.cold` part are.
    pub(super) fn parts(&self, name: &str) -> Option<Vec<Part>> {
        let mut parts = vec![self.part(self.object.symbol(*self.by_name.get(name)?))?];
        let cold = self.by_name.get(format!("{name}.cold").as_str());
        parts.extend(cold.and_then(|id| self.part(self.object.symbol(*id))));
        Some(parts)
    }

    /// Every named variable, with content, in a form that is equal for equal data.
    pub fn variables(&self) -> Vec<impl Ord + use<>> {
        let variables = self.object.symbols.iter().filter(|symbol| is(symbol, elf::STT_OBJECT));
        let mut variables: Vec<_> = variables
            .filter_map(|symbol| {
                let part = self.part(symbol)?;
                let section = self.object.section(part.section);
                let fields = relocations_in(section, &part.range);
                let targets: Vec<Reference> = fields.iter().map(|r| self.target(r, 0, &[], &[])).collect();
                Some((base_name(&symbol.name).to_owned(), symbol.size, bytes(section, &part.range), targets))
            })
            .collect();
        variables.sort();
        variables
    }

    /// Whether it defines a function of that name, or a variant that the compiler made of one.
    pub fn has_source_name(&self, name: &str) -> bool {
        self.by_name.keys().any(|found| found.split('.').next() == Some(name))
    }

    /// Functions in sections that a module carries.
    pub fn carried_symbols(&self) -> impl Iterator<Item = &'a Symbol> {
        let object = self.object;
        self.symbols().filter(|symbol| match symbol.place {
            Place::Section(id) => carries_code(&object.section(id).name, object.section(id).flags),
            _ => false,
        })
    }

    /// A variable at the top level of the unit.
    pub fn variable(&self, name: &str) -> Option<Variable> {
        let symbol = self.object.symbols.iter().find(|s| s.name == name && is(s, elf::STT_OBJECT))?;
        self.variable_of(symbol)
    }

    /// The variable that a symbol of this object names.
    pub(super) fn variable_of(&self, symbol: &Symbol) -> Option<Variable> {
        let part = self.part(symbol)?;
        let section = self.object.section(part.section);
        let mut content = bytes(section, &part.range);
        // What is not in the file is zero.
        content.resize(symbol.size as usize, 0);
        let fields = relocations_in(section, &part.range);
        let target = |r: &Relocation| (r.offset - part.range.start, self.target(r, 0, &[], &[]));
        Some(Variable {
            bytes: symbol.size,
            is_constant: section.flags & elf::SHF_WRITE.0 == 0 || section.name.starts_with(".data.rel.ro"),
            is_per_cpu: section.name.starts_with(".data..percpu"),
            content: Content { bytes: content, fields: fields.iter().map(target).collect() },
        })
    }

    /// Whether it defines a variable of that name that other units can see.
    pub fn has_global_variable(&self, name: &str) -> bool {
        let mut named = self.object.symbols.iter().filter(|s| s.name == name && is(s, elf::STT_OBJECT));
        named.any(|s| s.binding != elf::STB_LOCAL.0 && s.place != Place::Undefined)
    }

    /// Whether it has a variable of that name that is local to a function.
    pub fn has_local_static(&self, name: &str) -> bool {
        let mut objects = self.object.symbols.iter().filter(|s| is(s, elf::STT_OBJECT));
        objects.any(|s| s.name != name && base_name(&s.name) == name)
    }

    pub(super) fn part(&self, symbol: &Symbol) -> Option<Part> {
        let Place::Section(section) = symbol.place else { return None };
        let end = symbol.value.checked_add(symbol.size)?;
        let fits = end <= self.object.section(section).size;
        fits.then_some(Part { section, range: symbol.value..end })
    }

    fn read(&self, parts: &[Part]) -> Canonical {
        let decoded: Vec<Decoded> =
            parts.iter().flat_map(|part| decode(self.object, part)).filter(|i| !i.is_padding).collect();
        let instructions = decoded.iter().map(|i| self.instruction(i, parts, &decoded)).collect();
        let mut notes = Vec::new();
        for part in parts {
            let covered = (part.section, part.range.start)..(part.section, part.range.end);
            for ((section, offset), entries) in self.noted.range(covered) {
                let at = number_of(*section, *offset, &decoded);
                notes.extend(entries.iter().map(|entry| self.note(entry, at, parts, &decoded)));
            }
        }
        notes.sort();
        Canonical { instructions, notes }
    }

    fn instruction(&self, instruction: &Decoded, parts: &[Part], all: &[Decoded]) -> Instruction {
        let section = self.object.section(instruction.section);
        let range = instruction.offset..instruction.end();
        let relocations = relocations_in(section, &range);
        let target = |r: &Relocation| self.target(r, instruction.end() - r.offset, parts, all);
        if let Some((opcode, local_target)) = instruction.branch {
            let target = match relocations.first() {
                Some(relocation) => target(relocation),
                None => self.target_at(instruction.section, local_target, parts, all),
            };
            return Instruction::Branch { opcode, target };
        }
        let mut bytes = bytes(section, &range);
        let mut fields = Vec::new();
        for relocation in relocations {
            let at = (relocation.offset - range.start) as usize;
            let rule = self.arch.and_then(|arch| arch.field(relocation.kind));
            if let Some((rule, field)) = rule.and_then(|rule| Some((rule, bytes.get_mut(at..at + rule.len)?)))
            {
                rule.clear(field);
            }
            fields.push((at, relocation.kind, target(relocation)));
        }
        Instruction::Plain { bytes, fields }
    }

    fn note(&self, entry: &NotedEntry, at: usize, parts: &[Part], all: &[Decoded]) -> Note {
        let section = self.object.section(entry.section);
        let others = relocations_in(section, &entry.bytes).iter().skip(1);
        let targets = others.map(|relocation| self.target(relocation, 0, parts, all)).collect();
        (entry.table, at, bytes(section, &entry.bytes), targets)
    }

    /// The place in this object that a field refers to, if it is in this object. `to_end` is the distance from
    /// the field to where relative fields count from: the instruction's end, or 0 in data.
    pub(super) fn place(&self, relocation: &Relocation, to_end: u64) -> Option<(SectionId, u64)> {
        let symbol = self.object.symbol(relocation.symbol);
        let Place::Section(section) = symbol.place else { return None };
        let offset = symbol.value as i64 + self.displacement(relocation, to_end);
        Some((section, u64::try_from(offset).ok()?))
    }

    fn displacement(&self, relocation: &Relocation, to_end: u64) -> i64 {
        displacement(self.object.machine, relocation, to_end)
    }

    fn target(&self, relocation: &Relocation, to_end: u64, parts: &[Part], all: &[Decoded]) -> Reference {
        let symbol = self.object.symbol(relocation.symbol);
        let is_local = symbol.binding == elf::STB_LOCAL.0;
        match self.place(relocation, to_end).filter(|_| is_local) {
            Some((section, offset)) => self.target_at(section, offset, parts, all),
            None => self.named(&symbol.name, self.displacement(relocation, to_end)),
        }
    }

    fn target_at(&self, section: SectionId, offset: u64, parts: &[Part], all: &[Decoded]) -> Reference {
        if parts.iter().any(|part| part.section == section && part.range.contains(&offset)) {
            return Reference::Inside(number_of(section, offset, all));
        }
        let content = self.object.section(section);
        let rest = content.data.get(offset as usize..).unwrap_or_default();
        if content.flags & elf::SHF_STRINGS.0 != 0 {
            return Reference::Content(rest.iter().copied().take_while(|byte| *byte != 0).collect());
        }
        if content.flags & elf::SHF_MERGE.0 != 0 {
            return Reference::Content(rest.iter().copied().take(content.entry_size as usize).collect());
        }
        let Some(symbol) = self.symbol_before(section, offset) else {
            // A table of a switch has distances in it, which are the same for the same code.
            let is_constant = content.flags & (elf::SHF_WRITE.0 | elf::SHF_EXECINSTR.0) == 0;
            return if is_constant && self.arch.is_some_and(|arch| arch.has_jump_tables()) {
                Reference::Content(rest.to_vec())
            } else {
                Reference::Named(content.name.clone(), 0)
            };
        };
        // A table that the compiler made (`CSWTCH.12`), or a static constant of a function: what is in it
        // may have changed while its name is the same.
        let is_constant = content.flags & elf::SHF_WRITE.0 == 0 && is(symbol, elf::STT_OBJECT);
        if is_constant && base_name(&symbol.name) != symbol.name {
            let range = symbol.value..symbol.value.saturating_add(symbol.size).min(content.size);
            return Reference::Content(bytes(content, &range));
        }
        self.named(&symbol.name, (offset - symbol.value) as i64)
    }

    /// The last function or variable of a section that begins at an offset or before it.
    pub(super) fn symbol_before(&self, section: SectionId, offset: u64) -> Option<&'a Symbol> {
        let symbols = self.by_place.get(&section)?;
        let after = symbols.partition_point(|id| self.object.symbol(*id).value <= offset);
        symbols[..after].last().map(|id| self.object.symbol(*id))
    }

    fn named(&self, name: &str, distance: i64) -> Reference {
        let name = base_name(name);
        if let Some((feature, rest)) = self.features.and_then(|keys| keys.feature(name, distance)) {
            return Reference::Named(format!("{name} of {feature}"), rest);
        }
        let distance = if self.private.contains(name) { 0 } else { distance };
        Reference::Named(name.to_owned(), distance)
    }
}

/// How far past its symbol a field's target lies. `to_end` is the distance from the field to where relative
/// fields count from: the instruction's end, or 0 in data.
pub fn displacement(machine: u16, relocation: &Relocation, to_end: u64) -> i64 {
    relocation.addend + if is_relative(machine, relocation.kind) { to_end as i64 } else { 0 }
}

/// A symbol's name without the number that the compiler gave it: two builds number differently.
pub fn base_name(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((base, number)) if !base.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => base,
        _ => name,
    }
}

pub(super) fn is(symbol: &Symbol, kind: elf::SymbolType) -> bool {
    symbol.kind == kind.0
}

fn bytes(section: &schedswap_kernel::objects::Section, range: &Range<u64>) -> Vec<u8> {
    section.data.get(range.start as usize..range.end as usize).unwrap_or_default().to_vec()
}

/// The relocations of a range, sorted as the section's are.
pub fn relocations_in<'s>(
    section: &'s schedswap_kernel::objects::Section,
    range: &Range<u64>,
) -> &'s [Relocation] {
    let all = &section.relocations;
    let start = all.partition_point(|r| r.offset < range.start);
    let count = all[start..].partition_point(|r| r.offset < range.end);
    &all[start..start + count]
}

/// The number of the first instruction at or after a place.
fn number_of(section: SectionId, offset: u64, instructions: &[Decoded]) -> usize {
    instructions.iter().position(|i| i.section == section && i.offset >= offset).unwrap_or(instructions.len())
}

/// x86-64 relocations that count from the end of the instruction, other than those of other machines, whose
/// addends already are distances from the symbol.
fn is_relative(machine: u16, kind: u32) -> bool {
    let relative = [elf::R_X86_64_PC32, elf::R_X86_64_PLT32, elf::R_X86_64_PC64, elf::R_X86_64_GOTPCREL];
    machine == elf::EM_X86_64.0 && relative.iter().any(|r| r.0 == kind)
}

/// One instruction with its place.
pub(super) struct Decoded {
    section: SectionId,
    pub offset: u64,
    length: u64,
    /// A nop: padding, or a place that the kernel patches, which its special section describes.
    is_padding: bool,
    /// For a direct branch: what it is apart from where it goes, and the offset that it goes to in the file.
    pub branch: Option<(u32, u64)>,
}

impl Decoded {
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// The instructions of a part; none for a machine whose kernels are not supported.
pub(super) fn decode(object: &Object, part: &Part) -> Vec<Decoded> {
    let code = bytes(object.section(part.section), &part.range);
    let outlines =
        arch::of_elf(object.machine).map_or_else(Vec::new, |a| a.outlines(&code, part.range.start));
    let decoded = outlines.into_iter().map(|outline| Decoded {
        section: part.section,
        offset: outline.at,
        length: outline.len,
        is_padding: outline.nop,
        branch: outline.target.map(|target| (outline.form, target)),
    });
    decoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_compiler_are_not_part_of_a_name() {
        for (name, base) in [
            ("__already_done.21", "__already_done"),
            ("foo.isra.0", "foo.isra"),
            ("foo", "foo"),
            (".5", ".5"),
            ("foo.cold", "foo.cold"),
        ] {
            assert_eq!(base_name(name), base);
        }
    }

    /// Two functions of one section, the second of which calls the first: the assembler has resolved that.
    fn caller(first: usize, words: &[u32]) -> Canonical {
        const RET: u32 = 0xd65f_03c0;
        let all: Vec<u32> = std::iter::repeat_n(RET, first).chain(words.iter().copied()).collect();
        let symbol = |name: &str, value, size| Symbol {
            name: name.into(),
            place: Place::Section(SectionId(0)),
            value,
            size,
            binding: elf::STB_LOCAL.0,
            kind: elf::STT_FUNC.0,
            other: 0,
        };
        let object = Object {
            machine: elf::EM_AARCH64.0,
            sections: vec![schedswap_kernel::objects::Section {
                name: ".sched.text".into(),
                flags: elf::SHF_ALLOC.0 | elf::SHF_EXECINSTR.0,
                data: all.iter().flat_map(|word| word.to_le_bytes()).collect(),
                size: 4 * all.len() as u64,
                ..Default::default()
            }],
            symbols: vec![
                symbol("callee", 0, 4 * first as u64),
                symbol("caller", 4 * first as u64, 4 * words.len() as u64),
            ],
            ..Object::default()
        };
        Functions::new(&object, &BTreeMap::new(), &HashSet::new()).code("caller").unwrap()
    }

    #[test]
    fn a64_branches_compare_by_where_they_go() {
        // bl callee; cbz x0, .+8; nop; ret
        let code = |back: u32| [0x9400_0000 | (0x0400_0000 - back), 0xb400_0040, 0xd503_201f, 0xd65f_03c0];
        assert_eq!(caller(2, &code(2)), caller(5, &code(5)));
        assert_ne!(caller(2, &code(2)), caller(5, &code(4)));
        // Another register, another condition.
        let mut other = code(2);
        other[1] = 0xb400_0041;
        assert_ne!(caller(2, &code(2)), caller(2, &other));
        other[1] = 0xb500_0040;
        assert_ne!(caller(2, &code(2)), caller(2, &other));
    }
}

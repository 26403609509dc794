//! What functions refer to, and the data of an object, by name.

use super::canonical::{Content, Functions, base_name, decode, is, relocations_in};
use crate::binding::holds_once_marks;
use object::elf;
use schedswap_kernel::objects::{Place, Relocation, Symbol};

/// One reference of a function to something with a name.
pub struct Referred<'a> {
    /// What it refers to.
    pub symbol: &'a Symbol,
    /// Whether only a special section has it: the key of a jump label, for instance.
    pub is_noted: bool,
}

/// A variable or constant of an object.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Data<'a> {
    /// Its name without the number that the compiler gave it.
    pub name: &'a str,
    /// Whether the compiler gave it a number: it is local to a function, or the compiler's own.
    pub is_numbered: bool,
    /// It marks that something has been done or said once (`include/linux/once.h`).
    pub is_once: bool,
    /// Nothing writes to it.
    pub is_constant: bool,
    /// What it begins with.
    pub content: Content,
}

impl<'a> Functions<'a> {
    /// What the code of a function refers to, `.cold` part included.
    pub fn references(&self, name: &str) -> Vec<Referred<'a>> {
        let mut found = Vec::new();
        let object = self.object;
        for part in self.parts(name).unwrap_or_default() {
            for instruction in decode(object, &part) {
                let range = instruction.offset..instruction.end();
                let fields = relocations_in(object.section(part.section), &range);
                let named = fields.iter().map(|field| self.referred(field, range.end - field.offset));
                // A branch to a neighbour, which the assembler has resolved.
                let resolved = instruction.branch.filter(|_| fields.is_empty());
                let neighbour = resolved.and_then(|(_, target)| self.symbol_before(part.section, target));
                let symbols = named.chain(neighbour);
                found.extend(symbols.map(|symbol| Referred { symbol, is_noted: false }));
            }
            let covered = (part.section, part.range.start)..(part.section, part.range.end);
            for entry in self.noted.range(covered).flat_map(|(_, entries)| entries) {
                // The first field is the place in the code.
                let fields = relocations_in(object.section(entry.section), &entry.bytes).iter().skip(1);
                let symbols = fields.map(|field| self.referred(field, 0));
                found.extend(symbols.map(|symbol| Referred { symbol, is_noted: true }));
            }
        }
        found
    }

    /// The symbol that a field means: itself, or what lies at the place in a section. `to_end` as for `place`.
    fn referred(&self, field: &Relocation, to_end: u64) -> &'a Symbol {
        let symbol = self.object.symbol(field.symbol);
        if symbol.binding != elf::STB_LOCAL.0 {
            return symbol;
        }
        let place = self.place(field, to_end);
        place.and_then(|(section, offset)| self.symbol_before(section, offset)).unwrap_or(symbol)
    }

    /// Names of the variables that it defines for other units too.
    pub fn global_variables(&self) -> impl Iterator<Item = &'a str> {
        let named = self.object.symbols.iter().filter(|symbol| is(symbol, elf::STT_OBJECT));
        let defined = named.filter(|s| s.binding != elf::STB_LOCAL.0 && matches!(s.place, Place::Section(_)));
        defined.map(|symbol| symbol.name.as_str())
    }

    /// Its variables and constants.
    pub fn data(&self) -> Vec<Data<'a>> {
        let object = self.object;
        let named = object.symbols.iter().filter(|symbol| is(symbol, elf::STT_OBJECT));
        named
            .filter_map(|symbol| {
                let part = self.part(symbol)?;
                let variable = self.variable_of(symbol)?;
                let name = base_name(&symbol.name);
                Some(Data {
                    name,
                    is_numbered: name.len() != symbol.name.len(),
                    is_once: holds_once_marks(&object.section(part.section).name),
                    is_constant: variable.is_constant,
                    content: variable.content,
                })
            })
            .collect()
    }
}

//! An object's code: its functions with their cold parts, their instructions, and what relocations in them refer to.

use super::{A_POINTER, Known, covering};
use crate::binding::carries_code;
use crate::check::compare::{displacement, relocations_in};
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::relocation::Fields;
use schedswap_kernel::arch::step::{Flow, Step};
use schedswap_kernel::arch::{self, Arch};
use schedswap_kernel::objects::{Object, Place, Relocation, SectionId, Symbol};
use std::collections::BTreeSet;
use std::ops::Range;

/// An object whose code can be read.
pub struct Code<'a> {
    pub object: &'a Object,
    pub arch: &'static dyn Arch,
}

/// A place in a section.
pub type At = (SectionId, u64);

/// A function with its cold part.
pub struct Function<'a> {
    pub code: &'a Code<'a>,
    /// Without the cold part's suffix.
    pub name: &'a str,
    /// Where its code is; the part that begins with its entry comes first.
    parts: Vec<(SectionId, Range<u64>)>,
}

/// Where a direct branch goes.
#[derive(Debug)]
pub enum Destination {
    /// To an instruction of the same function.
    Inside(At),
    /// To a function, [`A_POINTER`] if the name is not known.
    Function(String),
    /// Back to the caller, by the thunk that is in the place of a return instruction.
    Return,
}

impl<'a> Code<'a> {
    /// `None` for a machine that no kernel of ours is for.
    pub fn of(object: &'a Object) -> Option<Code<'a>> {
        Some(Code { object, arch: arch::of_elf(object.machine)? })
    }

    /// The function that covers a place.
    pub fn function(&'a self, section: SectionId, offset: u64) -> Option<Function<'a>> {
        let symbol = covering(self.object, section, offset)?;
        let name = without_cold(&symbol.name);
        let is_cold = |s: &&Symbol| s.name != name && s.name.contains(COLD) && without_cold(&s.name) == name;
        let named = self.object.symbols.iter().filter(|s| s.kind == elf::STT_FUNC.0);
        let hot = named.clone().filter(|s| s.name == name);
        let parts = hot.chain(named.filter(is_cold)).filter_map(|s| match s.place {
            Place::Section(section) => Some((section, s.value..s.value + s.size)),
            _ => None,
        });
        let function = Function { code: self, name, parts: parts.collect() };
        // A symbol that is not a function's has its own code only.
        match function.holds((section, offset)) {
            true => Some(function),
            false => {
                let range = symbol.value..symbol.value + symbol.size;
                Some(Function { parts: vec![(section, range)], ..function })
            }
        }
    }

    /// Functions that refer to a target of this object, calls included.
    pub fn users(&self, known: &Known) -> BTreeSet<String> {
        let mut users = BTreeSet::new();
        for (index, section) in self.object.sections.iter().enumerate() {
            if !carries_code(&section.name, section.flags) {
                continue;
            }
            let id = SectionId(index as u32);
            let mut fields = Fields::default();
            self.arch.fields(&section.data, 0, &mut fields);
            let mut is_used_at = |offset: u64| {
                let user = covering(self.object, id, offset);
                users.extend(user.map(|user| without_cold(&user.name).to_owned()));
            };
            for relocation in &section.relocations {
                let to_end = fields.by_offset.get(&relocation.offset).map_or(0, |field| field.to_end as u64);
                if known.may_be_meant(self.object, relocation)
                    && known.is_meant(self.object, relocation, to_end)
                {
                    is_used_at(relocation.offset);
                }
            }
            // What the assembler has resolved.
            for branch in fields.branches.iter().filter(|branch| known.covers(id, branch.target)) {
                if relocations_in(section, &(branch.field..branch.field + branch.width)).is_empty() {
                    is_used_at(branch.field);
                }
            }
        }
        users
    }

    /// The function that a branch's relocation leads to.
    fn callee(&self, relocation: &Relocation, to_end: u64) -> Option<&str> {
        let symbol = self.object.symbol(relocation.symbol);
        if !symbol.name.is_empty() {
            // Retpolines call what a register holds.
            let is_thunk = self.arch.retpoline(&symbol.name).is_some();
            return Some(if is_thunk { A_POINTER } else { &symbol.name });
        }
        let (section, offset) = place(self.object, relocation, to_end)?;
        covering(self.object, section, offset).map(|s| s.name.as_str())
    }
}

impl Function<'_> {
    /// Where its entry is.
    pub fn entry(&self) -> Option<At> {
        self.parts.first().map(|(section, range)| (*section, range.start))
    }

    /// Whether a place is in it.
    pub fn holds(&self, (section, offset): At) -> bool {
        self.parts.iter().any(|(of, range)| *of == section && range.contains(&offset))
    }

    /// The code from a place of it on, to the end of its part.
    pub fn bytes_from(&self, (section, offset): At) -> Option<&[u8]> {
        let (_, range) = self.parts.iter().find(|(of, range)| *of == section && range.contains(&offset))?;
        self.code.object.section(section).data.get(offset as usize..range.end as usize)
    }

    /// The instruction at a place of it.
    pub fn step(&self, at: At) -> Option<Step> {
        self.code.arch.step(self.bytes_from(at)?, Addr(at.1))
    }

    /// Where the instruction begins that a place is in.
    pub fn instruction_around(&self, (section, offset): At) -> Option<At> {
        let (_, range) = self.parts.iter().find(|(of, range)| *of == section && range.contains(&offset))?;
        let outlines = self.code.arch.outlines(self.bytes_from((section, range.start))?, range.start);
        let outline = outlines.iter().find(|o| (o.at..o.at + o.len).contains(&offset))?;
        Some((section, outline.at))
    }

    /// Where a direct branch at `at` goes, which is to `target` as the file stands.
    pub fn destination(&self, at: At, step: &Step, target: Addr) -> Destination {
        let (code, (section, offset)) = (self.code, at);
        let relocations = relocations_in(code.object.section(section), &(offset..step.end().0));
        let Some(relocation) = relocations.first() else {
            // The assembler has resolved it.
            let target = (section, target.0);
            let is_jump = !matches!(step.flow, Flow::Call(_));
            if is_jump && self.holds(target) {
                return Destination::Inside(target);
            }
            let callee = covering(code.object, section, target.1).map(|symbol| symbol.name.clone());
            return Destination::Function(callee.unwrap_or_else(|| A_POINTER.to_owned()));
        };
        let to_end = step.end().0 - relocation.offset;
        // A jump to its own entry is a call of itself.
        let inside = place(code.object, relocation, to_end)
            .filter(|place| self.holds(*place) && Some(*place) != self.entry());
        if let Some(inside) = inside {
            return Destination::Inside(inside);
        }
        let callee = code.callee(relocation, to_end).unwrap_or(A_POINTER);
        let is_return = code.arch.return_thunk().is_some_and(|thunk| callee.starts_with(thunk));
        if is_return { Destination::Return } else { Destination::Function(callee.to_owned()) }
    }
}

/// Where in this object a field refers to, if it does. `to_end` is the distance from the field to the end of its
/// instruction.
pub fn place(object: &Object, relocation: &Relocation, to_end: u64) -> Option<At> {
    let symbol = object.symbol(relocation.symbol);
    let Place::Section(section) = symbol.place else { return None };
    let offset = symbol.value as i64 + displacement(object.machine, relocation, to_end);
    Some((section, u64::try_from(offset).ok()?))
}

/// What gcc appends to a function's name for the part of it that is seldom run.
const COLD: &str = ".cold";

fn without_cold(name: &str) -> &str {
    name.split(COLD).next().unwrap_or_default()
}

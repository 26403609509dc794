//! Every relocation as a reference from one piece to another: section symbols replaced by what they mean, the
//! trailing bytes of instructions taken out of addends, and branches that the assembler resolved made explicit.

use super::slice::{Cut, PieceId, Slices, decode};
use super::special::{Policy, policy};
use crate::binding::Error;
use object::elf;
use schedswap_kernel::arch::relocation::{Field, Fields};
use schedswap_kernel::arch::{self, Arch};
use schedswap_kernel::objects::{Object, Place, Relocation, SectionId, Symbol, SymbolId};
use std::collections::BTreeSet;

/// What a reference names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Referent {
    /// Something of the same object.
    Piece(PieceId),
    /// An entry of one of its tables: code hands over the one that describes it (WARN with arguments, from 7.x on).
    Table(SectionId),
    /// An undefined or absolute symbol, or a weak alias, which something else may be in force for.
    Symbol(SymbolId),
}

/// A field that holds, or will hold, an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reference {
    /// Offset of the field in its section.
    pub field: u64,
    /// R_* number.
    pub kind: u32,
    /// A call, jump or conditional branch.
    pub is_branch: bool,
    /// What the addend leaves out: the bytes from the field to where relative fields in code count from.
    pub to_end: i64,
    pub referent: Referent,
    /// The byte referred to, counted from the piece's origin, the table's section or the symbol.
    pub offset: i64,
}

/// One unit's object, cut and normalised.
pub struct Unit<'a> {
    /// `kernel/sched/core.c`
    pub name: &'a str,
    pub object: &'a Object,
    pub arch: &'static dyn Arch,
    pub policies: Vec<(Policy, &'static str)>,
    pub slices: Slices,
    /// By section, sorted by field.
    references: Vec<Vec<Reference>>,
    /// Short jumps out of their piece, which cannot be given a relocation: field and where it goes.
    pub short_jumps: Vec<(SectionId, u64, PieceId)>,
    /// Pieces with a short jump to their own origin, which cannot be given one either.
    pub begin_again: Vec<PieceId>,
}

impl<'a> Unit<'a> {
    /// Cuts and normalises one unit.
    ///
    /// # Errors
    /// When the machine, a section or a relocation is one that the rules do not know.
    pub fn new(name: &'a str, object: &'a Object) -> Result<Unit<'a>, Error> {
        let arch = arch::of_elf(object.machine)
            .ok_or_else(|| Error::Machine { name: object.name.clone(), machine: object.machine })?;
        let policies = object
            .sections
            .iter()
            .map(|s| {
                policy(arch, &s.name, s.flags)
                    .ok_or_else(|| Error::UnknownSection { unit: name.into(), section: s.name.clone() })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let cut: Vec<Cut> =
            object.sections.iter().zip(&policies).map(|(s, (p, _))| how_to_cut(s.flags, *p)).collect();
        let fields: Vec<Fields> = (0..object.sections.len())
            .map(|i| match cut[i] {
                Cut::Functions | Cut::References => decode(arch, object, SectionId(i as u32), cut[i]),
                Cut::Objects | Cut::Not => Fields::default(),
            })
            .collect();
        let cuts = reference_points(arch, object, &cut, &fields);
        let slices = Slices::new(object, &cut, &cuts, &listed_places(arch, object));
        let mut unit = Unit {
            name,
            object,
            arch,
            policies,
            slices,
            references: Vec::new(),
            short_jumps: Vec::new(),
            begin_again: Vec::new(),
        };
        for (i, fields) in fields.iter().enumerate() {
            let list = unit.references_of(SectionId(i as u32), fields)?;
            unit.references.push(list);
        }
        for (i, fields) in fields.iter().enumerate().filter(|(i, _)| cut[*i] == Cut::Functions) {
            unit.make_branches_explicit(SectionId(i as u32), fields);
        }
        Ok(unit)
    }

    /// References in `start..end` of a section.
    pub fn references_in(&self, section: SectionId, start: u64, end: u64) -> &[Reference] {
        let list = &self.references[section.0 as usize];
        let first = list.partition_point(|r| r.field < start);
        let last = list.partition_point(|r| r.field < end);
        &list[first..last.max(first)]
    }

    /// References that a piece holds.
    pub fn references(&self, piece: PieceId) -> &[Reference] {
        let piece = self.slices.piece(piece);
        self.references_in(piece.section, piece.start, piece.end)
    }

    /// All references of a section.
    pub fn section_references(&self, section: SectionId) -> &[Reference] {
        &self.references[section.0 as usize]
    }

    /// What messages call a piece.
    pub fn describe(&self, piece: PieceId) -> String {
        let piece = self.slices.piece(piece);
        match piece.symbols.first() {
            Some(id) => self.object.symbol(*id).name.clone(),
            None => format!("{}+{:#x}", self.object.section(piece.section).name, piece.start),
        }
    }

    /// Names of a piece, the one it is known by first.
    pub fn names(&self, piece: PieceId) -> impl Iterator<Item = &'a str> + '_ {
        let object = self.object;
        self.slices.piece(piece).symbols.iter().map(move |id| object.symbol(*id).name.as_str())
    }

    /// Whether a name of a piece is weak, and another is not.
    pub fn is_weak_alias(&self, piece: PieceId, name: &str) -> bool {
        let symbols = || self.slices.piece(piece).symbols.iter().map(|id| self.object.symbol(*id));
        let is_weak = |s: &Symbol| s.binding == elf::STB_WEAK.0;
        symbols().any(|s| s.name == name && is_weak(s)) && symbols().any(|s| !is_weak(s))
    }

    /// The policy of the section that a piece is in.
    pub fn policy(&self, piece: PieceId) -> (Policy, &'static str) {
        self.policies[self.slices.piece(piece).section.0 as usize]
    }

    fn references_of(&self, id: SectionId, fields: &Fields) -> Result<Vec<Reference>, Error> {
        let section = self.object.section(id);
        let is_code = section.flags & elf::SHF_EXECINSTR.0 != 0;
        if section.flags & elf::SHF_ALLOC.0 == 0
            || (is_code && self.policies[id.0 as usize].0 == Policy::Drop)
        {
            return Ok(Vec::new());
        }
        let mut list = Vec::with_capacity(section.relocations.len());
        for r in &section.relocations {
            let fail = |what: &str| Error::Relocation {
                unit: self.name.into(),
                section: section.name.clone(),
                offset: r.offset,
                kind: r.kind,
                what: what.into(),
            };
            let rule = self.arch.field(r.kind).filter(Field::is_known);
            let rule = rule.ok_or_else(|| fail("there is no rule for binding it"))?;
            if r.offset + rule.width() > section.data.len() as u64 {
                return Err(fail("its field reaches past the section's end"));
            }
            let field = fields.by_offset.get(&r.offset);
            if is_code && field.is_none() {
                return Err(fail("it is not in an instruction"));
            }
            let to_end = fields.to_end(&rule, r.offset);
            let Some((referent, offset)) = self.referent(r, to_end, is_code).map_err(fail)? else {
                continue;
            };
            let is_branch = field.is_some_and(|f| f.is_branch);
            list.push(Reference { field: r.offset, kind: r.kind, is_branch, to_end, referent, offset });
        }
        Ok(list)
    }

    /// What a relocation refers to, and the offset in that; `None` for what nothing in the module needs.
    fn referent(
        &self,
        r: &Relocation,
        to_end: i64,
        is_code: bool,
    ) -> Result<Option<(Referent, i64)>, &'static str> {
        let symbol = self.object.symbol(r.symbol);
        let Place::Section(section) = symbol.place else {
            return Ok(Some((Referent::Symbol(r.symbol), r.addend.wrapping_add(to_end))));
        };
        let offset = (symbol.value as i64).wrapping_add(r.addend).wrapping_add(to_end);
        let piece = if symbol.kind == elf::STT_SECTION.0 {
            self.slices.at(section, offset)
        } else {
            self.slices.of_symbol(r.symbol)
        };
        Ok(match piece {
            Some(piece) if self.is_weak_alias(piece, &symbol.name) => {
                Some((Referent::Symbol(r.symbol), offset.wrapping_sub(symbol.value as i64)))
            }
            Some(piece) => {
                let origin = self.slices.piece(piece).origin as i64;
                Some((Referent::Piece(piece), offset.wrapping_sub(origin)))
            }
            None if matches!(self.policies[section.0 as usize].0, Policy::Table(_)) => {
                Some((Referent::Table(section), offset))
            }
            None if is_code => return Err("it refers to what is made anew for the module"),
            // Notes about tables and notes.
            None => None,
        })
    }

    /// Between functions of one section (`.sched.text`) the assembler needs no relocation, but once functions
    /// are kept and dropped one by one they do. So does a function's call of itself, which may have to go through
    /// vmlinux's entry.
    fn make_branches_explicit(&mut self, id: SectionId, fields: &Fields) {
        let mut found = Vec::new();
        for branch in &fields.branches {
            if self
                .references_in(id, branch.field, branch.field + branch.width)
                .iter()
                .any(|r| r.field == branch.field)
            {
                continue;
            }
            let (Some(from), Some(to)) =
                (self.slices.at(id, branch.field as i64), self.slices.at(id, branch.target as i64))
            else {
                continue;
            };
            if from == to && branch.target != self.slices.piece(to).origin {
                continue;
            }
            let Some(kind) = branch.relocation else {
                match from == to {
                    true => self.begin_again.push(to),
                    false => self.short_jumps.push((id, branch.field, to)),
                }
                continue;
            };
            found.push(Reference {
                field: branch.field,
                kind,
                is_branch: true,
                to_end: fields.by_offset.get(&branch.field).map_or(0, |f| f.to_end),
                referent: Referent::Piece(to),
                offset: branch.target as i64 - self.slices.piece(to).origin as i64,
            });
        }
        let list = &mut self.references[id.0 as usize];
        list.extend(found);
        list.sort_by_key(|r| r.field);
    }
}

fn how_to_cut(flags: u64, policy: Policy) -> Cut {
    if flags & elf::SHF_ALLOC.0 == 0 {
        return Cut::Not;
    }
    let is_code = flags & elf::SHF_EXECINSTR.0 != 0;
    match policy {
        Policy::Code => Cut::Functions,
        Policy::Stubs => Cut::References,
        Policy::Data(_) => Cut::Objects,
        Policy::Table(_) | Policy::Orc | Policy::OrcIp => Cut::Not,
        Policy::Drop | Policy::Refuse if is_code => Cut::Functions,
        Policy::Drop | Policy::Refuse => Cut::Objects,
    }
}

/// Where ftrace's table points to, by section: to a place in a function, or to where the padding before it begins, which
/// ftrace writes into as well (arm64's DYNAMIC_FTRACE_WITH_CALL_OPS).
fn listed_places(arch: &dyn Arch, object: &Object) -> Vec<BTreeSet<u64>> {
    let mut places = vec![BTreeSet::new(); object.sections.len()];
    for r in object.sections.iter().filter(|s| s.name == arch.ftrace_table()).flat_map(|s| &s.relocations) {
        let symbol = object.symbol(r.symbol);
        if let Place::Section(section) = symbol.place {
            places[section.0 as usize].insert(symbol.value.wrapping_add_signed(r.addend));
        }
    }
    places
}

/// Where sections that are cut at references are referred to.
fn reference_points(arch: &dyn Arch, object: &Object, cut: &[Cut], fields: &[Fields]) -> Vec<BTreeSet<u64>> {
    let mut cuts = vec![BTreeSet::new(); object.sections.len()];
    for (i, section) in object.sections.iter().enumerate() {
        for r in &section.relocations {
            let symbol = object.symbol(r.symbol);
            let Place::Section(target) = symbol.place else { continue };
            // Beside functions there is code without a symbol, too.
            let is_beside = cut[target.0 as usize] == Cut::Functions && section.name == ".altinstructions";
            if cut[target.0 as usize] != Cut::References && !is_beside {
                continue;
            }
            let to_end = arch.field(r.kind).map_or(0, |rule| fields[i].to_end(&rule, r.offset));
            let offset = (symbol.value as i64).wrapping_add(r.addend).wrapping_add(to_end);
            // Tables that describe the inside of a stub (returns, unwinding) do not begin one.
            let begins = section.flags & elf::SHF_EXECINSTR.0 != 0 || section.name == ".altinstructions";
            if offset >= 0 && begins {
                cuts[target.0 as usize].insert(offset as u64);
            }
        }
    }
    cuts
}

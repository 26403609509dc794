//! Where each function and object of the scheduler is to be found: in vmlinux, in the module, or both.

use super::normalise::{Reference, Target, Unit};
use super::slice::{Form, PieceId};
use super::special::{Kept, Policy};
use crate::binding::Error;
use crate::boundary::{Boundary, BoundaryFunction, BoundaryVariable, Fate, SchedClass, Sharing, StayReason};
use crate::identity::Addresses;
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::objects::{Place, SectionId, SymbolId};
use schedswap_kernel::vmlinux::{self, Image};
use std::collections::HashMap;

/// What objects are bound to.
#[derive(Clone, Copy)]
pub struct Binding<'a> {
    /// The kernel.
    pub image: &'a Image,
    /// What is replaced and what stays.
    pub boundary: &'a Boundary,
    /// Where the scheduler's own symbols are.
    pub addresses: &'a Addresses,
    /// The exported symbol against which vmlinux addresses are written: `_printk`.
    pub anchor: &'a str,
}

/// A place in vmlinux.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InVmlinux {
    pub addr: Addr,
    /// In a per-CPU section that is linked at 0: an offset, not an address that moves with the kernel.
    pub is_offset: bool,
}

/// Where one piece is to be found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Home {
    /// In the module only, for this reason.
    Module(String),
    /// In vmlinux only, for this reason.
    Vmlinux(InVmlinux, String),
    /// A function that is diverted: branches go to the module's, its address is vmlinux's.
    Both(Addr),
    /// `__schedule`: whoever wants it goes through vmlinux's entry, which leads to the stub; the module's copy
    /// is what the stub calls.
    Body(Addr),
    /// A `sched_class` object: vmlinux's is meant, the module's build of it serves the runtime.
    Class(Addr),
    /// The cold part of a function.
    ColdPartOf(PieceId),
    /// In neither, for this reason.
    Nowhere(String),
}

/// Where a reference goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolved {
    /// To the module's copy of a piece of a unit, `offset` bytes from its origin.
    Own { unit: usize, piece: PieceId, offset: i64 },
    /// To an entry of a table of the same unit, `offset` bytes from the table's start.
    Entry { section: SectionId, offset: i64 },
    /// To vmlinux, `offset` bytes from a symbol.
    Vmlinux { base: InVmlinux, offset: i64 },
    /// To the code that leaves the module's stack frame.
    Switch { offset: i64 },
}

/// The boundary and vmlinux, arranged for looking up.
pub struct Index<'a> {
    pub binding: &'a Binding<'a>,
    pub anchor: Addr,
    functions: HashMap<(&'a str, &'a str), &'a BoundaryFunction>,
    variables: HashMap<(&'a str, &'a str), Vec<&'a BoundaryVariable>>,
    classes: HashMap<&'a str, &'a SchedClass>,
}

impl<'a> Index<'a> {
    pub fn new(binding: &'a Binding<'a>) -> Result<Index<'a>, Error> {
        let image = binding.image;
        if !image.exports.contains_key(binding.anchor) {
            return Err(Error::NoAnchor(binding.anchor.into()));
        }
        let anchor =
            image.unique_symbol(binding.anchor).ok_or_else(|| Error::NoAnchor(binding.anchor.into()))?.addr;
        let mut index = Index {
            binding,
            anchor,
            functions: HashMap::new(),
            variables: HashMap::new(),
            classes: binding.boundary.classes.iter().map(|c| (c.name.as_str(), c)).collect(),
        };
        for f in &binding.boundary.functions {
            index.functions.insert((&f.unit, &f.name), f);
        }
        for v in &binding.boundary.variables {
            index.variables.entry((&v.unit, &v.name)).or_default().push(v);
        }
        Ok(index)
    }

    pub fn function(&self, unit: &str, name: &str) -> Option<&'a BoundaryFunction> {
        self.functions.get(&(unit, name)).copied()
    }

    pub fn variables<'s>(&'s self, unit: &'s str, name: &'s str) -> &'s [&'a BoundaryVariable] {
        self.variables.get(&(unit, name)).map_or(&[], Vec::as_slice)
    }

    pub fn class(&self, name: &str) -> Option<&'a SchedClass> {
        self.classes.get(name).copied()
    }

    /// A global of vmlinux. Locals of that name do not count: other units cannot see them.
    pub fn global(&self, name: &str, user: &str) -> Result<Option<&'a vmlinux::Symbol>, Error> {
        global(self.binding.image, name, user)
    }

    pub fn place(&self, symbol: &vmlinux::Symbol) -> InVmlinux {
        let section = symbol.section.map(|s| &self.binding.image.sections[s]);
        let is_offset =
            section.is_none_or(|s| s.addr.0 == 0 && s.flags & elf::SHF_ALLOC.0 != 0 && is_per_cpu(&s.name));
        InVmlinux { addr: symbol.addr, is_offset }
    }

    /// A place of which only the address and the section's name are known.
    pub fn place_in(&self, addr: Addr, section: &str) -> InVmlinux {
        let at_zero = || self.binding.image.sections.iter().any(|s| is_per_cpu(&s.name) && s.addr.0 == 0);
        InVmlinux { addr, is_offset: is_per_cpu(section) && at_zero() }
    }

    /// Where a piece is to be found.
    pub fn home(&self, unit: &Unit, piece: PieceId) -> Result<Home, Error> {
        match unit.slices.piece(piece).form {
            Form::Function => self.home_of_function(unit, piece),
            Form::Stub => Ok(Home::Module("code that goes with a function".into())),
            Form::Object => self.home_of_object(unit, piece),
            Form::Anonymous => Ok(Home::Module("constants without a name".into())),
        }
    }

    /// Whether vmlinux has another definition of a weak name, where the unit has it as an alias: the piece is the
    /// unit's all the same, by its other name.
    fn overrides(&self, unit: &Unit, piece: PieceId, home: &Home, name: &str) -> Result<bool, Error> {
        if !unit.is_weak_alias(piece, name) {
            return Ok(false);
        }
        let Some(in_force) = self.global(name, unit.name)? else { return Ok(false) };
        Ok(match home {
            Home::Both(addr) | Home::Body(addr) | Home::Class(addr) => *addr != in_force.addr,
            Home::Vmlinux(base, _) => base.addr != in_force.addr,
            Home::Module(_) => true,
            Home::ColdPartOf(_) | Home::Nowhere(_) => false,
        })
    }

    fn home_of_function(&self, unit: &Unit, piece: PieceId) -> Result<Home, Error> {
        for name in unit.names(piece) {
            let Some(function) = self.function(unit.name, name) else { continue };
            return Ok(match &function.fate {
                Fate::Divert(_) | Fate::InsideOnly(_) | Fate::Duplicate(_) => Home::Both(function.addr),
                Fate::Springboard(_) => Home::Body(function.addr),
                Fate::Stay(StayReason::OverriddenWeak) => match self.global(name, unit.name)? {
                    Some(symbol) => {
                        Home::Vmlinux(self.place(symbol), "weak, and overridden in vmlinux".into())
                    }
                    None => Home::Nowhere("it is weak, and vmlinux's definition has no symbol".into()),
                },
                Fate::Stay(reason) => Home::Vmlinux(
                    InVmlinux { addr: function.addr, is_offset: false },
                    format!("stays in vmlinux: {}", in_words(reason)),
                ),
            });
        }
        let (policy, reason) = unit.policy(piece);
        for name in unit.names(piece) {
            if let Some((parent, _)) = name.split_once(".cold")
                && let Some(parent) =
                    unit.slices.ids().find(|p| *p != piece && unit.names(*p).any(|n| n == parent))
            {
                return Ok(Home::ColdPartOf(parent));
            }
            if let Some(placed) = self.binding.addresses.get(unit.name, name) {
                let place = InVmlinux { addr: placed.addr, is_offset: false };
                return Ok(Home::Vmlinux(place, "in vmlinux, and not of the boundary".into()));
            }
            let is_weak = unit
                .slices
                .piece(piece)
                .symbols
                .iter()
                .any(|s| unit.object.symbol(*s).binding == elf::STB_WEAK.0);
            if (is_weak || policy == Policy::Drop)
                && let Some(symbol) = self.global(name, unit.name)?
            {
                return Ok(Home::Vmlinux(self.place(symbol), "vmlinux's own definition is in force".into()));
            }
        }
        if policy == Policy::Drop {
            return Ok(Home::Nowhere(format!(
                "vmlinux has it not, and the module does not carry its section ({reason})"
            )));
        }
        Ok(Home::Module("new".into()))
    }

    fn home_of_object(&self, unit: &Unit, piece: PieceId) -> Result<Home, Error> {
        let (policy, reason) = unit.policy(piece);
        if policy == Policy::Data(Kept::Once) {
            return Ok(Home::Module(reason.into()));
        }
        let section = &unit.object.section(unit.slices.piece(piece).section).name;
        for name in unit.names(piece) {
            if let Some(base) = local_static(name) {
                return Ok(self.home_of_static(unit, piece, base));
            }
            if let Some(class) = self.class(name).filter(|c| c.unit == unit.name) {
                let found = unit.slices.piece(piece).end - unit.slices.piece(piece).start;
                if found != class.size {
                    let (unit, name, expected) = (unit.name.into(), name.into(), class.size);
                    return Err(Error::SizeChanged { unit, name, expected, found });
                }
                return Ok(Home::Class(class.addr));
            }
            let variable = self.variables(unit.name, name).iter().find(|v| v.in_function.is_none());
            if let Some(Sharing::Private(why)) = variable.map(|v| &v.sharing) {
                if !matches!(policy, Policy::Data(_)) {
                    return Err(Error::CannotBePrivate {
                        unit: unit.name.into(),
                        name: name.into(),
                        section: section.clone(),
                        reason: reason.into(),
                    });
                }
                return Ok(Home::Module(format!("private: {why}")));
            }
            if let Some(placed) = self.binding.addresses.get(unit.name, name) {
                return Ok(Home::Vmlinux(
                    self.place_in(placed.addr, &placed.section),
                    "shared with vmlinux".into(),
                ));
            }
            if let Some(variable) = variable {
                return Ok(Home::Vmlinux(
                    self.place_in(variable.addr, section),
                    "shared with vmlinux".into(),
                ));
            }
            // Not in DWARF and not recovered, but global: tracepoints and their keys may be so.
            let is_global = unit
                .slices
                .piece(piece)
                .symbols
                .iter()
                .any(|s| unit.object.symbol(*s).binding != elf::STB_LOCAL.0);
            if is_global && let Some(symbol) = self.global(name, unit.name)? {
                return Ok(Home::Vmlinux(self.place(symbol), "shared with vmlinux".into()));
            }
            if let Some(what) = announced(name) {
                return Ok(Home::Nowhere(format!(
                    "it is {what} that vmlinux has not, and a module that comes and goes cannot add one"
                )));
            }
        }
        if matches!(policy, Policy::Drop | Policy::Refuse) {
            return Ok(Home::Nowhere(format!("the module does not carry its section {section}: {reason}")));
        }
        Ok(Home::Module("new".into()))
    }

    /// A function-local static is the module's own unless the boundary says otherwise of the function that
    /// uses it: its number says nothing, so function and base name must.
    fn home_of_static(&self, unit: &Unit, piece: PieceId, base: &str) -> Home {
        let shared: Vec<_> = self
            .variables(unit.name, base)
            .iter()
            .filter(|v| v.in_function.is_some() && v.sharing == Sharing::Shared)
            .collect();
        if !shared.is_empty() {
            let users = users(unit, piece);
            let mut hits = shared.iter().filter(|v| {
                let function = v.in_function.as_deref().unwrap_or_default();
                users.iter().any(|user| source_name(user) == function)
            });
            if let (Some(variable), None) = (hits.next(), hits.next()) {
                let section = &unit.object.section(unit.slices.piece(piece).section).name;
                return Home::Vmlinux(self.place_in(variable.addr, section), "shared with vmlinux".into());
            }
        }
        Home::Module("local to a function".into())
    }
}

/// Names of the functions that refer to a piece.
fn users<'a>(unit: &Unit<'a>, piece: PieceId) -> Vec<&'a str> {
    let mut users: Vec<&str> = unit
        .slices
        .ids()
        .filter(|p| unit.slices.piece(*p).form == Form::Function)
        .filter(|p| unit.references(*p).iter().any(|r| r.target == Target::Piece(piece)))
        .filter_map(|p| unit.names(p).next())
        .collect();
    users.dedup();
    users
}

/// A global or weak symbol of vmlinux by name.
pub fn global<'a>(image: &'a Image, name: &str, user: &str) -> Result<Option<&'a vmlinux::Symbol>, Error> {
    let Some(ids) = image.by_name.get(name) else { return Ok(None) };
    let globals: Vec<_> =
        ids.iter().map(|id| image.symbol(*id)).filter(|s| s.binding != elf::STB_LOCAL.0).collect();
    match globals.as_slice() {
        [] => Ok(None),
        [symbol] => Ok(Some(symbol)),
        more => Err(Error::Ambiguous { user: user.into(), symbol: name.into(), count: more.len() }),
    }
}

pub fn is_per_cpu(section: &str) -> bool {
    section.starts_with(".data..percpu")
}

/// The base name of a function-local static: `__already_done` of `__already_done.21`. A dot cannot come from
/// the source, so any name of data that ends in a number behind a dot is the compiler's.
pub(crate) fn local_static(name: &str) -> Option<&str> {
    let (base, number) = name.rsplit_once('.')?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(base)
}

/// A function's name without what the compiler added (`.isra.0`, `.part.0`, `.constprop.0`, `.cold`).
pub fn source_name(name: &str) -> &str {
    name.split_once('.').map_or(name, |(base, _)| base)
}

/// Kinds of objects that vmlinux keeps lists of.
fn announced(name: &str) -> Option<&'static str> {
    const KINDS: [(&str, &str); 4] = [
        ("__tracepoint_", "a tracepoint"),
        ("__SCK__", "a static call"),
        ("__event_", "a trace event"),
        ("event_class_", "a trace event"),
    ];
    KINDS.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, what)| *what)
}

/// Why a function stays, in words.
pub fn in_words(reason: &StayReason) -> String {
    match reason {
        StayReason::Sleeps { via } if via.is_empty() => "threads sleep inside".into(),
        StayReason::Sleeps { via } => format!("threads sleep inside, through {}", via.join(", ")),
        StayReason::Init => "__init code, whose memory is gone".into(),
        StayReason::OverriddenWeak => "weak, and overridden in vmlinux".into(),
        StayReason::Nmi { via } => format!("NMIs run it, through {}", via.join(", ")),
        StayReason::NoInstr => "code that must not be diverted".into(),
        StayReason::NoRoom { obstacle } => format!("no room for a jump: {obstacle}"),
        StayReason::Configured { by } => format!("kept by configuration: {by}"),
        StayReason::NotNamed => "not among the sidecar's functions".into(),
    }
}

/// All units with the homes of their pieces: answers where a reference goes.
pub struct Homes<'a> {
    pub index: &'a Index<'a>,
    pub units: &'a [Unit<'a>],
    /// By unit, by piece.
    homes: Vec<Vec<Home>>,
    /// Globals that a unit defines: name → unit, piece, offset.
    globals: HashMap<&'a str, (usize, PieceId, i64)>,
}

impl<'a> Homes<'a> {
    pub fn new(index: &'a Index<'a>, units: &'a [Unit<'a>]) -> Result<Homes<'a>, Error> {
        let mut homes = Vec::with_capacity(units.len());
        let mut globals: HashMap<&str, (usize, PieceId, i64)> = HashMap::new();
        let mut weak: HashMap<&str, bool> = HashMap::new();
        for (u, unit) in units.iter().enumerate() {
            homes.push(unit.slices.ids().map(|p| index.home(unit, p)).collect::<Result<Vec<_>, _>>()?);
            for (i, symbol) in unit.object.symbols.iter().enumerate() {
                let is_defined = matches!(symbol.place, Place::Section(_));
                if symbol.binding == elf::STB_LOCAL.0 || !is_defined {
                    continue;
                }
                let Some(piece) = unit.slices.of_symbol(SymbolId(i as u32)) else { continue };
                let is_weak = symbol.binding == elf::STB_WEAK.0;
                let offset = symbol.value as i64 - unit.slices.piece(piece).origin as i64;
                match weak.get(symbol.name.as_str()) {
                    Some(false) if !is_weak => return Err(Error::Twice(symbol.name.clone())),
                    Some(_) if is_weak => continue,
                    _ => {}
                }
                if is_weak && index.overrides(unit, piece, &homes[u][piece.0 as usize], &symbol.name)? {
                    continue;
                }
                weak.insert(&symbol.name, is_weak);
                globals.insert(&symbol.name, (u, piece, offset));
            }
        }
        Ok(Homes { index, units, homes, globals })
    }

    pub fn home(&self, unit: usize, piece: PieceId) -> &Home {
        &self.homes[unit][piece.0 as usize]
    }

    pub fn set(&mut self, unit: usize, piece: PieceId, home: Home) {
        self.homes[unit][piece.0 as usize] = home;
    }

    /// Whether the module has code for a piece.
    pub fn is_kept(&self, unit: usize, piece: PieceId) -> bool {
        match self.home(unit, piece) {
            Home::Module(_) | Home::Both(_) | Home::Body(_) | Home::Class(_) => true,
            Home::ColdPartOf(parent) => self.is_kept(unit, *parent),
            Home::Vmlinux(..) | Home::Nowhere(_) => false,
        }
    }

    /// The piece of this or another unit that a reference means; `None` for what no unit defines.
    pub fn defined(&self, unit: usize, reference: &Reference) -> Option<(usize, PieceId, i64)> {
        match reference.target {
            Target::Piece(piece) => Some((unit, piece, reference.offset)),
            Target::Table(_) => None,
            Target::Symbol(id) => {
                let symbol = self.units[unit].object.symbol(id);
                let (unit, piece, offset) = *self.globals.get(symbol.name.as_str())?;
                (symbol.place != Place::Absolute).then_some((unit, piece, offset + reference.offset))
            }
        }
    }

    /// Where a reference goes that the piece `from` of `unit` holds; `describes` for the fields of tables
    /// that describe code, which mean the module's own copy.
    pub fn resolve(
        &self,
        unit: usize,
        from: PieceId,
        reference: &Reference,
        describes: bool,
    ) -> Result<Resolved, Error> {
        let unbindable = |target: String, why: String| Error::Unbindable {
            unit: self.units[unit].name.into(),
            user: self.units[unit].describe(from),
            target,
            why,
        };
        if let Target::Table(section) = reference.target {
            return Ok(Resolved::Entry { section, offset: reference.offset });
        }
        let Some((u, piece, offset)) = self.defined(unit, reference) else {
            return self.resolve_extern(unit, from, reference);
        };
        let own = Resolved::Own { unit: u, piece, offset };
        let target = &self.units[u];
        let is_code = target.slices.piece(piece).is_code();
        if describes && is_code {
            return if self.is_kept(u, piece) {
                Ok(own)
            } else {
                Err(unbindable(
                    target.describe(piece),
                    "a table describes it together with kept code, but it is dropped".into(),
                ))
            };
        }
        let at = |addr: Addr| Resolved::Vmlinux { base: InVmlinux { addr, is_offset: false }, offset };
        match self.home(u, piece) {
            Home::Module(_) => Ok(own),
            Home::Both(_) if reference.is_branch || offset != 0 => Ok(own),
            Home::Both(addr) => Ok(at(*addr)),
            Home::Body(_) if offset != 0 => Ok(own),
            Home::Body(addr) | Home::Class(addr) => Ok(at(*addr)),
            Home::Vmlinux(_, why) if is_code && offset != 0 => Err(unbindable(
                format!("{}+{offset:#x}", target.describe(piece)),
                format!("it lies inside a function that the module has no copy of ({why})"),
            )),
            Home::Vmlinux(base, _) => {
                self.check_size(u, piece)?;
                Ok(Resolved::Vmlinux { base: *base, offset })
            }
            Home::ColdPartOf(parent) if self.is_kept(u, *parent) => Ok(own),
            Home::ColdPartOf(parent) => Err(unbindable(
                target.describe(piece),
                format!("it is the cold part of {}, which stays in vmlinux", target.describe(*parent)),
            )),
            Home::Nowhere(why) => Err(unbindable(target.describe(piece), why.clone())),
        }
    }

    /// Shared data has the size it has in vmlinux, or references to its end go astray.
    fn check_size(&self, unit: usize, piece: PieceId) -> Result<(), Error> {
        let owner = &self.units[unit];
        let slice = owner.slices.piece(piece);
        if slice.form != Form::Object {
            return Ok(());
        }
        let found = slice.end - slice.start;
        match owner
            .names(piece)
            .find_map(|n| self.index.binding.addresses.get(owner.name, n).map(|p| (n, p.size)))
        {
            Some((name, expected)) if expected != found && expected != 0 => {
                Err(Error::SizeChanged { unit: owner.name.into(), name: name.into(), expected, found })
            }
            _ => Ok(()),
        }
    }

    fn resolve_extern(&self, unit: usize, from: PieceId, reference: &Reference) -> Result<Resolved, Error> {
        let owner = &self.units[unit];
        let Target::Symbol(id) = reference.target else {
            unreachable!("pieces are always defined");
        };
        let symbol = owner.object.symbol(id);
        if symbol.place == Place::Absolute {
            let base = InVmlinux { addr: Addr(symbol.value), is_offset: true };
            return Ok(Resolved::Vmlinux { base, offset: reference.offset });
        }
        let user = owner.describe(from);
        if symbol.name == owner.arch.stack_switch() {
            if reference.is_branch && self.is_springboard(unit, from) {
                return Ok(Resolved::Switch { offset: reference.offset });
            }
            return Err(Error::Unbindable {
                unit: owner.name.into(),
                user,
                target: symbol.name.clone(),
                why: "only __schedule may switch stacks".into(),
            });
        }
        let Some(found) = self.index.global(&symbol.name, &user)? else {
            return Err(Error::UnknownSymbol {
                unit: owner.name.into(),
                function: user,
                symbol: symbol.name.clone(),
                hint: hint(self.index.binding.image, &symbol.name),
            });
        };
        Ok(Resolved::Vmlinux { base: self.index.place(found), offset: reference.offset })
    }

    /// Whether a piece is `__schedule` or its cold part.
    pub fn is_springboard(&self, unit: usize, piece: PieceId) -> bool {
        match self.home(unit, piece) {
            Home::Body(_) => true,
            Home::ColdPartOf(parent) => matches!(self.home(unit, *parent), Home::Body(_)),
            _ => false,
        }
    }
}

/// What vmlinux has instead of a global symbol.
pub fn hint(image: &Image, name: &str) -> String {
    if image.by_name.contains_key(name) {
        return format!(" (vmlinux has {name}, but as a local of another file)");
    }
    let mut clones: Vec<&str> = image
        .by_name
        .keys()
        .filter(|k| k.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
        .map(String::as_str)
        .collect();
    clones.sort_unstable();
    match clones.first() {
        Some(clone) => format!(" (vmlinux has only the clone {clone})"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statics_are_told_from_clones_and_files() {
        assert_eq!(local_static("__already_done.21"), Some("__already_done"));
        assert_eq!(local_static("runqueues"), None);
        assert_eq!(local_static("foo.isra"), None);
        assert_eq!(source_name("finish_task_switch.isra.0"), "finish_task_switch");
    }
}

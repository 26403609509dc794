//! Where a reference goes, once each piece has its destination.

use super::destination::{Destination, destination};
use super::index::{InVmlinux, Index};
use super::normalise::{Reference, Referent, Unit};
use super::slice::{Form, PieceId};
use crate::binding::Error;
use crate::binding::vmlinux_symbols::hint;
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::objects::{Place, SectionId, SymbolId};
use std::collections::HashMap;

/// Where a reference goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolved {
    /// To the module's copy of a piece of a unit, `offset` bytes from its origin.
    Own { unit: usize, piece: PieceId, offset: i64 },
    /// To an entry of a table of the same unit, `offset` bytes from the table's start.
    TableEntry { section: SectionId, offset: i64 },
    /// To vmlinux, `offset` bytes from a symbol.
    Vmlinux { base: InVmlinux, offset: i64 },
    /// To the code that leaves the module's stack frame.
    Switch { offset: i64 },
}

/// All units with the destinations of their pieces: answers where a reference goes.
pub struct Destinations<'a> {
    pub index: &'a Index<'a>,
    pub units: &'a [Unit<'a>],
    /// By unit, by piece.
    destinations: Vec<Vec<Destination>>,
    /// Globals that a unit defines: name → unit, piece, offset.
    globals: HashMap<&'a str, (usize, PieceId, i64)>,
}

impl<'a> Destinations<'a> {
    /// Finds the destination of every piece, and what each global name means among the units.
    ///
    /// # Errors
    /// As [`destination`], and when two units define one global name.
    pub fn new(index: &'a Index<'a>, units: &'a [Unit<'a>]) -> Result<Destinations<'a>, Error> {
        let mut destinations = Vec::with_capacity(units.len());
        for unit in units {
            let of_unit = unit.slices.ids().map(|piece| destination(index, unit, piece));
            destinations.push(of_unit.collect::<Result<Vec<_>, _>>()?);
        }
        let mut destinations = Destinations { index, units, destinations, globals: HashMap::new() };
        destinations.find_globals()?;
        Ok(destinations)
    }

    fn find_globals(&mut self) -> Result<(), Error> {
        let mut weak: HashMap<&str, bool> = HashMap::new();
        for (u, unit) in self.units.iter().enumerate() {
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
                if is_weak && self.is_overridden(u, piece, &symbol.name)? {
                    continue;
                }
                weak.insert(&symbol.name, is_weak);
                self.globals.insert(&symbol.name, (u, piece, offset));
            }
        }
        Ok(())
    }

    /// Whether vmlinux has another definition of a weak name, where the unit has it as an alias: the piece is the
    /// unit's all the same, by its other name.
    fn is_overridden(&self, unit: usize, piece: PieceId, name: &str) -> Result<bool, Error> {
        let owner = &self.units[unit];
        if !owner.is_weak_alias(piece, name) {
            return Ok(false);
        }
        let Some(in_force) = self.index.global(name, owner.name)? else { return Ok(false) };
        Ok(match self.of(unit, piece) {
            Destination::Both(addr)
            | Destination::Through(addr)
            | Destination::Body(addr)
            | Destination::Class(addr) => *addr != in_force.addr,
            Destination::Vmlinux(place, _) => place.addr != in_force.addr,
            Destination::Module(_) => true,
            Destination::ColdPartOf(_) | Destination::Nowhere(_) => false,
        })
    }

    /// Where a piece is to be found.
    pub fn of(&self, unit: usize, piece: PieceId) -> &Destination {
        &self.destinations[unit][piece.0 as usize]
    }

    /// Decides otherwise about a piece.
    pub fn set(&mut self, unit: usize, piece: PieceId, destination: Destination) {
        self.destinations[unit][piece.0 as usize] = destination;
    }

    /// Whether the module has code for a piece.
    pub fn is_kept(&self, unit: usize, piece: PieceId) -> bool {
        match self.of(unit, piece) {
            Destination::Module(_)
            | Destination::Both(_)
            | Destination::Through(_)
            | Destination::Body(_)
            | Destination::Class(_) => true,
            Destination::ColdPartOf(parent) => self.is_kept(unit, *parent),
            Destination::Vmlinux(..) | Destination::Nowhere(_) => false,
        }
    }

    /// The piece of this or another unit that a reference means; `None` for what no unit defines.
    pub fn defined(&self, unit: usize, reference: &Reference) -> Option<(usize, PieceId, i64)> {
        match reference.referent {
            Referent::Piece(piece) => Some((unit, piece, reference.offset)),
            Referent::Table(_) => None,
            Referent::Symbol(id) => {
                let symbol = self.units[unit].object.symbol(id);
                let (unit, piece, offset) = *self.globals.get(symbol.name.as_str())?;
                (symbol.place != Place::Absolute).then_some((unit, piece, offset + reference.offset))
            }
        }
    }

    /// Where a reference goes that the piece `from` of `unit` holds; `describes` for the fields of tables
    /// that describe code, which mean the module's own copy.
    ///
    /// # Errors
    /// When it goes to something that a module cannot refer to, that vmlinux does not have, or that has another size there.
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
        if let Referent::Table(section) = reference.referent {
            return Ok(Resolved::TableEntry { section, offset: reference.offset });
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
        match self.of(u, piece) {
            Destination::Module(_) => Ok(own),
            Destination::Both(_) if reference.is_branch || offset != 0 => Ok(own),
            Destination::Both(addr) => Ok(at(*addr)),
            Destination::Through(_) | Destination::Body(_) if offset != 0 => Ok(own),
            Destination::Through(addr) | Destination::Body(addr) | Destination::Class(addr) => Ok(at(*addr)),
            Destination::Vmlinux(_, why) if is_code && offset != 0 => Err(unbindable(
                format!("{}+{offset:#x}", target.describe(piece)),
                format!("it lies inside a function that the module has no copy of ({why})"),
            )),
            Destination::Vmlinux(base, _) => {
                self.check_size(u, piece)?;
                Ok(Resolved::Vmlinux { base: *base, offset })
            }
            Destination::ColdPartOf(parent) if self.is_kept(u, *parent) => Ok(own),
            Destination::ColdPartOf(parent) => Err(unbindable(
                target.describe(piece),
                format!("it is the cold part of {}, which stays in vmlinux", target.describe(*parent)),
            )),
            Destination::Nowhere(why) => Err(unbindable(target.describe(piece), why.clone())),
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
        let Referent::Symbol(id) = reference.referent else {
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
        match self.of(unit, piece) {
            Destination::Body(_) => true,
            Destination::ColdPartOf(parent) => matches!(self.of(unit, *parent), Destination::Body(_)),
            _ => false,
        }
    }
}

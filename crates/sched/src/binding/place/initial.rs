//! Shared data keeps the contents it has in the running kernel. Where an edit gives it other initial contents,
//! constants become the module's own, and for variables the developer is told.

use super::destination::Destination;
use super::index::InVmlinux;
use super::normalise::{Reference, Referent};
use super::resolve::Destinations;
use super::slice::{Form, PieceId};
use super::special::{Kept, Policy};
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::relocation::Field;

/// Makes edited constants private; returns a warning for each edited variable and each new function that
/// only shared data refers to.
pub fn settle(destinations: &mut Destinations) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut edited = Vec::new();
    for (u, unit) in destinations.units.iter().enumerate() {
        for piece in unit.slices.ids().filter(|p| unit.slices.piece(*p).form == Form::Object) {
            let Destination::Vmlinux(place, _) = destinations.of(u, piece) else { continue };
            let Policy::Data(kept) = unit.policy(piece).0 else { continue };
            if !differs(destinations, u, piece, *place) {
                continue;
            }
            let section = unit.object.section(unit.slices.piece(piece).section);
            let is_constant = kept == Kept::ReadOnly && section.flags & elf::SHF_WRITE.0 == 0;
            if is_constant {
                edited.push((u, piece));
            } else {
                warnings.push(format!(
                    "{} in {} has other initial contents than in vmlinux; the variable stays in vmlinux with the \
                     contents it has there",
                    unit.describe(piece),
                    unit.name
                ));
            }
        }
    }
    for (u, piece) in edited {
        destinations.set(
            u,
            piece,
            Destination::Module("a constant with other contents than in vmlinux".into()),
        );
    }
    warnings
}

/// Whether an object's bytes are others than vmlinux's. A pointer to something without a name in vmlinux cannot
/// be compared, and counts as the same.
fn differs(destinations: &Destinations, unit: usize, piece: PieceId, place: InVmlinux) -> bool {
    let owner = &destinations.units[unit];
    let slice = owner.slices.piece(piece);
    let mut ours = slice.bytes(owner.object).to_vec();
    let Some(theirs) = destinations.index.binding.image.bytes(place.addr, ours.len() as u64) else {
        return false;
    };
    for reference in owner.references(piece) {
        let offset = (reference.field - slice.start) as usize;
        let Some(rule) = owner.arch.field(reference.kind).filter(Field::is_known) else { return false };
        let field = offset..offset + rule.len;
        let Some(ours) = ours.get_mut(field.clone()) else { return false };
        ours.copy_from_slice(&theirs[field.clone()]);
        let expected = match address(destinations, unit, reference) {
            Address::Known(addr) => addr,
            Address::New => return true,
            Address::Unknown => continue,
        };
        let mut filled = theirs[field.clone()].to_vec();
        let at = Addr(place.addr.0 + offset as u64);
        if rule.fill(&mut filled, 0, at, expected).is_err() || filled != theirs[field] {
            return true;
        }
    }
    ours != theirs
}

enum Address {
    Known(u64),
    New,
    Unknown,
}

/// What a reference amounts to in vmlinux.
fn address(destinations: &Destinations, unit: usize, reference: &Reference) -> Address {
    let Some((u, piece, offset)) = destinations.defined(unit, reference) else {
        let Referent::Symbol(id) = reference.referent else { return Address::Unknown };
        let name = &destinations.units[unit].object.symbol(id).name;
        return match destinations.index.global(name, "") {
            Ok(Some(symbol)) => Address::Known(symbol.addr.offset(reference.offset).0),
            Ok(None) => Address::New,
            Err(_) => Address::Unknown,
        };
    };
    match destinations.of(u, piece) {
        Destination::Vmlinux(place, _) => Address::Known(place.addr.offset(offset).0),
        Destination::Both(addr)
        | Destination::Through(addr)
        | Destination::Body(addr)
        | Destination::Class(addr) => Address::Known(addr.offset(offset).0),
        new if new.is_new() => Address::New,
        Destination::Module(_) | Destination::ColdPartOf(_) | Destination::Nowhere(_) => Address::Unknown,
    }
}

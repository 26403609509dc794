//! Shared data keeps the contents it has in the running kernel. Where an edit gives it other initial contents,
//! constants become the module's own, and for variables the developer is told.

use super::destination::{Home, Homes, InVmlinux};
use super::normalise::{Reference, Target};
use super::slice::{Form, PieceId};
use super::special::{Kept, Policy};
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::relocation::Field;

/// Makes edited constants private; returns a warning for each edited variable and each new function that
/// only shared data refers to.
pub fn settle(homes: &mut Homes) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut edited = Vec::new();
    for (u, unit) in homes.units.iter().enumerate() {
        for piece in unit.slices.ids().filter(|p| unit.slices.piece(*p).form == Form::Object) {
            let Home::Vmlinux(place, _) = homes.home(u, piece) else { continue };
            let Policy::Data(kept) = unit.policy(piece).0 else { continue };
            if !differs(homes, u, piece, *place) {
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
        homes.set(u, piece, Home::Module("a constant with other contents than in vmlinux".into()));
    }
    warnings
}

/// Whether an object's bytes are others than vmlinux's. A pointer to something without a name in vmlinux cannot
/// be compared, and counts as the same.
fn differs(homes: &Homes, unit: usize, piece: PieceId, place: InVmlinux) -> bool {
    let owner = &homes.units[unit];
    let slice = owner.slices.piece(piece);
    let mut ours = slice.bytes(owner.object).to_vec();
    let Some(theirs) = homes.index.binding.image.bytes(place.addr, ours.len() as u64) else { return false };
    for reference in owner.references(piece) {
        let offset = (reference.field - slice.start) as usize;
        let Some(rule) = owner.arch.field(reference.kind).filter(Field::is_known) else { return false };
        let field = offset..offset + rule.len;
        let Some(ours) = ours.get_mut(field.clone()) else { return false };
        ours.copy_from_slice(&theirs[field.clone()]);
        let expected = match address(homes, unit, reference) {
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
fn address(homes: &Homes, unit: usize, reference: &Reference) -> Address {
    let Some((u, piece, offset)) = homes.defined(unit, reference) else {
        let Target::Symbol(id) = reference.target else { return Address::Unknown };
        let name = &homes.units[unit].object.symbol(id).name;
        return match homes.index.global(name, "") {
            Ok(Some(symbol)) => Address::Known(symbol.addr.offset(reference.offset).0),
            Ok(None) => Address::New,
            Err(_) => Address::Unknown,
        };
    };
    match homes.home(u, piece) {
        Home::Vmlinux(place, _) => Address::Known(place.addr.offset(offset).0),
        Home::Both(addr) | Home::Body(addr) | Home::Class(addr) => Address::Known(addr.offset(offset).0),
        Home::Module(why) if why == "new" => Address::New,
        Home::Module(_) | Home::ColdPartOf(_) | Home::Nowhere(_) => Address::Unknown,
    }
}

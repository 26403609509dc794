//! String literals that vmlinux has as well are vmlinux's: the address of one may be handed out for good.

use super::destination::Destination;
use super::index::InVmlinux;
use super::resolve::Destinations;
use super::slice::Form;
use crate::identity::{is_there, literal};

/// Gives them their place in vmlinux.
pub fn settle(destinations: &mut Destinations) {
    let binding = destinations.index.binding;
    let mut found = Vec::new();
    for (u, unit) in destinations.units.iter().enumerate() {
        for piece in unit.slices.ids().filter(|p| unit.slices.piece(*p).form == Form::Anonymous) {
            let slice = unit.slices.piece(piece);
            let section = unit.object.section(slice.section);
            let Some(text) = literal(section, slice.start) else { continue };
            if slice.end - slice.start != text.len() as u64 + 1 {
                continue;
            }
            // The work dir says where, and vmlinux whether that is so.
            let addr = binding.addresses.string(section.align, text);
            found.extend(
                addr.filter(|addr| is_there(binding.image, *addr, text)).map(|addr| (u, piece, addr)),
            );
        }
    }
    for (u, piece, addr) in found {
        let place = InVmlinux { addr, is_offset: false };
        destinations.set(u, piece, Destination::Vmlinux(place, "a string that vmlinux has".into()));
    }
}

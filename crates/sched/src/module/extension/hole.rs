//! Room for a slot's number in a structure whose layout must not change.

use super::Error;
use super::descriptors::StateDescriptor;
use schedswap_kernel::types::{Layouts, RecordLayout, Types};

/// Bytes of a slot's number.
pub(super) const BYTES: u64 = 4;

/// Where the number can be: padding of the structure itself, in the kernel and in the edited tree. Padding of an inner
/// structure cannot hold it, because code that assigns the inner structure as a whole writes that padding.
pub(super) fn find(kernel: &Layouts, edited: &Types, state: &StateDescriptor) -> Result<u64, Error> {
    let object = state.kind.structure();
    let no_structure =
        |unit: &str| Error::NoStructure { unit: unit.to_owned(), state: state.name.clone(), object };
    let kernel = kernel.layout(object).ok_or_else(|| no_structure("vmlinux"))?;
    let edited = edited.layout(object).ok_or_else(|| no_structure(&state.unit))?;
    places(&kernel).find(|at| is_free(&edited, *at)).ok_or_else(|| Error::NoHole {
        state: state.name.clone(),
        object,
        kind: state.kind.plural(),
    })
}

fn places(layout: &RecordLayout) -> impl Iterator<Item = u64> {
    layout.holes.iter().filter(|hole| hole.path.is_empty()).flat_map(|hole| {
        let first = hole.offset.next_multiple_of(BYTES);
        (first..(hole.offset + hole.bytes + 1).saturating_sub(BYTES)).step_by(BYTES as usize)
    })
}

fn is_free(layout: &RecordLayout, at: u64) -> bool {
    places(layout).any(|place| place == at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedswap_kernel::types::{Hole, Kind, SourceLine};

    fn structure(holes: &[(u64, u64, &str)]) -> RecordLayout {
        let holes = holes.iter().map(|(offset, bytes, path)| Hole {
            offset: *offset,
            bytes: *bytes,
            path: (*path).to_owned(),
            owner: "struct a".to_owned(),
            offset_in_owner: *offset,
            after: None,
            before: None,
        });
        RecordLayout {
            title: "struct a".to_owned(),
            name: "a".to_owned(),
            kind: Kind::Struct,
            bytes: 64,
            align: 8,
            place: SourceLine::default(),
            members: Vec::new(),
            holes: holes.collect(),
            spare_bits: Vec::new(),
        }
    }

    #[test]
    fn only_whole_aligned_words_of_the_structures_own_padding_will_do() {
        let all = |holes: &[(u64, u64, &str)]| places(&structure(holes)).collect::<Vec<_>>();
        assert_eq!(all(&[(4, 4, "")]), [4]);
        assert_eq!(all(&[(5, 3, ""), (13, 6, ""), (20, 3, "")]), [0; 0]);
        assert_eq!(all(&[(13, 7, "")]), [16]);
        assert_eq!(all(&[(8, 12, ""), (40, 8, "se")]), [8, 12, 16]);
        assert_eq!(all(&[(0, 2, "")]), [0; 0]);
    }
}

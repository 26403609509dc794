//! Loads and stores of A64 at a base and an offset.

use super::super::step::Register;
use super::word::Word;

/// A load or store of general registers, each of `bytes`, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LoadStore {
    pub kind: LoadStoreKind,
    /// `None` is the zero register.
    pub registers: [Option<Register>; 2],
    pub count: usize,
    pub bytes: i64,
    pub base: Register,
    pub offset: i64,
    pub update: Update,
    /// Of all 64 bits of the registers.
    pub whole: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LoadStoreKind {
    Load,
    Store,
    Prefetch,
}

/// Whether the offset is added to the base register, before or after the access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Update {
    No,
    Before,
    After,
}

impl Word {
    /// A load or store of one or two general registers at a base and an offset.
    pub fn load_store(self) -> Option<LoadStore> {
        if self.is(0x3a00_0000, 0x2800_0000) {
            return self.pair();
        }
        if self.bits(26, 1) != 0 || !self.is(0x3a00_0000, 0x3800_0000) {
            return None;
        }
        let (size, opc) = (self.bits(30, 2), self.bits(22, 2));
        let kind = match (size, opc) {
            (3, 2) => LoadStoreKind::Prefetch,
            (_, 0) => LoadStoreKind::Store,
            (3, 3) | (2, 3) => return None,
            _ => LoadStoreKind::Load,
        };
        let (offset, update) = if self.bits(24, 1) != 0 {
            (i64::from(self.bits(10, 12)) << size, Update::No)
        } else if self.bits(21, 1) != 0 {
            return None;
        } else {
            let update = match self.bits(10, 2) {
                0 | 2 => Update::No,
                1 => Update::After,
                _ => Update::Before,
            };
            (self.signed(12, 9), update)
        };
        let whole = size == 3;
        Some(LoadStore {
            kind,
            registers: [self.rd(), None],
            count: 1,
            bytes: 1 << size,
            base: self.general_or_sp(5),
            offset,
            update,
            whole,
        })
    }

    fn pair(self) -> Option<LoadStore> {
        let opc = self.bits(30, 2);
        // Of SIMD registers, or with a tag.
        if self.bits(26, 1) != 0 || opc == 3 {
            return None;
        }
        let is_load = self.bits(22, 1) != 0;
        if opc == 1 && !is_load {
            return None;
        }
        let bytes = if opc == 2 { 8 } else { 4 };
        let update = match self.bits(23, 2) {
            1 => Update::After,
            3 => Update::Before,
            _ => Update::No,
        };
        Some(LoadStore {
            kind: if is_load { LoadStoreKind::Load } else { LoadStoreKind::Store },
            registers: [self.rd(), self.general(10)],
            count: 2,
            bytes,
            base: self.general_or_sp(5),
            offset: self.signed(15, 7) * bytes,
            update,
            whole: bytes == 8,
        })
    }
}

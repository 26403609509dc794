//! The bytes of a structure that no member uses.
//!
//! A byte is free only if no member of any variant of a union covers it and no flexible array grows into it. Each
//! hole names the structure whose padding it is: the compiler puts a member of the outer structure only into the
//! outer one's padding, never into what an inner one leaves free.

use super::model::{Kind, Record, Type, TypeId, Types};
use super::view::{element, join};
use serde::Serialize;
use std::ops::Range;

/// Bytes that no member uses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Hole {
    /// From the start of the outermost structure; in an array, in its first element.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// Members that lead to the structure whose padding it is (`se.load`, `clock[]`); empty for the outermost.
    pub path: String,
    /// That structure: `struct sched_entity`.
    pub owner: String,
    /// Offset in that structure.
    pub offset_in_owner: u64,
    /// The member of it that ends before the hole; `None` at its start.
    pub after: Option<String>,
    /// The member of it that begins after the hole; `None` for padding at its end.
    pub before: Option<String>,
}

/// Bits of a bit-field's byte that no member uses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SpareBits {
    /// The byte, from the start of the outermost structure.
    pub offset: u64,
    /// Which bits of it are free: bit 0 is the lowest.
    pub mask: u8,
    /// Members that lead to the structure that it is in.
    pub path: String,
    /// That structure.
    pub owner: String,
}

/// Structures larger than this are not looked into (none of the kernel's is near it).
const BYTES_MAX: u64 = 1 << 24;
/// Nesting beyond which no structure goes.
const DEPTH_MAX: u32 = 32;

/// The free bytes and bits of a structure or union.
pub(super) fn find(types: &Types, id: TypeId) -> (Vec<Hole>, Vec<SpareBits>) {
    let Some(record) = types.record(Some(id)).filter(|record| record.bytes <= BYTES_MAX) else {
        return (Vec::new(), Vec::new());
    };
    let mut used = Used { types, bits: vec![0; record.bytes as usize], flexible: Vec::new() };
    used.mark_record(record, 0, 0);
    used.grow_flexible_arrays();
    let mut search = Search { types, used: &used, holes: Vec::new(), spare: Vec::new() };
    search.look_into(record, "", 0, 0);
    let Search { mut holes, mut spare, .. } = search;
    holes.sort_by_key(|hole| hole.offset);
    spare.sort_by_key(|bits| bits.offset);
    spare.dedup_by_key(|bits| bits.offset);
    (holes, spare)
}

/// For each byte, the bits that some member covers.
struct Used<'t> {
    types: &'t Types,
    bits: Vec<u8>,
    /// Where flexible arrays begin.
    flexible: Vec<u64>,
}

impl Used<'_> {
    fn mark_record(&mut self, record: &Record, base: u64, depth: u32) {
        for member in &record.members {
            match member.bits {
                Some(bits) => {
                    for bit in base * 8 + bits.start..base * 8 + bits.start + bits.width {
                        if let Some(byte) = self.bits.get_mut((bit / 8) as usize) {
                            *byte |= 1 << (bit % 8);
                        }
                    }
                }
                None => self.mark(member.of, base + member.offset, depth + 1),
            }
        }
    }

    fn mark(&mut self, id: Option<TypeId>, at: u64, depth: u32) {
        let Some(plain) = self.types.plain(id).filter(|_| depth < DEPTH_MAX) else { return };
        match self.types.get(plain) {
            Type::Record(record) => self.mark_record(record, at, depth),
            Type::Array(array) => {
                let (size, count) = (self.types.bytes(array.of), array.elements());
                if count == 0 {
                    self.flexible.push(at);
                } else if self.types.record(array.of).is_some() || is_array(self.types, array.of) {
                    let room = self.bits.len() as u64;
                    let starts = (0..count).map(|n| at + n * size).take_while(|start| *start < room);
                    starts.for_each(|start| self.mark(array.of, start, depth + 1));
                } else {
                    self.mark_bytes(at, size.saturating_mul(count));
                }
            }
            _ => self.mark_bytes(at, self.types.bytes(id)),
        }
    }

    fn mark_bytes(&mut self, at: u64, bytes: u64) {
        let end = at.saturating_add(bytes).min(self.bits.len() as u64);
        if at < end {
            self.bits[at as usize..end as usize].fill(0xff);
        }
    }

    /// What follows a flexible array, up to the next member, belongs to the array.
    fn grow_flexible_arrays(&mut self) {
        for start in std::mem::take(&mut self.flexible) {
            let rest = self.bits.iter_mut().skip(start as usize);
            rest.take_while(|byte| **byte == 0).for_each(|byte| *byte = 0xff);
        }
    }

    fn is_free(&self, at: u64) -> bool {
        self.bits.get(at as usize) == Some(&0)
    }
}

fn is_array(types: &Types, id: Option<TypeId>) -> bool {
    types.plain(id).is_some_and(|id| matches!(types.get(id), Type::Array(_)))
}

/// A member's place in the structure that declares it, nameless inner ones looked through.
struct Covered {
    range: Range<u64>,
    name: String,
}

struct Search<'t> {
    types: &'t Types,
    used: &'t Used<'t>,
    holes: Vec<Hole>,
    spare: Vec<SpareBits>,
}

impl Search<'_> {
    /// Finds what is free in a structure that lies at `base` of the outermost.
    fn look_into(&mut self, record: &Record, path: &str, base: u64, depth: u32) {
        if depth > DEPTH_MAX {
            return;
        }
        let mut covered = Vec::new();
        for member in &record.members {
            let name = member.name.clone().unwrap_or_else(|| "(nameless)".to_owned());
            let range = match member.bits {
                Some(bits) => bits.start / 8..(bits.start + bits.width).div_ceil(8),
                None => member.offset..member.offset + self.types.bytes(member.of),
            };
            if member.bits.is_some() {
                self.spare_bits(record, path, base, &range);
            }
            covered.push(Covered { range, name });
        }
        covered.sort_by_key(|c| (c.range.start, c.range.end));
        self.gaps(record, path, base, &covered);
        for member in record.members.iter().filter(|member| member.bits.is_none()) {
            let Some(id) = element(self.types, member.of) else { continue };
            let Some(inner) = self.types.record(Some(id)) else { continue };
            let array = if is_array(self.types, member.of) { "[]" } else { "" };
            let inner_path = join(path, member.name.as_deref());
            self.look_into(inner, &format!("{inner_path}{array}"), base + member.offset, depth + 1);
        }
    }

    fn gaps(&mut self, record: &Record, path: &str, base: u64, covered: &[Covered]) {
        let mut end = 0;
        let mut after: Option<&str> = None;
        for member in covered {
            if member.range.start > end {
                self.gap(record, path, base, end..member.range.start, (after, Some(&member.name)));
            }
            if member.range.end >= end {
                (end, after) = (member.range.end, Some(member.name.as_str()));
            }
        }
        if end < record.bytes {
            self.gap(record, path, base, end..record.bytes, (after, None));
        }
    }

    /// A gap between members, as far as nothing else (another variant of a union, a flexible array) covers it.
    fn gap(
        &mut self,
        record: &Record,
        path: &str,
        base: u64,
        gap: Range<u64>,
        (after, before): (Option<&str>, Option<&str>),
    ) {
        let mut at = gap.start;
        while at < gap.end {
            let free = (at..gap.end).take_while(|byte| self.used.is_free(base + byte)).count() as u64;
            if free > 0 {
                self.holes.push(Hole {
                    offset: base + at,
                    bytes: free,
                    path: path.to_owned(),
                    owner: title(record),
                    offset_in_owner: at,
                    after: after.map(str::to_owned),
                    before: before.map(str::to_owned),
                });
            }
            at += free.max(1);
        }
    }

    fn spare_bits(&mut self, record: &Record, path: &str, base: u64, bytes: &Range<u64>) {
        for byte in bytes.clone() {
            let used = self.used.bits.get((base + byte) as usize).copied().unwrap_or(0xff);
            if used != 0 && used != 0xff {
                self.spare.push(SpareBits {
                    offset: base + byte,
                    mask: !used,
                    path: path.to_owned(),
                    owner: title(record),
                });
            }
        }
    }
}

fn title(record: &Record) -> String {
    match (&record.name, record.kind) {
        (None, Kind::Struct) => "a nameless struct".to_owned(),
        (None, Kind::Union) => "a nameless union".to_owned(),
        _ => record.title(),
    }
}

//! One structure as code that uses it sees it: named members with their offsets, and what is free between them.

use super::holes::{self, Hole, SpareBits};
use super::model::{Bits, Kind, Record, SourceLine, Type, TypeId, Types};
use serde::Serialize;

/// A structure or union.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RecordLayout {
    /// `struct rq`
    pub title: String,
    /// `rq`
    pub name: String,
    /// Which.
    pub kind: Kind,
    /// Size.
    pub bytes: u64,
    /// Alignment.
    pub align: u64,
    /// Where it is declared.
    pub place: SourceLine,
    /// Members by offset; those of structures without a tag under their path (`a.b`).
    pub members: Vec<Field>,
    /// Bytes that no member uses, in inner structures too.
    pub holes: Vec<Hole>,
    /// Bits of bit-fields' bytes that no member uses.
    pub spare_bits: Vec<SpareBits>,
}

/// A member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Field {
    /// Name; with the names of the nameless structures' members that lead to it.
    pub path: String,
    /// From the start of the structure.
    pub offset: u64,
    /// Size; 0 for a flexible array.
    pub bytes: u64,
    /// For a bit-field: which bits.
    pub bits: Option<Bits>,
    /// Type in words.
    #[serde(rename = "type")]
    pub type_words: String,
    /// Line of its declaration, in the file of the structure.
    pub line: u32,
}

impl Field {
    /// Whether it has a byte in common with `offset..offset + bytes`.
    pub fn overlaps(&self, offset: u64, bytes: u64) -> bool {
        self.offset < offset.saturating_add(bytes) && offset < self.offset.saturating_add(self.bytes.max(1))
    }
}

impl RecordLayout {
    /// The member of the same name as `field`, which may be another layout's. Of several without a name: the one at the
    /// same place.
    pub fn member(&self, field: &Field) -> Option<&Field> {
        let mut named = self.members.iter().filter(|other| other.path == field.path);
        let first = named.next()?;
        Some(named.find(|other| other.offset == field.offset).unwrap_or(first))
    }

    /// Whether it has a member of that name.
    pub fn has(&self, field: &Field) -> bool {
        self.member(field).is_some()
    }
}

/// Nesting beyond which no structure goes.
const DEPTH_MAX: u32 = 32;

impl Types {
    /// The structure or union of that tag or typedef name.
    pub fn layout(&self, name: &str) -> Option<RecordLayout> {
        let id = self.named(name)?;
        let record = self.record(Some(id))?;
        let mut members = Vec::new();
        self.flatten(record, "", 0, 0, &mut members);
        members.sort_by(|a, b| (a.offset, a.bits, &a.path).cmp(&(b.offset, b.bits, &b.path)));
        let (holes, spare_bits) = holes::find(self, id);
        Some(RecordLayout {
            title: record.title(),
            name: name.to_owned(),
            kind: record.kind,
            bytes: record.bytes,
            align: self.align(Some(id)),
            place: record.place.clone(),
            members,
            holes,
            spare_bits,
        })
    }

    fn flatten(&self, record: &Record, path: &str, base: u64, depth: u32, out: &mut Vec<Field>) {
        for member in &record.members {
            let path = join(path, member.name.as_deref());
            let inner = self.record(member.of).filter(|inner| inner.name.is_none() && depth < DEPTH_MAX);
            if let Some(inner) = inner {
                self.flatten(inner, &path, base + member.offset, depth + 1, out);
                continue;
            }
            out.push(Field {
                path,
                offset: base + member.offset,
                bytes: member
                    .bits
                    .map_or_else(|| self.bytes(member.of), |bits| (bits.start % 8 + bits.width).div_ceil(8)),
                bits: member.bits.map(|bits| Bits { start: base * 8 + bits.start, width: bits.width }),
                type_words: self.words(member.of),
                line: member.line,
            });
        }
    }
}

pub(super) fn join(path: &str, name: Option<&str>) -> String {
    match (path, name) {
        (path, None) => path.to_owned(),
        ("", Some(name)) => name.to_owned(),
        (path, Some(name)) => format!("{path}.{name}"),
    }
}

/// A type, or what it is an array of.
pub(super) fn element(types: &Types, id: Option<TypeId>) -> Option<TypeId> {
    let mut id = types.plain(id)?;
    for _ in 0..DEPTH_MAX {
        match types.get(id) {
            Type::Array(array) => id = types.plain(array.of)?,
            _ => return Some(id),
        }
    }
    None
}

//! The types of one translation unit, as values.

use serde::Serialize;
use std::collections::HashMap;

/// Index into the types of one [`Types`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TypeId(pub(super) u32);

/// Where in the source something is declared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
pub struct SourceLine {
    /// Relative to the kernel source: `include/linux/sched.h`.
    pub file: String,
    /// Line there, from 1.
    pub line: u32,
}

/// All that a unit declares.
#[derive(Clone, Debug, Default)]
pub struct Types {
    /// `kernel/sched/core.c`
    pub unit: String,
    pub(super) types: Vec<Type>,
    /// The types in the order of their entries, those of other units last.
    pub(super) in_order: Vec<TypeId>,
    /// Tag, or name of a typedef of a nameless one → structure, union or enumeration that is fully described.
    pub(super) by_name: HashMap<String, TypeId>,
    /// Functions with a name: defined, declared or only inlined.
    pub functions: Vec<Function>,
    /// Variables that are declared with a type.
    pub variables: Vec<Variable>,
}

/// One type. `None` for a type referred to is `void`.
#[derive(Clone, Debug)]
pub enum Type {
    /// `unsigned int`
    Base {
        /// Name.
        name: String,
        /// Size.
        bytes: u64,
        /// DW_ATE_*.
        encoding: u8,
    },
    /// A pointer.
    Pointer {
        /// What it points to.
        to: Option<TypeId>,
        /// Size.
        bytes: u64,
    },
    /// An array.
    Array(Array),
    /// A structure or union.
    Record(Record),
    /// An enumeration.
    Enumeration(Enumeration),
    /// Another name of a type.
    Typedef {
        /// The name.
        name: String,
        /// What it stands for.
        to: Option<TypeId>,
    },
    /// `const`, `volatile`, `restrict`, `_Atomic`.
    Qualified {
        /// It is `const`.
        is_const: bool,
        /// What is qualified.
        to: Option<TypeId>,
    },
    /// A function, as a pointer to one has it.
    Function(Prototype),
    /// Something that C does not have, or that the debug information does not describe.
    Unknown,
}

/// An array.
#[derive(Clone, Debug, Default)]
pub struct Array {
    /// What its elements are.
    pub of: Option<TypeId>,
    /// Number of elements, one a dimension; `None` for a flexible one (`[]`).
    pub counts: Vec<Option<u64>>,
}

/// Structure or union.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `struct`
    Struct,
    /// `union`
    Union,
}

/// A structure or union.
#[derive(Clone, Debug)]
pub struct Record {
    /// Which.
    pub kind: Kind,
    /// Its tag; where it has none, the name of its typedef.
    pub name: Option<String>,
    /// `name` is a typedef's.
    pub is_named_by_typedef: bool,
    /// Only announced (`struct task_struct;`).
    pub is_declaration: bool,
    /// Size.
    pub bytes: u64,
    /// Alignment that the source asks for.
    pub asked_align: Option<u64>,
    /// Members as declared.
    pub members: Vec<Member>,
    /// Where.
    pub place: SourceLine,
}

/// A member.
#[derive(Clone, Debug)]
pub struct Member {
    /// Name; `None` for a nameless structure or union.
    pub name: Option<String>,
    /// Type.
    pub of: Option<TypeId>,
    /// From the start of the structure; of a bit-field, the byte with its first bit.
    pub offset: u64,
    /// Which bits, for a bit-field.
    pub bits: Option<Bits>,
    /// Alignment that the source asks for.
    pub asked_align: Option<u64>,
    /// Line of its declaration.
    pub line: u32,
}

/// A bit-field's place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Bits {
    /// From the start of the structure, lowest bit of each byte first.
    pub start: u64,
    /// Number of bits.
    pub width: u64,
}

/// An enumeration.
#[derive(Clone, Debug)]
pub struct Enumeration {
    /// Its tag or the name of its typedef.
    pub name: Option<String>,
    /// Size.
    pub bytes: u64,
    /// Names and values.
    pub values: Vec<(String, i64)>,
    /// Where.
    pub place: SourceLine,
}

/// What a function takes and returns.
#[derive(Clone, Debug, Default)]
pub struct Prototype {
    /// `None` for `void`.
    pub returns: Option<TypeId>,
    /// In order.
    pub parameters: Vec<Option<TypeId>>,
    /// Ends in `...`.
    pub is_variadic: bool,
}

/// A function.
#[derive(Clone, Debug)]
pub struct Function {
    /// Name in the source.
    pub name: String,
    /// Visible to other units.
    pub is_external: bool,
    /// Only declared here.
    pub is_declaration: bool,
    /// Its prototype.
    pub prototype: Prototype,
    /// Where.
    pub place: SourceLine,
}

/// A variable.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Name.
    pub name: String,
    /// Type.
    pub of: Option<TypeId>,
    /// The function that it is local to; the innermost one where functions are inlined into each other.
    pub function: Option<String>,
    /// It lives on a stack or in a register: it is local to a function and has no fixed address.
    pub is_automatic: bool,
    /// Its fixed address. Of an object, [`symbol_at`](super::symbol_at) finds the symbol there.
    pub address: Option<u64>,
    /// Visible to other units.
    pub is_external: bool,
    /// Only declared here.
    pub is_declaration: bool,
    /// Where.
    pub place: SourceLine,
}

/// Longest chain of typedefs and qualifiers that is followed; a damaged file may hold a circle.
pub(super) const CHAIN_MAX: usize = 32;

impl Types {
    /// A type.
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// The type that typedefs and qualifiers stand for; `None` for `void`.
    pub fn plain(&self, id: Option<TypeId>) -> Option<TypeId> {
        let mut id = id?;
        for _ in 0..CHAIN_MAX {
            match self.get(id) {
                Type::Typedef { to, .. } | Type::Qualified { to, .. } => id = (*to)?,
                _ => return Some(id),
            }
        }
        None
    }

    /// The structure, union or enumeration of that tag (or typedef name), if it is fully described.
    pub fn named(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// The structure or union of that name.
    pub fn record_named(&self, name: &str) -> Option<&Record> {
        self.record(self.named(name))
    }

    /// A structure or union, also if typedefs and qualifiers lead to it.
    pub fn record(&self, id: Option<TypeId>) -> Option<&Record> {
        match self.get(self.plain(id)?) {
            Type::Record(record) => Some(record),
            _ => None,
        }
    }

    /// Every fully described structure and union that has a name.
    pub fn records(&self) -> impl Iterator<Item = (&str, TypeId, &Record)> {
        self.by_name.iter().filter_map(|(name, id)| match self.get(*id) {
            Type::Record(record) => Some((name.as_str(), *id, record)),
            _ => None,
        })
    }

    /// Every fully described structure and union in the order of the source, those of one name and those without a
    /// name too.
    pub fn all_records(&self) -> impl Iterator<Item = &Record> {
        let whole = |id: &TypeId| match self.get(*id) {
            Type::Record(record) if !record.is_declaration => Some(record),
            _ => None,
        };
        self.in_order.iter().filter_map(whole)
    }

    /// Every fully described enumeration that has a name.
    pub fn enumerations(&self) -> impl Iterator<Item = (&str, &Enumeration)> {
        self.by_name.iter().filter_map(|(name, id)| match self.get(*id) {
            Type::Enumeration(enumeration) => Some((name.as_str(), enumeration)),
            _ => None,
        })
    }

    /// Bytes of a type; 0 for `void`, functions, and arrays without a number of elements.
    pub fn bytes(&self, id: Option<TypeId>) -> u64 {
        self.known_bytes(id).unwrap_or(0)
    }

    /// Bytes of a type; `None` if the debug information does not tell, as for an array without a number of elements.
    pub fn known_bytes(&self, id: Option<TypeId>) -> Option<u64> {
        match self.get(self.plain(id)?) {
            Type::Base { bytes, .. } | Type::Pointer { bytes, .. } => Some(*bytes),
            Type::Enumeration(enumeration) => Some(enumeration.bytes),
            Type::Record(record) => Some(record.bytes).filter(|_| !record.is_declaration),
            Type::Array(array) => {
                let elements = array.counts.iter().try_fold(1u64, |all, count| all.checked_mul((*count)?));
                elements.filter(|_| !array.counts.is_empty())?.checked_mul(self.known_bytes(array.of)?)
            }
            Type::Typedef { .. } | Type::Qualified { .. } | Type::Function(_) | Type::Unknown => None,
        }
    }

    /// The alignment that a type has by itself, as far as its members and their places tell.
    pub fn align(&self, id: Option<TypeId>) -> u64 {
        let Some(id) = self.plain(id) else { return 1 };
        match self.get(id) {
            Type::Base { bytes, .. } | Type::Pointer { bytes, .. } => (*bytes).clamp(1, 16),
            Type::Enumeration(enumeration) => enumeration.bytes.clamp(1, 16),
            Type::Array(array) => self.align(array.of),
            Type::Record(record) => self.record_align(record),
            Type::Typedef { .. } | Type::Qualified { .. } | Type::Function(_) | Type::Unknown => 1,
        }
    }

    fn record_align(&self, record: &Record) -> u64 {
        let of = |member: &Member| {
            let mut align = member.asked_align.unwrap_or(0).max(self.align(member.of));
            // A packed structure has its members anywhere.
            while align > 1 && member.bits.is_none() && !member.offset.is_multiple_of(align) {
                align /= 2;
            }
            align
        };
        let mut align = record.members.iter().map(of).max().unwrap_or(1).max(1);
        while align > 1 && !record.bytes.is_multiple_of(align) {
            align /= 2;
        }
        align.max(record.asked_align.unwrap_or(1))
    }
}

impl Kind {
    /// What stands before the tag in the source, with the space.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Struct => "struct ",
            Kind::Union => "union ",
        }
    }
}

impl Array {
    /// Elements of all dimensions together; 0 if one of them is flexible.
    pub fn elements(&self) -> u64 {
        let counts = self.counts.iter().map(|count| count.unwrap_or(0));
        if self.counts.is_empty() { 0 } else { counts.fold(1, u64::saturating_mul) }
    }
}

impl Record {
    /// The name after `struct` or `union`; `None` if it has none, or only a typedef's.
    pub fn tag(&self) -> Option<&str> {
        self.name.as_deref().filter(|_| !self.is_named_by_typedef)
    }

    /// `struct rq`; `struct` for one without a name.
    pub fn title(&self) -> String {
        let word = self.kind.word();
        match &self.name {
            Some(name) if self.is_named_by_typedef => name.clone(),
            Some(name) => format!("{word}{name}"),
            None => word.trim_end().to_owned(),
        }
    }
}

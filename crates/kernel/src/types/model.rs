//! The types of one translation unit, as values.

use serde::Serialize;
use std::collections::HashMap;

/// Index into the types of one [`Types`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TypeId(pub(super) u32);

/// Where something is declared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
pub struct Place {
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
        /// What is qualified.
        to: Option<TypeId>,
    },
    /// A function, as a pointer to one has it.
    Function(Prototype),
    /// Something that C has not.
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
    pub place: Place,
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
    pub place: Place,
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
    pub place: Place,
}

/// A variable.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Name.
    pub name: String,
    /// Type.
    pub of: Option<TypeId>,
    /// The function it is local to.
    pub function: Option<String>,
    /// It has no fixed address, as far as the debug information tells: it lives on a stack or in a register.
    pub is_automatic: bool,
    /// Only declared here.
    pub is_declaration: bool,
    /// Where.
    pub place: Place,
}

/// Longest chain of typedefs and qualifiers that is followed; a damaged file may hold a circle.
const CHAIN_MAX: usize = 32;

impl Types {
    /// A type.
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// The type behind typedefs and qualifiers; `None` for `void`.
    pub fn plain(&self, id: Option<TypeId>) -> Option<TypeId> {
        let mut id = id?;
        for _ in 0..CHAIN_MAX {
            match self.get(id) {
                Type::Typedef { to, .. } | Type::Qualified { to } => id = (*to)?,
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

    /// A structure or union, behind typedefs and qualifiers.
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

    /// Every fully described enumeration that has a name.
    pub fn enumerations(&self) -> impl Iterator<Item = (&str, &Enumeration)> {
        self.by_name.iter().filter_map(|(name, id)| match self.get(*id) {
            Type::Enumeration(enumeration) => Some((name.as_str(), enumeration)),
            _ => None,
        })
    }

    /// Bytes of a type; 0 for `void`, functions, and arrays without a number of elements.
    pub fn bytes(&self, id: Option<TypeId>) -> u64 {
        let Some(id) = self.plain(id) else { return 0 };
        match self.get(id) {
            Type::Base { bytes, .. } | Type::Pointer { bytes, .. } => *bytes,
            Type::Record(record) => record.bytes,
            Type::Enumeration(enumeration) => enumeration.bytes,
            Type::Array(array) => self.bytes(array.of).saturating_mul(array.elements()),
            Type::Typedef { .. } | Type::Qualified { .. } | Type::Function(_) | Type::Unknown => 0,
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

impl Array {
    /// Elements of all dimensions together; 0 if one of them is flexible.
    pub fn elements(&self) -> u64 {
        let counts = self.counts.iter().map(|count| count.unwrap_or(0));
        if self.counts.is_empty() { 0 } else { counts.fold(1, u64::saturating_mul) }
    }
}

impl Record {
    /// `struct rq`; `struct` for one without a name.
    pub fn title(&self) -> String {
        let word = match self.kind {
            Kind::Struct => "struct",
            Kind::Union => "union",
        };
        match &self.name {
            Some(name) if self.is_named_by_typedef => name.clone(),
            Some(name) => format!("{word} {name}"),
            None => word.to_owned(),
        }
    }
}

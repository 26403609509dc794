//! The parts of a type that are more than values: pointers, ends of lists, locks.

use super::model::{Kind, Record, Type, TypeId, Types};

/// A part of a variable that is more than a value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Held {
    /// What it is.
    pub kind: HeldKind,
    /// The members and subscripts that lead to it; empty if it is the variable itself.
    pub path: String,
    /// Tag of its type, if it has one.
    pub type_name: String,
}

/// What a part of a variable may be that cannot simply be copied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum HeldKind {
    /// An end or an element of a list or tree: a small structure whose pointers lead to structures like it.
    Link,
    /// A lock: a structure with one of the tags in [`LOCK_TYPES`].
    Lock,
    /// Another pointer.
    Pointer,
    /// Not described by the debug information.
    Unknown,
}

/// Tags of the structures that make whatever contains them a lock: every other lock of the kernel is built around one
/// of these. Nothing else in the debug information tells them from numbers.
pub const LOCK_TYPES: &[&str] = &["raw_spinlock", "qspinlock", "qrwlock", "seqcount"];

/// Depth of types within types that is followed.
const DEPTH_MAX: usize = 24;
/// Parts of one variable that are listed.
const PARTS_MAX: usize = 64;

/// Bytes of the largest structure that only links: a tree's node holds three words.
const LINK_BYTES_MAX: u64 = 24;

impl Types {
    /// What a type holds beside values, in the order of its members; of an array, what one element holds.
    pub fn holds(&self, id: Option<TypeId>) -> Vec<Held> {
        let mut walk = Walk { types: self, found: Vec::new() };
        walk.type_(id, String::new(), 0);
        walk.found
    }
}

struct Walk<'t> {
    types: &'t Types,
    found: Vec<Held>,
}

impl Walk<'_> {
    fn type_(&mut self, id: Option<TypeId>, path: String, depth: usize) {
        if self.found.len() >= PARTS_MAX {
            return;
        }
        let types = self.types;
        let Some(id) = types.plain(id) else { return self.add(HeldKind::Unknown, path, None) };
        match types.get(id) {
            Type::Base { .. } | Type::Enumeration(_) => {}
            Type::Pointer { .. } => self.add(HeldKind::Pointer, path, None),
            Type::Array(array) => self.type_(array.of, format!("{path}[]"), depth + 1),
            Type::Record(record) if !record.is_declaration && depth < DEPTH_MAX => {
                self.record(id, record, path, depth);
            }
            Type::Record(record) => self.add(HeldKind::Unknown, path, record.tag()),
            _ => self.add(HeldKind::Unknown, path, None),
        }
    }

    fn record(&mut self, id: TypeId, record: &Record, path: String, depth: usize) {
        if record.tag().is_some_and(|tag| LOCK_TYPES.contains(&tag)) {
            return self.add(HeldKind::Lock, path, record.tag());
        }
        if self.is_link(id, record) {
            return self.add(HeldKind::Link, path, record.tag());
        }
        for member in &record.members {
            let path = match &member.name {
                Some(name) => format!("{path}.{name}"),
                None => path.clone(),
            };
            self.type_(member.of, path, depth + 1);
        }
    }

    fn add(&mut self, kind: HeldKind, path: String, type_name: Option<&str>) {
        self.found.push(Held { kind, path, type_name: type_name.unwrap_or_default().to_owned() });
    }

    /// A structure that is a node, or a small one whose pointers lead to nodes and nowhere else.
    fn is_link(&self, id: TypeId, record: &Record) -> bool {
        self.is_node(id, record) || {
            let targets = self.targets(record);
            let is_node = |(id, record): &(TypeId, &Record)| self.is_node(*id, record);
            !targets.is_empty() && record.bytes <= LINK_BYTES_MAX && targets.iter().all(is_node)
        }
    }

    /// A small structure that points to its own type.
    fn is_node(&self, id: TypeId, record: &Record) -> bool {
        record.bytes <= LINK_BYTES_MAX && self.targets(record).iter().any(|(target, _)| *target == id)
    }

    /// The structures that its pointers lead to.
    fn targets(&self, record: &Record) -> Vec<(TypeId, &Record)> {
        let target = |of: Option<TypeId>| {
            let Type::Pointer { to, .. } = self.types.get(self.types.plain(of)?) else { return None };
            let id = self.types.plain(*to)?;
            let record = self.types.record(Some(id)).filter(|record| record.kind == Kind::Struct)?;
            Some((id, record))
        };
        record.members.iter().filter_map(|member| target(member.of)).collect()
    }
}

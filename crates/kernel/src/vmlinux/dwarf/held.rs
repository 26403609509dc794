//! What of a variable is more than a value: pointers, ends of lists, locks.

use super::super::image::{Held, HeldKind, LOCK_TYPES};
use super::tables::{Die, Table, Tables};
use gimli::constants as dw;

/// Depth of types within types that is followed, and parts that are listed, of one variable.
const DEPTH_MAX: usize = 24;
const PARTS_MAX: usize = 64;

/// Bytes of the largest structure that only links: a tree's node holds three words.
const LINK_BYTES_MAX: u64 = 24;

/// What a variable's type holds, in the order of its members; elements of an array once.
pub(super) fn held(tables: &Tables<'_>, variable: &Die<'_>) -> Vec<Held> {
    let mut walk = Walk { tables, found: Vec::new() };
    walk.type_(tables.type_of(variable), String::new(), 0);
    walk.found
}

struct Walk<'t, 'a> {
    tables: &'t Tables<'a>,
    found: Vec<Held>,
}

impl<'t, 'a> Walk<'t, 'a> {
    fn type_(&mut self, offset: Option<usize>, path: String, depth: usize) {
        if self.found.len() >= PARTS_MAX {
            return;
        }
        let Some((table, die)) = offset.and_then(|offset| self.tables.unqualified(offset)) else {
            return self.add(HeldKind::Unknown, path, None);
        };
        match die.tag {
            dw::DW_TAG_base_type | dw::DW_TAG_enumeration_type => {}
            dw::DW_TAG_pointer_type => self.add(HeldKind::Pointer, path, None),
            dw::DW_TAG_array_type => self.type_(die.type_, format!("{path}[]"), depth + 1),
            dw::DW_TAG_structure_type | dw::DW_TAG_union_type if !die.declaration && depth < DEPTH_MAX => {
                self.structure(table, die, path, depth);
            }
            _ => self.add(HeldKind::Unknown, path, Some(die)),
        }
    }

    fn structure(&mut self, table: &Table<'a>, die: &Die<'a>, path: String, depth: usize) {
        if die.name.is_some_and(|name| LOCK_TYPES.iter().any(|lock| lock.as_bytes() == name.slice())) {
            return self.add(HeldKind::Lock, path, Some(die));
        }
        if self.is_link(table, die) {
            return self.add(HeldKind::Link, path, Some(die));
        }
        for member in table.members(die) {
            let path = match member.name {
                Some(name) => format!("{path}.{}", name.to_string_lossy()),
                None => path.clone(),
            };
            self.type_(member.type_, path, depth + 1);
        }
    }

    fn add(&mut self, kind: HeldKind, path: String, die: Option<&Die<'a>>) {
        let type_name =
            die.and_then(|die| die.name).map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        self.found.push(Held { kind, path, type_name });
    }

    /// A structure that is a node, or whose pointers lead to nodes and nowhere else.
    fn is_link(&self, table: &Table<'a>, die: &Die<'a>) -> bool {
        self.is_node(table, die) || {
            let targets = self.targets(table, die);
            !targets.is_empty()
                && die.size.is_some_and(|size| size <= LINK_BYTES_MAX)
                && targets.iter().all(|offset| {
                    self.tables.find(*offset).is_some_and(|(table, die)| self.is_node(table, die))
                })
        }
    }

    /// A small structure that points to its own type.
    fn is_node(&self, table: &Table<'a>, die: &Die<'a>) -> bool {
        let is_small = die.size.is_some_and(|size| size <= LINK_BYTES_MAX);
        is_small && self.targets(table, die).contains(&die.offset)
    }

    /// The structures that its pointers lead to.
    fn targets(&self, table: &Table<'a>, die: &Die<'a>) -> Vec<usize> {
        let target = |member: &Die<'a>| {
            let (_, pointer) = self.tables.unqualified(member.type_?)?;
            let (_, target) =
                self.tables.unqualified(pointer.type_.filter(|_| pointer.tag == dw::DW_TAG_pointer_type)?)?;
            (target.tag == dw::DW_TAG_structure_type).then_some(target.offset)
        };
        table.members(die).filter_map(target).collect()
    }
}

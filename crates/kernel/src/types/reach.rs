//! Which structures lie in some memory: embedded in what is there, or pointed to from it.

use super::model::{Type, TypeId, Types};
use super::view::element;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How structures are connected, by name, over several units.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    embedded: BTreeMap<String, BTreeSet<String>>,
    pointed_to: BTreeMap<String, BTreeSet<String>>,
}

impl Reach {
    /// Of all units' structures.
    pub fn of<'t>(units: impl IntoIterator<Item = &'t Types>) -> Reach {
        let mut reach = Reach::default();
        for types in units {
            for (name, id, _) in types.records() {
                let mut found = Found::default();
                found.walk(types, id, 0);
                reach.embedded.entry(name.to_owned()).or_default().extend(found.embedded);
                reach.pointed_to.entry(name.to_owned()).or_default().extend(found.pointed_to);
            }
        }
        reach
    }

    /// The structures that one contains by value, directly.
    pub fn embedded_in(&self, name: &str) -> impl Iterator<Item = &str> {
        self.embedded.get(name).into_iter().flatten().map(String::as_str)
    }

    /// The structures that a member of one points to, directly.
    pub fn pointed_to_from(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pointed_to.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Every structure that is reachable from some structures, by value and through pointers, with the way to it:
    /// `runqueues → rq → cfs_rq`. `roots` maps each structure to what its way begins with.
    pub fn paths(&self, roots: BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut reached: BTreeMap<String, String> = BTreeMap::new();
        let mut open: VecDeque<(String, String)> =
            roots.into_iter().map(|(name, root)| (name.clone(), format!("{root} → {name}"))).collect();
        while let Some((name, path)) = open.pop_front() {
            if reached.contains_key(&name) {
                continue;
            }
            for next in self.embedded_in(&name).chain(self.pointed_to_from(&name)) {
                if !reached.contains_key(next) {
                    open.push_back((next.to_owned(), format!("{path} → {next}")));
                }
            }
            reached.insert(name, path);
        }
        reached
    }

    /// Every structure that is reachable from some structures by value and, if wanted, through pointers; they included.
    pub fn closure<'n>(
        &self,
        from: impl IntoIterator<Item = &'n str>,
        through_pointers: bool,
    ) -> BTreeSet<String> {
        let mut reached: BTreeSet<String> = BTreeSet::new();
        let mut open: Vec<String> = from.into_iter().map(str::to_owned).collect();
        while let Some(name) = open.pop() {
            let next = self.embedded_in(&name).map(str::to_owned);
            open.extend(next.filter(|next| !reached.contains(next)));
            if through_pointers {
                let next = self.pointed_to_from(&name).map(str::to_owned);
                open.extend(next.filter(|next| !reached.contains(next)));
            }
            reached.insert(name);
        }
        reached
    }
}

/// The named structures that a type is, contains or points to.
#[derive(Default)]
pub(super) struct Found {
    pub embedded: BTreeSet<String>,
    pub pointed_to: BTreeSet<String>,
}

/// Nesting beyond which no structure goes.
const DEPTH_MAX: u32 = 32;

impl Found {
    /// Walks the members of a structure: through nameless ones, up to the first named ones.
    fn walk(&mut self, types: &Types, id: TypeId, depth: u32) {
        let Some(record) = types.record(Some(id)).filter(|_| depth < DEPTH_MAX) else { return };
        for member in &record.members {
            self.add(types, member.of, depth);
        }
    }

    pub(super) fn add(&mut self, types: &Types, id: Option<TypeId>, depth: u32) {
        let Some(id) = element(types, id) else { return };
        match types.get(id) {
            Type::Record(inner) => match &inner.name {
                Some(name) => drop(self.embedded.insert(name.clone())),
                None => self.walk(types, id, depth + 1),
            },
            Type::Pointer { to, .. } => {
                // A pointer to pointers leads there too.
                let mut to = element(types, *to);
                for _ in 0..DEPTH_MAX {
                    match to.map(|to| types.get(to)) {
                        Some(Type::Pointer { to: next, .. }) => to = element(types, *next),
                        Some(Type::Record(record)) => {
                            self.pointed_to.extend(record.name.clone());
                            break;
                        }
                        _ => break,
                    }
                }
            }
            _ => {}
        }
    }
}

impl Types {
    /// The named structures that a type contains by value: itself if it is one, and what it is an array of.
    pub fn structures_in(&self, id: Option<TypeId>) -> BTreeSet<String> {
        let mut found = Found::default();
        found.add(self, id, 0);
        found.embedded
    }

    /// As [`Types::structures_in`], and those that it points to.
    pub fn structures_of(&self, id: Option<TypeId>) -> BTreeSet<String> {
        let mut found = Found::default();
        found.add(self, id, 0);
        found.embedded.extend(found.pointed_to);
        found.embedded
    }
}

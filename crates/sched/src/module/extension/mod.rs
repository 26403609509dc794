//! What the author declares to the runtime (`runtime/include/schedswap/author.h`): state of threads, groups and run
//! queues, and hooks.
//!
//! The descriptors are in sections of their own. Only a state's kind is read from their bytes; what a record looks like,
//! and where in an object there is room for the number of its slot, is in the debug information.

mod descriptors;
mod entries;
mod hole;

pub use descriptors::{followed, units_with_declarations};
pub use entries::EntryPoint;
pub(super) use entries::mark;

use crate::binding::{Rewritten, UnitObject};
use crate::boundary::{Boundary, Fate};
use descriptors::{Descriptors, StateDescriptor};
use schedswap_kernel::objects::Object;
use schedswap_kernel::types::{self, Layouts, Types};
use schedswap_kernel::vmlinux::{self, Image};
use thiserror::Error as ThisError;

/// Why an extension cannot be built.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The debug information of vmlinux.
    #[error(transparent)]
    Vmlinux(#[from] vmlinux::Error),
    /// The debug information of an edited unit.
    #[error(
        "the compiler's debug information of {unit} cannot be read; run `schedswap build` again after deleting .schedswap/build"
    )]
    Debug {
        /// The unit.
        unit: String,
        /// Why.
        source: gimli::Error,
    },
    /// Nowhere to put the number.
    #[error(
        "{state} needs {} free bytes in struct {object}, at an offset that is a multiple of that, and the {kind} of \
         this kernel have none (`schedswap holes WORK_DIR {object}` shows what is free). If the edited tree uses the \
         last ones, put its member elsewhere, or into the state",
        hole::BYTES
    )]
    NoHole {
        /// The state.
        state: String,
        /// `task_struct`
        object: &'static str,
        /// `threads`
        kind: &'static str,
    },
    /// The structure is not described.
    #[error(
        "{unit} declares {state}, but its debug information does not describe struct {object}; include \"sched.h\" first"
    )]
    NoStructure {
        /// The unit.
        unit: String,
        /// The state.
        state: String,
        /// The structure.
        object: &'static str,
    },
    /// A function to which the runtime must add an entry point.
    #[error(
        "{state} cannot follow its {kind}: they {what} in {function}(), and {why}. Keep that function, and use a kernel in which it can be diverted"
    )]
    NoEntry {
        /// The state.
        state: String,
        /// `threads`
        kind: &'static str,
        /// The function.
        function: &'static str,
        /// `begin`, `end`
        what: &'static str,
        /// What is found instead.
        why: String,
    },
    /// A descriptor that is not one.
    #[error(
        "{state} in {unit} is of kind {found}, which schedswap does not know; use the macros of <schedswap/author.h>"
    )]
    Kind {
        /// The state.
        state: String,
        /// The unit.
        unit: String,
        /// What its bytes say.
        found: u32,
    },
}

/// A kind of object that has state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// `struct task_struct`
    Task,
    /// `struct task_group`
    Group,
    /// `struct rq`: by CPU, so nothing is kept in the object.
    Rq,
}

/// One state.
#[derive(Clone, Debug)]
pub struct State {
    /// The author's name of it.
    pub name: String,
    /// Of what.
    pub kind: Kind,
    /// The descriptor's symbol in the module.
    pub symbol: String,
    /// Hash of the record's type; 0 if it is not fully described.
    pub type_hash: u64,
    /// Whether the record holds a pointer.
    pub holds_pointers: bool,
}

/// A kind of object whose slots are numbered.
#[derive(Clone, Debug)]
pub struct Numbered {
    /// Which.
    pub kind: Kind,
    /// Where in the object the number is.
    pub hole: u64,
    /// Where such objects begin and end.
    pub entries: Vec<EntryPoint>,
}

/// All of it.
#[derive(Clone, Default, Debug)]
pub struct Extension {
    /// States in the order of the units.
    pub states: Vec<State>,
    /// Symbols of the hooks' descriptors, in the order of the units.
    pub hooks: Vec<String>,
    /// Kinds of object that need a number.
    pub numbered: Vec<Numbered>,
    /// What is called when the features file is written, if vmlinux's switches have to follow the module's.
    pub features: Option<EntryPoint>,
}

impl Extension {
    /// Finds what the edited units declare. `declarations`: those of [`units_with_declarations`], compiled with
    /// debug information.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn of(
        image: &Image,
        boundary: &Boundary,
        units: &[UnitObject],
        rewritten: &Rewritten,
        declarations: &[UnitObject],
    ) -> Result<Extension, Error> {
        let found = Descriptors::of(units, rewritten)?;
        let features = entries::of_features(boundary, rewritten);
        let mut extension = Extension { hooks: found.hooks, features, ..Extension::default() };
        let types = |unit: &str| -> Result<Types, Error> {
            let object = declarations.iter().find(|d| d.unit == unit).map(|d| &d.object);
            let empty = Object::default();
            types::of_object(unit, object.unwrap_or(&empty))
                .map_err(|source| Error::Debug { unit: unit.to_owned(), source })
        };
        let mut kernel = None;
        for state in found.states {
            let types = types(&state.unit)?;
            let (type_hash, holds_pointers) = record_shape(&types, &state.name);
            if state.kind != Kind::Rq && !extension.numbered.iter().any(|n| n.kind == state.kind) {
                let kernel = match &mut kernel {
                    Some(kernel) => kernel,
                    none => none.insert(Layouts::of_kernel(image)?),
                };
                let numbered = Numbered {
                    kind: state.kind,
                    hole: hole::find(kernel, &types, &state)?,
                    entries: entries::of(boundary, rewritten, &state)?,
                };
                extension.numbered.push(numbered);
            }
            let StateDescriptor { name, kind, symbol, .. } = state;
            extension.states.push(State { name, kind, symbol, type_hash, holds_pointers });
        }
        extension.numbered.sort_by_key(|numbered| numbered.kind);
        Ok(extension)
    }

    /// Whether objects of that kind are numbered.
    pub fn numbers(&self, kind: Kind) -> bool {
        self.numbered.iter().any(|numbered| numbered.kind == kind)
    }
}

impl Kind {
    /// The structure's tag.
    pub fn structure(self) -> &'static str {
        match self {
            Kind::Task => "task_struct",
            Kind::Group => "task_group",
            Kind::Rq => "rq",
        }
    }

    /// What they are called.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Task => "threads",
            Kind::Group => "groups",
            Kind::Rq => "run queues",
        }
    }

    /// File of the runtime that follows them, without its ending.
    pub(super) fn source(self) -> Option<&'static str> {
        match self {
            Kind::Task => Some("tasks"),
            Kind::Group => Some("groups"),
            Kind::Rq => None,
        }
    }
}

/// The hash of the type of a state's records, 0 if the type is not fully described, and whether it holds a pointer.
fn record_shape(types: &Types, state: &str) -> (u64, bool) {
    let record = types.record_named(&format!("{state}__record"));
    let is_state = |member: &&types::Member| member.name.as_deref() == Some("state");
    let Some(member) = record.and_then(|record| record.members.iter().find(is_state)) else {
        return (0, false);
    };
    let shape = types.shape(member.of);
    (shape.hash.unwrap_or(0), shape.pointer.is_some())
}

/// Whether every call of a function of that fate reaches the module's copy.
fn is_replaced(fate: &Fate) -> bool {
    matches!(fate, Fate::Divert(_) | Fate::InsideOnly(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedswap_kernel::objects;
    use std::process::Command;

    /// The record of a state that C source declares.
    fn of(members: &str) -> (u64, bool) {
        let source = format!(
            "typedef unsigned int u32; struct list {{ struct list *next, *prev; }};\n\
             struct mine {{ {members} }};\n\
             struct my_task__record {{ const void *owner; struct mine state; }};\n\
             void *my_task(struct my_task__record *r) {{ return &r->state; }}"
        );
        let dir = tempfile::tempdir().unwrap();
        let (c, o) = (dir.path().join("a.c"), dir.path().join("a.o"));
        std::fs::write(&c, source).unwrap();
        let status =
            Command::new("gcc").args(["-O2", "-gdwarf-4", "-c", "-o"]).args([&o, &c]).status().unwrap();
        assert!(status.success());
        let object = objects::read("a.o", &std::fs::read(&o).unwrap()).unwrap();
        record_shape(&types::of_object("a.c", &object).unwrap(), "my_task")
    }

    #[test]
    fn the_state_in_the_record_counts_and_not_what_the_runtime_keeps_beside_it() {
        let one = of("u32 a; int b[3];");
        assert!(one.0 != 0 && !one.1, "the owner is a pointer, but not part of the state");
        assert_eq!(one, of("const unsigned int a; int b[3];"));
        assert_ne!(one.0, of("u32 a; int b[4];").0);
        for members in ["void *p;", "struct list l;", "struct { int a; void (*f)(int); } in[2];"] {
            let (hash, holds_pointers) = of(members);
            assert!(hash != 0 && holds_pointers, "{members}");
        }
        assert_eq!(record_shape(&Types::default(), "my_task"), (0, false));
    }
}

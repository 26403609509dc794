//! Whether two versions of a scheduler declare the same record.

use schedswap_kernel::types::{Type, TypeId, Types};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Nesting beyond which a type counts as not described.
const DEPTH_MAX: u32 = 32;

/// A hash of the type of a state's records, in all that matters to who reads them: sizes, names and places of
/// members, what a pointer is, not where it leads. And whether there is a pointer. 0 if part of it is not described.
pub(super) fn of_record(types: &Types, state: &str) -> (u64, bool) {
    let Some(record) = types.record_named(&format!("{state}__record")) else { return (0, false) };
    let Some(member) = record.members.iter().find(|member| member.name.as_deref() == Some("state")) else {
        return (0, false);
    };
    let mut shape = Shape { types, text: String::new(), holds_pointers: false };
    if shape.describe(member.of, 0).is_none() {
        return (0, shape.holds_pointers);
    }
    let digest = Sha256::digest(shape.text.as_bytes());
    let hash = u64::from_le_bytes(digest.first_chunk().copied().unwrap_or_default());
    (hash.max(1), shape.holds_pointers)
}

struct Shape<'t> {
    types: &'t Types,
    text: String,
    holds_pointers: bool,
}

impl Shape<'_> {
    fn describe(&mut self, id: Option<TypeId>, depth: u32) -> Option<()> {
        let plain = self.types.plain(id).filter(|_| depth < DEPTH_MAX)?;
        match self.types.get(plain) {
            Type::Base { bytes, encoding, .. } => {
                let _ = write!(self.text, "base {encoding} {bytes};");
            }
            Type::Pointer { bytes, .. } => {
                self.holds_pointers = true;
                let _ = write!(self.text, "pointer {bytes};");
            }
            Type::Array(array) => {
                let _ = write!(self.text, "array {:?} of ", array.counts);
                self.describe(array.of, depth + 1)?;
            }
            Type::Enumeration(enumeration) => {
                let _ = write!(self.text, "enum {} {:?};", enumeration.bytes, enumeration.values);
            }
            Type::Record(record) if !record.is_declaration => {
                let _ = write!(self.text, "{:?} {} {{", record.kind, record.bytes);
                for member in &record.members {
                    let name = member.name.as_deref().unwrap_or_default();
                    let _ = write!(self.text, "{} {:?} {name}:", member.offset, member.bits);
                    self.describe(member.of, depth + 1)?;
                }
                self.text.push('}');
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedswap_kernel::{objects, types};
    use std::process::Command;

    /// The record of a state that C source declares.
    fn of(members: &str) -> (u64, bool) {
        let source = format!(
            "typedef unsigned int u32; struct list {{ struct list *next, *prev; }}; enum e {{ A, B }};\n\
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
        of_record(&types::of_object("a.c", &object).unwrap(), "my_task")
    }

    #[test]
    fn what_is_declared_alike_and_only_that_has_the_same_hash() {
        let one = of("unsigned int a; enum e b; u32 c[3];");
        assert!(one.0 != 0 && !one.1);
        assert_eq!(one, of("u32 a; const enum e b; volatile unsigned int c[3];"), "a typedef is but a name");
        for other in [
            "u32 b; enum e b2; u32 c[3];",
            "int a; enum e b; u32 c[3];",
            "u32 a; enum e b; u32 c[4];",
            "u32 a:31; enum e b; u32 c[3];",
            "u32 a; u32 b; u32 c[3];",
        ] {
            assert_ne!(one.0, of(other).0, "{other}");
        }
    }

    #[test]
    fn pointers_are_noticed_wherever_they_are() {
        for members in ["void *p;", "struct list l;", "struct { int a; void (*f)(int); } in[2];"] {
            let (hash, holds_pointers) = of(members);
            assert!(hash != 0 && holds_pointers, "{members}");
        }
        assert_eq!(of_record(&Types::default(), "my_task"), (0, false));
    }
}

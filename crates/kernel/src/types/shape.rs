//! The shape of a type: whether a value that one build of a scheduler wrote can be read by another. The hash is taken
//! over a text that is written here and nowhere else.
//!
//! A change to the text changes what is handed over between modules of different builds. Then `SS_HANDOVER_ABI` in
//! `runtime/handover.h` must be counted up.

use super::model::{Member, Type, TypeId, Types};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// What matters of a type to code that reads values which other code wrote.
///
/// A module hands a value over to its next version if both declare it with the same hash. The two may have been built
/// from different trees by different versions of this library, so the hash is the same in all of them. It depends on
///
/// - the order, names and offsets of members; for bit-fields the first bit and the width;
/// - sizes of structures, unions, enumerations, pointers and basic types;
/// - what a basic type is (signed, unsigned, boolean, …: DW_ATE_*);
/// - the number of elements of each dimension of an array;
/// - names and values of enumerators.
///
/// It does not depend on the names of types, typedefs, qualifiers, the place of the declaration, or what a pointer
/// points to. A pointer may lead into the module that goes, so a shape says whether there is one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Equal for types of the same shape, in every build; never 0. `None` if the debug information does not describe
    /// the type fully.
    pub hash: Option<u64>,
    /// Members and subscripts that lead to the first pointer (`.in.to[]`); empty if the type itself is one. `None` if
    /// there is no pointer.
    pub pointer: Option<String>,
}

/// Nesting at which a type counts as not fully described. C types are not nested nearly as deep.
const DEPTH_MAX: u32 = 32;

impl Types {
    /// The shape of a type.
    pub fn shape(&self, id: Option<TypeId>) -> Shape {
        let mut walk = Walk { types: self, text: String::new(), pointer: None };
        let is_described = walk.describe(id, "", 0).is_some();
        let hash = is_described.then(|| {
            let digest = Sha256::digest(walk.text.as_bytes());
            // Tables use 0 for a type without a hash.
            u64::from_le_bytes(digest.first_chunk().copied().unwrap_or_default()).max(1)
        });
        Shape { hash, pointer: walk.pointer }
    }
}

struct Walk<'t> {
    types: &'t Types,
    text: String,
    pointer: Option<String>,
}

impl Walk<'_> {
    /// Writes a type down; `None` if part of it is not described. Does not follow pointers, so a structure that leads
    /// to itself ends.
    fn describe(&mut self, id: Option<TypeId>, path: &str, depth: u32) -> Option<()> {
        let types = self.types;
        let plain = types.plain(id).filter(|_| depth < DEPTH_MAX)?;
        match types.get(plain) {
            Type::Base { bytes, encoding, .. } => self.write(format_args!("base {encoding} {bytes};")),
            Type::Pointer { bytes, .. } => {
                self.pointer.get_or_insert_with(|| path.to_owned());
                self.write(format_args!("pointer {bytes};"));
            }
            Type::Array(array) => {
                for count in &array.counts {
                    match count {
                        Some(count) => self.write(format_args!("[{count}]")),
                        None => self.write(format_args!("[]")),
                    }
                }
                self.describe(array.of, &format!("{path}[]"), depth + 1)?;
            }
            Type::Enumeration(enumeration) => {
                self.write(format_args!("enum {}{{", enumeration.bytes));
                enumeration
                    .values
                    .iter()
                    .for_each(|(name, value)| self.write(format_args!("{name}={value};")));
                self.write(format_args!("}}"));
            }
            Type::Record(record) if !record.is_declaration => {
                self.write(format_args!("{}{}{{", record.kind.word(), record.bytes));
                for member in &record.members {
                    self.member(member, path, depth)?;
                }
                self.write(format_args!("}}"));
            }
            _ => return None,
        }
        Some(())
    }

    fn member(&mut self, member: &Member, path: &str, depth: u32) -> Option<()> {
        let name = member.name.as_deref().unwrap_or_default();
        match member.bits {
            Some(bits) => self.write(format_args!("bits {}+{} {name}:", bits.start, bits.width)),
            None => self.write(format_args!("at {} {name}:", member.offset)),
        }
        let path = if name.is_empty() { path.to_owned() } else { format!("{path}.{name}") };
        self.describe(member.of, &path, depth + 1)
    }

    fn write(&mut self, words: std::fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(words);
    }
}

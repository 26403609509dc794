//! Whether the runtime's headers declare what the build fills in, as the compiler understands them.

use super::HEAD;
use super::rows::{EXPECTED, Expected};
use schedswap_kernel::types::{Record, Types};
use std::fmt;
use std::fmt::Write;

/// A difference between a structure of the runtime's headers and what the build takes it to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Disagreement {
    /// The headers have no such structure.
    NoStructure {
        /// `ss_patch`
        structure: String,
    },
    /// The build fills in a member that the headers do not declare.
    Missing {
        /// `ss_patch`
        structure: String,
        /// `len`
        member: String,
    },
    /// The headers declare a member that the build does not fill in.
    Unknown {
        /// `ss_patch`
        structure: String,
        /// The member.
        member: String,
    },
    /// A member has another width.
    Width {
        /// `ss_patch`
        structure: String,
        /// `len`
        member: String,
        /// Bytes, or `None` for a bit-field.
        found: Option<u64>,
        /// Bytes that the build fills in.
        expected: u64,
    },
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Disagreement::NoStructure { structure } => {
                write!(f, "struct {structure}: the build fills it in, but the headers do not declare it")
            }
            Disagreement::Missing { structure, member } => {
                write!(
                    f,
                    "struct {structure}: the build fills in {member}, but the headers do not declare it"
                )
            }
            Disagreement::Unknown { structure, member } => {
                write!(
                    f,
                    "struct {structure}: the headers declare {member}, but the build does not fill it in"
                )
            }
            Disagreement::Width { structure, member, found: Some(found), expected } => {
                write!(
                    f,
                    "struct {structure}: {member} takes {found} bytes, but the build fills in {expected}"
                )
            }
            Disagreement::Width { structure, member, found: None, expected } => {
                write!(
                    f,
                    "struct {structure}: {member} is a bit-field, but the build fills in {expected} bytes"
                )
            }
        }
    }
}

/// A C file whose debug information describes every structure that the build fills in.
pub fn structures() -> String {
    let mut out = String::from(HEAD);
    out += "\n/* Compiled for its debug information: this is not a part of the module. */\n";
    for Expected { tag, .. } in EXPECTED {
        let _ = writeln!(out, "struct {tag} a_{tag};");
    }
    out
}

/// Holds the structures, as the compiler describes them, against what the build fills in.
///
/// # Errors
/// Every difference, by structure and member.
pub fn agree(types: &Types) -> Result<(), Vec<Disagreement>> {
    let mut found = Vec::new();
    for expected in &EXPECTED {
        match types.record_named(expected.tag) {
            Some(record) => compare(types, record, expected, &mut found),
            None => found.push(Disagreement::NoStructure { structure: expected.tag.to_owned() }),
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

fn compare(types: &Types, record: &Record, expected: &Expected, found: &mut Vec<Disagreement>) {
    let structure = || expected.tag.to_owned();
    for declared in &record.members {
        let name = declared.name.as_deref().unwrap_or("a member without a name");
        let Some((_, bytes)) = expected.members.iter().find(|(member, _)| *member == name) else {
            found.push(Disagreement::Unknown { structure: structure(), member: name.to_owned() });
            continue;
        };
        let width = declared.bits.is_none().then(|| types.bytes(declared.of));
        if width != Some(*bytes) {
            found.push(Disagreement::Width {
                structure: structure(),
                member: name.to_owned(),
                found: width,
                expected: *bytes,
            });
        }
    }
    for (member, _) in expected.members {
        if !record.members.iter().any(|declared| declared.name.as_deref() == Some(*member)) {
            found.push(Disagreement::Missing { structure: structure(), member: (*member).to_owned() });
        }
    }
}

//! Which members of the scheduler's structures code outside the scheduler may use.
//!
//! The debug information says which units know a structure, but not which members their code touches. The units'
//! source says which member names they write. Both together are what is called *used* here; [`MEANING`] says it to
//! readers.

use rayon::prelude::*;
use schedswap_kernel::vmlinux::Structure;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What "used" means in what is written.
pub const MEANING: &str = "a file outside the scheduler uses a member if it writes `->member` or `.member` and, for \
a .c file, its unit knows the whole structure according to the debug information, for a header, it names the \
structure. This errs on the side of use: a member of another structure may have the same name. What it cannot see: \
files that are not in the source that was read, accesses that a macro of another header makes, and assembler";

/// The whole document.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Doc {
    /// `uname -r`.
    pub release: String,
    /// What "used" means.
    pub used_means: &'static str,
    /// How many source files outside the scheduler were read; 0 where the source was not at hand.
    pub files_read: usize,
    /// Units outside that know one of the structures, but whose source was not at hand: how many.
    pub units_not_read: usize,
    /// By name.
    pub structures: BTreeMap<String, DocStructure>,
}

/// One structure.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DocStructure {
    /// Where it is declared.
    pub declared: String,
    /// Its size.
    pub bytes: u64,
    /// How many units outside know all of it: where none does, none can use it.
    pub known_outside: usize,
    /// All members, in order.
    pub all_fields: Vec<DocField>,
    /// Members used from outside → by which files.
    pub public_fields: BTreeMap<String, Vec<String>>,
}

/// One member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DocField {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Byte of the structure in which it begins.
    pub offset: u64,
    /// For a bit field: bits from there, and how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<(u64, u64)>,
    /// Bytes; of a bit field none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// What a source file says that matters here.
struct Mentions {
    /// Names after `->` or `.`.
    members: BTreeSet<String>,
    /// Names after `struct` or `union`.
    structures: BTreeSet<String>,
}

/// Puts together what the debug information and the source say. `files`: what there is of the kernel's source outside the
/// scheduler, relative to its top directory; `read` has their text. Only those that matter are read.
///
/// # Errors
/// Those of `read`.
pub fn document<E: Send>(
    release: &str,
    structures: &[Structure],
    files: &[String],
    read: impl Fn(&str) -> Result<Vec<u8>, E> + Sync,
) -> Result<Doc, E> {
    let members: BTreeSet<&str> =
        structures.iter().flat_map(|s| &s.members).map(|member| member.name.as_str()).collect();
    let names: BTreeSet<&str> = structures.iter().map(|s| s.name.as_str()).collect();
    let units: BTreeSet<&str> = structures.iter().flat_map(|s| &s.known_to).map(String::as_str).collect();
    let matters = |file: &&String| file.ends_with(".h") || units.contains(file.as_str());
    let mentions = |file: &'_ String| Ok((file.clone(), mentions(&read(file)?, &members, &names)));
    let read: HashMap<String, Mentions> =
        files.par_iter().filter(matters).map(mentions).collect::<Result<_, E>>()?;
    let headers: BTreeSet<&str> =
        read.keys().map(String::as_str).filter(|path| path.ends_with(".h")).collect();
    let mut not_read = BTreeSet::new();
    let mut found = BTreeMap::new();
    for structure in structures {
        not_read.extend(structure.known_to.iter().filter(|unit| !read.contains_key(unit.as_str())));
        let units = structure.known_to.iter().map(String::as_str);
        let by_name = headers.iter().copied().filter(|path| {
            !structure.known_to.is_empty() && read[*path].structures.contains(&structure.name)
        });
        let mut public_fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in units.chain(by_name) {
            let Some(mentions) = read.get(file) else { continue };
            for member in structure.members.iter().filter(|m| mentions.members.contains(&m.name)) {
                let by = public_fields.entry(member.name.clone()).or_default();
                if by.last().is_none_or(|last| last != file) {
                    by.push(file.to_owned());
                }
            }
        }
        let key = match found.contains_key(&structure.name) {
            true => format!("{} ({})", structure.name, structure.decl_file),
            false => structure.name.clone(),
        };
        found.insert(key, doc_structure(structure, public_fields));
    }
    Ok(Doc {
        release: release.to_owned(),
        used_means: MEANING,
        files_read: read.len(),
        units_not_read: not_read.len(),
        structures: found,
    })
}

fn doc_structure(structure: &Structure, public_fields: BTreeMap<String, Vec<String>>) -> DocStructure {
    let field = |member: &schedswap_kernel::vmlinux::Member| {
        let is_bits = !member.bits.is_multiple_of(8) || !member.bit_offset.is_multiple_of(8);
        DocField {
            name: member.name.clone(),
            type_name: member.type_name.clone(),
            offset: member.bit_offset / 8,
            bits: is_bits.then_some((member.bit_offset % 8, member.bits)),
            bytes: (!is_bits).then_some(member.bits / 8),
        }
    };
    DocStructure {
        declared: format!("{}:{}", structure.decl_file, structure.decl_line),
        bytes: structure.size,
        known_outside: structure.known_to.len(),
        all_fields: structure.members.iter().map(field).collect(),
        public_fields,
    }
}

/// Goes through a C file once. Comments count as text, which errs on the side of use; a number's point does not.
fn mentions(text: &[u8], members: &BTreeSet<&str>, names: &BTreeSet<&str>) -> Mentions {
    let mut found = Mentions { members: BTreeSet::new(), structures: BTreeSet::new() };
    let mut is_member = false;
    let mut is_structure = false;
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        if is_word(byte) {
            let length = text[at..].iter().position(|b| !is_word(*b)).unwrap_or(text.len() - at);
            let word = std::str::from_utf8(&text[at..at + length]).unwrap_or_default();
            if is_member && members.contains(word) {
                found.members.insert(word.to_owned());
            } else if is_structure && names.contains(word) {
                found.structures.insert(word.to_owned());
            }
            is_structure = matches!(word, "struct" | "union");
            is_member = false;
            at += length;
            continue;
        }
        if byte == b'.' || byte == b'>' && at > 0 && text[at - 1] == b'-' {
            is_member = true;
        } else if !byte.is_ascii_whitespace() {
            is_member = false;
        }
        is_structure &= byte.is_ascii_whitespace();
        at += 1;
    }
    found
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedswap_kernel::vmlinux::Member;

    fn structure(name: &str, members: &[&str], known_to: &[&str]) -> Structure {
        let member = |(i, name): (usize, &&str)| Member {
            name: (*name).to_owned(),
            type_name: "int".into(),
            bit_offset: i as u64 * 32,
            bits: 32,
        };
        Structure {
            name: name.into(),
            size: 4 * members.len() as u64,
            decl_file: "kernel/sched/sched.h".into(),
            decl_line: 1,
            members: members.iter().enumerate().map(member).collect(),
            known_to: known_to.iter().map(|unit| (*unit).to_owned()).collect(),
        }
    }

    #[test]
    fn used_is_what_is_written_by_who_knows() {
        let structures = [
            structure("rq", &["lock", "clock", "nr"], &["a.c", "gone.c"]),
            structure("secret", &["lock"], &[]),
        ];
        let sources = BTreeMap::from([
            ("a.c", "x->lock = y . clock; nr; z.\n  other; 1.5; /* nr */"),
            ("b.c", "x->nr, x.clock"),
            ("i.h", "static int f(struct rq *r) { return r->nr; }"),
            ("j.h", "static int f(struct other *r) { return r->nr; }"),
        ]);
        let files: Vec<String> = sources.keys().map(|path| (*path).to_owned()).collect();
        let read = |path: &str| Ok::<_, ()>(sources[path].as_bytes().to_vec());
        let doc = document("6.1", &structures, &files, read).unwrap();
        let public = &doc.structures["rq"].public_fields;
        let expected: BTreeMap<String, Vec<String>> = [("lock", "a.c"), ("clock", "a.c"), ("nr", "i.h")]
            .map(|(m, by)| (m.into(), vec![by.into()]))
            .into();
        assert_eq!(*public, expected);
        assert!(doc.structures["secret"].public_fields.is_empty(), "nothing outside knows it");
        assert_eq!((doc.files_read, doc.units_not_read), (3, 1), "b.c knows nothing, gone.c is not there");
        assert_eq!(doc.structures["rq"].all_fields[2].offset, 8);
    }
}

//! SS107: structures, enumerations and variables whose layout other code, or memory from before the swap, depends on.
//!
//! A structure may change if only the module's code ever has it: on its stack, or in its own variables.

use crate::boundary::{Boundary, Sharing};
use crate::check::compare::{Declared, Place, is_shared, variable};
use crate::check::finding::{Code, Finding, finding};
use crate::check::words::explain::{self, Text};
use schedswap_kernel::types::{self, Enumeration, Field, Reach, RecordLayout, Types};
use schedswap_kernel::vmlinux::{self, Image, defined_elsewhere};
use std::collections::{BTreeMap, BTreeSet};

/// A structure or enumeration that differs in a way that breaks code compiled for the old one.
struct Changed {
    title: String,
    place: Place,
    /// What differs, in words.
    differences: Vec<String>,
    /// The old layout, to tell what is free; `None` for an enumeration.
    before: Option<RecordLayout>,
}

/// All findings about layouts.
///
/// # Errors
/// vmlinux's debug information cannot be read.
pub fn findings(
    declared: &Declared,
    image: &Image,
    boundary: &Boundary,
) -> Result<Vec<Finding>, vmlinux::Error> {
    let mut changed: BTreeMap<String, Changed> = BTreeMap::new();
    for edited in &declared.edited {
        for (name, change) in changed_types(declared, edited) {
            changed.entry(name).or_insert(change);
        }
    }
    let names: BTreeSet<String> = changed.keys().cloned().collect();
    let elsewhere = defined_elsewhere(image, &names)?;
    let memory = (!names.is_empty()).then(|| Memory::of(declared, boundary));
    let mut findings = Vec::new();
    for (name, change) in &changed {
        let known = elsewhere.get(name).map(explain::known_elsewhere);
        let kept = || change.before.as_ref().and_then(|_| memory.as_ref()?.keeps(name));
        if let Some(why) = known.or_else(kept) {
            let text = text(change, &why);
            findings.push(finding(Code::ChangedLayout, &change.title, change.place.clone(), text));
        }
    }
    findings.extend(changed_variables(declared, boundary));
    Ok(findings)
}

fn text(change: &Changed, why: &str) -> Text {
    explain::changed_layout(&change.differences, why, change.before.as_ref())
}

/// Types of an edited unit that are not what they were, by name.
fn changed_types(declared: &Declared, edited: &Types) -> Vec<(String, Changed)> {
    let mut found = Vec::new();
    let before_of = |name: &str| {
        let own = declared.pristine.unit(&edited.unit).filter(|types| types.named(name).is_some());
        own.or_else(|| declared.pristine.with(name))
    };
    for (name, _, _) in edited.records() {
        let Some(before) = before_of(name).and_then(|types| types.layout(name)) else { continue };
        let Some(after) = edited.layout(name) else { continue };
        let (differences, line) = compare(&before, &after);
        if !differences.is_empty() {
            let place = Place { file: after.place.file.clone(), line: line.unwrap_or(after.place.line) };
            let title = before.title.clone();
            found.push((name.to_owned(), Changed { title, place, differences, before: Some(before) }));
        }
    }
    for (name, after) in edited.enumerations() {
        let before = before_of(name).and_then(|types| enumeration(types, name));
        let differences = before.map(|before| compare_values(before, after)).unwrap_or_default();
        if !differences.is_empty() {
            let place = Place { file: after.place.file.clone(), line: after.place.line };
            let title = format!("enum {name}");
            found.push((name.to_owned(), Changed { title, place, differences, before: None }));
        }
    }
    found
}

fn enumeration<'t>(types: &'t Types, name: &str) -> Option<&'t Enumeration> {
    types.enumerations().find(|(found, _)| *found == name).map(|(_, enumeration)| enumeration)
}

fn compare_values(before: &Enumeration, after: &Enumeration) -> Vec<String> {
    let mut differences = Vec::new();
    if before.bytes != after.bytes {
        differences.push(format!("it takes {} bytes instead of {}", after.bytes, before.bytes));
    }
    for (name, value) in &before.values {
        if let Some((_, now)) = after.values.iter().find(|(found, now)| found == name && now != value) {
            differences.push(format!("{name} is {now} instead of {value}"));
        }
    }
    differences
}

/// What breaks code compiled for the old structure, and the line of the first member that does.
fn compare(before: &RecordLayout, after: &RecordLayout) -> (Vec<String>, Option<u32>) {
    let mut differences = Vec::new();
    let mut lines = Vec::new();
    if before.bytes != after.bytes {
        differences.push(format!("its size becomes {} bytes instead of {}", after.bytes, before.bytes));
    }
    if before.align != after.align {
        differences.push(format!("its alignment becomes {} instead of {}", after.align, before.align));
    }
    for field in after.members.iter().filter(|field| !before.has(field)) {
        if let Some(why) = obstacle(before, after, field) {
            differences.push(format!("{} is new {why}", named(field)));
            lines.push(field.line);
        }
    }
    for field in before.members.iter().filter(|field| !is_reserved(field)) {
        let Some(now) = after.member(field) else {
            if !after.members.iter().any(|other| is_renamed(before, field, other)) {
                differences.push(format!("{} is gone", named(field)));
            }
            continue;
        };
        if (now.offset, now.bits) != (field.offset, field.bits) {
            differences.push(format!("{} moves from {} to {}", named(field), at(field), at(now)));
        } else if now.type_words != field.type_words {
            let (old, new) = (&field.type_words, &now.type_words);
            differences.push(format!("{} is {new} instead of {old}", named(field)));
            lines.push(now.line);
        }
    }
    (differences, lines.into_iter().find(|line| *line > 0))
}

/// Another name for the same place: old code reads and writes the same as before.
fn is_renamed(before: &RecordLayout, old: &Field, new: &Field) -> bool {
    let same_place = (new.offset, new.bits, &new.type_words) == (old.offset, old.bits, &old.type_words);
    same_place && !before.has(new)
}

/// Why a new member cannot be where it is; `None` if all its bytes, or bits, were free.
fn obstacle(before: &RecordLayout, after: &RecordLayout, field: &Field) -> Option<String> {
    if before.members.iter().any(|old| !after.has(old) && is_renamed(before, old, field)) {
        return None;
    }
    if let Some(bits) = field.bits {
        let is_free = |bit: u64| {
            let (byte, mask) = (bit / 8, 1u8 << (bit % 8));
            before.holes.iter().any(|hole| takes(&hole.path, field) && hole_has(hole, byte, 1))
                || before
                    .spare_bits
                    .iter()
                    .any(|s| takes(&s.path, field) && s.offset == byte && s.mask & mask != 0)
        };
        let all_free = (bits.start..bits.start + bits.width).all(is_free);
        return (!all_free).then(|| format!("at bits that are in use (from byte {})", field.offset));
    }
    let is_free = |byte: u64| {
        let in_hole = before.holes.iter().any(|hole| takes(&hole.path, field) && hole_has(hole, byte, 1));
        let reserved = before.members.iter().any(|old| is_reserved(old) && old.overlaps(byte, 1));
        in_hole || reserved
    };
    let end = field.offset + field.bytes;
    if end > before.bytes || field.bytes == 0 {
        return Some(format!("at {}, where the structure ended", field.offset));
    }
    let taken = (field.offset..end).find(|byte| !is_free(*byte))?;
    Some(match before.members.iter().find(|old| old.overlaps(taken, 1)) {
        Some(old) => format!("at {}, where {} was", field.offset, old.path),
        None => format!("at {}, which is not free", field.offset),
    })
}

/// Whether padding of the structure at `path` can take a member: it must be declared there.
fn takes(path: &str, field: &Field) -> bool {
    path.is_empty() || field.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
}

fn hole_has(hole: &types::Hole, at: u64, bytes: u64) -> bool {
    hole.offset <= at && at + bytes <= hole.offset + hole.bytes
}

/// Kernels with a stable ABI have such members for later use.
fn is_reserved(field: &Field) -> bool {
    field.path.rsplit('.').next().is_some_and(|name| name.contains("reserved"))
}

fn named(field: &Field) -> String {
    format!("{} ({})", field.path, field.type_words)
}

fn at(field: &Field) -> String {
    match field.bits {
        Some(bits) => format!("bit {}", bits.start),
        None => field.offset.to_string(),
    }
}

/// Which structures lie in memory that exists before the module loads.
struct Memory {
    /// Structure → how it is reached from a variable of vmlinux.
    reached: BTreeMap<String, String>,
    /// Structures that a function has on its stack, or that the module has in a variable of its own.
    passing: BTreeSet<String>,
}

impl Memory {
    fn of(declared: &Declared, boundary: &Boundary) -> Memory {
        let reach = Reach::of(&declared.pristine.units);
        let mut roots = BTreeMap::new();
        let mut passing = BTreeSet::new();
        for types in &declared.pristine.units {
            for v in &types.variables {
                if v.is_automatic {
                    passing.extend(types.structures_in(v.of));
                    continue;
                }
                let is_private = boundary.variables.iter().any(|known| {
                    known.unit == types.unit
                        && known.name == v.name
                        && known.in_function == v.function
                        && matches!(known.sharing, Sharing::Private(_))
                });
                if is_private {
                    passing.extend(types.structures_in(v.of));
                } else {
                    for name in types.structures_of(v.of) {
                        roots.entry(name).or_insert_with(|| v.name.clone());
                    }
                }
            }
        }
        let passing = reach.closure(passing.iter().map(String::as_str), false);
        Memory { reached: reach.paths(roots), passing }
    }

    /// Why objects of a structure exist before the module loads; `None` if they do not.
    fn keeps(&self, name: &str) -> Option<String> {
        if let Some(path) = self.reached.get(name) {
            return Some(explain::reached_from(path));
        }
        (!self.passing.contains(name)).then(explain::allocated)
    }
}

/// Variables of vmlinux whose type is another now.
fn changed_variables(declared: &Declared, boundary: &Boundary) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (before, after) in declared.pairs() {
        for old in boundary.variables.iter().filter(|v| v.unit == before.unit && v.in_function.is_none()) {
            let (Some(was), Some(is)) = (variable(before, &old.name), variable(after, &old.name)) else {
                continue;
            };
            let (was_words, is_words) = (before.words(was.of), after.words(is.of));
            let is_alike = was.is_declaration == is.is_declaration;
            if is_alike && was_words != is_words && is_shared(boundary, &old.unit, &old.name) {
                let place = Place { file: is.place.file.clone(), line: is.place.line };
                let text = explain::changed_variable_type(&was_words, &is_words);
                findings.push(finding(Code::ChangedLayout, &old.name, place, text));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::declarations;

    /// What an old user of `struct s` with these members would trip over in one with those.
    fn struct_s(before: &str, after: &str) -> Vec<String> {
        let of = |members: &str| {
            declarations(&format!("struct in {{ char a; long b; }}; struct s {{ {members} }} s;"))
        };
        super::compare(&of(before).layout("s").unwrap(), &of(after).layout("s").unwrap()).0
    }

    #[test]
    fn a_member_in_padding_is_fine_and_one_that_moves_others_is_not() {
        assert_eq!(struct_s("char a; long b;", "char a; char novel; int more; long b;"), [""; 0]);
        assert_eq!(struct_s("long a; char b;", "long a; char b; int novel;"), [""; 0]);
        assert_eq!(
            struct_s("char a; long b;", "char a; long novel; long b;"),
            [
                "its size becomes 24 bytes instead of 16",
                "novel (long int) is new at 8, where b was",
                "b (long int) moves from 8 to 16"
            ]
        );
        assert_eq!(
            struct_s("long a; long b;", "long a; long b; char novel;"),
            [
                "its size becomes 24 bytes instead of 16",
                "novel (char) is new at 16, where the structure ended"
            ]
        );
    }

    #[test]
    fn padding_of_an_inner_structure_is_not_the_outer_ones() {
        let before = "struct in in; union { char c; long whole; }; char d;";
        assert_eq!(
            struct_s(
                before,
                "struct in in; union { char c; long whole; struct { char x, novel; }; }; char d;"
            )
            .len(),
            2
        );
        assert_eq!(struct_s(before, &format!("{before} char novel;")), [""; 0]);
    }

    #[test]
    fn members_that_change_type_or_go_and_such_that_get_another_name() {
        assert_eq!(
            struct_s("int a; int b;", "int a; unsigned b;"),
            ["b (int) is unsigned int instead of int"]
        );
        assert_eq!(struct_s("int a; int b;", "int a; int other;"), [""; 0]);
        assert_eq!(struct_s("long a; char b; char c;", "long a; char b;"), ["c (char) is gone"]);
        assert_eq!(struct_s("int a; int b;", "int b; int a;").len(), 2);
    }

    #[test]
    fn reserved_members_and_spare_bits_may_be_used() {
        let before = "long a; unsigned long abi_reserved1; unsigned f : 3;";
        assert_eq!(struct_s(before, "long a; unsigned novel; unsigned more; unsigned f : 3;"), [""; 0]);
        assert_eq!(
            struct_s(before, "long a; unsigned long abi_reserved1; unsigned f : 3; unsigned g : 2;"),
            [""; 0]
        );
        assert_eq!(
            struct_s(before, "long a; unsigned long abi_reserved1; unsigned g : 1; unsigned f : 3;").len(),
            2
        );
    }
}

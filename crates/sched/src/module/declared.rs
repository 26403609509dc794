//! Variables with static storage as an object's debug information declares them.

use gimli::constants as dw;
use gimli::{AttributeValue, DebuggingInformationEntry, EndianSlice, LittleEndian, UnitOffset};
use schedswap_kernel::objects::{Object, Place};
use schedswap_kernel::types::{placed, relocated_debug_sections};
use sha2::{Digest, Sha256};
use std::fmt::Write;

type Slice<'a> = EndianSlice<'a, LittleEndian>;
type Dwarf<'a> = gimli::Dwarf<Slice<'a>>;
type Unit<'a> = gimli::Unit<Slice<'a>>;
type Entry<'a> = DebuggingInformationEntry<Slice<'a>>;

/// A variable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Declared {
    /// Its symbol in the object.
    pub symbol: String,
    /// The function that it is local to.
    pub function: Option<String>,
    /// Its name in the source.
    pub name: String,
    /// What its type is.
    pub shape: Shape,
}

/// What can be said of a variable's type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shape {
    /// It holds values alone. Two of the same hash have the same size, members, offsets and basic types.
    Plain {
        /// Hash of all that.
        hash: u64,
    },
    /// It holds a pointer.
    Pointer {
        /// Members and subscripts that lead to it; empty if the variable itself is one.
        at: String,
    },
    /// The debug information does not describe it fully.
    Unknown,
}

/// The variables that an object compiled with debug information defines.
///
/// # Errors
/// The debug information is damaged.
pub fn declared(object: &Object) -> gimli::Result<Vec<Declared>> {
    let sections = relocated_debug_sections(object);
    let dwarf: Dwarf = gimli::Dwarf::load(|id| {
        let bytes = sections.get(id.name()).map_or(&[][..], Vec::as_slice);
        Ok::<_, gimli::Error>(EndianSlice::new(bytes, LittleEndian))
    })?;
    let mut found = Vec::new();
    let mut headers = dwarf.units();
    while let Some(header) = headers.next()? {
        let unit = dwarf.unit(header)?;
        let mut functions: Vec<(isize, Option<String>)> = Vec::new();
        let mut entries = unit.entries();
        while let Some(entry) = entries.next_dfs()? {
            functions.retain(|(depth, _)| *depth < entry.depth());
            match entry.tag() {
                dw::DW_TAG_subprogram => functions.push((entry.depth(), name(&dwarf, &unit, entry)?)),
                dw::DW_TAG_variable => {
                    let Some(symbol) = symbol_of(object, &unit, entry) else { continue };
                    let declaration = declaration_of(&unit, entry)?;
                    let Some(name) = name(&dwarf, &unit, &declaration)? else { continue };
                    let function = functions.last().and_then(|(_, function)| function.clone());
                    let shape = shape(&dwarf, &unit, &declaration)?;
                    found.push(Declared { symbol, function, name, shape });
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

/// A variable declared `extern` and then defined has its name and type at the declaration.
fn declaration_of<'a>(unit: &Unit<'a>, entry: &Entry<'a>) -> gimli::Result<Entry<'a>> {
    let origin =
        [dw::DW_AT_specification, dw::DW_AT_abstract_origin].into_iter().find_map(|a| entry.attr_value(a));
    match origin {
        Some(AttributeValue::UnitRef(offset)) => unit.entry(offset),
        _ => Ok(entry.clone()),
    }
}

fn name(dwarf: &Dwarf<'_>, unit: &Unit<'_>, entry: &Entry<'_>) -> gimli::Result<Option<String>> {
    let Some(value) = entry.attr_value(dw::DW_AT_name) else { return Ok(None) };
    Ok(Some(dwarf.attr_string(unit, value)?.to_string_lossy().into_owned()))
}

/// The symbol at the address that a variable's location is; `None` if it has none of its own.
fn symbol_of(object: &Object, unit: &Unit<'_>, entry: &Entry<'_>) -> Option<String> {
    let location = entry.attr_value(dw::DW_AT_location)?.exprloc_value()?;
    let mut operations = location.operations(unit.encoding());
    let Ok(Some(gimli::Operation::Address { address })) = operations.next() else { return None };
    let (section, offset) = placed(address)?;
    let named = |s: &&schedswap_kernel::objects::Symbol| {
        s.place == Place::Section(section) && s.value == offset && !s.name.is_empty()
    };
    Some(object.symbols.iter().find(named)?.name.clone())
}

fn shape(dwarf: &Dwarf<'_>, unit: &Unit<'_>, entry: &Entry<'_>) -> gimli::Result<Shape> {
    let mut text = String::new();
    let end = describe(dwarf, unit, type_of(entry), "", &mut text)?;
    Ok(match end {
        None => {
            let digest = Sha256::digest(text.as_bytes());
            let bytes = digest.first_chunk().copied().unwrap_or_default();
            Shape::Plain { hash: u64::from_le_bytes(bytes) }
        }
        Some(shape) => shape,
    })
}

fn type_of(entry: &Entry<'_>) -> Option<UnitOffset> {
    match entry.attr_value(dw::DW_AT_type)? {
        AttributeValue::UnitRef(offset) => Some(offset),
        _ => None,
    }
}

fn number(entry: &Entry<'_>, attribute: gimli::DwAt) -> Option<u64> {
    entry.attr_value(attribute)?.udata_value()
}

/// Writes down a type, names of typedefs left out. `Some`: why it cannot be.
///
/// A pointer ends the walk, so that a structure that leads back to itself is no endless one.
fn describe(
    dwarf: &Dwarf<'_>,
    unit: &Unit<'_>,
    offset: Option<UnitOffset>,
    path: &str,
    out: &mut String,
) -> gimli::Result<Option<Shape>> {
    let Some(offset) = offset else { return Ok(Some(Shape::Unknown)) };
    let entry = unit.entry(offset)?;
    let size = number(&entry, dw::DW_AT_byte_size).unwrap_or_default();
    match entry.tag() {
        dw::DW_TAG_typedef
        | dw::DW_TAG_const_type
        | dw::DW_TAG_volatile_type
        | dw::DW_TAG_restrict_type
        | dw::DW_TAG_atomic_type => describe(dwarf, unit, type_of(&entry), path, out),
        dw::DW_TAG_base_type => {
            let encoding = match entry.attr_value(dw::DW_AT_encoding) {
                Some(AttributeValue::Encoding(encoding)) => encoding.0,
                _ => 0,
            };
            let _ = write!(out, "base {encoding} {size};");
            Ok(None)
        }
        dw::DW_TAG_pointer_type => Ok(Some(Shape::Pointer { at: path.to_owned() })),
        dw::DW_TAG_structure_type
        | dw::DW_TAG_union_type
        | dw::DW_TAG_enumeration_type
        | dw::DW_TAG_array_type => {
            if entry.attr_value(dw::DW_AT_declaration).is_some() {
                return Ok(Some(Shape::Unknown));
            }
            let _ = write!(out, "{} {size}{{", entry.tag());
            let mut tree = unit.entries_tree(Some(offset))?;
            let mut children = tree.root()?.children();
            while let Some(child) = children.next()? {
                let child = child.entry();
                let name = name(dwarf, unit, child)?.unwrap_or_default();
                for attribute in [
                    dw::DW_AT_data_member_location,
                    dw::DW_AT_data_bit_offset,
                    dw::DW_AT_bit_size,
                    dw::DW_AT_const_value,
                    dw::DW_AT_upper_bound,
                    dw::DW_AT_count,
                ] {
                    let _ = match child.attr_value(attribute) {
                        Some(value) => write!(out, "{attribute}={:?} ", value.sdata_value()),
                        None => Ok(()),
                    };
                }
                let _ = write!(out, "{} {name}:", child.tag());
                if child.tag() == dw::DW_TAG_member {
                    let member = format!("{path}.{name}");
                    if let Some(shape) = describe(dwarf, unit, type_of(child), &member, out)? {
                        return Ok(Some(shape));
                    }
                }
            }
            out.push('}');
            if entry.tag() == dw::DW_TAG_array_type {
                return describe(dwarf, unit, type_of(&entry), &format!("{path}[]"), out);
            }
            Ok(None)
        }
        _ => Ok(Some(Shape::Unknown)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::process::Command;

    /// The variables of a C file, as the compiler of this machine describes them.
    fn of(source: &str) -> BTreeMap<String, Declared> {
        let dir = tempfile::tempdir().unwrap();
        let (c, o) = (dir.path().join("a.c"), dir.path().join("a.o"));
        std::fs::write(&c, source).unwrap();
        let flags = ["-O2", "-gdwarf-4", "-fdata-sections", "-c", "-o"];
        let status = Command::new("gcc").args(flags).args([&o, &c]).status().unwrap();
        assert!(status.success());
        let object = schedswap_kernel::objects::read("a.o", &std::fs::read(&o).unwrap()).unwrap();
        declared(&object).unwrap().into_iter().map(|d| (d.name.clone(), d)).collect()
    }

    const SOURCE: &str = r"
        typedef unsigned int u32;
        struct inner { char c; u32 many[3]; };
        struct with_pointer { int count; struct { void *to[2]; } in; };
        long plain = 1;
        volatile u32 counter __attribute__((used));
        struct inner nested = { 1 };
        struct with_pointer pointing = { 1 };
        int (*function)(void);
        int used(void) { static int local = 5; return local++ + nested.c + (int)plain + pointing.count + !!function; }
    ";

    #[test]
    fn values_are_told_from_what_holds_a_pointer() {
        let found = of(SOURCE);
        for name in ["plain", "counter", "nested", "local"] {
            assert!(matches!(found[name].shape, Shape::Plain { .. }), "{name}: {:?}", found[name]);
        }
        assert_eq!(found["pointing"].shape, Shape::Pointer { at: ".in.to[]".into() });
        assert_eq!(found["function"].shape, Shape::Pointer { at: String::new() });
        assert_eq!(found["local"].function.as_deref(), Some("used"));
        assert_eq!(found["plain"].function, None);
        assert!(found["local"].symbol.starts_with("local."), "{:?}", found["local"]);
    }

    #[test]
    fn only_what_is_declared_alike_has_the_same_hash() {
        let shapes = |source: &str| of(source)["nested"].shape.clone();
        let before = shapes(SOURCE);
        assert_eq!(
            before,
            shapes(&SOURCE.replace("u32 many", "const unsigned many")),
            "a typedef is but a name"
        );
        for (old, new) in [
            ("many[3]", "many[4]"),
            ("char c;", "char d;"),
            ("u32 many", "int many"),
            ("char c;", "char c, pad;"),
        ] {
            let source = SOURCE.replace(old, new).replace("nested.c", "nested.many[0]");
            assert_ne!(before, shapes(&source), "{old} became {new}");
        }
    }
}

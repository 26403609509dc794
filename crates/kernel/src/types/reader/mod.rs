//! A unit's entries, read into [`Types`]: DWARF 4 and 5, as gcc and clang write them for C.
//!
//! [`read`] walks a whole unit. [`read_from`] reads a few types and what they refer to. Both follow references into
//! other units, which exist after link-time optimisation or `dwz`.

mod declarations;
mod type_entries;

use super::debug_info::{DebugSections, Die, Unit, file_number, files, reference};
use super::index::IndexedUnit;
use super::model::{SourceLine, Type, TypeId, Types};
use gimli::{UnitOffset, constants as dw};
use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;
use type_entries::is_type;

/// Longest chain of entries that complete each other (copy of a function → the function → its declaration) that is
/// followed. Real chains are shorter; a damaged file may hold a circle.
const CHAIN_MAX: usize = 32;

/// Reads everything that a unit declares.
pub(super) fn read<'a>(info: &DebugSections<'a>, unit: &IndexedUnit<'a>) -> gimli::Result<Types> {
    let mut reader = Reader::new(info, unit);
    let own = reader.source_at(unit.start)?;
    if let Some(own) = own {
        reader.walk(&own, None)?;
    }
    reader.read_pending()?;
    Ok(reader.finish(unit))
}

/// Reads the types at some offsets in `.debug_info`, and all that they refer to.
pub(super) fn read_from<'a>(
    info: &DebugSections<'a>,
    unit: &IndexedUnit<'a>,
    offsets: &[usize],
) -> gimli::Result<Types> {
    let mut reader = Reader::new(info, unit);
    for offset in offsets {
        reader.id_at(*offset);
    }
    reader.read_pending()?;
    Ok(reader.finish(unit))
}

/// A unit that entries are read from.
struct Source<'a> {
    unit: Unit<'a>,
    /// Offset in `.debug_info`.
    start: usize,
    end: usize,
    /// Files of the line table, by DW_AT_decl_file.
    files: OnceCell<Vec<String>>,
}

/// What encloses an entry.
#[derive(Clone, Copy)]
enum Enclosing {
    Nothing,
    /// Members, dimensions, enumerators and parameters belong to this type.
    Type(TypeId),
    /// Parameters belong to this function.
    Function(usize),
    /// A function's block, or code inlined into it.
    Inside(usize),
    /// An entry that the model does not hold.
    Skipped,
}

/// What encloses an entry, and the innermost function or inlined copy of one that it is in, as an offset in its unit.
#[derive(Clone, Copy)]
struct Scope {
    enclosing: Enclosing,
    code: Option<UnitOffset>,
}

const OUTERMOST: Scope = Scope { enclosing: Enclosing::Nothing, code: None };

/// A type gets its number when it is first referred to or met, and is pending until its entry has been read.
struct Reader<'a, 'r> {
    info: &'r DebugSections<'a>,
    sources: Vec<Rc<Source<'a>>>,
    out: Types,
    /// By number; `None` while a type is pending.
    types: Vec<Option<Type>>,
    /// Types by the offset of their entries in `.debug_info`.
    ids: HashMap<usize, TypeId>,
    /// Types that were referred to before their entries were read.
    pending: Vec<(usize, TypeId)>,
}

impl<'a, 'r> Reader<'a, 'r> {
    fn new(info: &'r DebugSections<'a>, unit: &IndexedUnit<'a>) -> Reader<'a, 'r> {
        Reader {
            info,
            sources: Vec::new(),
            out: Types { unit: info.name_of(unit).to_owned(), ..Types::default() },
            types: Vec::new(),
            ids: HashMap::new(),
            pending: Vec::new(),
        }
    }

    /// The unit that holds an offset in `.debug_info`.
    fn source_at(&mut self, offset: usize) -> gimli::Result<Option<Rc<Source<'a>>>> {
        if let Some(source) = self.sources.iter().find(|s| (s.start..s.end).contains(&offset)) {
            return Ok(Some(Rc::clone(source)));
        }
        let Some(indexed) = self.info.index.unit_at(offset) else { return Ok(None) };
        let unit = self.info.dwarf.unit(indexed.header)?;
        let source = Source { unit, start: indexed.start, end: indexed.end, files: OnceCell::new() };
        self.sources.push(Rc::new(source));
        Ok(self.sources.last().cloned())
    }

    /// The number of the type whose entry is at an offset in `.debug_info`.
    fn id_at(&mut self, offset: usize) -> TypeId {
        let next = TypeId(self.types.len() as u32);
        let id = *self.ids.entry(offset).or_insert(next);
        if id == next {
            self.types.push(None);
            self.pending.push((offset, id));
        }
        id
    }

    /// Reads what was referred to and lies outside of what has been walked.
    fn read_pending(&mut self) -> gimli::Result<()> {
        while let Some((offset, id)) = self.pending.pop() {
            if self.types[id.0 as usize].is_none()
                && let Some(source) = self.source_at(offset)?
            {
                self.walk(&source, Some(UnitOffset(offset - source.start)))?;
            }
        }
        Ok(())
    }

    /// Reads a unit's entries: all of them, or one with those inside it.
    fn walk(&mut self, source: &Source<'a>, only: Option<UnitOffset>) -> gimli::Result<()> {
        let mut entries = source.unit.entries_raw(only)?;
        let mut die = Die::null();
        // For each depth, what encloses the entries met there.
        let mut scopes = vec![OUTERMOST];
        let mut is_first = true;
        while !entries.is_empty() {
            let depth = usize::try_from(entries.next_depth()).unwrap_or(0);
            if only.is_some() && depth == 0 && !is_first {
                break;
            }
            is_first = false;
            // Looked at twice: most entries are of no interest, and skipping them is cheaper than reading.
            let offset = entries.next_offset();
            let mut ahead = entries.clone();
            let Some(abbreviation) = ahead.read_abbreviation()? else {
                entries = ahead;
                continue;
            };
            let (tag, has_children) = (abbreviation.tag(), abbreviation.has_children());
            let parent = scopes.get(depth).copied().unwrap_or(OUTERMOST);
            let enclosing = if is_type(tag) || is_read(tag) {
                entries.read_entry(&mut die)?;
                self.entry(source, tag, &die, parent)?
            } else {
                ahead.skip_attributes(abbreviation.attributes())?;
                entries = ahead;
                match parent.enclosing {
                    Enclosing::Function(index) | Enclosing::Inside(index) => Enclosing::Inside(index),
                    other => other,
                }
            };
            if has_children {
                let is_code = matches!(tag, dw::DW_TAG_subprogram | dw::DW_TAG_inlined_subroutine);
                let code = if is_code { Some(offset) } else { parent.code };
                scopes.truncate(depth + 1);
                scopes.resize(depth + 1, OUTERMOST);
                scopes.push(Scope { enclosing, code });
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        source: &Source<'a>,
        tag: gimli::DwTag,
        die: &Die<'a>,
        parent: Scope,
    ) -> gimli::Result<Enclosing> {
        if is_type(tag) {
            let id = self.id_at(source.start + die.offset().0);
            let type_ = self.type_of_entry(source, tag, die)?;
            self.types[id.0 as usize] = Some(type_);
            return Ok(Enclosing::Type(id));
        }
        match (tag, parent.enclosing) {
            (dw::DW_TAG_subprogram, enclosing) => return self.function(source, die, enclosing),
            (dw::DW_TAG_variable, _) => self.variable(source, die, parent)?,
            (dw::DW_TAG_formal_parameter, Enclosing::Function(index)) => {
                let of = self.type_referred_to(source, die);
                self.out.functions[index].prototype.parameters.push(of);
            }
            (dw::DW_TAG_unspecified_parameters, Enclosing::Function(index)) => {
                self.out.functions[index].prototype.is_variadic = true;
            }
            (_, Enclosing::Type(id)) => self.part_of_type(source, tag, die, id)?,
            _ => {}
        }
        Ok(Enclosing::Skipped)
    }

    /// DW_AT_type.
    fn type_referred_to(&mut self, source: &Source<'a>, die: &Die<'a>) -> Option<TypeId> {
        let offset = reference(source.start, &die.attr_value(dw::DW_AT_type)?)?;
        Some(self.id_at(offset))
    }

    fn name(&self, source: &Source<'a>, die: &Die<'a>) -> gimli::Result<Option<String>> {
        let Some(value) = die.attr_value(dw::DW_AT_name) else { return Ok(None) };
        Ok(Some(self.info.dwarf.attr_string(&source.unit, value)?.to_string_lossy().into_owned()))
    }

    fn file(&self, source: &Source<'a>, die: &Die<'a>) -> Option<String> {
        let number = usize::try_from(file_number(&die.attr_value(dw::DW_AT_decl_file)?)?).ok()?;
        let all = || files(&self.info.dwarf, &source.unit, &self.info.root);
        source.files.get_or_init(all).get(number).cloned()
    }

    fn place(&self, source: &Source<'a>, die: &Die<'a>) -> SourceLine {
        SourceLine { file: self.file(source, die).unwrap_or_default(), line: line(die).unwrap_or(0) }
    }

    fn finish(mut self, unit: &IndexedUnit<'a>) -> Types {
        let is_foreign = |offset: usize| !(unit.start..unit.end).contains(&offset);
        let mut order: Vec<(bool, usize, TypeId)> =
            self.ids.iter().map(|(offset, id)| (is_foreign(*offset), *offset, *id)).collect();
        order.sort_unstable();
        self.out.in_order = order.into_iter().map(|(.., id)| id).collect();
        self.out.types = self.types.into_iter().map(|type_| type_.unwrap_or(Type::Unknown)).collect();
        self.out.name_by_typedef();
        self.out.index();
        self.out
    }
}

/// Entries that are read beside the types themselves.
fn is_read(tag: gimli::DwTag) -> bool {
    matches!(
        tag,
        dw::DW_TAG_member
            | dw::DW_TAG_subrange_type
            | dw::DW_TAG_enumerator
            | dw::DW_TAG_formal_parameter
            | dw::DW_TAG_unspecified_parameters
            | dw::DW_TAG_subprogram
            | dw::DW_TAG_variable
    )
}

impl Types {
    /// `typedef struct { … } spinlock_t`: the typedef's name is the only one it has.
    fn name_by_typedef(&mut self) {
        for id in &self.in_order {
            let Type::Typedef { name, to: Some(to) } = &self.types[id.0 as usize] else { continue };
            let (name, to) = (name.clone(), to.0 as usize);
            match &mut self.types[to] {
                Type::Record(record) if record.name.is_none() => {
                    record.name = Some(name);
                    record.is_named_by_typedef = true;
                }
                Type::Enumeration(enumeration) if enumeration.name.is_none() => {
                    enumeration.name = Some(name);
                }
                _ => {}
            }
        }
    }

    fn index(&mut self) {
        for id in &self.in_order {
            let name = match &self.types[id.0 as usize] {
                Type::Record(record) if !record.is_declaration => &record.name,
                Type::Enumeration(enumeration) if !enumeration.values.is_empty() => &enumeration.name,
                _ => continue,
            };
            if let Some(name) = name {
                self.by_name.entry(name.clone()).or_insert(*id);
            }
        }
    }
}

fn number(die: &Die<'_>, attribute: gimli::DwAt) -> Option<u64> {
    die.attr_value(attribute)?.udata_value()
}

fn line(die: &Die<'_>) -> Option<u32> {
    u32::try_from(number(die, dw::DW_AT_decl_line)?).ok()
}

fn flag(die: &Die<'_>, attribute: gimli::DwAt) -> bool {
    matches!(die.attr_value(attribute), Some(gimli::AttributeValue::Flag(true)))
}

//! Which symbol of vmlinux is which function of an object.

use crate::objects::{Object, Place, SectionId, Symbol};
use crate::vmlinux::{Image, Symbol as VmlinuxSymbol, Unit};
use object::elf;

/// A function of an object, and its code in vmlinux.
pub(super) struct Pair<'a> {
    pub symbol: &'a Symbol,
    pub section: SectionId,
    pub found: Found<'a>,
}

/// Where vmlinux has a function of an object.
pub(super) enum Found<'a> {
    /// Here.
    At(&'a VmlinuxSymbol),
    /// It is weak, and vmlinux's symbol of that name is another definition.
    Overridden,
    /// Nowhere.
    Nowhere,
}

/// Every function of the object, `.cold` parts and assembler-defined ones too.
pub(super) fn pair_functions<'a>(image: &'a Image, unit: &Unit, object: &'a Object) -> Vec<Pair<'a>> {
    let functions = object.symbols.iter().filter(|s| s.kind == elf::STT_FUNC.0 && !s.name.is_empty());
    let pair = |symbol: &'a Symbol| {
        let Place::Section(section) = symbol.place else { return None };
        Some(Pair { symbol, section, found: find_function(image, unit, symbol) })
    };
    functions.filter_map(pair).collect()
}

fn find_function<'a>(image: &'a Image, unit: &Unit, symbol: &Symbol) -> Found<'a> {
    let named = image.by_name.get(&symbol.name).map(Vec::as_slice).unwrap_or_default();
    let candidates: Vec<&VmlinuxSymbol> = named.iter().map(|id| image.symbol(*id)).collect();
    let in_unit = |s: &&&VmlinuxSymbol| {
        unit.functions.iter().any(|f| f.addr == s.addr || f.ranges.iter().any(|r| r.contains(&s.addr)))
    };
    if let Some(inside) = candidates.iter().find(in_unit) {
        return Found::At(inside);
    }
    // No DWARF tells of it: an assembler's function, such as a static call's trampoline.
    if symbol.binding == elf::STB_WEAK.0 {
        return if candidates.is_empty() { Found::Nowhere } else { Found::Overridden };
    }
    only_one_in_file(image, unit, symbol).map_or(Found::Nowhere, Found::At)
}

/// The only symbol of vmlinux that may be this one, by name and, for a local one, by its FILE group; by size
/// too where there is still a choice.
pub(super) fn only_one_in_file<'a>(image: &'a Image, unit: &Unit, symbol: &Symbol) -> Option<&'a VmlinuxSymbol> {
    let file = unit.name.rsplit('/').next().unwrap_or(&unit.name);
    let local = symbol.binding == elf::STB_LOCAL.0;
    let may_be = |s: &&VmlinuxSymbol| {
        let in_file = s.file.is_some_and(|id| image.symbol(id).name.rsplit('/').next() == Some(file));
        if local { s.binding == elf::STB_LOCAL.0 && in_file } else { s.binding != elf::STB_LOCAL.0 }
    };
    let named = image.by_name.get(&symbol.name)?;
    let candidates: Vec<_> =
        named.iter().map(|id| image.symbol(*id)).filter(|s| s.section.is_some()).filter(may_be).collect();
    let of_size: Vec<_> = candidates.iter().copied().filter(|s| s.size == symbol.size).collect();
    match (candidates.as_slice(), of_size.as_slice()) {
        (_, [one]) => Some(one),
        // A hidden or versioned definition may have lost its size; a different size is another object.
        ([one], []) if one.size == 0 => Some(one),
        _ => None,
    }
}

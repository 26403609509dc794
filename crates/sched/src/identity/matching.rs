//! Which symbol of vmlinux is which function of an object.

use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::objects::{Object, Place, SectionId, Symbol, SymbolId};
use schedswap_kernel::vmlinux::{Image, Symbol as VmlinuxSymbol, Unit};
use std::collections::HashMap;

/// A function of an object, and its code in vmlinux.
pub(super) struct Pair<'a> {
    pub id: SymbolId,
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
    let functions = object.symbols.iter().enumerate();
    let functions =
        functions.filter(|(_, s)| s.kind == elf::STT_FUNC.0 && !s.name.is_empty() && !s.is_padding());
    let mut pairs: Vec<Pair> = functions
        .filter_map(|(index, symbol)| {
            let Place::Section(section) = symbol.place else { return None };
            let id = SymbolId(index as u32);
            Some(Pair { id, symbol, section, found: find_function(image, unit, symbol) })
        })
        .collect();
    // Where the debug information has no word on a weak function, its neighbours tell where its code is.
    let mut bases: HashMap<SectionId, Addr> = HashMap::new();
    for pair in &pairs {
        if let Found::At(theirs) = pair.found {
            bases.entry(pair.section).or_insert(theirs.addr.offset(-(pair.symbol.value as i64)));
        }
    }
    for pair in pairs.iter_mut().filter(|pair| matches!(pair.found, Found::Overridden)) {
        let Some(base) = bases.get(&pair.section) else { continue };
        let mut named = symbols_named(image, &pair.symbol.name);
        if let Some(own) = named.find(|s| s.addr == *base + pair.symbol.value) {
            pair.found = Found::At(own);
        }
    }
    pairs
}

fn symbols_named<'a>(image: &'a Image, name: &str) -> impl Iterator<Item = &'a VmlinuxSymbol> {
    image.by_name.get(name).into_iter().flatten().map(|id| image.symbol(*id))
}

fn find_function<'a>(image: &'a Image, unit: &Unit, symbol: &Symbol) -> Found<'a> {
    let in_unit = |s: &&VmlinuxSymbol| {
        unit.functions.iter().any(|f| f.addr == s.addr || f.ranges.iter().any(|r| r.contains(&s.addr)))
    };
    if let Some(inside) = symbols_named(image, &symbol.name).find(in_unit) {
        return Found::At(inside);
    }
    if symbol.binding == elf::STB_WEAK.0 {
        let there_is_one = symbols_named(image, &symbol.name).next().is_some();
        return if there_is_one { Found::Overridden } else { Found::Nowhere };
    }
    // No debug information tells of an assembler's function, such as a static call's trampoline.
    only_one_in_file(image, unit, symbol).map_or(Found::Nowhere, Found::At)
}

/// The only symbol of vmlinux that may be this one, by name and, for a local one, by its FILE group; by size
/// too where there is still a choice.
pub(super) fn only_one_in_file<'a>(
    image: &'a Image,
    unit: &Unit,
    symbol: &Symbol,
) -> Option<&'a VmlinuxSymbol> {
    let file = unit.name.rsplit('/').next().unwrap_or(&unit.name);
    let local = symbol.binding == elf::STB_LOCAL.0;
    let may_be = |s: &&VmlinuxSymbol| {
        let in_file = s.file.is_some_and(|id| image.symbol(id).name.rsplit('/').next() == Some(file));
        if local { s.binding == elf::STB_LOCAL.0 && in_file } else { s.binding != elf::STB_LOCAL.0 }
    };
    let candidates: Vec<_> =
        symbols_named(image, &symbol.name).filter(|s| s.section.is_some()).filter(may_be).collect();
    let of_size: Vec<_> = candidates.iter().copied().filter(|s| s.size == symbol.size).collect();
    match (candidates.as_slice(), of_size.as_slice()) {
        (_, [one]) => Some(one),
        // A hidden or versioned definition may have lost its size; a different size is another object.
        ([one], []) if one.size == 0 => Some(one),
        _ => None,
    }
}

//! The runtime's C objects: ordinary module code that also uses what vmlinux does not export.

use crate::binding::Error;
use crate::binding::place::destination::{global, hint, is_per_cpu};
use crate::binding::symbols::ZERO;
use object::elf;
use schedswap_kernel::arch;
use schedswap_kernel::arch::relocation::Field;
use schedswap_kernel::objects::{Object, Place, Relocation, Symbol, SymbolId};
use schedswap_kernel::vmlinux::{self, Image};
use std::collections::BTreeSet;

/// Writes references to what vmlinux has but does not export against the anchor. Symbols that vmlinux exports,
/// or that other objects of the module define (`defined_elsewhere`), are left for the linker and the loader.
///
/// A local of vmlinux may be meant, as long as there is only one of the name.
pub fn bind_runtime(
    mut object: Object,
    image: &Image,
    anchor: &str,
    defined_elsewhere: &BTreeSet<String>,
) -> Result<Object, Error> {
    if !image.exports.contains_key(anchor) {
        return Err(Error::NoAnchor(anchor.into()));
    }
    let anchor_addr = image.unique_symbol(anchor).ok_or_else(|| Error::NoAnchor(anchor.into()))?.addr;
    let mut bound: Vec<Option<(u64, bool)>> = vec![None; object.symbols.len()];
    let used: BTreeSet<SymbolId> =
        object.sections.iter().flat_map(|s| &s.relocations).map(|r| r.symbol).collect();
    for (i, symbol) in object.symbols.iter().enumerate() {
        let is_ours = symbol.place != Place::Undefined
            || symbol.name.is_empty()
            || symbol.name == "_GLOBAL_OFFSET_TABLE_"
            || image.exports.contains_key(&symbol.name)
            || defined_elsewhere.contains(&symbol.name);
        if is_ours || !used.contains(&SymbolId(i as u32)) {
            continue;
        }
        let found = lookup(image, &symbol.name, &object.name)?;
        let section = found.section.map(|s| &image.sections[s]);
        let is_offset = section.is_none_or(|s| s.addr.0 == 0 && is_per_cpu(&s.name));
        bound[i] = Some((found.addr.0, is_offset));
    }

    let undefined = |name: &str, place, binding| Symbol {
        name: name.into(),
        place,
        value: 0,
        size: 0,
        binding,
        kind: elf::STT_NOTYPE.0,
        other: 0,
    };
    let anchor_id = match object.symbols.iter().position(|s| s.name == anchor && s.place == Place::Undefined)
    {
        Some(i) => SymbolId(i as u32),
        None => {
            object.symbols.push(undefined(anchor, Place::Undefined, elf::STB_GLOBAL.0));
            SymbolId(object.symbols.len() as u32 - 1)
        }
    };
    object.symbols.push(undefined(ZERO, Place::Absolute, elf::STB_LOCAL.0));
    let zero_id = SymbolId(object.symbols.len() as u32 - 1);

    let unit = object.name.clone();
    for section in &mut object.sections {
        for relocation in &mut section.relocations {
            let Some((addr, is_offset)) = bound.get(relocation.symbol.0 as usize).copied().flatten() else {
                continue;
            };
            let rule = arch::of(image.machine).field(relocation.kind).filter(Field::is_known);
            let known = rule.filter(|rule| rule.holds_kernel_addresses() || is_offset);
            if known.is_none() {
                return Err(Error::Relocation {
                    unit,
                    section: section.name.clone(),
                    offset: relocation.offset,
                    kind: relocation.kind,
                    what: format!(
                        "there is no rule for binding it to {}",
                        object.symbols[relocation.symbol.0 as usize].name
                    ),
                });
            }
            let (symbol, base) =
                if is_offset { (zero_id, addr) } else { (anchor_id, addr.wrapping_sub(anchor_addr.0)) };
            *relocation =
                Relocation { symbol, addend: relocation.addend.wrapping_add(base as i64), ..*relocation };
        }
    }
    drop_symbols(&mut object, |i, _| bound.get(i).is_some_and(Option::is_some));
    Ok(object)
}

/// Takes symbols out that nothing refers to any more.
fn drop_symbols(object: &mut Object, goes: impl Fn(usize, &Symbol) -> bool) {
    let mut new_ids = vec![SymbolId(0); object.symbols.len()];
    let mut kept = Vec::with_capacity(object.symbols.len());
    for (i, symbol) in std::mem::take(&mut object.symbols).into_iter().enumerate() {
        if !goes(i, &symbol) {
            new_ids[i] = SymbolId(kept.len() as u32);
            kept.push(symbol);
        }
    }
    object.symbols = kept;
    for relocation in object.sections.iter_mut().flat_map(|s| &mut s.relocations) {
        relocation.symbol = new_ids[relocation.symbol.0 as usize];
    }
}

/// The one symbol of vmlinux that a name means: a global before locals.
fn lookup<'a>(image: &'a Image, name: &str, user: &str) -> Result<&'a vmlinux::Symbol, Error> {
    if let Some(symbol) = global(image, name, user)? {
        return Ok(symbol);
    }
    match image.by_name.get(name).map(Vec::as_slice) {
        Some([id]) => Ok(image.symbol(*id)),
        Some(more) if more.len() > 1 => {
            Err(Error::Ambiguous { user: user.into(), symbol: name.into(), count: more.len() })
        }
        _ => {
            let mut clones: Vec<&String> = image
                .by_name
                .keys()
                .filter(|k| k.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
                .collect();
            clones.sort_unstable();
            match clones.first() {
                Some(clone) => {
                    Err(Error::OnlyClone { user: user.into(), symbol: name.into(), clone: (*clone).clone() })
                }
                None => Err(Error::UnknownSymbol {
                    unit: user.into(),
                    function: "the runtime".into(),
                    symbol: name.into(),
                    hint: hint(image, name),
                }),
            }
        }
    }
}

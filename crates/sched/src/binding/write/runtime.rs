//! The runtime's C objects: ordinary module code that also uses what vmlinux does not export.

use crate::binding::Error;
use crate::binding::symbols::ZERO;
use crate::binding::vmlinux_symbols::{clone_of, global, hint, is_per_cpu};
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch;
use schedswap_kernel::arch::relocation::Field;
use schedswap_kernel::objects::{Object, Place, Relocation, Symbol, SymbolId};
use schedswap_kernel::vmlinux::{self, Image};
use std::collections::BTreeSet;

/// Where a symbol of the runtime's is in vmlinux.
#[derive(Clone, Copy)]
struct InVmlinux {
    addr: Addr,
    /// In a per-CPU section that is linked at 0: an offset, not an address that moves with the kernel.
    is_offset: bool,
}

/// Writes references to what vmlinux has but does not export against the anchor. Symbols that vmlinux exports,
/// or that other objects of the module define (`defined_elsewhere`), are left for the linker and the loader.
///
/// A local of vmlinux may be meant, as long as there is only one of the name.
///
/// # Errors
/// When vmlinux does not export the anchor, has no symbol of a name or more than one, or only a clone, and when there is
/// no rule for a relocation.
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
    let bound = in_vmlinux(&object, image, defined_elsewhere)?;
    let existing = object.symbols.iter().position(|s| s.name == anchor && s.place == Place::Undefined);
    let anchor_id = match existing {
        Some(i) => SymbolId(i as u32),
        None => add_symbol(&mut object, anchor, Place::Undefined, elf::STB_GLOBAL.0),
    };
    let zero_id = add_symbol(&mut object, ZERO, Place::Absolute, elf::STB_LOCAL.0);

    let Object { sections, symbols, name: unit, .. } = &mut object;
    for section in sections {
        for relocation in &mut section.relocations {
            let Some(there) = bound.get(relocation.symbol.0 as usize).copied().flatten() else { continue };
            let rule = arch::of(image.machine).field(relocation.kind).filter(Field::is_known);
            if !rule.is_some_and(|rule| rule.holds_kernel_addresses() || there.is_offset) {
                let name = &symbols[relocation.symbol.0 as usize].name;
                return Err(Error::Relocation {
                    unit: unit.clone(),
                    section: section.name.clone(),
                    offset: relocation.offset,
                    kind: relocation.kind,
                    what: format!("there is no rule for binding it to {name}"),
                });
            }
            let (symbol, base) = if there.is_offset {
                (zero_id, there.addr.0 as i64)
            } else {
                (anchor_id, there.addr.distance_from(anchor_addr))
            };
            *relocation = Relocation { symbol, addend: relocation.addend.wrapping_add(base), ..*relocation };
        }
    }
    drop_symbols(&mut object, |i, _| bound.get(i).is_some_and(Option::is_some));
    Ok(object)
}

/// For each symbol: where vmlinux has it, if it is undefined and used, and neither exported nor defined elsewhere.
fn in_vmlinux(
    object: &Object,
    image: &Image,
    defined_elsewhere: &BTreeSet<String>,
) -> Result<Vec<Option<InVmlinux>>, Error> {
    let used: BTreeSet<SymbolId> =
        object.sections.iter().flat_map(|s| &s.relocations).map(|r| r.symbol).collect();
    let mut bound = vec![None; object.symbols.len()];
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
        bound[i] = Some(InVmlinux { addr: found.addr, is_offset });
    }
    Ok(bound)
}

fn add_symbol(object: &mut Object, name: &str, place: Place, binding: u8) -> SymbolId {
    object.symbols.push(Symbol {
        name: name.into(),
        place,
        value: 0,
        size: 0,
        binding,
        kind: elf::STT_NOTYPE.0,
        other: 0,
    });
    SymbolId(object.symbols.len() as u32 - 1)
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
        _ => Err(match clone_of(image, name) {
            Some(clone) => Error::OnlyClone { user: user.into(), symbol: name.into(), clone: clone.into() },
            None => Error::UnknownSymbol {
                unit: user.into(),
                function: "the runtime".into(),
                symbol: name.into(),
                hint: hint(image, name),
            },
        }),
    }
}

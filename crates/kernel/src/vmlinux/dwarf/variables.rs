//! Variables with static storage, function-local ones included.

use super::super::image::Variable;
use crate::address::Addr;
use crate::elf::Elf;
use crate::types::{self, Kind, Types};
use std::collections::HashMap;

/// The variables of a unit, sorted by address. A static of an inlined function is listed once.
pub(super) fn read(elf: &Elf, types: &Types) -> Vec<Variable> {
    let sizes = sizes_by_place(elf);
    let defined = types.variables.iter().filter(|variable| !variable.is_declaration);
    let mut variables: Vec<Variable> =
        defined.filter_map(|declared| variable(types, declared, declared.address?, &sizes)).collect();
    variables.sort_by(|a, b| (a.addr, &a.name).cmp(&(b.addr, &b.name)));
    variables.dedup_by(|a, b| a.addr == b.addr && a.name == b.name);
    variables
}

/// Size of every data symbol, by address and name without `.N`. A variable in a discarded section
/// (`__UNIQUE_ID___addressable_…`) still has an address in the debug information, but no symbol.
type Sizes<'i> = HashMap<(u64, &'i str), u64>;

fn sizes_by_place(elf: &Elf) -> Sizes<'_> {
    let data = elf.symbols.iter().filter(|s| s.section.is_some() && !s.is_function());
    data.map(|s| ((s.addr.0, base_name(&s.name)), s.size)).collect()
}

fn base_name(symbol: &str) -> &str {
    match symbol.rsplit_once('.') {
        Some((base, number)) if number.bytes().all(|b| b.is_ascii_digit()) && !base.is_empty() => base,
        _ => symbol,
    }
}

fn variable(types: &Types, declared: &types::Variable, addr: u64, sizes: &Sizes<'_>) -> Option<Variable> {
    let symbol_size = *sizes.get(&(addr, base_name(&declared.name)))?;
    let structure = types.record(declared.of).filter(|record| record.kind == Kind::Struct);
    Some(Variable {
        name: declared.name.clone(),
        addr: Addr(addr),
        size: types.known_bytes(declared.of).unwrap_or(symbol_size),
        external: declared.is_external,
        type_name: structure.and_then(|record| record.tag()).map(str::to_owned),
        holds: types.holds(declared.of),
        in_function: declared.function.clone(),
        decl_file: declared.place.file.clone(),
        decl_line: declared.place.line,
    })
}

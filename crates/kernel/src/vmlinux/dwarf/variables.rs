//! Variables with static storage, function-local ones included.

use super::super::image::Variable;
use super::held;
use super::tables::{Die, Tables};
use crate::address::Addr;
use crate::elf::Elf;
use gimli::constants as dw;
use std::collections::HashMap;

/// The variables of a unit, sorted by address. A static of an inlined function is listed once.
pub(super) fn read(elf: &Elf, tables: &Tables<'_>) -> Vec<Variable> {
    let symbols = sizes_by_place(elf);
    let placed = tables.own.dies.iter().filter(|d| d.tag == dw::DW_TAG_variable && !d.declaration);
    let mut variables: Vec<Variable> =
        placed.filter_map(|die| variable(tables, die, die.address?, &symbols)).collect();
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

fn variable(tables: &Tables<'_>, die: &Die<'_>, addr: u64, symbols: &Sizes<'_>) -> Option<Variable> {
    let name = tables.name(die)?;
    let symbol_size = *symbols.get(&(addr, base_name(&name)))?;
    let function = tables
        .ancestors(die)
        .find(|d| matches!(d.tag, dw::DW_TAG_subprogram | dw::DW_TAG_inlined_subroutine));
    let (decl_file, decl_line) = tables.declared_at(die);
    Some(Variable {
        addr: Addr(addr),
        size: tables.size_of_type(die).unwrap_or(symbol_size),
        external: tables.is_external(die),
        type_name: tables.structure_of_type(die),
        holds: held::held(tables, die),
        in_function: function.and_then(|f| tables.name(f)),
        decl_file,
        decl_line,
        name,
    })
}

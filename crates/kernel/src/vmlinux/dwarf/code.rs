//! Functions with code, and the copies that were inlined into them.

use super::super::image::{Function, InlinedCopy, Overridden};
use super::die::Die;
use super::tables::Tables;
use crate::address::Addr;
use crate::arch;
use crate::elf::{Elf, SymbolId};
use gimli::constants as dw;
use std::ops::Range;

/// The functions of a unit that have code in vmlinux, sorted by address, and those whose code is dead because
/// another unit overrides them.
pub(super) fn functions(elf: &Elf, tables: &Tables<'_>) -> (Vec<Function>, Vec<Overridden>) {
    let concrete = tables.own.dies.iter().filter(|d| d.tag == dw::DW_TAG_subprogram && !d.code.is_empty());
    let mut functions = Vec::new();
    let mut overridden = Vec::new();
    for die in concrete {
        let Some(name) = tables.name(die) else { continue };
        match entry_symbol(elf, die, &name) {
            Some(entry) => functions.push(function(elf, tables, die, name, entry)),
            None => overridden.extend(overridden_function(elf, tables, die, name)),
        }
    }
    functions.sort_by_key(|f| f.addr);
    overridden.sort_by(|a, b| a.name.cmp(&b.name));
    (functions, overridden)
}

fn function(
    elf: &Elf,
    tables: &Tables<'_>,
    die: &Die<'_>,
    source_name: String,
    (first, symbol): (usize, SymbolId),
) -> Function {
    let mut ranges = ranges(die);
    ranges[..=first].rotate_right(1);
    // The nops before what the debug information describes are the function's as well.
    ranges[0].start = elf.symbol(symbol).addr;
    let (decl_file, decl_line) = tables.declared_at(die);
    Function {
        name: elf.symbol(symbol).name.clone(),
        source_name,
        symbol,
        addr: elf.symbol(symbol).addr,
        ranges,
        external: tables.is_external(die),
        decl_file,
        decl_line,
        declared_inline: tables.is_declared_inline(die),
    }
}

/// `None` for code that is not in vmlinux's text: it was discarded when vmlinux was linked.
fn overridden_function(elf: &Elf, tables: &Tables<'_>, die: &Die<'_>, name: String) -> Option<Overridden> {
    let in_text = |range: &Range<u64>| elf.section_at(Addr(range.start)).is_some_and(|(_, s)| s.is_text());
    let by = elf.symbols_named(&name).iter().copied().find(|id| !elf.symbol(*id).is_local())?;
    let (decl_file, decl_line) = tables.declared_at(die);
    let is_dead = tables.is_external(die) && die.code.iter().all(in_text);
    is_dead.then(|| Overridden { name, ranges: ranges(die), by, decl_file, decl_line })
}

fn ranges(die: &Die<'_>) -> Vec<Range<Addr>> {
    die.code.iter().map(|r| Addr(r.start)..Addr(r.end)).collect()
}

/// Which of a function's ranges begins with its entry, and the symbol there. Ranges are in no fixed order, and
/// DWARF does not know a clone's suffix; the symbol table knows both.
fn entry_symbol(elf: &Elf, die: &Die<'_>, source_name: &str) -> Option<(usize, SymbolId)> {
    let named_so = |id: &&SymbolId| {
        let rest = elf.symbol(**id).name.strip_prefix(source_name);
        rest.is_some_and(|suffix| suffix.is_empty() || suffix.starts_with('.'))
    };
    let candidates = |range: &Range<u64>| elf.functions_entered_at(entry(elf, Addr(range.start)));
    let is_entry = |id: &&SymbolId| elf.symbol(**id).is_function() && !is_cold_part(&elf.symbol(**id).name);
    let own_name = die.code.iter().enumerate().find_map(|(index, range)| {
        candidates(range).iter().filter(is_entry).rfind(named_so).map(|id| (index, *id))
    });
    // An alias of another name may be all that is left at the address.
    own_name.or_else(|| {
        die.code
            .iter()
            .enumerate()
            .find_map(|(index, range)| candidates(range).iter().rfind(is_entry).map(|id| (index, *id)))
    })
}

/// Where the function is entered whose code begins at `addr` by the debug information. gcc's description of
/// an arm64 function begins after ftrace's nops.
fn entry(elf: &Elf, addr: Addr) -> Addr {
    let arch = arch::of(elf.machine);
    let is_entry = |addr: Addr| !elf.functions_entered_at(addr).is_empty();
    let before = (1..=ENTRY_BYTES_MAX).filter_map(|bytes| Some(Addr(addr.0.checked_sub(bytes)?)));
    let mut before = before.take_while(|_| !is_entry(addr));
    let found = before.find(|start| is_entry(*start));
    let is_before_body =
        |start: &Addr| elf.bytes(*start, addr - *start).is_some_and(|b| arch.is_before_body(b));
    found.filter(is_before_body).unwrap_or(addr)
}

/// Most bytes that the landing instruction of indirect branches and ftrace's nops take.
const ENTRY_BYTES_MAX: u64 = 16;

/// `foo.cold`, `foo.isra.0.cold`, `foo.cold.12`: gcc's name for the unlikely part of `foo`.
fn is_cold_part(name: &str) -> bool {
    name.split('.').skip(1).any(|part| part == "cold")
}

/// Everything inlined into a unit's functions, in the order of the debug information.
pub(super) fn inlined_copies(tables: &Tables<'_>) -> Vec<InlinedCopy> {
    let own = &tables.own;
    let inlined = own.dies.iter().filter(|d| d.tag == dw::DW_TAG_inlined_subroutine);
    inlined
        .filter_map(|die| {
            let addr = die.entry_pc.or(die.code.first().map(|r| r.start))?;
            let into = tables.ancestors(die).filter(|d| d.tag == dw::DW_TAG_subprogram).last()?;
            let into_addr = into.code.first()?.start;
            let (decl_file, decl_line) = tables.declared_at(die);
            Some(InlinedCopy {
                name: tables.name(die)?,
                decl_file,
                decl_line,
                into: tables.name(into)?,
                into_addr: Addr(into_addr),
                unit: own.name.clone(),
                addr: Addr(addr),
            })
        })
        .collect()
}

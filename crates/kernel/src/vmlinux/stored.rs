//! Addresses in data: of functions, which the kernel may call through such a pointer, and of the scheduler's
//! variables.

use super::uses::Stored;
use crate::address::Addr;
use crate::arch::{FunctionEntries, VariableRanges};
use crate::elf::{Elf, Section, Symbol, SymbolId};
use object::elf;
use std::ops::Range;

/// Sections that point at code which the kernel does not call through that pointer. The debug vmlinux keeps most of
/// them as sections of their own; which of them exist differs from kernel to kernel.
const DESCRIPTIVE_SECTIONS: &[(&str, &str)] = &[
    ("__ksymtab", "exports; modules' references are resolved through it when they load"),
    ("__ksymtab_gpl", "exports"),
    ("__kcrctab", "checksums of exports"),
    ("__kcrctab_gpl", "checksums of exports"),
    ("__mcount_loc", "ftrace's nops"),
    ("__patchable_function_entries", "ftrace's nops"),
    ("__jump_table", "jump labels"),
    (".static_call_sites", "static calls, patched in place"),
    ("__bug_table", "where WARN and BUG stand"),
    ("__ex_table", "faulting instructions and where to go on"),
    (".orc_unwind", "how to unwind the stack"),
    (".orc_unwind_ip", "how to unwind the stack"),
    (".orc_header", "how to unwind the stack"),
    (".altinstructions", "instructions rewritten at boot"),
    (".parainstructions", "paravirt calls rewritten at boot"),
    (".return_sites", "returns rewritten at boot"),
    (".retpoline_sites", "indirect branches rewritten at boot"),
    (".call_sites", "calls rewritten at boot"),
    (".smp_locks", "lock prefixes rewritten when CPUs come and go"),
    (".ibt_endbr_seal", "endbr that boot turns into nops"),
    (".cfi_sites", "type checks of indirect calls"),
    (".kcfi_traps", "type checks of indirect calls"),
    (".initcall.init", "run once, at boot"),
    (".notes", "notes"),
    (".BTF", "type information"),
    (".BTF_ids", "type information"),
];

/// The same where the linker script has merged the table into a larger section: symbols at its start and end.
const DESCRIPTIVE_TABLES: &[(&str, &str, &str)] = &[
    ("__start_mcount_loc", "__stop_mcount_loc", "ftrace's nops"),
    ("__start___jump_table", "__stop___jump_table", "jump labels"),
    ("__start_static_call_sites", "__stop_static_call_sites", "static calls, patched in place"),
    ("__start_kprobe_blacklist", "__stop_kprobe_blacklist", "functions that kprobes must not touch"),
    (
        "__start_error_injection_whitelist",
        "__stop_error_injection_whitelist",
        "functions whose result may be faked",
    ),
    ("__initcall_start", "__initcall_end", "run once, at boot"),
    ("__con_initcall_start", "__con_initcall_end", "run once, at boot"),
    ("__setup_start", "__setup_end", "parsers of boot parameters, run once"),
    ("__start_syscalls_metadata", "__stop_syscalls_metadata", "names and arguments of system calls"),
    ("__alt_instructions", "__alt_instructions_end", "instructions rewritten at boot"),
    ("__parainstructions", "__parainstructions_end", "paravirt calls rewritten at boot"),
    ("__start___bug_table", "__stop___bug_table", "where WARN and BUG stand"),
    ("__start___ex_table", "__stop___ex_table", "faulting instructions and where to go on"),
    ("__start_orc_unwind", "__stop_orc_unwind", "how to unwind the stack"),
    ("__start_orc_unwind_ip", "__stop_orc_unwind_ip", "how to unwind the stack"),
    ("__start___ksymtab", "__stop___ksymtab", "exports"),
    ("__start___ksymtab_gpl", "__stop___ksymtab_gpl", "exports"),
];

/// Bytes of a pointer. The compiler and the kernel's own tables align pointers.
const POINTER_BYTES: usize = 8;

/// Aligned words in the kernel's data that are a function's entry, sorted by target.
pub(super) fn functions(elf: &Elf, entries: &FunctionEntries) -> Vec<Stored> {
    find(elf, |target| entries.contains(target))
}

/// Aligned words that are the address of a variable of the scheduler, or of a part of one, sorted by target.
pub(super) fn variables(elf: &Elf, variables: &VariableRanges) -> Vec<Stored> {
    find(elf, |target| variables.is_address(target))
}

fn find(elf: &Elf, is_wanted: impl Fn(Addr) -> bool) -> Vec<Stored> {
    let skipped = descriptive_ranges(elf);
    let objects = Objects::of(elf);
    let mut stored = Vec::new();
    for (index, section) in elf.sections.iter().enumerate().filter(|(_, s)| may_hold_pointers(s)) {
        let first = section.addr.0.wrapping_neg() % POINTER_BYTES as u64;
        let bytes = elf.section_bytes(section).get(first as usize..).unwrap_or_default();
        for (word, number) in bytes.chunks_exact(POINTER_BYTES).zip(0u64..) {
            let target = Addr(u64::from_le_bytes(word.try_into().expect("a chunk has 8 bytes")));
            if !is_wanted(target) {
                continue;
            }
            let at = section.addr + (first + number * POINTER_BYTES as u64);
            if !skipped.iter().any(|range| range.contains(&at)) {
                stored.push(Stored { at, section: index, object: objects.covering(elf, at), target });
            }
        }
    }
    stored.sort_unstable_by_key(|s| (s.target, s.at));
    stored
}

fn may_hold_pointers(section: &Section) -> bool {
    section.is_alloc()
        && !section.is_text()
        && section.kind != elf::SHT_NOBITS.0
        // What boot code writes into data, and then frees.
        && section.kind != elf::SHT_RELA.0
        && !DESCRIPTIVE_SECTIONS.iter().any(|(name, _)| *name == section.name)
}

fn descriptive_ranges(elf: &Elf) -> Vec<Range<Addr>> {
    let at = |name: &str| elf.unique_symbol(name).map(|s| s.addr);
    DESCRIPTIVE_TABLES.iter().filter_map(|(start, end, _)| Some(at(start)?..at(end)?)).collect()
}

/// Data symbols with a size, by address.
struct Objects {
    sorted: Vec<SymbolId>,
}

impl Objects {
    fn of(elf: &Elf) -> Objects {
        let is_object = |symbol: &Symbol| {
            let in_data = symbol.section.is_some_and(|s| !elf.sections[s].is_text());
            in_data && symbol.kind == elf::STT_OBJECT.0 && symbol.size > 0
        };
        let ids = (0..elf.symbols.len() as u32).map(SymbolId);
        let mut sorted: Vec<SymbolId> = ids.filter(|id| is_object(elf.symbol(*id))).collect();
        sorted.sort_unstable_by_key(|id| (elf.symbol(*id).addr, *id));
        Objects { sorted }
    }

    fn covering(&self, elf: &Elf, at: Addr) -> Option<SymbolId> {
        let after = self.sorted.partition_point(|id| elf.symbol(*id).addr <= at);
        let candidate = *self.sorted[..after].last()?;
        (at < elf.symbol(candidate).end()).then_some(candidate)
    }
}

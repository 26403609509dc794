//! Boundary and springboard of the kernel under test, held against what binutils say of the same file and
//! against its tables read by hand. Nothing here goes through our own decoder, DWARF reader or tables, except
//! for the list of the scheduler's functions and their extents.

use anyhow::{Context, Result, ensure};
use schedswap_sched::boundary::{self, Boundary, BoundaryFunction, Class, Fate, PatchSite, StayReason};
use schedswap_sched::springboard::{self, Base};
use schedswap_tests::binutils::{Binutils, Branch};
use schedswap_tests::{image, kernel};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// What all the tests look at, made once.
struct Subject {
    boundary: Boundary,
    binutils: Binutils,
    /// Direct branches into the scheduler's code.
    branches: Vec<Branch>,
    /// The scheduler's code: start → end.
    text: BTreeMap<u64, u64>,
}

fn subject() -> &'static Subject {
    static SUBJECT: OnceLock<Subject> = OnceLock::new();
    SUBJECT.get_or_init(|| {
        let boundary =
            boundary::compute(image(), &schedswap_sched::config::Config::default()).expect("a boundary");
        let binutils = Binutils::of(&kernel().expect("a kernel").vmlinux).expect("binutils");
        let ranges = boundary.functions.iter().flat_map(|f| &f.ranges);
        let text = ranges.map(|range| (range.start.0, range.end.0)).collect();
        let branches = binutils.branches_into(&text).expect("objdump");
        assert!(branches.len() > 1000, "objdump shows {} branches into the scheduler", branches.len());
        Subject { boundary, binutils, branches, text }
    })
}

impl Subject {
    /// Whether an address is in a function of the scheduler.
    fn is_inside(&self, addr: u64) -> bool {
        self.text.range(..=addr).next_back().is_some_and(|(_, end)| addr < *end)
    }

    /// The function whose code holds the address.
    fn function_at(&self, addr: u64) -> Option<&BoundaryFunction> {
        let holds = |f: &&BoundaryFunction| f.ranges.iter().any(|r| r.start.0 <= addr && addr < r.end.0);
        self.boundary.functions.iter().find(holds)
    }

    /// The only function of that name.
    fn function(&self, name: &str) -> Result<&BoundaryFunction> {
        let mut found = self.boundary.functions.iter().filter(|f| f.name == name);
        let function = found.next().with_context(|| format!("no function {name}"))?;
        ensure!(found.next().is_none(), "two functions {name}");
        Ok(function)
    }

    /// Every window: what is written where.
    fn windows(&self) -> impl Iterator<Item = (&BoundaryFunction, &PatchSite)> {
        self.boundary.functions.iter().filter_map(|f| match &f.fate {
            Fate::Divert(site) | Fate::Springboard(site) => Some((f, site)),
            _ => None,
        })
    }
}

/// A place that a table names, 32 bits away from the field.
fn relative(field: u64, bytes: &[u8]) -> u64 {
    let distance = i32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
    field.wrapping_add_signed(distance.into())
}

fn overlap(start: u64, len: u64, other: u64, other_len: u64) -> bool {
    start < other + other_len && other < start + len
}

/// Jump labels, with their lengths: `struct jump_entry { s32 code; s32 target; long key; }`.
fn jump_labels(binutils: &Binutils) -> Result<Vec<(u64, u64)>> {
    let table = binutils.table::<16>("__start___jump_table", "__stop___jump_table")?;
    table
        .iter()
        .map(|(at, record)| {
            let code = relative(*at, record);
            let len = match binutils.bytes(code, 5)?.as_slice() {
                // A nop or a jump, two bytes or five.
                [0x66, 0x90, ..] | [0xeb, ..] => 2,
                [0x0f, 0x1f, 0x44, 0, 0] | [0xe9, ..] => 5,
                other => anyhow::bail!("no jump label at {code:#x}: {other:02x?}"),
            };
            Ok((code, len))
        })
        .collect()
}

/// Static calls: `struct static_call_site { s32 addr; s32 key; }`, five bytes of call or jump each.
fn static_calls(binutils: &Binutils) -> Result<Vec<(u64, u64)>> {
    let table = binutils.table::<8>("__start_static_call_sites", "__stop_static_call_sites")?;
    Ok(table.iter().map(|(at, record)| (relative(*at, record), 5)).collect())
}

#[test]
fn who_is_called_from_outside_or_exported_is_interface_and_nobody_else() -> Result<()> {
    let subject = subject();
    let outside: BTreeMap<u64, &Branch> =
        subject.branches.iter().filter(|b| !subject.is_inside(b.at)).map(|b| (b.to, b)).collect();
    let exported: BTreeSet<&str> =
        subject.binutils.symbols.iter().filter_map(|s| s.name.strip_prefix("__ksymtab_")).collect();
    let (mut called, mut exports) = (0, 0);
    for function in &subject.boundary.functions {
        let caller = outside.get(&function.addr.0);
        let is_exported = !function.local && exported.contains(function.name.as_str());
        // Vmlinux runs another function of that name; this one is dead code.
        let is_dead = function.fate == Fate::Stay(StayReason::OverriddenWeak);
        let expected = !is_dead && (caller.is_some() || is_exported);
        assert_eq!(
            function.class == Class::Interface,
            expected,
            "{} is {:?}; exported: {is_exported}, called from outside: {}",
            function.name,
            function.class,
            caller.map_or("no".to_owned(), ToString::to_string)
        );
        called += usize::from(caller.is_some());
        exports += usize::from(is_exported);
    }
    assert!(called > 100 && exports > 50, "{called} called from outside, {exports} exported");
    Ok(())
}

#[test]
fn the_springboard_is_the_one_call_of_switch_to_asm() -> Result<()> {
    let subject = subject();
    let contract = springboard::derive(image())?;
    let code = subject.binutils.disassemble("__schedule")?;
    let calls: Vec<usize> = (0..code.len())
        .filter(|n| code[*n].text.starts_with("call ") && code[*n].text.ends_with("<__switch_to_asm>"))
        .collect();
    assert_eq!(calls.len(), 1, "calls of __switch_to_asm in __schedule");
    assert_eq!(contract.springboard.0, code[calls[0]].at);
    assert_eq!(contract.entry.0, subject.binutils.address("__schedule")?);

    // The straight way out from there to the return: what it takes from which place of the frame. It is
    // reckoned in bytes from the CFA; the return address is at -8.
    let mut stack_pointer = contract.stack_pointer;
    let mut restored = BTreeMap::new();
    let mut canary = None;
    let number = |text: &str| -> Option<i64> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text),
        };
        Some(sign * i64::from_str_radix(digits.strip_prefix("0x")?, 16).ok()?)
    };
    // An operand such as -0x30(%rbp), from the CFA.
    let place = |operand: &str, stack_pointer: i64| -> Option<i64> {
        let (offset, register) = operand.split_once("(%")?;
        let offset = if offset.is_empty() { 0 } else { number(offset)? };
        match register.trim_end_matches(')') {
            "rbp" if contract.base == Base::Rbp => Some(offset - 16),
            "rsp" => Some(offset + stack_pointer),
            _ => None,
        }
    };
    let mut last_load = None;
    for instruction in &code[calls[0] + 1..] {
        let text = instruction.text.as_str();
        let (mnemonic, operands) = text.split_once(' ').unwrap_or((text, ""));
        match mnemonic {
            "pop" => {
                restored.insert(operands.trim_start_matches('%').to_owned(), stack_pointer);
                stack_pointer += 8;
            }
            // rbp points at its own slot: the stack pointer goes there, and the caller's rbp is popped.
            "leave" => {
                restored.insert("rbp".to_owned(), -16);
                stack_pointer = -8;
            }
            "add" if operands.ends_with(",%rsp") => {
                let bytes = operands.trim_start_matches('$').split(',').next().and_then(number);
                stack_pointer += bytes.with_context(|| text.to_owned())?;
            }
            "lea" if operands.ends_with(",%rsp") => {
                let from = place(operands.trim_end_matches(",%rsp"), stack_pointer);
                stack_pointer = from.with_context(|| text.to_owned())?;
            }
            "mov" => {
                let (from, to) = operands.rsplit_once(',').with_context(|| text.to_owned())?;
                last_load = place(from, stack_pointer);
                if let (Some(from), Some(to)) = (last_load, to.strip_prefix('%'))
                    && matches!(to, "rbx" | "rbp" | "r12" | "r13" | "r14" | "r15")
                {
                    restored.insert(to.to_owned(), from);
                }
            }
            // The guard is subtracted from, or compared with, what was loaded just before.
            "sub" | "cmp" | "xor" if operands.contains("%gs:") => canary = last_load,
            "ret" => break,
            "jmp" if operands.contains("__x86_return_thunk") => break,
            _ => {}
        }
    }
    assert_eq!(stack_pointer, -8, "where the tail returns");
    let slots: BTreeMap<String, i64> =
        contract.slots.iter().map(|slot| (slot.register.name().to_owned(), slot.offset)).collect();
    assert_eq!(slots, restored, "the registers that the tail restores");
    assert_eq!(contract.canary.map(|canary| canary.offset), canary, "the canary");
    Ok(())
}

#[test]
fn every_window_lies_after_the_fentry_nop_or_at_the_entry() -> Result<()> {
    let subject = subject();
    let fentry: BTreeSet<u64> = subject
        .binutils
        .table::<8>("__start_mcount_loc", "__stop_mcount_loc")?
        .iter()
        .map(|(_, record)| u64::from_le_bytes(*record))
        .collect();
    const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
    let (mut after, mut bare) = (0, 0);
    for (function, site) in subject.windows() {
        let entry = function.addr.0;
        assert_eq!(site.expect, subject.binutils.bytes(site.at.0, 5)?, "the bytes of {}", function.name);
        let body = if subject.binutils.bytes(entry, 4)? == ENDBR64 { entry + 4 } else { entry };
        if fentry.contains(&body) {
            assert_eq!((site.at.0, site.after_fentry), (body + 5, true), "{}", function.name);
            after += 1;
        } else {
            assert_eq!((site.at.0, site.after_fentry), (body, false), "{}", function.name);
            bare += 1;
        }
    }
    assert!(after > 300, "{after} windows after a nop, {bare} at the entry");
    Ok(())
}

#[test]
fn nothing_else_is_in_a_window() -> Result<()> {
    let subject = subject();
    let mut rewritten = jump_labels(&subject.binutils)?;
    rewritten.extend(static_calls(&subject.binutils)?);
    rewritten.sort_unstable();
    assert!(rewritten.len() > 1000, "{} jump labels and static calls", rewritten.len());
    let mut windows: Vec<_> =
        subject.windows().map(|(function, site)| (site.at.0, function.name.as_str())).collect();
    windows.sort_unstable();
    for pair in windows.windows(2) {
        assert!(pair[0].0 + 5 <= pair[1].0, "the windows of {} and {} overlap", pair[0].1, pair[1].1);
    }
    for (at, function) in windows {
        let met = rewritten.iter().find(|(place, len)| overlap(at, 5, *place, *len));
        assert_eq!(met, None, "in the window of {function} at {at:#x}");
        // The next symbol of the text begins after it.
        let symbols = &subject.binutils.symbols;
        let next = symbols.partition_point(|s| s.addr <= at);
        let next = symbols[next..].iter().find(|s| matches!(s.letter, 't' | 'T' | 'w' | 'W'));
        let next = next.with_context(|| function.to_owned())?;
        assert!(at + 5 <= next.addr, "the window of {function} reaches into {}", next.name);
    }
    Ok(())
}

#[test]
fn nobody_else_branches_into_a_window() {
    let subject = subject();
    for (function, site) in subject.windows() {
        let inside = |b: &&Branch| site.at.0 < b.to && b.to < site.at.0 + 5;
        for branch in subject.branches.iter().filter(inside) {
            let own = function.ranges.iter().any(|r| r.start.0 <= branch.at && branch.at < r.end.0);
            // The old code may jump there, for nothing runs it any more; but __schedule's tail stays in use.
            assert!(own && !matches!(function.fate, Fate::Springboard(_)), "{}: {branch}", function.name);
        }
    }
}

#[test]
fn where_no_jump_fits_there_is_an_obstacle() -> Result<()> {
    let subject = subject();
    let mut rewritten = jump_labels(&subject.binutils)?;
    rewritten.extend(static_calls(&subject.binutils)?);
    // Lock prefixes that CPU hotplug rewrites: s32 each. 7.x leaves them alone.
    if image().unique_symbol("__smp_locks").is_some() {
        let locks = subject.binutils.table::<4>("__smp_locks", "__smp_locks_end")?;
        rewritten.extend(locks.iter().map(|(at, record)| (relative(*at, record), 1)));
    }
    for function in &subject.boundary.functions {
        let (Fate::Stay(StayReason::NoRoom { obstacle }) | Fate::InsideOnly(obstacle)) = &function.fate
        else {
            continue;
        };
        let entry = function.addr.0;
        let end = function.ranges[0].end.0;
        let met = rewritten.iter().any(|(place, len)| overlap(entry, 14, *place, *len));
        assert!(met || end < entry + 14, "{} has room, yet {obstacle}", function.name);
    }
    Ok(())
}

#[test]
fn functions_that_sleep_stay() -> Result<()> {
    let subject = subject();
    for name in ["schedule", "do_idle", "__wait_for_common", "wait_woken", "bit_wait"] {
        let fate = &subject.function(name)?.fate;
        assert!(matches!(fate, Fate::Stay(StayReason::Sleeps { .. })), "{name}: {fate:?}");
    }
    // All that comes to __schedule by direct branches within the scheduler.
    let schedule = subject.binutils.address("__schedule")?;
    let mut sleeping = BTreeSet::from([schedule]);
    loop {
        let before = sleeping.len();
        let callers = subject.branches.iter().filter(|b| sleeping.contains(&b.to));
        let callers: Vec<u64> = callers.filter_map(|b| subject.function_at(b.at)).map(|f| f.addr.0).collect();
        sleeping.extend(callers);
        if sleeping.len() == before {
            break;
        }
    }
    assert!(sleeping.len() > 10, "{} functions come to __schedule", sleeping.len());
    for function in subject.boundary.functions.iter().filter(|f| sleeping.contains(&f.addr.0)) {
        let stays = match &function.fate {
            Fate::Springboard(_) => function.name == "__schedule",
            Fate::Stay(StayReason::Sleeps { .. } | StayReason::Init) => true,
            _ => false,
        };
        assert!(stays, "{} comes to __schedule: {:?}", function.name, function.fate);
    }
    Ok(())
}

#[test]
fn all_of_the_clock_stays() -> Result<()> {
    let subject = subject();
    let addresses: Vec<u64> = subject.boundary.functions.iter().map(|f| f.addr.0).collect();
    let files = subject.binutils.source_files(&addresses)?;
    let mut clock = 0;
    for (function, file) in subject.boundary.functions.iter().zip(&files) {
        if file.ends_with("kernel/sched/clock.c") {
            assert!(matches!(function.fate, Fate::Stay(_)), "{}: {:?}", function.name, function.fate);
            clock += 1;
        }
    }
    assert!(clock > 10, "{clock} functions of clock.c");
    Ok(())
}

/// What an NMI handler, or a BPF program's entry, calls itself. What is called further down needs our own graph of calls.
#[test]
fn what_nmis_call_stays() -> Result<()> {
    let subject = subject();
    let is_run_by_nmis = |name: &str| {
        ["exc_nmi", "nmi_cpu_backtrace", "trace_call_bpf", "__perf_event_overflow"].contains(&name)
            || name.starts_with("__bpf_prog_enter")
    };
    let mut seen = 0;
    for branch in subject.branches.iter().filter(|branch| is_run_by_nmis(&branch.from)) {
        let Some(function) = subject.function_at(branch.to) else { continue };
        assert!(matches!(function.fate, Fate::Stay(_)), "{branch}: {} is {:?}", function.name, function.fate);
        seen += 1;
    }
    let idle = subject.function("cpu_in_idle")?;
    assert!(matches!(idle.fate, Fate::Stay(StayReason::Nmi { .. })), "cpu_in_idle is {:?}", idle.fate);
    assert!(seen > 0, "no such branch");
    Ok(())
}

#[test]
fn what_is_freed_after_boot_stays_and_is_all_that_does_so_for_that_reason() -> Result<()> {
    let subject = subject();
    let (start, end) = subject.binutils.section(".init.text")?;
    let mut init = 0;
    for function in &subject.boundary.functions {
        let is_freed = start <= function.addr.0 && function.addr.0 < end;
        let is_init = function.fate == Fate::Stay(StayReason::Init);
        let is_dead = function.fate == Fate::Stay(StayReason::OverriddenWeak);
        assert!(
            is_init == is_freed || is_dead,
            "{} at {}: {:?}",
            function.name,
            function.addr,
            function.fate
        );
        init += usize::from(is_freed);
    }
    assert!(init > 10, "{init} functions in .init.text");
    Ok(())
}

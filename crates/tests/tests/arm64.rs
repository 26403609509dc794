//! Boundary and springboard of a stock arm64 kernel, compared with what the arm64 binutils report about the same file
//! and with its tables, which this test reads itself. Nothing here uses our own decoder, DWARF reader or tables,
//! except for the list of the scheduler's functions and their extents.
//!
//! This is not the kernel under test; only `make soak` fetches it.

use anyhow::{Context, Result};
use schedswap_kernel::vmlinux::{self, Image, Machine};
use schedswap_sched::boundary::{self, Boundary, BoundaryFunction, Class, Fate, PatchSite, StayReason};
use schedswap_sched::springboard::{self, Base};
use schedswap_tests::arm64_vmlinux;
use schedswap_tests::binutils::{Binutils, Branch, Tools};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// What all tests examine, made once.
struct Subject {
    image: Image,
    boundary: Boundary,
    binutils: Binutils,
    /// Direct branches into the scheduler's code.
    branches: Vec<Branch>,
    /// The scheduler's code: start → end.
    text: BTreeMap<u64, u64>,
    /// Words of data that boot code writes, and their values.
    words: BTreeMap<u64, u64>,
}

fn subject() -> &'static Subject {
    static SUBJECT: OnceLock<Subject> = OnceLock::new();
    SUBJECT.get_or_init(|| {
        let path = arm64_vmlinux().expect("the arm64 kernel");
        let image = vmlinux::open(&path).expect("its vmlinux");
        assert_eq!(image.machine, Machine::Aarch64);
        let boundary =
            boundary::compute(&image, &schedswap_sched::config::Config::default()).expect("a boundary");
        let binutils = Binutils::with(Tools::Aarch64, &path).expect("binutils");
        let ranges = boundary.functions.iter().flat_map(|f| &f.ranges);
        let text = ranges.map(|range| (range.start.0, range.end.0)).collect();
        let branches = binutils.branches_into(&text).expect("objdump");
        assert!(branches.len() > 1000, "objdump shows {} branches into the scheduler", branches.len());
        let words = binutils.relative_relocations().expect("readelf");
        assert!(words.len() > 100_000, "readelf shows {} addresses in data", words.len());
        Subject { image, boundary, binutils, branches, text, words }
    })
}

impl Subject {
    /// Whether an address is in a function of the scheduler.
    fn is_inside(&self, addr: u64) -> bool {
        self.text.range(..=addr).next_back().is_some_and(|(_, end)| addr < *end)
    }

    fn function_at(&self, addr: u64) -> Option<&BoundaryFunction> {
        let holds = |f: &&BoundaryFunction| f.ranges.iter().any(|r| r.start.0 <= addr && addr < r.end.0);
        self.boundary.functions.iter().find(holds)
    }

    /// Every window: which bytes are written where.
    fn windows(&self) -> impl Iterator<Item = (&BoundaryFunction, &PatchSite)> {
        self.boundary.functions.iter().filter_map(|f| match &f.fate {
            Fate::Divert(site) | Fate::Springboard(site) => Some((f, site)),
            _ => None,
        })
    }

    /// Jump labels: `struct jump_entry { s32 code; s32 target; long key; }`, an instruction each.
    fn jump_labels(&self) -> Result<BTreeSet<u64>> {
        let table = self.binutils.table::<16>("__start___jump_table", "__stop___jump_table")?;
        let place = |(at, record): &(u64, [u8; 16])| {
            let distance = i32::from_le_bytes(record[..4].try_into().expect("four bytes"));
            at.wrapping_add_signed(distance.into())
        };
        Ok(table.iter().map(place).collect())
    }
}

#[test]
#[ignore = "needs the arm64 kernel, which make soak fetches"]
fn who_is_called_from_outside_or_exported_is_interface_and_nobody_else() {
    let subject = subject();
    let outside: BTreeMap<u64, &Branch> =
        subject.branches.iter().filter(|b| !subject.is_inside(b.at)).map(|b| (b.to, b)).collect();
    let exported: BTreeSet<&str> =
        subject.binutils.symbols.iter().filter_map(|s| s.name.strip_prefix("__ksymtab_")).collect();
    let (mut called, mut exports) = (0, 0);
    for function in &subject.boundary.functions {
        let caller = outside.get(&function.addr.0);
        let is_exported = !function.local && exported.contains(function.name.as_str());
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
    println!(
        "{} functions, {called} called from outside, {exports} exported",
        subject.boundary.functions.len()
    );
    assert!(called > 100 && exports > 50, "{called} called from outside, {exports} exported");
}

/// A function whose address boot code writes into data is reached through that data.
#[test]
#[ignore = "needs the arm64 kernel, which make soak fetches"]
fn every_address_in_data_is_found() -> Result<()> {
    let subject = subject();
    let entries: BTreeSet<u64> = subject.boundary.functions.iter().map(|f| f.addr.0).collect();
    // Tables about code, through which nothing calls: identified by the symbols around them.
    let tables = [
        ("__start_mcount_loc", "__stop_mcount_loc"),
        ("__start_kprobe_blacklist", "__stop_kprobe_blacklist"),
        ("__initcall_start", "__initcall_end"),
        ("__setup_start", "__setup_end"),
        ("__start_syscalls_metadata", "__stop_syscalls_metadata"),
        ("__start_error_injection_whitelist", "__stop_error_injection_whitelist"),
    ];
    let mut skipped = Vec::new();
    for (start, end) in tables {
        if let (Ok(start), Ok(end)) = (subject.binutils.address(start), subject.binutils.address(end)) {
            skipped.push(start..end);
        }
    }
    let expected: BTreeSet<(u64, u64)> = subject
        .words
        .iter()
        .filter(|(at, target)| entries.contains(target) && !skipped.iter().any(|range| range.contains(at)))
        .map(|(at, target)| (*at, *target))
        .collect();
    let stored = subject.image.uses.stored.iter().filter(|s| entries.contains(&s.target.0));
    let found: BTreeSet<(u64, u64)> = stored.map(|s| (s.at.0, s.target.0)).collect();
    assert_eq!(found, expected);
    println!("{} words of data hold a scheduler function's address", found.len());
    assert!(found.len() > 200, "{} words", found.len());
    Ok(())
}

/// An `adrp` directly followed by an `add` that together make the address of a function of the scheduler: the
/// plainest form in which an address is taken.
#[test]
#[ignore = "needs the arm64 kernel, which make soak fetches"]
fn every_plainly_taken_address_is_found() -> Result<()> {
    let subject = subject();
    let entries: BTreeSet<u64> = subject.boundary.functions.iter().map(|f| f.addr.0).collect();
    let found: BTreeSet<(u64, u64)> =
        subject.image.uses.taken.iter().map(|taken| (taken.at.0, taken.target.0)).collect();
    let plain = subject.binutils.addresses_made(&entries)?;
    for (at, target) in &plain {
        assert!(found.contains(&(*at, *target)), "at {at:#x} the address {target:#x} is taken");
    }
    println!("{} addresses of scheduler functions are taken plainly", plain.len());
    assert!(plain.len() > 20, "{} addresses", plain.len());
    Ok(())
}

#[test]
#[ignore = "needs the arm64 kernel, which make soak fetches"]
fn the_springboard_is_the_one_call_of_switch_to() -> Result<()> {
    let subject = subject();
    let contract = springboard::derive(&subject.image)?;
    println!("{contract}");
    let code = subject.binutils.disassemble("__schedule")?;
    let is_call = |text: &str| text.starts_with("bl ") && text.ends_with("<__switch_to>");
    let calls: Vec<usize> = (0..code.len()).filter(|n| is_call(&code[*n].text)).collect();
    assert_eq!(calls.len(), 1, "calls of __switch_to in __schedule");
    assert_eq!(contract.springboard.0, code[calls[0]].at);
    assert_eq!(contract.entry.0, subject.binutils.address("__schedule")?);

    // The straight path from there to the return: what it loads from which place of the frame.
    let Base::X29(frame_record) = contract.base else { anyhow::bail!("{:?}", contract.base) };
    let mut stack_pointer = contract.stack_pointer;
    let mut restored = BTreeMap::new();
    let (mut canary, mut signed) = (None, false);
    for instruction in &code[calls[0] + 1..] {
        let text = instruction.text.as_str();
        let (mnemonic, operands) = text.split_once(' ').unwrap_or((text, ""));
        // `ldp x29, x30, [sp, #32]`, `ldur x2, [x29, #-8]`, `add sp, sp, #0x80`
        let number = |text: &str| -> Option<i64> {
            let text = text.trim_start_matches('#');
            match text.strip_prefix("0x") {
                Some(digits) => i64::from_str_radix(digits, 16).ok(),
                None => text.parse().ok(),
            }
        };
        match mnemonic {
            "ldp" | "ldr" | "ldur" => {
                let (registers, place) = operands.split_once(", [").with_context(|| text.to_owned())?;
                let (place, after) = place.split_once(']').with_context(|| text.to_owned())?;
                let (base, offset) = place.split_once(", ").unwrap_or((place, "#0"));
                let base = match base {
                    "sp" => stack_pointer,
                    "x29" => frame_record,
                    _ => continue,
                };
                let mut at = base + number(offset).with_context(|| text.to_owned())?;
                for register in registers.split(", ") {
                    let callee_saved = register[1..].parse().is_ok_and(|number: u32| number >= 19);
                    if callee_saved {
                        restored.insert(register.to_owned(), at);
                    } else {
                        canary = Some(at);
                    }
                    at += 8;
                }
                if let Some(by) = after.strip_prefix(", ") {
                    stack_pointer += number(by).with_context(|| text.to_owned())?;
                }
            }
            "add" if operands.starts_with("sp, sp, ") => {
                let by = operands.trim_start_matches("sp, sp, ");
                stack_pointer += number(by).with_context(|| text.to_owned())?;
            }
            "autiasp" => signed = stack_pointer == 0,
            "ret" => break,
            _ => {}
        }
    }
    assert_eq!(stack_pointer, 0, "where the tail returns");
    let slots: BTreeMap<String, i64> =
        contract.slots.iter().map(|slot| (slot.register.name().to_owned(), slot.offset)).collect();
    assert_eq!(slots, restored, "the registers that the tail restores");
    assert_eq!(contract.canary.map(|canary| canary.offset), canary, "the canary");
    assert_eq!(contract.signed, signed, "the signature");
    Ok(())
}

#[test]
#[ignore = "needs the arm64 kernel, which make soak fetches"]
fn every_window_lies_after_ftraces_nops_or_at_the_entry() -> Result<()> {
    let subject = subject();
    let [start, end] =
        ["__start_mcount_loc", "__stop_mcount_loc"].map(|name| subject.binutils.address(name).expect(name));
    let fentry: BTreeSet<u64> = subject.words.range(start..end).map(|(_, target)| *target).collect();
    assert!(fentry.len() > 10_000, "{} places of ftrace's", fentry.len());
    let labels = subject.jump_labels()?;
    let (mut after, mut bare) = (0, 0);
    for (function, site) in subject.windows() {
        let entry = function.addr.0;
        assert_eq!(site.expect, subject.binutils.bytes(site.at.0, 4)?, "the bytes of {}", function.name);
        let expected = if fentry.contains(&entry) { (entry + 8, true) } else { (entry, false) };
        assert_eq!((site.at.0, site.after_fentry), expected, "{}", function.name);
        let end = function.ranges[0].end.0;
        assert!(site.at.0 + 4 <= end, "the window of {} reaches past its end", function.name);
        assert!(!labels.contains(&site.at.0), "a jump label is in the window of {}", function.name);
        if site.after_fentry {
            after += 1;
        } else {
            bare += 1;
        }
    }
    // If there is none, something is in the way.
    let mut without = 0;
    for function in &subject.boundary.functions {
        let (Fate::Stay(StayReason::NoRoom { obstacle }) | Fate::InsideOnly(obstacle)) = &function.fate
        else {
            continue;
        };
        let entry = function.addr.0;
        let window = if fentry.contains(&entry) { entry + 8 } else { entry };
        assert!(
            labels.contains(&window) || window + 4 > function.ranges[0].end.0,
            "{} has room, yet {obstacle}",
            function.name
        );
        without += 1;
    }
    println!("{after} windows after the nops, {bare} at the entry, {without} functions without room");
    assert!(after > 300, "{after} windows after the nops, {bare} at the entry");
    Ok(())
}

#[test]
#[ignore = "needs the arm64 kernel, which make soak fetches"]
fn functions_that_sleep_stay() -> Result<()> {
    let subject = subject();
    for name in ["schedule", "do_idle", "__wait_for_common", "wait_woken", "bit_wait"] {
        let found =
            subject.boundary.functions.iter().find(|f| f.name == name).with_context(|| name.to_owned())?;
        assert!(matches!(found.fate, Fate::Stay(StayReason::Sleeps { .. })), "{name}: {:?}", found.fate);
    }
    // All direct branches to __schedule from within the scheduler.
    let mut sleeping = BTreeSet::from([subject.binutils.address("__schedule")?]);
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

/// How many functions have which fate, so that a look at the output shows anything unusual.
#[test]
#[ignore = "needs the arm64 kernel, which make soak fetches"]
fn most_of_the_scheduler_is_replaced() {
    let subject = subject();
    let mut fates: BTreeMap<&str, usize> = BTreeMap::new();
    for function in &subject.boundary.functions {
        let fate = match &function.fate {
            Fate::Divert(_) => "diverted",
            Fate::InsideOnly(_) => "inside only",
            Fate::Duplicate(_) => "duplicated",
            Fate::Springboard(_) => "the springboard",
            Fate::Stay(StayReason::Sleeps { .. }) => "sleep",
            Fate::Stay(StayReason::Init) => "init",
            Fate::Stay(StayReason::OverriddenWeak) => "overridden",
            Fate::Stay(StayReason::Nmi { .. }) => "run by NMIs",
            Fate::Stay(StayReason::NoInstr) => "not to be diverted",
            Fate::Stay(StayReason::NoRoom { .. }) => "without room",
            Fate::Stay(StayReason::Configured { .. } | StayReason::NotNamed) => "kept by configuration",
            Fate::Stay(StayReason::NoSpringboard) => "no springboard",
            Fate::Stay(StayReason::Unchanged) => "unchanged",
        };
        *fates.entry(fate).or_default() += 1;
    }
    println!("{} of {}: {fates:?}", subject.image.release, subject.boundary.functions.len());
    let replaced = fates.get("diverted").copied().unwrap_or_default();
    assert_eq!(fates.get("the springboard"), Some(&1));
    assert_eq!(fates.get("kept by configuration"), None);
    assert!(replaced * 10 > subject.boundary.functions.len() * 6, "{fates:?}");
}

//! Reading a kernel in miniature whose every symbol is known, and files that are not a kernel.

mod bad_input;
mod fixture;

use super::*;
use crate::address::Addr;
use crate::arch;
use std::collections::{BTreeMap, HashMap};

fn image_of(bytes: &[u8]) -> Image {
    parse(Path::new("vmlinux"), bytes.to_vec()).expect("the miniature kernel is read")
}

/// Runs a check on the same kernel with either version of the debug information.
fn with_either_dwarf(check: impl Fn(&Image)) {
    check(&image_of(&fixture::DWARF4));
    check(&image_of(&fixture::DWARF5));
}

fn addr_of(image: &Image, name: &str) -> Addr {
    image.unique_symbol(name).unwrap_or_else(|| panic!("one symbol {name}")).addr
}

/// Name of the function entered at `addr`.
fn name_at(image: &Image, addr: Addr) -> &str {
    let id = image.functions_entered_at(addr).last().expect("a function begins there");
    &image.symbol(*id).name
}

fn function<'a>(image: &'a Image, source_name: &str) -> &'a Function {
    let unit = &image.units[0];
    unit.functions.iter().find(|f| f.source_name == source_name).expect("a function of core.c")
}

#[test]
fn what_kernel_it_is() {
    with_either_dwarf(|image| {
        assert_eq!(image.release, "6.66.0-test-amd64");
        assert_eq!(image.build_id.len(), 20, "a SHA-1 build-id, not the note before it");
        assert!(image.compiler.starts_with("GCC: ("), "{}", image.compiler);
        assert!(image.producer.starts_with("GNU C11 "), "{}", image.producer);
        assert!(image.producer.contains("-mcmodel=kernel"));
    });
}

#[test]
fn a_local_symbol_belongs_to_the_file_symbol_before_it() {
    with_either_dwarf(|image| {
        let symbol = image.unique_symbol("pick_next.cold").expect("gcc split pick_next");
        let file = symbol.file.expect("a local symbol has a file");
        assert_eq!(image.symbol(file).name, "core.c");
        assert!(image.unique_symbol("pick_next").expect("it is global").file.is_none());
    });
}

#[test]
fn exports_and_who_may_use_them() {
    with_either_dwarf(|image| {
        let expected = [("schedule".to_owned(), false), ("pick_next".to_owned(), true)];
        assert_eq!(image.exports, HashMap::from(expected));
    });
}

#[test]
fn only_the_scheduler_is_a_unit_and_its_functions_have_their_symbols() {
    with_either_dwarf(|image| {
        let names: Vec<&str> = image.units.iter().map(|u| u.name.as_str()).collect();
        assert_eq!(names, ["kernel/sched/core.c"]);
        let mut functions: Vec<&str> =
            image.units[0].functions.iter().map(|f| f.source_name.as_str()).collect();
        functions.sort_unstable();
        assert_eq!(
            functions,
            [
                "__schedule",
                "count_once",
                "install",
                "pick_next",
                "schedule",
                "schedule_timeout",
                "wait_for_common",
                "wait_for_completion"
            ]
        );
        let clone = function(image, "count_once");
        assert!(clone.name.starts_with("count_once."), "{} is a clone", clone.name);
        assert!(!clone.external);
        let schedule = function(image, "schedule");
        assert!(schedule.external);
        assert_eq!(schedule.addr, addr_of(image, "schedule"));
        assert_eq!(schedule.decl_file, "kernel/sched/core.c");
        let line = std::fs::read_to_string(fixture::fixture_dir().join("kernel/sched/core.c")).unwrap();
        assert!(line.lines().nth(schedule.decl_line as usize - 1).unwrap().contains("void schedule(void)"));
    });
}

#[test]
fn a_cold_part_is_a_range_of_its_function() {
    with_either_dwarf(|image| {
        let split = function(image, "pick_next");
        let starts: Vec<Addr> = split.ranges.iter().map(|r| r.start).collect();
        assert_eq!(starts, [addr_of(image, "pick_next"), addr_of(image, "pick_next.cold")]);
    });
}

#[test]
fn an_overridden_weak_function_is_dead_code_not_a_function() {
    with_either_dwarf(|image| {
        let [overridden] = image.units[0].overridden.as_slice() else { panic!("one weak function") };
        assert_eq!(overridden.name, "sched_clock");
        assert_eq!(image.symbol(overridden.by).addr, addr_of(image, "sched_clock"));
        assert_ne!(overridden.ranges[0].start, addr_of(image, "sched_clock"));
    });
}

#[test]
fn variables_have_addresses_sizes_and_the_function_they_are_local_to() {
    with_either_dwarf(|image| {
        let variable = |name: &str| image.units[0].variables.iter().find(|v| v.name == name).unwrap();
        assert_eq!(variable("runqueue").size, 8);
        assert_eq!(variable("runqueue").addr, addr_of(image, "runqueue"));
        assert_eq!(variable("sysctl_numbers").size, 3 * 4 * 8);
        assert_eq!(variable("sysctl_numbers").in_function, None);
        let local = variable("done");
        assert_eq!((local.in_function.as_deref(), local.external), (Some("count_once"), false));
    });
}

#[test]
fn inlined_copies_inside_and_outside() {
    with_either_dwarf(|image| {
        let describe = |copy: &InlinedCopy| (copy.name.clone(), copy.decl_file.clone(), copy.into.clone());
        let inside: Vec<_> = image.units[0].inlined.iter().map(describe).collect();
        let helper = ("rq_is_busy".to_owned(), "kernel/sched/sched.h".to_owned());
        assert_eq!(inside, [(helper.0.clone(), helper.1.clone(), "pick_next".to_owned())]);
        let outside: Vec<_> = image.inlined_outside.iter().map(describe).collect();
        assert_eq!(outside, [(helper.0, helper.1, "klp_try_switch_task".to_owned())]);
        assert_eq!(image.inlined_outside[0].unit, "kernel/livepatch/transition.c");
        assert_eq!(image.inlined_outside[0].into_addr, addr_of(image, "klp_try_switch_task"));
    });
}

#[test]
fn who_calls_and_who_jumps() {
    with_either_dwarf(|image| {
        let to = |name: &str| {
            let callee = addr_of(image, name);
            let branches = image.uses.branches.iter().filter(move |b| b.callee == callee);
            branches.map(|b| (image.symbol(b.caller).name.as_str(), b.is_call)).collect::<Vec<_>>()
        };
        assert_eq!(to("__schedule"), [("schedule", true)]);
        assert_eq!(to("schedule"), [("schedule_timeout", true), ("klp_try_switch_task", true)]);
        assert_eq!(to("sched_clock"), [("toggled", false)]);
        assert_eq!(to("pick_next.cold"), [("pick_next", false)]);
    });
}

#[test]
fn addresses_taken_passed_and_stored() {
    with_either_dwarf(|image| {
        let uses = &image.uses;
        let taken: Vec<_> = uses.taken.iter().map(|t| (name_at(image, t.target), t.function)).collect();
        let taken: Vec<_> =
            taken.iter().map(|(target, f)| (*target, image.symbol(*f).name.as_str())).collect();
        assert_eq!(taken, [("schedule", "install"), ("schedule_timeout", "wait_for_completion")]);

        let [passed] = uses.passed.as_slice() else {
            panic!("one function is handed over: {:?}", uses.passed)
        };
        assert_eq!(name_at(image, passed.target), "schedule_timeout");
        assert_eq!(name_at(image, passed.callee), "wait_for_common");
        assert_eq!(image.symbol(passed.caller).name, "wait_for_completion");

        let [stored] = uses.stored.as_slice() else { panic!("mcount_loc does not count: {:?}", uses.stored) };
        assert_eq!(name_at(image, stored.target), "pick_next");
        assert_eq!(image.symbol(stored.object.unwrap()).name, "fair_sched_class");

        let indirect: Vec<_> = uses.indirect.iter().map(|id| image.symbol(*id).name.as_str()).collect();
        assert_eq!(indirect, ["wait_for_common"]);
    });
}

#[test]
fn places_that_the_kernel_rewrites() {
    with_either_dwarf(|image| {
        let toggled = addr_of(image, "toggled");
        let in_toggled: Vec<_> = image
            .sites
            .iter()
            .filter(|s| s.kind != SiteKind::Fentry)
            .map(|s| (s.addr - toggled, s.len, s.kind))
            .collect();
        assert_eq!(
            in_toggled,
            [
                (0, 2, SiteKind::JumpLabel),
                (2, 5, SiteKind::JumpLabel),
                (7, 3, SiteKind::Alternative),
                (7, 1, SiteKind::SmpLock),
                (10, 5, SiteKind::Return),
            ]
        );
        let mut fentry: Vec<_> = image
            .sites
            .iter()
            .filter(|s| s.kind == SiteKind::Fentry)
            .map(|s| name_at(image, s.addr))
            .collect();
        fentry.sort_unstable();
        assert_eq!(fentry, ["pick_next", "schedule"]);
        let sizes = BTreeMap::from([("alt_instr".to_owned(), 12), ("jump_entry".to_owned(), 16)]);
        assert_eq!(image.entry_sizes, sizes);
    });
}

#[test]
fn one_functions_instructions() {
    let image = image_of(&fixture::DWARF5);
    let [id] = image.symbols_named("schedule") else { panic!("one schedule") };
    let symbol = image.symbol(*id);
    let code = image.bytes(symbol.addr, symbol.size).expect("its code");
    let arch = arch::of(image.machine);
    let decoded = arch.outlines(code, symbol.addr.0);
    assert_eq!(decoded[0].at, symbol.addr.0);
    assert!(decoded.iter().any(|outline| outline.target == Some(addr_of(&image, "__schedule").0)));
    let is_one = |at: u64| arch.step(&code[(at - symbol.addr.0) as usize..], Addr(at)).is_some();
    assert!(decoded.iter().all(|outline| is_one(outline.at)));
}

#[test]
fn bytes_and_functions_at_the_edges() {
    let image = image_of(&fixture::DWARF5);
    let text = image.section_named(".text").unwrap().clone();
    assert_eq!(image.bytes(text.addr, text.size).map(<[u8]>::len), Some(text.size as usize));
    assert!(image.bytes(text.addr, text.size + 1).is_none());
    assert!(image.bytes(Addr(u64::MAX), 1).is_none());
    assert!(image.bytes(text.addr, u64::MAX).is_none());
    assert!(image.bytes(addr_of(&image, "runqueue"), 8).is_none(), ".bss has no bytes");
    let schedule = image.unique_symbol("schedule").unwrap();
    let named = |addr| image.function_at(addr).map(|id| image.symbol(id).name.as_str());
    assert_eq!(named(schedule.addr), Some("schedule"));
    assert_eq!(named(schedule.addr + (schedule.size - 1)), Some("schedule"));
    assert_eq!(named(Addr(0)), None);
}

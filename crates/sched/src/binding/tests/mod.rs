//! The binding rules, one by one, and planted faults, on the fixture's kernel.

mod landing;
mod through;
mod unnamed;

use super::fixture::{ABS32, Build, DATA, Kernel, PLT32, RODATA, TEXT, UNIT, kernel, unit, units};
use super::{Error, Fault, Rewritten, UnitObject, bind_runtime, rewrite, verify};
use crate::boundary::{Fate, Sharing, StayReason};
use schedswap_kernel::objects::{Object, Place, Relocation, SymbolId, write};
use std::collections::BTreeSet;

fn rewritten(kernel: &Kernel, build: Build) -> Result<Rewritten, Error> {
    rewrite(&units(build), &kernel.binding())
}

fn bound() -> Rewritten {
    rewritten(&kernel(), unit()).unwrap()
}

/// What a field of a module's symbol refers to: symbol name and addend.
fn reference(object: &Object, symbol: &str, offset: u64) -> (String, i64) {
    let owner = object.symbols.iter().find(|s| s.name == symbol).unwrap_or_else(|| panic!("no {symbol}"));
    let Place::Section(section) = owner.place else { panic!("{symbol} is not defined") };
    let relocation =
        object.section(section).relocations.iter().find(|r| r.offset == owner.value + offset).unwrap();
    (object.symbol(relocation.symbol).name.clone(), relocation.addend)
}

/// `_printk` + what it takes to get to a place in vmlinux.
fn anchored(addr: u64, addend: i64) -> (String, i64) {
    ("_printk".into(), (addr - TEXT) as i64 + addend)
}

fn has(rewritten: &Rewritten, symbol: &str) -> bool {
    rewritten.object.symbols.iter().any(|s| s.name == symbol)
}

#[test]
fn branches_go_to_the_module_and_addresses_to_vmlinux() {
    let object = bound().object;
    assert_eq!(reference(&object, "tick.ss", 1), anchored(TEXT + 0x40, -4), "call of what vmlinux has");
    assert_eq!(reference(&object, "tick.ss", 6), ("helper.ss".into(), -4), "call of a diverted function");
    assert_eq!(reference(&object, "tick.ss", 11), anchored(TEXT + 0x300, -4), "call of one that stays");
    assert_eq!(
        reference(&object, "tick.ss", 18),
        anchored(TEXT + 0x200, 0),
        "address of a diverted function"
    );
    assert_eq!(reference(&object, "tick.ss", 58), ("fresh.ss".into(), -4), "jump to a new function");
    assert_eq!(reference(&object, "fresh.ss", 3), ("fresh.ss".into(), 0), "address of a new function");
}

#[test]
fn data_is_shared_but_for_what_is_new_or_local() {
    let object = bound().object;
    assert_eq!(reference(&object, "tick.ss", 24), anchored(DATA + 0x10, -5), "an immediate trails the field");
    assert_eq!(
        reference(&object, "tick.ss", 32),
        ("ss_zero".into(), 0x80 + 8 - 4),
        "per-CPU data of vmlinux"
    );
    assert_eq!(reference(&object, "tick.ss", 39), ("fresh_pcpu.ss".into(), -4), "new per-CPU data");
    assert_eq!(reference(&object, "tick.ss", 52), ("__already_done.3.ss".into(), -5), "printed once");
    assert_eq!(reference(&object, "helper.ss", 3), ("fresh_var.ss".into(), 0));
    let per_cpu: Vec<_> = object.sections.iter().filter(|s| s.name.starts_with(".data..percpu")).collect();
    assert_eq!(per_cpu.len(), 1);
    assert_eq!(per_cpu[0].size, 8, "vmlinux's own per-CPU data is cut out");
}

#[test]
fn strings_are_carried_as_far_as_they_are_used() {
    let object = bound().object;
    let strings = object.sections.iter().find(|s| s.name == ".rodata.ss_strings").unwrap();
    assert_eq!(strings.data, b"tick\0");
    assert_eq!(reference(&object, "tick.ss", 46), (String::new(), 0));
}

#[test]
fn what_stays_is_dropped_with_what_describes_it() {
    let rewritten = bound();
    for gone in ["sleeper.ss", "preempt.ss", "only_sleeper.ss", "counter.ss", "runqueues.ss"] {
        assert!(!has(&rewritten, gone), "{gone}");
    }
    let size = |name: &str| rewritten.object.sections.iter().find(|s| s.name == name).map_or(0, |s| s.size);
    assert_eq!((size("__mcount_loc"), size("__jump_table")), (8, 16));
    assert_eq!(size(".orc_unwind") % (size(".orc_unwind_ip") / 4), 0);
    assert!(rewritten.object.sections.iter().all(|s| !s.name.contains("ksymtab") && s.name != ".comment"));
    let sleeper = rewritten.dropped.iter().find(|d| d.name == "sleeper").unwrap();
    assert!(sleeper.reason.contains("threads sleep inside"), "{}", sleeper.reason);
}

#[test]
fn the_springboard_switches_and_calls_its_neighbour() {
    let object = bound().object;
    assert_eq!(reference(&object, "__schedule.ss", 1), ("ss_switch_to".into(), -4));
    assert_eq!(
        reference(&object, "__schedule.ss", 6),
        anchored(TEXT + 0x410, -4),
        "resolved by the assembler"
    );
    let text = object.sections.iter().find(|s| s.name == ".text.ss").unwrap();
    let schedule = object.symbols.iter().find(|s| s.name == "__schedule.ss").unwrap().value as usize;
    assert_eq!(text.data[schedule + 6..schedule + 10], [0; 4], "the loader wants fields to be zero");
}

#[test]
fn a_class_keeps_vmlinuxs_slots_and_takes_new_functions() {
    let rewritten = bound();
    assert_eq!(rewritten.classes["fair_sched_class"], "fair_sched_class.ss");
    assert_eq!(reference(&rewritten.object, "fair_sched_class.ss", 0), anchored(TEXT + 0x200, 0));
    assert_eq!(reference(&rewritten.object, "fair_sched_class.ss", 8), ("fresh.ss".into(), 0));
}

#[test]
fn targets_are_what_vmlinux_is_led_to() {
    let rewritten = bound();
    let target = |name: &str| rewritten.targets.get(&(UNIT.to_owned(), name.to_owned())).map(String::as_str);
    assert_eq!(target("tick"), Some("tick.ss"));
    assert_eq!(target("__schedule"), Some("__schedule.ss"));
    assert_eq!(target("sleeper"), None);
    assert_eq!(rewritten.missing, []);
    assert_eq!(rewritten.new_functions.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["fresh"]);
    assert_eq!(rewritten.warnings, [""; 0]);
}

#[test]
fn a_function_that_the_edit_removed_is_missing() {
    let mut kernel = kernel();
    let mut gone = kernel.boundary.functions[0].clone();
    gone.name = "removed".into();
    kernel.boundary.functions.push(gone);
    let rewritten = rewritten(&kernel, unit()).unwrap();
    assert_eq!(rewritten.missing, [(UNIT.to_owned(), "removed".to_owned())]);
}

#[test]
fn private_data_is_the_modules_own() {
    let mut kernel = kernel();
    kernel.boundary.variables[0].sharing = Sharing::Private("by configuration".into());
    let rewritten = rewritten(&kernel, unit()).unwrap();
    assert_eq!(reference(&rewritten.object, "tick.ss", 24), ("counter.ss".into(), -5));
}

#[test]
fn an_edited_initial_value_is_warned_of() {
    let mut build = unit();
    let counter = build.object.sections.iter_mut().find(|s| s.name == ".data.counter").unwrap();
    counter.data[0] = 9;
    let rewritten = rewritten(&kernel(), build).unwrap();
    assert!(rewritten.warnings[0].contains("counter"), "{:?}", rewritten.warnings);
}

#[test]
fn refusals_name_what_and_who() {
    let refused = |build| rewritten(&kernel(), build).err().expect("a refusal").to_string();
    let with_call = |name: &str| {
        let mut build = unit();
        let code = build.function("caller", &[0xe8, 0, 0, 0, 0, 0xc3], false);
        build.relocate(code, 1, PLT32, name, -4);
        build
    };
    let unknown = refused(with_call("nonesuch"));
    assert!(
        unknown.contains("nonesuch") && unknown.contains("caller") && unknown.contains(UNIT),
        "{unknown}"
    );
    let clone = refused(with_call("outsider"));
    assert!(clone.contains("outsider.isra.0"), "{clone}");
    let switch = refused(with_call("__switch_to_asm"));
    assert!(switch.contains("caller"), "{switch}");

    let mut build = unit();
    build.section(".frobnication_sites", 2, &[0; 8]);
    assert!(refused(build).contains(".frobnication_sites"));

    let mut build = unit();
    let sites = build.section("runtime_ptr_USER_PTR_MAX", 2, &[0; 4]);
    build.relocate(sites, 0, super::fixture::PC32, ".text.tick", 20);
    let refusal = refused(build);
    assert!(refusal.contains("runtime_ptr_USER_PTR_MAX") && refusal.contains("tick"), "{refusal}");

    let mut build = unit();
    let counter = build.object.sections.iter_mut().find(|s| s.name == ".data.counter").unwrap();
    counter.data.resize(12, 0);
    counter.size = 12;
    build.object.symbols.iter_mut().find(|s| s.name == "counter").unwrap().size = 12;
    let refusal = refused(build);
    assert!(refusal.contains("counter") && refusal.contains("12 bytes, but 4"), "{refusal}");
}

#[test]
fn what_boot_code_writes_into_an_instruction_is_read_from_its_variable() {
    let mut build = unit();
    // movabs $placeholder, %r8; ret
    let code = [0x49, 0xb8, 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01, 0xc3];
    build.function("reader", &code, false);
    let sites = build.section("runtime_ptr_limit", 2, &[0; 4]);
    build.relocate(sites, 0, super::fixture::PC32, ".text.reader", 2);
    let object = rewritten(&kernel(), build).unwrap().object;
    assert_eq!(reference(&object, "reader.ss", 3), anchored(DATA + 0x30, -4));
    let reader = object.symbols.iter().find(|s| s.name == "reader.ss").unwrap();
    let Place::Section(section) = reader.place else { panic!("it is not defined") };
    let code = &object.section(section).data[reader.value as usize..][..11];
    assert_eq!((&code[..3], &code[7..]), (&[0x4c, 0x8b, 0x05][..], &[0x0f, 0x1f, 0x00, 0xc3][..]));
}

#[test]
fn schedule_must_switch_exactly_once() {
    let mut build = unit();
    let sched = build.object.sections.iter_mut().find(|s| s.name == ".sched.text").unwrap();
    sched.relocations.clear();
    sched.data[1..5].copy_from_slice(&[11, 0, 0, 0]);
    let refusal = rewritten(&kernel(), build).err().unwrap();
    assert!(matches!(refusal, Error::Switch { count: 0, .. }), "{refusal}");
}

#[test]
fn a_weak_function_that_is_overridden_binds_to_the_one_in_force() {
    let mut kernel = kernel();
    let sleeper = kernel.boundary.functions.iter_mut().find(|f| f.name == "sleeper").unwrap();
    sleeper.fate = Fate::Stay(StayReason::OverriddenWeak);
    sleeper.addr = schedswap_kernel::address::Addr(TEXT + 0x700);
    let object = rewritten(&kernel, unit()).unwrap().object;
    assert_eq!(reference(&object, "tick.ss", 11), anchored(TEXT + 0x300, -4));
}

#[test]
fn one_name_in_two_units_stays_two() {
    let mut kernel = kernel();
    let mut other = Build::default();
    other.object.name = "fair.o".into();
    other.object.machine = 62;
    other.function("fresh", &[0xc3], false);
    kernel.boundary.functions.retain(|f| f.name != "preempt" || f.unit == UNIT);
    let mut list = units(unit());
    list.push(UnitObject::new("kernel/sched/fair.c", other.object));
    let rewritten = rewrite(&list, &kernel.binding()).unwrap();
    assert!(has(&rewritten, "fresh.core.ss") && has(&rewritten, "fresh.fair.ss"));
    let bytes = write(&rewritten.object).unwrap();
    verify(&bytes, &list, &kernel.binding(), &rewritten).unwrap();
}

#[test]
fn runtime_objects_keep_what_is_exported() {
    let kernel = kernel();
    let mut build = Build::default();
    build.object.name = "swap.o".into();
    let code = build.function("swap", &[0xe8, 0, 0, 0, 0, 0xe8, 0, 0, 0, 0, 0xe8, 0, 0, 0, 0, 0xc3], true);
    build.relocate(code, 1, PLT32, "_printk", -4);
    build.relocate(code, 6, PLT32, "sleeper", -4);
    build.relocate(code, 11, PLT32, "ss_elsewhere", -4);
    let elsewhere = BTreeSet::from(["ss_elsewhere".to_owned()]);
    let object = bind_runtime(build.object, &kernel.image, "_printk", &elsewhere).unwrap();
    assert_eq!(reference(&object, "swap", 1), ("_printk".into(), -4));
    assert_eq!(reference(&object, "swap", 6), anchored(TEXT + 0x300, -4));
    assert_eq!(reference(&object, "swap", 11), ("ss_elsewhere".into(), -4));
    assert!(!object.symbols.iter().any(|s| s.name == "sleeper"));

    let mut build = Build::default();
    let code = build.function("swap", &[0xe8, 0, 0, 0, 0, 0xc3], true);
    build.relocate(code, 1, PLT32, "outsider", -4);
    let refusal = bind_runtime(build.object, &kernel.image, "_printk", &BTreeSet::new()).unwrap_err();
    assert!(matches!(refusal, Error::OnlyClone { .. }), "{refusal}");
}

/// Rewrites, plants a fault, writes, verifies.
fn with_fault(plant: impl FnOnce(&mut Object)) -> Vec<Fault> {
    with_fault_in(unit(), plant)
}

fn with_fault_in(unit: Build, plant: impl FnOnce(&mut Object)) -> Vec<Fault> {
    let (kernel, list) = (kernel(), units(unit));
    let mut rewritten = rewrite(&list, &kernel.binding()).unwrap();
    plant(&mut rewritten.object);
    let bytes = write(&rewritten.object).unwrap();
    verify(&bytes, &list, &kernel.binding(), &rewritten).err().unwrap_or_default()
}

/// The relocation of `tick` at an offset.
fn in_tick(object: &mut Object, offset: u64) -> &mut Relocation {
    let tick = object.symbols.iter().find(|s| s.name == "tick.ss").unwrap().value;
    let text = object.sections.iter_mut().find(|s| s.name == ".text.ss").unwrap();
    text.relocations.iter_mut().find(|r| r.offset == tick + offset).unwrap()
}

fn symbol(object: &Object, name: &str) -> SymbolId {
    SymbolId(object.symbols.iter().position(|s| s.name == name).unwrap() as u32)
}

#[test]
fn a_sound_object_verifies() {
    assert_eq!(with_fault(|_| {}), []);
}

type Plant = fn(&mut Object);

#[test]
fn planted_faults_of_references_are_caught() {
    let faults: [(&str, Plant); 10] = [
        ("a call into the middle of a function", |o| in_tick(o, 1).addend += 1),
        ("a variable's neighbour", |o| in_tick(o, 24).addend += 4),
        ("a per-CPU offset", |o| in_tick(o, 32).addend += 8),
        ("a call of vmlinux's diverted function", |o| {
            let anchor = symbol(o, "_printk");
            *in_tick(o, 6) = Relocation { symbol: anchor, addend: 0x200 - 4, ..*in_tick(o, 6) };
        }),
        ("an address of the module's function", |o| {
            let helper = symbol(o, "helper.ss");
            *in_tick(o, 18) = Relocation { symbol: helper, addend: 0, ..*in_tick(o, 18) };
        }),
        ("a call of __schedule past its stub", |o| in_tick(o, 6).symbol = symbol(o, "__schedule.ss")),
        ("a call of another function", |o| in_tick(o, 58).symbol = symbol(o, "helper.ss")),
        ("another string", |o| in_tick(o, 46).addend = 1),
        ("another type", |o| in_tick(o, 18).kind = 10),
        ("a lost relocation", |o| {
            let text = o.sections.iter_mut().find(|s| s.name == ".text.ss").unwrap();
            text.relocations.remove(2);
        }),
    ];
    are_caught(&faults);
}

fn are_caught(faults: &[(&str, Plant)]) {
    for (what, plant) in faults {
        assert!(!with_fault(plant).is_empty(), "{what} was not noticed");
    }
}

#[test]
fn planted_faults_of_tables_and_bytes_are_caught() {
    let faults: [(&str, Plant); 6] = [
        ("a jump label of another key", |o| {
            let table = o.sections.iter_mut().find(|s| s.name == "__jump_table").unwrap();
            table.relocations[2].addend += 0x10;
        }),
        ("a lost table entry", |o| {
            let table = o.sections.iter_mut().find(|s| s.name == "__jump_table").unwrap();
            table.relocations.clear();
            table.data.clear();
            table.size = 0;
        }),
        ("half an entry", |o| {
            let table = o.sections.iter_mut().find(|s| s.name == "__mcount_loc").unwrap();
            table.data.truncate(7);
        }),
        ("lost unwinding", |o| {
            for name in [".orc_unwind_ip", ".orc_unwind"] {
                let table = o.sections.iter_mut().find(|s| s.name == name).unwrap();
                table.data.truncate(0);
                table.relocations.clear();
            }
        }),
        ("a changed instruction", |o| {
            o.sections.iter_mut().find(|s| s.name == ".text.ss").unwrap().data[0] ^= 8
        }),
        ("an undefined symbol", |o| {
            let undefined = schedswap_kernel::objects::Symbol {
                name: "schedule".into(),
                place: Place::Undefined,
                value: 0,
                size: 0,
                binding: 1,
                kind: 0,
                other: 0,
            };
            o.symbols.push(undefined);
        }),
    ];
    are_caught(&faults);
}

#[test]
fn a_truncated_file_is_a_fault() {
    let (kernel, list) = (kernel(), units(unit()));
    let rewritten = rewrite(&list, &kernel.binding()).unwrap();
    let bytes = write(&rewritten.object).unwrap();
    for length in [0, 16, 64, bytes.len() / 2, bytes.len() - 1] {
        assert!(verify(&bytes[..length], &list, &kernel.binding(), &rewritten).is_err(), "{length} bytes");
    }
}

#[test]
fn a_second_definition_is_a_fault() {
    let faults = with_fault(|object| {
        let mut twin = object.symbols[symbol(object, "helper.ss").0 as usize].clone();
        twin.binding = 0;
        object.symbols.push(twin);
    });
    assert!(faults.iter().any(|f| f.place == "helper.ss"), "{faults:?}");
    let faults = with_fault(|object| {
        let tick = symbol(object, "tick.ss");
        object.symbols[tick.0 as usize].name = "tick".into();
    });
    assert!(faults.iter().any(|f| f.place == "tick"), "{faults:?}");
}

#[test]
fn constants_that_the_edit_changed_become_the_modules_own() {
    let mut kernel = kernel();
    let mut build = unit();
    build.data(".rodata.weights", 2, "weights", &[1, 2, 3, 4]);
    let code = build.function("user", &[0x48, 0xc7, 0xc7, 0, 0, 0, 0, 0xc3], false);
    build.relocate(code, 3, ABS32, ".rodata.weights", 0);
    let placed = crate::identity::Placed {
        addr: schedswap_kernel::address::Addr(RODATA),
        size: 4,
        section: ".rodata".into(),
        known_by: crate::identity::KnownBy::Relocation,
    };
    kernel.addresses.units.get_mut(UNIT).unwrap().insert("weights".into(), placed);
    let rewritten = rewritten(&kernel, build).unwrap();
    assert_eq!(reference(&rewritten.object, "user.ss", 3), ("weights.ss".into(), 0));
    assert!(rewritten.private_data.iter().any(|d| d.name == "weights"));
}

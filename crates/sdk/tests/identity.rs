//! The gate and the addresses on a real kernel: that of the complete work dir `SCHEDSWAP_TEST_WORK`. Skipped
//! without it.

use object::elf::STT_FUNC;
use schedswap_kernel::objects::{Object, Place};
use schedswap_kernel::vmlinux::Image;
use schedswap_sched::compile::Build;
use schedswap_sched::identity::{Error, KnownBy, State, Why, addresses, gate};
use schedswap_sdk::workdir::Workdir;
use std::path::Path;

const CORE: &str = "kernel/sched/core.c";

fn pristine() -> Option<(Image, Vec<(String, Object)>)> {
    let Some(path) = std::env::var_os("SCHEDSWAP_TEST_WORK") else {
        eprintln!("skipped: SCHEDSWAP_TEST_WORK is not set");
        return None;
    };
    let work = Workdir::open(Path::new(&path)).unwrap();
    Some((work.image().unwrap(), work.pristine(Build::Gate).unwrap()))
}

/// Section index, offset and size of a function of core.c.
fn place(object: &Object, name: &str) -> (usize, u64, u64) {
    let symbol = object.symbols.iter().find(|s| s.name == name && s.kind == STT_FUNC.0).unwrap();
    let Place::Section(section) = symbol.place else { panic!("{name} is not defined") };
    (section.0 as usize, symbol.value, symbol.size)
}

fn core(objects: &mut [(String, Object)]) -> &mut Object {
    &mut objects.iter_mut().find(|(unit, _)| unit == CORE).unwrap().1
}

#[test]
fn the_pristine_scheduler_is_vmlinuxs_and_every_symbol_has_its_place() {
    let Some((image, objects)) = pristine() else { return };
    let result = gate(&image, &objects).unwrap();
    for unit in &result.units {
        assert_eq!(unit.different().count(), 0, "{}", unit.unit);
        assert!(unit.identical() > 100 && unit.overridden().len() < 8, "{}", unit.unit);
    }
    let found = addresses(&image, &objects, &result).unwrap();
    assert_eq!(found.unplaced, []);
    assert_eq!(found.different_data, []);
    assert!(found.known_by(KnownBy::Relocation) > found.known_by(KnownBy::SymbolTable));
    // The symbol table agrees about every name that is there only once.
    let mut confirmed = 0;
    for (name, placed) in found.units.values().flatten() {
        if let Some(symbol) = image.unique_symbol(name) {
            assert_eq!(symbol.addr, placed.addr, "{name}");
            confirmed += 1;
        }
    }
    for (name, addr) in &found.externs {
        if let Some(symbol) = image.unique_symbol(name) {
            assert_eq!(symbol.addr, *addr, "{name}");
            confirmed += 1;
        }
    }
    assert!(confirmed > 2000, "only {confirmed} confirmed");
}

/// Breaks core.c's object, and returns what the gate says of `schedule`.
fn broken(change: impl FnOnce(&mut Object)) -> Option<State> {
    let (image, mut objects) = pristine()?;
    change(core(&mut objects));
    let result = gate(&image, &objects).unwrap();
    let unit = result.unit(CORE).unwrap();
    assert_eq!(unit.different().count(), 1, "no other function is blamed");
    assert!(!unit.is_identical("schedule"));
    unit.functions.get("schedule").cloned()
}

#[test]
fn one_changed_byte_closes_the_gate() {
    let state = broken(|object| {
        let (section, start, size) = place(object, "schedule");
        let section = &mut object.sections[section];
        let free = |at: &u64| section.relocations.iter().all(|r| !(r.offset..r.offset + 4).contains(at));
        let at = (start..start + size).rev().find(free).unwrap();
        section.data[at as usize] ^= 1;
    });
    assert!(matches!(state, None | Some(State::Different(Why::Code { .. }))), "{state:?}");
}

#[test]
fn a_call_to_something_else_closes_the_gate() {
    let state = broken(|object| {
        let (section, start, size) = place(object, "schedule");
        let other = object.symbols.iter().position(|s| s.name == "wake_up_process").unwrap();
        let range = start..start + size;
        let symbols = &object.symbols;
        let calls_named = |r: &&mut schedswap_kernel::objects::Relocation| {
            range.contains(&r.offset) && !symbols[r.symbol.0 as usize].name.is_empty()
        };
        let call = object.sections[section].relocations.iter_mut().find(calls_named).unwrap();
        call.symbol.0 = other as u32;
    });
    assert!(matches!(state, None | Some(State::Different(Why::Target { .. }))), "{state:?}");
}

#[test]
fn references_that_disagree_are_an_error_with_names() {
    let Some((image, mut objects)) = pristine() else { return };
    let result = gate(&image, &objects).unwrap();
    let object = core(&mut objects);
    let (section, start, size) = place(object, "schedule");
    let range = start..start + size;
    let symbols = &object.symbols;
    let to_section = object.sections.iter_mut().enumerate().find_map(|(index, s)| {
        let relocations = s.relocations.iter_mut();
        let mut of_schedule = relocations.filter(|r| index == section && range.contains(&r.offset));
        of_schedule.find(|r| symbols[r.symbol.0 as usize].name == "__stack_chk_fail" || r.addend != 0)
    });
    to_section.unwrap().addend += 8;
    let error = addresses(&image, &objects, &result).unwrap_err();
    assert!(matches!(error, Error::Disagreement { .. }) && error.to_string().contains("schedule"), "{error}");
}

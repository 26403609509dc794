//! Functions that tracers can be attached to are called through vmlinux's entry.

use super::super::fixture::{Build, Kernel, PLT32, TEXT, UNIT, kernel, unit, units};
use super::super::{Fault, Rewritten, rewrite, verify};
use super::{anchored, in_tick, reference, symbol};
use crate::boundary::Fate;
use object::elf;
use schedswap_kernel::objects::{Object, Relocation, SectionId, write};

/// Where `tick` calls itself, and `helper`.
const CALLS_ITSELF: u64 = 6;
const CALLS_HELPER: u64 = 11;

/// `tick`, which calls itself and `helper`, and has ftrace's call at its entry, as has `helper`.
fn traced_unit() -> Build {
    let mut build = unit();
    rename(&mut build, "tick", "old_tick");
    rename(&mut build, "helper", "old_helper");
    let helper = build.function("helper", &[0xe8, 0, 0, 0, 0, 0xc3], false);
    build.relocate(helper, 1, PLT32, "__fentry__", -4);
    let mut code = vec![0xe8, 0, 0, 0, 0];
    // The assembler resolves a call of the same section: its displacement is -10.
    code.extend([0xe8, 0xf6, 0xff, 0xff, 0xff, 0xe8, 0, 0, 0, 0, 0xc3]);
    let tick = build.function("tick", &code, true);
    build.relocate(tick, 1, PLT32, "__fentry__", -4);
    build.relocate(tick, CALLS_HELPER, PLT32, ".text.helper", -4);
    let mcount = build.object.sections.iter().position(|s| s.name == "__mcount_loc").unwrap();
    let mcount = SectionId(mcount as u32);
    build.object.sections[mcount.0 as usize].relocations.clear();
    for (n, function) in [".text.helper", ".text.tick"].into_iter().enumerate() {
        build.relocate(mcount, n as u64 * 8, elf::R_X86_64_64.0, function, 0);
    }
    build
}

fn rename(build: &mut Build, from: &str, to: &str) {
    build.object.symbols.iter_mut().find(|s| s.name == from).unwrap().name = to.into();
    let section = format!(".text.{from}");
    build.object.sections.iter_mut().find(|s| s.name == section).unwrap().name = format!(".text.{to}");
}

/// A kernel in which these functions have their windows after ftrace's nop.
fn traced(functions: &[&str]) -> Kernel {
    let mut kernel = kernel();
    for function in &mut kernel.boundary.functions {
        if let (Fate::Divert(site), true) = (&mut function.fate, functions.contains(&function.name.as_str()))
        {
            site.after_fentry = true;
        }
    }
    kernel
}

fn bound(kernel: &Kernel) -> Rewritten {
    let (list, binding) = (units(traced_unit()), kernel.binding());
    let rewritten = rewrite(&list, &binding).unwrap();
    assert_eq!(faults(kernel, |_| {}), []);
    rewritten
}

fn faults(kernel: &Kernel, plant: impl FnOnce(&mut Object)) -> Vec<Fault> {
    let (list, binding) = (units(traced_unit()), kernel.binding());
    let mut rewritten = rewrite(&list, &binding).unwrap();
    plant(&mut rewritten.object);
    let bytes = write(&rewritten.object).unwrap();
    verify(&bytes, &list, &binding, &rewritten).err().unwrap_or_default()
}

/// The first bytes of a module's function.
fn entry(object: &Object, name: &str) -> [u8; 5] {
    let start = object.symbols.iter().find(|s| s.name == name).unwrap().value as usize;
    let text = object.sections.iter().find(|s| s.name == ".text.ss").unwrap();
    text.data[start..start + 5].try_into().unwrap()
}

/// How many functions of the module ftrace lists.
fn listed(object: &Object) -> u64 {
    object.sections.iter().find(|s| s.name == "__mcount_loc").map_or(0, |s| s.size / 8)
}

const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];
const CALL: [u8; 5] = [0xe8, 0, 0, 0, 0];

#[test]
fn calls_go_through_the_entry_that_tracers_are_attached_to() {
    let object = bound(&traced(&["tick", "helper"])).object;
    assert_eq!(reference(&object, "tick.ss", CALLS_ITSELF), anchored(TEXT + 0x100, -4));
    assert_eq!(reference(&object, "tick.ss", CALLS_HELPER), anchored(TEXT + 0x200, -4));
    assert_eq!((entry(&object, "tick.ss"), entry(&object, "helper.ss"), listed(&object)), (NOP, NOP, 0));
}

#[test]
fn a_function_without_ftraces_nop_is_called_directly() {
    let object = bound(&traced(&["tick"])).object;
    assert_eq!(reference(&object, "tick.ss", CALLS_ITSELF), anchored(TEXT + 0x100, -4));
    assert_eq!(reference(&object, "tick.ss", CALLS_HELPER), ("helper.ss".into(), -4));
    assert_eq!((entry(&object, "tick.ss"), entry(&object, "helper.ss"), listed(&object)), (NOP, CALL, 1));
}

#[test]
fn a_function_that_the_edit_calls_otherwise_is_called_directly() {
    let mut kernel = traced(&["tick", "helper"]);
    kernel.called_otherwise.insert((UNIT.into(), "tick".into()));
    let object = bound(&kernel).object;
    assert_eq!(reference(&object, "tick.ss", CALLS_ITSELF), ("tick.ss".into(), -4));
    assert_eq!(reference(&object, "tick.ss", CALLS_HELPER), anchored(TEXT + 0x200, -4));
    assert_eq!((entry(&object, "tick.ss"), entry(&object, "helper.ss"), listed(&object)), (CALL, NOP, 1));
}

#[test]
fn planted_faults_are_caught() {
    let kernel = traced(&["tick", "helper"]);
    type Plant = fn(&mut Object);
    let plants: [(&str, Plant, &str); 5] = [
        (
            "a call past the entry",
            |o| {
                let helper = symbol(o, "helper.ss");
                let call = in_tick(o, CALLS_HELPER);
                *call = Relocation { symbol: helper, addend: -4, ..*call };
            },
            "past vmlinux's entry",
        ),
        (
            "a call of itself past the entry",
            |o| {
                let tick = symbol(o, "tick.ss");
                let call = in_tick(o, CALLS_ITSELF);
                *call = Relocation { symbol: tick, addend: -4, ..*call };
            },
            "past vmlinux's entry",
        ),
        ("a call of another entry", |o| in_tick(o, CALLS_HELPER).addend -= 0x100, "amounts to"),
        (
            "an entry of ftrace's table",
            |o| {
                let tick = symbol(o, "tick.ss");
                let mut table = o.sections.iter().find(|s| s.name == "__jump_table").unwrap().clone();
                table.name = "__mcount_loc".into();
                (table.data, table.size, table.entry_size) = (vec![0; 8], 8, 0);
                let kind = elf::R_X86_64_64.0;
                table.relocations = vec![Relocation { offset: 0, kind, symbol: tick, addend: 0 }];
                o.sections.push(table);
            },
            "entries, the compiler wrote",
        ),
        (
            "a call of ftrace",
            |o| {
                let (tick, anchor) = (symbol(o, "tick.ss"), symbol(o, "_printk"));
                let start = o.symbols[tick.0 as usize].value;
                let text = o.sections.iter_mut().find(|s| s.name == ".text.ss").unwrap();
                text.data[start as usize..start as usize + 5].copy_from_slice(&CALL);
                let call = Relocation { offset: start + 1, kind: PLT32, symbol: anchor, addend: 0x40 - 4 };
                text.relocations.push(call);
                text.relocations.sort_by_key(|r| r.offset);
            },
            "still calls ftrace",
        ),
    ];
    for (what, plant, said) in plants {
        let found = faults(&kernel, plant);
        assert!(found.iter().any(|fault| fault.what.contains(said)), "{what}: {found:?}");
    }
}

#[test]
fn a_call_of_a_function_that_the_module_does_not_lead_to_is_caught() {
    let kernel = traced(&["tick", "helper"]);
    let (list, binding) = (units(traced_unit()), kernel.binding());
    let mut rewritten = rewrite(&list, &binding).unwrap();
    rewritten.targets.remove(&(UNIT.to_owned(), "helper".to_owned()));
    let bytes = write(&rewritten.object).unwrap();
    let found = verify(&bytes, &list, &binding, &rewritten).err().unwrap_or_default();
    assert!(found.iter().any(|fault| fault.what.contains("branches to vmlinux's helper")), "{found:?}");
}

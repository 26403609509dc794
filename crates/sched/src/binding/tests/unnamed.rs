//! What code refers to that has no name of its own: entries of tables, what the sanitizer says of a place, and a name
//! that something else may be in force for.

use super::super::fixture::{ABS32, ABS64, Build, PC32, PLT32, TEXT, kernel, unit};
use super::{anchored, reference, rewritten, with_fault_in};
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::objects::{Object, Place, Relocation, Section};

/// The fixture's unit, where `fresh` hands over the second of two entries (of `sleeper`, which stays, and of its own),
/// and `helper` something without a symbol, which names a file.
fn unit_with_unnamed() -> Build {
    let mut b = unit();
    let bugs = b.section("__bug_table", 3, &[0; 24]);
    b.relocate(bugs, 0, PC32, ".text.sleeper", 3);
    b.relocate(bugs, 12, PC32, ".text.fresh", 2);
    b.object.sections[bugs.0 as usize].data[8] = 1;
    b.object.sections[bugs.0 as usize].data[20] = 2;
    let place = b.section(".data..Lubsan_data1", 3, &[0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0]);
    b.relocate(place, 0, ABS64, ".rodata.tick.str1.1", 7);
    refer(&mut b, "fresh", ABS32, "__bug_table", 12);
    refer(&mut b, "helper", ABS32, ".data..Lubsan_data1", 0);
    b
}

/// Makes a function's only field refer to something.
fn refer(b: &mut Build, function: &str, kind: u32, to: &str, addend: i64) {
    let section = b.object.sections.iter().position(|s| s.name == format!(".text.{function}")).unwrap();
    b.object.sections[section].relocations.clear();
    b.relocate(schedswap_kernel::objects::SectionId(section as u32), 3, kind, to, addend);
}

fn section<'o>(object: &'o mut Object, name: &str) -> &'o mut Section {
    object.sections.iter_mut().find(|s| s.name == name).unwrap()
}

fn in_function<'o>(object: &'o mut Object, function: &str) -> &'o mut Relocation {
    let start = object.symbols.iter().find(|s| s.name == function).unwrap().value;
    section(object, ".text.ss").relocations.iter_mut().find(|r| r.offset == start + 3).unwrap()
}

#[test]
fn code_hands_over_the_entry_that_describes_it() {
    let object = rewritten(&kernel(), unit_with_unnamed()).unwrap().object;
    let bugs = object.sections.iter().find(|s| s.name == "__bug_table").unwrap();
    assert_eq!((bugs.size, bugs.data[8]), (12, 2), "the entry of what stays is not carried");
    assert_eq!(reference(&object, "fresh.ss", 3), (String::new(), 0), "the entry that is left is the first");
    assert!(with_fault_in(unit_with_unnamed(), |_| {}).is_empty());
}

#[test]
fn an_entry_for_code_that_is_not_carried_cannot_be_handed_over() {
    let mut build = unit_with_unnamed();
    refer(&mut build, "fresh", ABS32, "__bug_table", 0);
    let refusal = rewritten(&kernel(), build).err().unwrap().to_string();
    assert!(refusal.contains("__bug_table+0x0") && refusal.contains("does not carry"), "{refusal}");
}

#[test]
fn planted_faults_in_what_has_no_name_are_caught() {
    type Plant = fn(&mut Object);
    let faults: [(&str, Plant); 4] = [
        ("the inside of an entry", |o| in_function(o, "fresh.ss").addend += 4),
        ("what comes before a place", |o| in_function(o, "helper.ss").addend -= 8),
        ("a place on another line", |o| {
            let data = &mut section(o, ".data").data;
            let line = data.windows(2).position(|pair| pair == [9, 0]).unwrap();
            data[line] = 8;
        }),
        ("a place in another file", |o| {
            let relocations = &mut section(o, ".data").relocations;
            relocations.iter_mut().find(|r| r.kind == ABS64).unwrap().addend += 1;
        }),
    ];
    for (what, plant) in faults {
        assert!(!with_fault_in(unit_with_unnamed(), plant).is_empty(), "{what} was not noticed");
    }
}

/// `tick` calls `fallback`, which is weak, and what `helper` is called too.
fn unit_with_alias() -> Build {
    let mut b = unit();
    let section = b.object.sections.iter().position(|s| s.name == ".text.helper").unwrap();
    let place = Place::Section(schedswap_kernel::objects::SectionId(section as u32));
    b.symbol("fallback", place, 0, 8, elf::STT_FUNC.0, true);
    b.object.symbols.last_mut().unwrap().binding = elf::STB_WEAK.0;
    let tick = b.object.sections.iter().position(|s| s.name == ".text.tick").unwrap();
    let tick = schedswap_kernel::objects::SectionId(tick as u32);
    b.object.sections[tick.0 as usize].relocations.retain(|r| r.offset != 11);
    b.relocate(tick, 11, PLT32, "fallback", -4);
    b
}

#[test]
fn a_weak_alias_is_what_vmlinux_has_in_force() {
    let mut kernel = kernel();
    let call = |kernel: &_| {
        let object = rewritten(kernel, unit_with_alias()).unwrap().object;
        assert_eq!(reference(&object, "tick.ss", 6), ("helper.ss".into(), -4), "by its other name");
        reference(&object, "tick.ss", 11)
    };
    assert_eq!(call(&kernel), ("helper.ss".into(), -4), "nothing else is in force");
    let sleeper = kernel.image.elf.symbols.iter().find(|s| s.name == "sleeper").unwrap();
    let elsewhere = schedswap_kernel::vmlinux::Symbol {
        name: "fallback".into(),
        addr: Addr(TEXT + 0x700),
        ..sleeper.clone()
    };
    let id = schedswap_kernel::vmlinux::SymbolId(kernel.image.elf.symbols.len() as u32);
    kernel.image.elf.symbols.push(elsewhere);
    kernel.image.elf.by_name.insert("fallback".into(), vec![id]);
    assert_eq!(call(&kernel), anchored(TEXT + 0x700, -4), "another unit's overrides it");
}

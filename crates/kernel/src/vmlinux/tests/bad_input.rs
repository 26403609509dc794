//! Whatever the file holds, the answer is an image or an error, never a panic.

use super::fixture;
use crate::vmlinux::{Error, Identified, Image, Sidecars, open, parse};
use object::LittleEndian;
use object::elf::{FileHeader64, SectionHeader64};
use proptest::prelude::*;
use std::path::Path;

const SHT_PROGBITS: u32 = 1;
const SHT_SYMTAB: u32 = 2;
const SHT_NOTE: u32 = 7;

fn read(bytes: &[u8]) -> Result<Image, Error> {
    parse(Path::new("vmlinux"), bytes.to_vec())
}

/// What it says when it refuses `bytes`.
fn refusal(bytes: &[u8]) -> String {
    match read(bytes) {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

/// The fixture with one section's name blotted out, as if it were not there.
fn without_section(name: &str) -> Vec<u8> {
    let mut bytes = fixture::DWARF5.clone();
    let needle = [b"\0", name.as_bytes(), b"\0"].concat();
    let at = bytes.windows(needle.len()).rposition(|w| w == needle).expect("the section has a name");
    bytes[at + 1] = b'!';
    bytes
}

/// The fixture with a change to every section header of that type.
fn with_section_type(from: u32, to: u32) -> Vec<u8> {
    let mut bytes = fixture::DWARF5.clone();
    let table = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
    for header in bytes[table..].chunks_exact_mut(size_of::<SectionHeader64<LittleEndian>>()) {
        if header[4..8] == from.to_le_bytes() {
            header[4..8].copy_from_slice(&to.to_le_bytes());
        }
    }
    bytes
}

#[test]
fn files_that_are_not_a_vmlinux() {
    assert_says(&refusal(b""), &["not an ELF file", "empty", "debug package"]);
    assert_says(&refusal(b"MZ\0\0 a bootable image"), &["not an ELF file", "4d, 5a", "not a bootable image"]);
    assert_says(&refusal(b"\x7fELF\x02\x01"), &["truncated", "the ELF header"]);
    let changed = |at: usize, value: u8| {
        let mut bytes = fixture::DWARF5.clone();
        bytes[at] = value;
        refusal(&bytes)
    };
    assert_says(&changed(4, 1), &["32-bit", "expected a 64-bit"]);
    assert_says(&changed(5, 2), &["big-endian"]);
    assert_says(&changed(16, 1), &["relocatable object"]);
    assert_says(&changed(16, 4), &["core dump"]);
    assert_says(&changed(18, 21), &["ELF machine 21", "x86-64 or arm64"]);
}

#[test]
fn a_stripped_vmlinux_names_the_package_to_install() {
    let message = refusal(&with_section_type(SHT_SYMTAB, SHT_PROGBITS));
    assert_says(&message, &["no symbol table", "stripped", "-dbg", "kernel-debuginfo"]);
    let message = refusal(&without_section(".debug_info"));
    assert_says(&message, &["no debug information", ".debug_info", "-dbg", "kernel-debuginfo"]);
}

/// Each stage needs only what it reads: a kernel without debug information can still be identified.
#[test]
fn what_is_missing_is_missed_by_the_stage_that_reads_it() {
    let identified = Identified::parse(Path::new("vmlinux"), without_section(".debug_info")).unwrap();
    assert_eq!(identified.release(), "6.66.0-test-amd64");
    assert_eq!(identified.exports().get("pick_next"), Some(&true));
    assert!(identified.elf().unique_symbol("schedule").is_some());
    let refusal = identified.describe(&Sidecars::new()).err().expect("it cannot be described");
    assert!(matches!(refusal, Error::NoDwarf { section: ".debug_info", .. }), "{refusal}");

    let identified = Identified::parse(Path::new("vmlinux"), fixture::DWARF5.clone()).unwrap();
    let sidecars = Sidecars::from([("kernel/livepatch/transition.c".to_owned(), Default::default())]);
    let described = identified.describe(&sidecars).unwrap();
    let names: Vec<&str> = described.units().iter().map(|unit| unit.name.as_str()).collect();
    assert_eq!(names, ["kernel/livepatch/transition.c", "kernel/sched/core.c"]);
}

#[test]
fn an_executable_that_is_not_a_kernel() {
    let this_test = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert_says(&refusal(&this_test), &["not a usable Linux kernel", "linux_banner"]);
    assert_says(&refusal(&with_section_type(SHT_NOTE, SHT_PROGBITS)), &["build-id"]);
}

#[test]
fn compressed_debug_information_says_how_to_decompress_it() {
    const SHF_COMPRESSED: u64 = 1 << 11;
    let mut bytes = fixture::DWARF5.clone();
    let image = read(&bytes).unwrap();
    let index = image.sections.iter().position(|s| s.name == ".debug_info").unwrap();
    let table = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
    let flags = table + index * size_of::<SectionHeader64<LittleEndian>>() + 8;
    bytes[flags..flags + 8].copy_from_slice(&SHF_COMPRESSED.to_le_bytes());
    assert_says(&refusal(&bytes), &[".debug_info is compressed", "objcopy --decompress-debug-sections"]);
}

#[test]
fn a_kernel_without_the_scheduler() {
    let mut bytes = fixture::DWARF5.clone();
    while let Some(at) = bytes.windows(6).position(|w| w == b"core.c") {
        bytes[at] = b'k';
    }
    assert_says(&refusal(&bytes), &["kernel/sched/core.c", "2 units"]);
}

#[test]
fn files_that_cannot_be_opened() {
    let open_refusal = |path: &Path| open(path).err().expect("it cannot be read").to_string();
    assert_says(&open_refusal(Path::new("/nowhere/vmlinux")), &["cannot read /nowhere/vmlinux"]);
    let dir = tempfile::tempdir().unwrap();
    assert_says(&open_refusal(dir.path()), &["cannot read"]);
    let empty = dir.path().join("vmlinux");
    std::fs::write(&empty, b"").unwrap();
    assert_says(&open_refusal(&empty), &["not an ELF file"]);
}

#[test]
fn cut_off_anywhere_it_is_refused() {
    let whole = &*fixture::DWARF5;
    let header = size_of::<FileHeader64<LittleEndian>>();
    let lengths = (0..=header).chain((header..whole.len()).step_by(97)).chain([whole.len() - 1]);
    for len in lengths {
        let message = refusal(&whole[..len]);
        if len > 4 {
            assert_says(&message, &["truncated"]);
        }
    }
}

/// Writes `values` over the file, each at a place anywhere in it.
fn damaged(original: &[u8], values: &[(prop::sample::Index, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for (place, value) in values {
        let start = place.index(bytes.len());
        let end = bytes.len().min(start + value.len());
        bytes[start..end].copy_from_slice(&value[..end - start]);
    }
    bytes
}

/// Numbers that are likely to break something, besides random ones.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        any::<[u8; 4]>().prop_map(Vec::from),
        any::<[u8; 8]>().prop_map(Vec::from),
        Just(vec![0xff; 8]),
        Just(vec![0; 8]),
        Just(i64::MAX.to_le_bytes().to_vec()),
        Just(i32::MIN.to_le_bytes().to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damage_never_panics(
        version4 in any::<bool>(),
        values in prop::collection::vec((any::<prop::sample::Index>(), value()), 1..12),
    ) {
        let original = if version4 { &*fixture::DWARF4 } else { &*fixture::DWARF5 };
        // Either answer will do.
        let _ = read(&damaged(original, &values));
    }

    #[test]
    fn damaged_headers_never_panic(
        values in prop::collection::vec((any::<prop::sample::Index>(), value()), 1..4),
    ) {
        let original = &*fixture::DWARF5;
        let table = u64::from_le_bytes(original[40..48].try_into().unwrap()) as usize;
        let mut bytes = original.clone();
        let headers = damaged(&original[table..], &values);
        bytes.truncate(table);
        bytes.extend(headers);
        let _ = read(&bytes);
    }
}

//! Indirect-branch tracking: what is reached by its address begins with `endbr`, and is not sealed.

use super::super::fixture::{Build, FUNCTIONS, Kernel, TEXT, kernel, unit, units};
use crate::binding::{Fault, rewrite, verify};
use object::elf;
use schedswap_kernel::address::Addr;
use schedswap_kernel::objects::write;
use schedswap_kernel::vmlinux::{self, FileBytes};

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const SEALS: u64 = TEXT + 0x10_0000;

/// The fixture's kernel with IBT: each function but those in `without` has its `endbr`, those in `sealed` are listed.
fn kernel_with_ibt(without: &[&str], sealed: &[&str]) -> Kernel {
    let mut kernel = kernel();
    let FileBytes::Owned(bytes) = &mut kernel.image.elf.map else { unreachable!("the fixture's is") };
    for (name, offset, _) in FUNCTIONS.iter().filter(|(name, ..)| !without.contains(name)) {
        assert!(*offset < 0x1000, "{name}");
        bytes[*offset as usize..][..4].copy_from_slice(&ENDBR64);
    }
    let start = bytes.len();
    for (n, name) in sealed.iter().enumerate() {
        let (_, offset, _) = FUNCTIONS.iter().find(|f| f.0 == *name).unwrap();
        let distance = (TEXT + offset).wrapping_sub(SEALS + 4 * n as u64) as i32;
        bytes.extend_from_slice(&distance.to_le_bytes());
    }
    kernel.image.elf.sections.push(vmlinux::Section {
        name: ".ibt_endbr_seal".into(),
        kind: elf::SHT_PROGBITS.0,
        flags: 2,
        addr: Addr(SEALS),
        size: 4 * sealed.len() as u64,
        file: start..bytes.len(),
    });
    kernel
}

/// The fixture's unit; its new function, whose address is in a class and in itself, begins with `endbr`.
fn unit_with_endbr() -> Build {
    let mut b = unit();
    let fresh = b.object.sections.iter_mut().find(|s| s.name == ".text.fresh").unwrap();
    fresh.data.splice(0..0, ENDBR64);
    fresh.size += 4;
    fresh.relocations[0].offset += 4;
    b.object.symbols.iter_mut().find(|s| s.name == "fresh").unwrap().size += 4;
    b
}

fn faults(kernel: &Kernel, build: Build) -> Vec<Fault> {
    let list = units(build);
    let rewritten = rewrite(&list, &kernel.binding()).unwrap();
    let bytes = write(&rewritten.object).unwrap();
    verify(&bytes, &list, &kernel.binding(), &rewritten).err().unwrap_or_default()
}

#[test]
fn addresses_may_be_taken_of_what_has_its_endbr() {
    // Nobody takes the address of `outsider`, so that it may be sealed.
    assert_eq!(faults(&kernel_with_ibt(&["outsider.isra.0"], &["outsider.isra.0"]), unit_with_endbr()), []);
    assert_eq!(faults(&kernel(), unit()), [], "without IBT nothing is asked");
}

#[test]
fn planted_faults_of_landing_are_caught() {
    for (what, kernel, build) in [
        ("sealed", kernel_with_ibt(&[], &["outsider.isra.0", "helper"]), unit_with_endbr()),
        ("no endbr", kernel_with_ibt(&["helper"], &[]), unit_with_endbr()),
        ("no endbr", kernel_with_ibt(&[], &[]), unit()),
    ] {
        let faults = faults(&kernel, build);
        assert!(!faults.is_empty() && faults.iter().all(|f| f.what.contains(what)), "{what}: {faults:?}");
    }
}

//! The contract of a real kernel, whose debug vmlinux `SCHEDSWAP_TEST_VMLINUX` names.

use super::super::{Anchor, Base, CalleeSaved, derive, header};
use schedswap_kernel::arch;
use schedswap_kernel::vmlinux::{self, Image, Machine};
use std::path::PathBuf;
use std::sync::OnceLock;

/// The kernel to test with; without one the test says so and proves nothing.
pub fn image() -> Option<&'static Image> {
    static IMAGE: OnceLock<Option<Image>> = OnceLock::new();
    IMAGE.get_or_init(open).as_ref()
}

fn open() -> Option<Image> {
    let Some(path) = std::env::var_os("SCHEDSWAP_TEST_VMLINUX").filter(|path| !path.is_empty()) else {
        eprintln!("SKIPPED: SCHEDSWAP_TEST_VMLINUX names no debug vmlinux");
        return None;
    };
    Some(vmlinux::open(&PathBuf::from(path)).expect("the debug vmlinux opens"))
}

#[test]
fn contract_of_a_stock_kernel_is_whole() {
    let Some(image) = image() else { return };
    let contract = derive(image).expect("a stock kernel has a springboard");
    println!("{contract}");

    let symbol = image.unique_symbol(&contract.function).expect("its symbol");
    assert!((symbol.addr..symbol.end()).contains(&contract.springboard));
    // Each register is accounted for once.
    let mut registers: Vec<_> = contract.slots.iter().map(|slot| slot.register).collect();
    registers.extend(&contract.kept);
    registers.sort();
    assert!(registers.iter().copied().eq(CalleeSaved::of(image.machine)), "{registers:?}");
    let highest = arch::of(image.machine).abi().entry_sp - 8;
    for slot in &contract.slots {
        assert!((contract.stack_pointer..=highest).contains(&slot.offset), "{slot:?} lies in the frame");
    }
    // Distributions build with the stack protector, and x86-64, since 4.14, with ORC.
    let canary = contract.canary.expect("a canary");
    assert!((contract.stack_pointer..=highest).contains(&canary.offset));
    assert_eq!(contract.unwind_confirmed, image.machine == Machine::X86_64);
    assert!(contract.calls.iter().any(|name| name.starts_with("finish_task_switch")), "{:?}", contract.calls);

    let (at, bytes) = (contract.springboard, image.bytes(contract.springboard, 5).expect("its bytes"));
    match image.machine {
        Machine::X86_64 => {
            let switch = image.unique_symbol("__switch_to_asm").expect("the switch").addr;
            let distance = i32::from_le_bytes(bytes[1..5].try_into().expect("four bytes"));
            assert_eq!((bytes[0], (at + 5).offset(distance.into())), (0xe8, switch), "it is the call itself");
        }
        Machine::Aarch64 => {
            let switch = image.unique_symbol("__switch_to").expect("the switch").addr;
            let word = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
            let words = i64::from((word << 6).cast_signed() >> 6);
            assert_eq!((word >> 26, at.offset(words * 4)), (0b10_0101, switch), "it is the call itself");
        }
    }

    let json = serde_json::to_string(&contract).expect("serialises");
    assert_eq!(serde_json::from_str::<super::super::Contract>(&json).expect("reads back"), contract);
}

#[test]
fn header_points_at_the_springboard() {
    let Some(image) = image() else { return };
    let contract = derive(image).expect("a stock kernel has a springboard");
    let anchor = image.unique_symbol("_printk").or(image.unique_symbol("printk")).expect("the anchor");
    let text = header(&contract, Anchor { name: &anchor.name, addr: anchor.addr });
    println!("{text}");
    let line =
        text.lines().find_map(|line| line.strip_prefix("#define SS_SPRINGBOARD ")).expect("a definition");
    let mut words = line.split(' ');
    assert_eq!(words.next(), Some(anchor.name.as_str()));
    let sign = words.next();
    let distance = words.next().and_then(|word| word.strip_prefix("0x")).expect("a distance in hex");
    let distance =
        i64::from_str_radix(distance, 16).expect("a number") * if sign == Some("-") { -1 } else { 1 };
    assert_eq!(anchor.addr.offset(distance), contract.springboard);
    assert_eq!(text.contains("#define SS_BASE_RBP 1"), contract.base == Base::Rbp);
    assert_eq!(text.contains("#define SS_FRAME_RECORD "), matches!(contract.base, Base::X29(_)));
}

//! The contract as the assembler reads it.

use super::contract::{Base, CalleeSaved, Contract, Guard, Slot};
use schedswap_kernel::address::Addr;
use std::fmt::Write;

/// An exported symbol that addresses in vmlinux are written relative to, so that KASLR costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct Anchor<'a> {
    /// Its name: `_printk`, or `printk` before 5.15.
    pub name: &'a str,
    /// Its address.
    pub addr: Addr,
}

impl Anchor<'_> {
    /// An address as the assembler writes it: relative to the anchor.
    fn anchored(self, addr: Addr) -> String {
        let distance = addr.distance_from(self.addr);
        let sign = if distance < 0 { '-' } else { '+' };
        format!("{} {sign} {:#x}", self.name, distance.unsigned_abs())
    }
}

/// `springboard.h` for `stub.S`, which says what each name means.
pub fn header(contract: &Contract, anchor: Anchor<'_>) -> String {
    let mut text = String::new();
    // The contract's own lines, to read when the stub is debugged.
    text.push_str("/* Generated from vmlinux:\n");
    for line in contract.to_string().lines() {
        let _ = writeln!(text, " *   {line}");
    }
    text.push_str(" */\n#ifndef SS_SPRINGBOARD_H\n#define SS_SPRINGBOARD_H\n\n");
    let mut define = |name: &str, value: &str| {
        let _ = writeln!(text, "{}", format!("#define {name} {value}").trim_end());
    };
    define_frame(contract, anchor, &mut define);
    define_registers(contract, &mut define);
    text.push_str("\n#endif\n");
    text
}

/// Where the springboard is, the frame's shape, and its canary.
fn define_frame(contract: &Contract, anchor: Anchor<'_>, define: &mut impl FnMut(&str, &str)) {
    define("SS_SPRINGBOARD", &anchor.anchored(contract.springboard));
    match contract.base {
        Base::Rsp => define("SS_BASE_RBP", "0"),
        Base::Rbp => define("SS_BASE_RBP", "1"),
        Base::X29(at) => {
            define("SS_FRAME_RECORD", &contract.from_stack_pointer(at).to_string());
            define("SS_SIGNED", if contract.signed { "1" } else { "0" });
        }
    }
    define("SS_FRAME_SIZE", &contract.frame_size().to_string());
    define("SS_KEPT_SIZE", &contract.kept_size().to_string());
    if let Some(canary) = &contract.canary {
        let operand = match canary.guard {
            Guard::Offset(offset) => format!("%gs:{offset:#x}"),
            Guard::Address(addr) => format!("%gs:({})(%rip)", anchor.anchored(addr)),
            Guard::Thread(offset) => offset.to_string(),
        };
        define("SS_GUARD", &operand);
        define("SS_CANARY", &contract.from_stack_pointer(canary.offset).to_string());
    }
}

/// What becomes of each callee-saved register: one call of a macro `op` for each.
fn define_registers(contract: &Contract, define: &mut impl FnMut(&str, &str)) {
    // On x86-64 a frame base is pushed, on arm64 the frame record is stored by itself.
    let apart = |slot: &&Slot| match contract.base {
        Base::Rsp => false,
        Base::Rbp => slot.register == CalleeSaved::Rbp,
        Base::X29(_) => matches!(slot.register, CalleeSaved::X29 | CalleeSaved::X30),
    };
    let slots: Vec<String> = contract
        .slots
        .iter()
        .filter(|slot| !apart(slot))
        .map(|slot| format!("op({}, {})", slot.register, contract.from_stack_pointer(slot.offset)))
        .collect();
    let kept: Vec<String> = contract.kept.iter().map(|register| format!("op({register})")).collect();
    let constants: Vec<String> = contract
        .constants
        .iter()
        .map(|constant| format!("op({}, {})", constant.register, constant.value))
        .collect();
    let back: Vec<String> = kept.iter().rev().cloned().collect();
    define("SS_EACH_SLOT(op)", &slots.join(" "));
    define("SS_EACH_CONSTANT(op)", &constants.join(" "));
    define("SS_EACH_KEPT(op)", &kept.join(" "));
    define("SS_EACH_KEPT_BACK(op)", &back.join(" "));
}

//! The real stub, assembled for contracts of all shapes, run together with the tails they were derived from.
//!
//! The kernel's headers are replaced by a few lines, so that these tests need an assembler only; with the
//! kernel's own headers and objtool's unwind table the same proof runs whenever a module is built.

use super::super::contract::Contract;
use super::super::error::Error;
use super::super::header::{Anchor, header};
use super::super::paths::Code;
use super::super::prove::prove_with;
use super::super::{derive, prove};
use super::assembly::*;
use schedswap_kernel::address::Addr;
use std::path::Path;
use std::process::Command;

const HEADERS: &[(&str, &str)] = &[
    (
        "linux/linkage.h",
        "#define SYM_START(name, linkage...) .globl name; name:\n\
         #define SYM_INNER_LABEL(name, linkage) .globl name; name:\n\
         #define SYM_FUNC_END(name)\n\
         #define SYM_CODE_START_LOCAL_NOALIGN(name) name:\n\
         #define SYM_CODE_END(name)\n\
         #define RET ret\n",
    ),
    ("asm/asm.h", ""),
    ("asm/nospec-branch.h", ""),
    ("asm/percpu.h", "#define PER_CPU_VAR(variable) %gs:variable\n"),
    (
        "asm/unwind_hints.h",
        ".macro UNWIND_HINT_SAVE\n.endm\n.macro UNWIND_HINT_RESTORE\n.endm\n.macro UNWIND_HINT_FUNC\n.endm\n",
    ),
];

/// Assembles `stub.S` with a `springboard.h` of this text.
fn assemble_stub(springboard_h: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    };
    HEADERS.iter().for_each(|(name, text)| put(name, text));
    put("springboard.h", springboard_h);
    let stub = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime/arch/x86/stub.S");
    let object = dir.path().join("stub.o");
    let output = Command::new("gcc")
        .args(["-D__ASSEMBLY__", "-c", "-o"])
        .arg(&object)
        .arg("-I")
        .arg(dir.path())
        .arg(&stub)
        .output()
        .expect("gcc runs: the kernel is built with it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(object).expect("the object")
}

fn address_of(name: &str) -> Option<Addr> {
    (name == "_printk").then_some(PRINTK)
}

fn header_of(contract: &Contract) -> String {
    header(contract, Anchor { name: "_printk", addr: PRINTK })
}

fn prove_text(contract: &Contract, text: &str, code: &Code<'_>) -> Result<usize, Error> {
    prove_with(contract, &assemble_stub(text), code, &address_of).map(|proof| proof.returns)
}

#[test]
fn stub_keeps_contracts_of_all_shapes() {
    let stack_protector_off: Vec<Piece> = with_frame_base()
        .into_iter()
        .filter(|piece| ![LOAD_CANARY, COMPARE_CANARY, Piece::Jne("fail")].contains(piece))
        .collect();
    // r13 left alone by a tail with a frame base
    let kept = replacing(with_frame_base(), POP_R13, &[Piece::B(&[0x48, 0x83, 0xc4, 0x08])]);
    // The guard as a symbol that moves with the kernel.
    let guard = Piece::B(&[0x65, 0x48, 0x2b, 0x05, 0, 0x10, 0, 0]);
    let symbol = replacing(with_frame_base(), COMPARE_CANARY, &[guard]);
    for pieces in [with_frame_base(), without_frame_base(), stack_protector_off, kept, symbol] {
        let assembled = assemble(&pieces);
        let contract = contract_of(&pieces).expect("a contract");
        let returns = prove_text(&contract, &header_of(&contract), &assembled.code());
        assert_eq!(returns, Ok(1), "{contract}");
    }
}

#[test]
fn stub_that_breaks_its_contract_is_caught() {
    let assembled = assemble(&with_frame_base());
    let contract = contract_of(&with_frame_base()).expect("a contract");
    let text = header_of(&contract);
    let springboard = format!("{:#x}", PRINTK.distance_from(contract.springboard));
    for (right, wrong, named) in [
        ("op(rbx, 32) op(r12, 40)", "op(rbx, 40) op(r12, 32)", "rbx"),
        (" op(r15, 64)", "", "r15"),
        ("#define SS_CANARY 24", "#define SS_CANARY 16", "canary"),
        ("#define SS_GUARD %gs:0x28", "#define SS_GUARD %gs:0x30", "canary"),
        ("#define SS_FRAME_SIZE 80", "#define SS_FRAME_SIZE 88", "rsp"),
        ("#define SS_BASE_RBP 1", "#define SS_BASE_RBP 0", "rbp"),
        (springboard.as_str(), "0x7ff0", "springboard"),
    ] {
        assert!(text.contains(right), "{right} in\n{text}");
        match prove_text(&contract, &text.replace(right, wrong), &assembled.code()) {
            Err(Error::Broken { why }) => assert!(why.contains(named), "{wrong}: {why}"),
            other => panic!("{wrong}: {other:?}"),
        }
    }
}

#[test]
fn contract_that_the_tail_does_not_have_is_caught() {
    let assembled = assemble(&with_frame_base());
    let right = contract_of(&with_frame_base()).expect("a contract");
    let mut shifted = right.clone();
    shifted.stack_pointer -= 8;
    let mut swapped = right;
    let (rbx, r12) = (swapped.slots[0].offset, swapped.slots[2].offset);
    (swapped.slots[0].offset, swapped.slots[2].offset) = (r12, rbx);
    for (contract, named) in [(shifted, "stack pointer"), (swapped, "rbx")] {
        match prove_text(&contract, &header_of(&contract), &assembled.code()) {
            Err(Error::Broken { why }) => assert!(why.contains(named), "{why}"),
            other => panic!("{named}: {other:?}"),
        }
    }
}

#[test]
fn stub_keeps_the_contract_of_a_stock_kernel() {
    let Some(image) = super::kernel::image() else { return };
    let contract = derive(image).expect("a stock kernel has a springboard");
    let anchor = image.unique_symbol("_printk").or(image.unique_symbol("printk")).expect("the anchor");
    let text = header(&contract, Anchor { name: &anchor.name, addr: anchor.addr });
    let proof = prove(&contract, &assemble_stub(&text), image).expect("the stub keeps it");
    assert!(proof.returns >= 1);
}

/// With an object that the kernel's own build made and objtool went over, the unwinder is followed as well.
#[test]
fn unwinder_finds_its_way_through_a_kernel_object() {
    let (Some(image), Some(object)) = (super::kernel::image(), std::env::var_os("SCHEDSWAP_TEST_STUB"))
    else {
        eprintln!("SKIPPED: SCHEDSWAP_TEST_STUB names no stub.o");
        return;
    };
    let contract = derive(image).expect("a stock kernel has a springboard");
    let object = std::fs::read(object).expect("the stub's object");
    let proof = prove(&contract, &object, image).expect("the stub keeps it");
    assert!(proof.unwound > 0, "{proof:?}");
}

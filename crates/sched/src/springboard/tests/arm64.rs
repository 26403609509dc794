//! The same for arm64: the smallest `__schedule` that switches, as gcc 12 compiles it, every fault that must be
//! refused, and the real stub run together with it.

use super::super::contract::{Base, CalleeSaved, Canary, Contract, Guard, Slot};
use super::super::derive::derive_from;
use super::super::error::Error;
use super::super::header::{Anchor, header};
use super::super::paths::{Callee, Chunk, Code};
use super::super::prove::prove_with;
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch;
use schedswap_kernel::vmlinux::Machine;
use std::path::Path;
use std::process::Command;

const ENTRY: Addr = Addr(0xffff_8000_0800_0000);
const SWITCH: Addr = Addr(0xffff_8000_0801_0000);
const FINISH_TASK_SWITCH: Addr = Addr(0xffff_8000_0801_0100);
const STACK_CHK_FAIL: Addr = Addr(0xffff_8000_0801_0200);
const STRANGER: Addr = Addr(0xffff_8000_0801_0300);
const PRINTK: Addr = Addr(0xffff_8000_0802_0000);

/// An instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Piece {
    /// As it is.
    W(u32),
    /// `bl` of something outside.
    Call(Addr),
    /// `b.ne` to the call of `__stack_chk_fail`, which is last.
    Fail,
}
use Piece::*;

const PACIASP: Piece = W(0xd503_233f);
const AUTIASP: Piece = W(0xd503_23bf);
/// `ldp x19, x20, [sp, #48]`
const RESTORE_X19_X20: Piece = W(0xa943_53f3);
/// `ldp x29, x30, [sp, #32]`
const RESTORE_RECORD: Piece = W(0xa942_7bfd);
/// `add sp, sp, #64`
const DROP_FRAME: Piece = W(0x9101_03ff);
/// `ldur x2, [x29, #-8]`
const LOAD_CANARY: Piece = W(0xf85f_83a2);
/// `ldr x1, [x0, #1360]`
const LOAD_GUARD: Piece = W(0xf942_a801);
/// `subs x2, x2, x1`
const COMPARE: Piece = W(0xeb01_0042);
/// `mov x0, x20`, which is the previous thread here
const PREVIOUS: Piece = W(0xaa14_03e0);

/// As gcc 12 compiles 6.1, with two of the callee-saved registers in use.
fn schedule() -> Vec<Piece> {
    vec![
        PACIASP,
        W(0xd101_03ff), // sub sp, sp, #64
        W(0xd538_4101), // mrs x1, sp_el0
        W(0xa902_7bfd), // stp x29, x30, [sp, #32]
        W(0x9100_83fd), // add x29, sp, #32
        W(0xa903_53f3), // stp x19, x20, [sp, #48]
        W(0xf942_a820), // ldr x0, [x1, #1360]
        W(0xf81f_83a0), // stur x0, [x29, #-8]
        PREVIOUS,
        Call(SWITCH),
        Call(FINISH_TASK_SWITCH),
        W(0xd538_4100), // mrs x0, sp_el0
        LOAD_CANARY,
        LOAD_GUARD,
        COMPARE,
        W(0xd280_0001), // mov x1, #0
        Fail,
        RESTORE_RECORD,
        RESTORE_X19_X20,
        DROP_FRAME,
        AUTIASP,
        W(0xd65f_03c0), // ret
        Call(STACK_CHK_FAIL),
    ]
}

fn replacing(pieces: &[Piece], old: Piece, new: &[Piece]) -> Vec<Piece> {
    let places: Vec<usize> = (0..pieces.len()).filter(|index| pieces[*index] == old).collect();
    let [place] = places.as_slice() else { panic!("{old:?} occurs {} times", places.len()) };
    let mut pieces = pieces.to_vec();
    pieces.splice(place..=place, new.iter().copied());
    pieces
}

fn assemble(pieces: &[Piece]) -> Vec<u8> {
    let last = pieces.len() as i64 - 1;
    let word = |(index, piece): (usize, &Piece)| match piece {
        W(word) => *word,
        Call(target) => {
            let distance = target.distance_from(ENTRY + 4 * index as u64) / 4;
            0x9400_0000 | distance as u32 & 0x03ff_ffff
        }
        Fail => 0x5400_0001 | ((last - index as i64) as u32) << 5,
    };
    pieces.iter().enumerate().map(word).flat_map(u32::to_le_bytes).collect()
}

fn callee(addr: Addr) -> Callee {
    match addr {
        SWITCH => Callee::Switch,
        FINISH_TASK_SWITCH => Callee::Known("finish_task_switch".into()),
        STACK_CHK_FAIL => Callee::Diverges("__stack_chk_fail".into()),
        other => Callee::Unknown(other.to_string()),
    }
}

fn code(bytes: &[u8]) -> Code<'_> {
    Code {
        arch: arch::of(Machine::Aarch64),
        function: "__schedule",
        chunks: vec![Chunk { addr: ENTRY, bytes }],
        labels: Default::default(),
        alternatives: Vec::new(),
        warns: Default::default(),
        patched_calls: Default::default(),
        callee: &callee,
    }
}

fn contract_of(pieces: &[Piece]) -> Result<Contract, Error> {
    derive_from(&code(&assemble(pieces)), None)
}

fn refusal(pieces: &[Piece]) -> Error {
    contract_of(pieces).expect_err("it must be refused")
}

#[test]
fn frame_record_signature_and_canary_of_the_thread() {
    use CalleeSaved::*;
    let contract = contract_of(&schedule()).expect("a contract");
    assert_eq!((contract.base, contract.stack_pointer, contract.frame_size()), (Base::X29(-32), -64, 64));
    let slots: Vec<_> = contract.slots.iter().map(|Slot { register, offset }| (*register, *offset)).collect();
    assert_eq!(slots, [(X19, -16), (X20, -8), (X29, -32), (X30, -24)]);
    assert_eq!(contract.kept, [X21, X22, X23, X24, X25, X26, X27, X28]);
    assert_eq!(contract.canary, Some(Canary { offset: -40, guard: Guard::Thread(1360) }));
    assert!(contract.signed);
    assert_eq!(contract.calls, ["__stack_chk_fail", "finish_task_switch"]);
    assert_eq!(contract.springboard, ENTRY + 36);
}

/// Without signatures.
fn plain() -> Vec<Piece> {
    schedule().into_iter().filter(|p| ![PACIASP, AUTIASP].contains(p)).collect()
}

#[test]
fn without_signatures() {
    assert!(!contract_of(&plain()).expect("a contract").signed);
}

#[test]
fn faults() {
    let replaced = |old, new: &[Piece]| refusal(&replacing(&schedule(), old, new));
    let named =
        |error: &Error, name: &str| matches!(error, Error::LiveRegister { register, .. } if register == name);

    // mov x0, x19 after the switch: what the body has there
    let live = replaced(Call(FINISH_TASK_SWITCH), &[W(0xaa13_03e0), Call(FINISH_TASK_SWITCH)]);
    assert!(named(&live, "x19"), "{live}");
    // ldr x0, [x9]: undefined after a call
    let dead = replaced(Call(FINISH_TASK_SWITCH), &[W(0xf940_0120), Call(FINISH_TASK_SWITCH)]);
    assert!(named(&dead, "x9"), "{dead}");
    // cbz x19, .+4
    let tested = replaced(Call(FINISH_TASK_SWITCH), &[W(0xb400_0033), Call(FINISH_TASK_SWITCH)]);
    assert!(named(&tested, "x19"), "{tested}");
    // ldr w0, [sp, #8]: a local of the body
    let local = replaced(Call(FINISH_TASK_SWITCH), &[W(0xb940_0be0), Call(FINISH_TASK_SWITCH)]);
    assert!(matches!(local, Error::LiveSlot { offset: -56, .. }), "{local}");
    // add x0, sp, #8: handed on
    let escapes = replaced(Call(FINISH_TASK_SWITCH), &[W(0x9100_23e0), Call(FINISH_TASK_SWITCH)]);
    assert!(matches!(escapes, Error::FrameEscapes { offset: -56, .. }), "{escapes}");
    let stranger = replaced(Call(FINISH_TASK_SWITCH), &[Call(STRANGER)]);
    assert!(matches!(stranger, Error::UnknownCall { .. }), "{stranger}");
    // blr x0
    let computed = replaced(Call(FINISH_TASK_SWITCH), &[W(0xd63f_0000)]);
    assert!(matches!(computed, Error::UnknownCall { .. }), "{computed}");
    // add sp, sp, #48
    let unbalanced = refusal(&replacing(&plain(), DROP_FRAME, &[W(0x9100_c3ff)]));
    assert!(matches!(unbalanced, Error::Unbalanced { expected: 0, .. }), "{unbalanced}");
    // The same where the signature would be checked with it.
    let moved = replaced(DROP_FRAME, &[W(0x9100_c3ff)]);
    assert!(matches!(moved, Error::Unforeseen { .. }), "{moved}");
    // The frame is dropped after the signature was checked.
    let unsigned =
        refusal(&replacing(&replacing(&schedule(), AUTIASP, &[]), DROP_FRAME, &[AUTIASP, DROP_FRAME]));
    assert!(matches!(unsigned, Error::Unforeseen { .. }), "{unsigned}");
    // mov x19, x0 on the way out
    let clobbered = replaced(RESTORE_X19_X20, &[W(0xaa00_03f3)]);
    assert!(matches!(clobbered, Error::NotRestored { register: CalleeSaved::X19, .. }), "{clobbered}");
    // The frame record without the return address: ldr x29, [sp, #32]
    let lost = replaced(RESTORE_RECORD, &[W(0xf940_13fd)]);
    assert!(matches!(lost, Error::Unforeseen { .. } | Error::NotRestored { .. }), "{lost}");
    let twice = replaced(PREVIOUS, &[PREVIOUS, Call(SWITCH)]);
    assert!(matches!(twice, Error::SeveralSpringboards { .. }), "{twice}");
    // fmov x0, d0
    let simd = replaced(Call(FINISH_TASK_SWITCH), &[W(0x9e66_0000)]);
    assert!(matches!(simd, Error::Undecodable { .. }), "{simd}");
    // br x0
    let jump = replaced(Call(FINISH_TASK_SWITCH), &[W(0xd61f_0000)]);
    assert!(matches!(jump, Error::IndirectBranch { .. }), "{jump}");
}

/// A tail that goes on with what was found out before the switch: two threads differ (`cset w20, ne`). `way` leads to
/// the switch, and from its last instruction but one to the return where they do not.
fn that_uses_x20(way: &[Piece]) -> Vec<Piece> {
    let pieces = replacing(&schedule(), PREVIOUS, way);
    // mov w1, w20
    replacing(&pieces, Call(FINISH_TASK_SWITCH), &[W(0x2a14_03e1), Call(FINISH_TASK_SWITCH)])
}

const CMP_X0_X1: Piece = W(0xeb01_001f);
const CMP_X1_X0: Piece = W(0xeb00_003f);
const CSET_W20_NE: Piece = W(0x1a9f_07f4);
/// `b.eq` of the return.
const LEAVE_IF_EQUAL: Piece = W(0x5400_0140);
const LEAVE_IF_NOT: Piece = W(0x5400_0141);
const NOP: Piece = W(0xd503_201f);

fn constants(way: &[Piece]) -> Result<Vec<(CalleeSaved, u64)>, Error> {
    let contract = contract_of(&that_uses_x20(way))?;
    Ok(contract.constants.iter().map(|constant| (constant.register, constant.value)).collect())
}

#[test]
fn what_is_always_the_same_number_at_the_switch_may_be_used_after_it() {
    use CalleeSaved::X20;
    let differ = [CMP_X0_X1, CSET_W20_NE, CMP_X1_X0, LEAVE_IF_EQUAL];
    assert_eq!(constants(&differ), Ok(vec![(X20, 1)]));
    assert_eq!(constants(&[CMP_X0_X1, CSET_W20_NE, CMP_X1_X0, LEAVE_IF_NOT]), Ok(vec![(X20, 0)]));
    assert_eq!(constants(&[W(0x5280_0054) /* mov w20, #2 */]), Ok(vec![(X20, 2)]));
    // Nothing decides about it; what is compared is another value by then; what was found out is gone.
    let between = |piece| [CMP_X0_X1, CSET_W20_NE, piece, CMP_X1_X0, LEAVE_IF_EQUAL];
    let [mov_x1_x2, mov_x20_x2] = [W(0xaa02_03e1), W(0xaa02_03f4)];
    for way in [&[CMP_X0_X1, CSET_W20_NE, CMP_X1_X0, NOP][..], &between(mov_x1_x2), &between(mov_x20_x2)] {
        let error = constants(way).expect_err("it is not a constant");
        assert!(matches!(&error, Error::LiveRegister { register, .. } if register == "x20"), "{error}");
    }
}

#[test]
fn a_number_stands_for_the_outcome_where_one_register_is_a_copy_of_the_other() {
    // cbz x2, 1f; …; b 2f; 1: mov x0, x1; mov w20, #0; 2: …
    let way = |copy| {
        let zero = W(0x5280_0014);
        let (to_copy, over_it) = (W(0xb400_0082), W(0x1400_0003));
        [to_copy, CMP_X0_X1, CSET_W20_NE, over_it, copy, zero, CMP_X1_X0, LEAVE_IF_EQUAL]
    };
    assert_eq!(constants(&way(W(0xaa01_03e0))), Ok(vec![(CalleeSaved::X20, 1)]));
    // mov x0, x2
    assert!(constants(&way(W(0xaa02_03e0))).is_err());
}

#[test]
fn a_callback_is_called_that_memory_names() {
    // ldr x2, [x0]; blr x2
    let named = replacing(
        &schedule(),
        Call(FINISH_TASK_SWITCH),
        &[Call(FINISH_TASK_SWITCH), W(0xf940_0002), W(0xd63f_0040)],
    );
    let contract = contract_of(&named).expect("a contract");
    assert_eq!(contract.calls, ["__stack_chk_fail", "finish_task_switch", "what the kernel's data names"]);
}

const LINKAGE: &str = "#define SYM_START(name, linkage...) .globl name; name:\n\
    #define SYM_INNER_LABEL(name, linkage) .globl name; name:\n\
    #define SYM_FUNC_END(name)\n";

/// Assembles `stub.S` with a `springboard.h` of this text; `None` where there is no assembler for arm64.
fn assemble_stub(springboard_h: &str) -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("linux")).expect("a directory");
    std::fs::write(dir.path().join("linux/linkage.h"), LINKAGE).expect("a file");
    std::fs::write(dir.path().join("springboard.h"), springboard_h).expect("a file");
    let stub = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime/arch/arm64/stub.S");
    let [text, object] = ["stub.s", "stub.o"].map(|name| dir.path().join(name));
    let expanded = Command::new("gcc")
        .args(["-E", "-P", "-D__ASSEMBLY__", "-I"])
        .arg(dir.path())
        .arg(&stub)
        .arg("-o")
        .arg(&text)
        .output()
        .expect("gcc runs: the kernel is built with it");
    assert!(expanded.status.success(), "{}", String::from_utf8_lossy(&expanded.stderr));
    let output = Command::new("aarch64-linux-gnu-as").arg(&text).arg("-o").arg(&object).output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: there is no aarch64-linux-gnu-as (package binutils-aarch64-linux-gnu)");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(std::fs::read(object).expect("the object"))
}

fn proved(contract: &Contract, text: &str, bytes: &[u8]) -> Option<Result<usize, Error>> {
    let address_of = |name: &str| (name == "_printk").then_some(PRINTK);
    let stub = assemble_stub(text)?;
    Some(prove_with(contract, &stub, &code(bytes), &address_of).map(|proof| proof.returns))
}

fn header_of(contract: &Contract) -> String {
    header(contract, Anchor { name: "_printk", addr: PRINTK })
}

#[test]
fn stub_keeps_the_contract() {
    let with_constant = that_uses_x20(&[CMP_X0_X1, CSET_W20_NE, CMP_X1_X0, LEAVE_IF_EQUAL]);
    for pieces in [schedule(), plain(), with_constant] {
        let contract = contract_of(&pieces).expect("a contract");
        let Some(outcome) = proved(&contract, &header_of(&contract), &assemble(&pieces)) else { return };
        assert_eq!(outcome, Ok(1), "{contract}");
    }
}

#[test]
fn stub_that_sets_another_number_is_caught() {
    let pieces = that_uses_x20(&[CMP_X0_X1, CSET_W20_NE, CMP_X1_X0, LEAVE_IF_EQUAL]);
    let contract = contract_of(&pieces).expect("a contract");
    let text = header_of(&contract);
    assert!(text.contains("op(x20, 1)"), "{text}");
    for wrong in ["op(x20, 2)", ""] {
        let text = text.replacen("op(x20, 1)", wrong, 1);
        let Some(outcome) = proved(&contract, &text, &assemble(&pieces)) else { return };
        assert!(matches!(&outcome, Err(Error::Broken { why }) if why.contains("x20")), "{outcome:?}");
    }
}

#[test]
fn stub_that_breaks_its_contract_is_caught() {
    let contract = contract_of(&schedule()).expect("a contract");
    let text = header_of(&contract);
    let springboard = format!("{:#x}", PRINTK.distance_from(contract.springboard));
    for (right, wrong, named) in [
        ("op(x19, 48) op(x20, 56)", "op(x19, 56) op(x20, 48)", "x19"),
        ("#define SS_SIGNED 1", "#define SS_SIGNED 0", "frame record"),
        ("#define SS_CANARY 24", "#define SS_CANARY 16", "canary"),
        ("#define SS_GUARD 1360", "#define SS_GUARD 1368", "canary"),
        ("#define SS_FRAME_SIZE 64", "#define SS_FRAME_SIZE 80", "frame record"),
        ("#define SS_FRAME_RECORD 32", "#define SS_FRAME_RECORD 16", "frame record"),
        ("op(x28)", "", "x28"),
        (springboard.as_str(), "0x1fff0", "springboard"),
    ] {
        assert!(text.contains(right), "{right} in\n{text}");
        let Some(outcome) = proved(&contract, &text.replacen(right, wrong, 1), &assemble(&schedule())) else {
            return;
        };
        match outcome {
            Err(Error::Broken { why }) => assert!(why.contains(named), "{wrong}: {why}"),
            other => panic!("{wrong}: {other:?}"),
        }
    }
}

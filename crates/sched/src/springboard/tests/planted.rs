//! What the contract says of functions whose shape is known, and every fault that it must refuse.

use super::super::contract::{Base, CalleeSaved, Canary, Guard, Slot};
use super::super::error::Error;
use super::super::orc::Orc;
use super::assembly::Piece::*;
use super::assembly::*;

fn refusal(pieces: &[Piece]) -> Error {
    contract_of(pieces).expect_err("it must be refused")
}

fn slots(contract: &super::super::Contract) -> Vec<(CalleeSaved, i64)> {
    contract.slots.iter().map(|Slot { register, offset }| (*register, *offset)).collect()
}

#[test]
fn frame_base_pushed_registers_and_canary() {
    use CalleeSaved::*;
    let contract = contract_of(&with_frame_base()).expect("a contract");
    assert_eq!(contract.base, Base::Rbp);
    assert_eq!((contract.stack_pointer, contract.frame_size()), (-88, 80));
    let expected = [(Rbx, -56), (Rbp, -16), (R12, -48), (R13, -40), (R14, -32), (R15, -24)];
    assert_eq!(slots(&contract), expected);
    assert_eq!(contract.canary, Some(Canary { offset: -64, guard: Guard::Offset(0x28) }));
    assert!(contract.kept.is_empty());
    assert_eq!(contract.calls, ["__stack_chk_fail", "finish_task_switch"]);
}

#[test]
fn registers_saved_by_mov_and_registers_left_alone() {
    use CalleeSaved::*;
    let contract = contract_of(&without_frame_base()).expect("a contract");
    assert_eq!((contract.base, contract.stack_pointer, contract.canary), (Base::Rsp, -48, None));
    assert_eq!(slots(&contract), [(Rbx, -40), (R12, -32), (R13, -24), (R15, -16)]);
    assert_eq!(contract.kept, [Rbp, R14]);
    assert_eq!(contract.kept_size(), 16);
}

#[test]
fn kernel_without_stack_protector_has_no_canary() {
    let pieces: Vec<Piece> = with_frame_base()
        .into_iter()
        .filter(|piece| ![LOAD_CANARY, COMPARE_CANARY, Jne("fail")].contains(piece))
        .collect();
    assert_eq!(contract_of(&pieces).expect("a contract").canary, None);
}

#[test]
fn canary_compared_in_other_ways() {
    // mov %gs:0x28,%rax; cmp -0x30(%rbp),%rax, as clang does it
    let clang =
        replacing(with_frame_base(), LOAD_CANARY, &[B(&[0x65, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0])]);
    let clang = replacing(clang, COMPARE_CANARY, &[B(&[0x48, 0x3b, 0x45, 0xd0])]);
    let expected = Some(Canary { offset: -64, guard: Guard::Offset(0x28) });
    assert_eq!(contract_of(&clang).expect("a contract").canary, expected);

    // sub %gs:__ref_stack_chk_guard(%rip),%rax: the guard is a symbol in the kernel's own address range
    let symbol = replacing(with_frame_base(), COMPARE_CANARY, &[B(&[0x65, 0x48, 0x2b, 0x05, 0, 0x10, 0, 0])]);
    let canary = contract_of(&symbol).expect("a contract").canary.expect("a canary");
    assert!(matches!(canary.guard, Guard::Address(addr) if addr > ENTRY), "{canary:?}");
}

#[test]
fn two_springboards() {
    let twice = replacing(with_frame_base(), L("body"), &[L("body"), Call(SWITCH)]);
    assert!(matches!(refusal(&twice), Error::SeveralSpringboards { at, .. } if at.len() == 2));
}

#[test]
fn no_springboard() {
    let none = replacing(with_frame_base(), Call(SWITCH), &[Call(FINISH_TASK_SWITCH)]);
    assert!(matches!(refusal(&none), Error::NoSpringboard { .. }));
}

#[test]
fn tail_that_reads_a_register_of_the_body() {
    // mov %rbx,%rdi
    let live = replacing(with_frame_base(), PREV_TO_ARGUMENT, &[B(&[0x48, 0x89, 0xdf])]);
    assert!(matches!(refusal(&live), Error::LiveRegister { register, .. } if register == "rbx"));
    // add $1,%rdx: undefined after a call
    let dead = replacing(with_frame_base(), L("after"), &[B(&[0x48, 0x83, 0xc2, 0x01])]);
    assert!(matches!(refusal(&dead), Error::LiveRegister { register, .. } if register == "rdx"));
    // mov 0x10(%r13),%rdi: as the base of an address
    let base = replacing(with_frame_base(), PREV_TO_ARGUMENT, &[B(&[0x49, 0x8b, 0x7d, 0x10])]);
    assert!(matches!(refusal(&base), Error::LiveRegister { register, .. } if register == "r13"));
}

#[test]
fn tail_that_reads_a_local_of_the_body() {
    // mov -0x38(%rbp),%edi
    let local = replacing(with_frame_base(), PREV_TO_ARGUMENT, &[B(&[0x8b, 0x7d, 0xc8])]);
    assert!(matches!(refusal(&local), Error::LiveSlot { offset: -72, .. }));
    // mov -0x38(%rbp),%rdi; test %rdi,%rdi
    let used = [B(&[0x48, 0x8b, 0x7d, 0xc8]), B(&[0x48, 0x85, 0xff])];
    let local = replacing(with_frame_base(), PREV_TO_ARGUMENT, &used);
    assert!(matches!(refusal(&local), Error::LiveSlot { offset: -72, .. }));
}

#[test]
fn tail_may_use_the_frame_for_itself() {
    // mov %rax,-0x38(%rbp); mov -0x38(%rbp),%edi
    let spill = [B(&[0x48, 0x89, 0x45, 0xc8]), B(&[0x8b, 0x7d, 0xc8])];
    contract_of(&replacing(with_frame_base(), PREV_TO_ARGUMENT, &spill)).expect("a contract");
}

#[test]
fn register_not_restored() {
    let missing = replacing(with_frame_base(), POP_R13, &[B(&[0x48, 0x83, 0xc4, 0x08])]); // add $8,%rsp
    let contract = contract_of(&missing).expect("left alone is allowed");
    assert_eq!(contract.kept, [CalleeSaved::R13]);
    // … but not overwritten: mov %rax,%r13
    let clobbered = replacing(missing, L("after"), &[B(&[0x49, 0x89, 0xc5])]);
    assert!(matches!(refusal(&clobbered), Error::NotRestored { register: CalleeSaved::R13, .. }));
}

#[test]
fn registers_swapped_between_paths() {
    // One path to the return pops rbx and r12 the other way round.
    let other = [
        JumpLabel("other"),
        DROP_LOCALS,
        POP_RBX,
        POP_R12,
        Jmp("rest"),
        L("other"),
        DROP_LOCALS,
        POP_R12,
        POP_RBX,
        L("rest"),
    ];
    let mut pieces = replacing(with_frame_base(), DROP_LOCALS, &other);
    let rest = pieces.iter().position(|piece| *piece == L("rest")).expect("the label");
    pieces.drain(rest + 1..rest + 3);
    assert!(matches!(refusal(&pieces), Error::NotRestored { register: CalleeSaved::Rbx, .. }));
}

#[test]
fn unbalanced_stack() {
    let unbalanced = replacing(with_frame_base(), POP_R13, &[]);
    assert!(matches!(refusal(&unbalanced), Error::Unbalanced { .. }));
}

#[test]
fn unknown_call() {
    let unknown = replacing(with_frame_base(), L("epilogue"), &[Call(STRANGER), L("epilogue")]);
    assert!(matches!(refusal(&unknown), Error::UnknownCall { callee, .. } if callee == "stranger"));
    // call *%rax
    let indirect = replacing(with_frame_base(), L("epilogue"), &[B(&[0xff, 0xd0]), L("epilogue")]);
    assert!(matches!(refusal(&indirect), Error::UnknownCall { .. }));
}

#[test]
fn a_retpoline_calls_what_the_tail_itself_has_found() {
    let [(of_rax, _), (of_r12, _)] = THUNKS;
    let calling = |thunk| replacing(with_frame_base(), L("epilogue"), &[Call(thunk), L("epilogue")]);
    assert!(contract_of(&calling(of_rax)).is_ok());
    let refused = refusal(&calling(of_r12));
    assert!(matches!(&refused, Error::UnknownCall { callee, .. } if callee == "what r12 holds"), "{refused}");
}

#[test]
fn a_slot_may_get_back_what_it_holds_and_nothing_else() {
    let load_r15 = B(&[0x4c, 0x8b, 0x7d, 0xf8]); // mov -0x8(%rbp),%r15
    let storing = |store| replacing(with_frame_base(), L("epilogue"), &[load_r15, store, L("epilogue")]);
    let original = contract_of(&with_frame_base()).unwrap();
    let back = contract_of(&storing(B(&[0x4c, 0x89, 0x7d, 0xf8]))).unwrap(); // mov %r15,-0x8(%rbp)
    assert_eq!(back.slots, original.slots);
    let elsewhere = storing(B(&[0x4c, 0x89, 0x7d, 0xf0])); // mov %r15,-0x10(%rbp)
    assert!(matches!(refusal(&elsewhere), Error::LiveSlot { offset: -24, .. }));
}

#[test]
fn fault_after_a_jump_label() {
    let label = [JumpLabel("traced"), L("epilogue")];
    let mut pieces = replacing(with_frame_base(), L("epilogue"), &label);
    pieces.extend([L("traced"), Call(STRANGER), Jmp("epilogue")]);
    assert!(matches!(refusal(&pieces), Error::UnknownCall { .. }));
}

#[test]
fn fault_in_an_alternative() {
    // mov %rbx,%rdi
    let alternative = Alternative(&[0x48, 0x89, 0xdf]);
    let pieces = replacing(with_frame_base(), L("after"), &[alternative]);
    assert!(matches!(refusal(&pieces), Error::LiveRegister { register, .. } if register == "rbx"));
    // xor %edi,%edi is harmless, and execution goes on after the replaced bytes
    let pieces = replacing(with_frame_base(), L("after"), &[Alternative(&[0x31, 0xff])]);
    assert_eq!(contract_of(&pieces).expect("a contract").stack_pointer, -88);
}

#[test]
fn fault_after_a_warning() {
    let warns = [JumpLabel("warn"), L("epilogue")];
    let mut pieces = replacing(with_frame_base(), L("epilogue"), &warns);
    pieces.extend([L("warn"), Warn, Call(STRANGER), Jmp("epilogue")]);
    assert!(matches!(refusal(&pieces), Error::UnknownCall { .. }));
}

#[test]
fn tail_that_loops_back_to_the_switch() {
    let again = replacing(with_frame_base(), L("epilogue"), &[Jne("body"), L("epilogue")]);
    assert!(matches!(refusal(&again), Error::Loops { .. } | Error::LiveRegister { .. }));
}

#[test]
fn frame_handed_to_a_callee() {
    // lea -0x38(%rbp),%rsi
    let lea = replacing(with_frame_base(), L("after"), &[B(&[0x48, 0x8d, 0x75, 0xc8])]);
    assert!(matches!(refusal(&lea), Error::FrameEscapes { offset: -72, .. }));
}

#[test]
fn unwind_table_that_disagrees() {
    let right = Orc { sp_register: Orc::BP, sp_offset: 16, bp_register: Orc::CFA, bp_offset: -16 };
    assert!(contract_with_orc(&with_frame_base(), right).expect("a contract").unwind_confirmed);
    for wrong in [
        Orc { sp_offset: 24, ..right },
        Orc { sp_register: Orc::SP, sp_offset: 80, ..right },
        Orc { bp_offset: -24, ..right },
        Orc { bp_register: Orc::UNDEFINED, ..right },
    ] {
        let refused = contract_with_orc(&with_frame_base(), wrong);
        assert!(matches!(refused, Err(Error::Unwind { .. })), "{wrong}");
    }
}

#[test]
fn two_canaries() {
    // mov -0x28(%rbp),%rax; sub %gs:0x28,%rax, and then the usual one
    let twice = [L("epilogue"), B(&[0x48, 0x8b, 0x45, 0xc8]), COMPARE_CANARY];
    let pieces = replacing(with_frame_base(), L("epilogue"), &twice);
    assert!(matches!(refusal(&pieces), Error::SeveralCanaries { .. }));
}

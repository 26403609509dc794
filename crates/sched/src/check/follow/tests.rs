//! Code of both machines, written by hand, in which the address of `fire` goes somewhere.

use super::*;
use object::elf;
use schedswap_kernel::objects::{Section, SymbolId};

/// `user` with its cold part, and what they refer to.
struct Case {
    machine: elf::Machine,
    user: Vec<u8>,
    cold: Vec<u8>,
    /// In `user`: offset, type, symbol, addend.
    relocations: Vec<(u64, elf::RelocationType, Named, i64)>,
}

/// The symbols, by number.
#[derive(Clone, Copy)]
enum Named {
    User,
    Fire,
    CallLater,
    Cold,
    Fentry,
    ReturnThunk,
    Retpoline,
}

impl Case {
    fn object(&self) -> Object {
        let code = |name: &str, data: &[u8], relocations| Section {
            name: name.into(),
            kind: elf::SHT_PROGBITS.0,
            flags: elf::SHF_ALLOC.0 | elf::SHF_EXECINSTR.0,
            data: data.to_vec(),
            size: data.len() as u64,
            relocations,
            ..Section::default()
        };
        let symbol = |name: &str, place, size: usize| Symbol {
            name: name.into(),
            place,
            value: 0,
            size: size as u64,
            binding: elf::STB_LOCAL.0,
            kind: elf::STT_FUNC.0,
            other: 0,
        };
        let relocations = self.relocations.iter().map(|(offset, kind, symbol, addend)| Relocation {
            offset: *offset,
            kind: kind.0,
            symbol: SymbolId(*symbol as u32),
            addend: *addend,
        });
        let here = |section| Place::Section(SectionId(section));
        Object {
            name: "a.o".into(),
            machine: self.machine.0,
            sections: vec![
                code(".text.user", &self.user, relocations.collect()),
                code(".text.fire", &[0; 4], Vec::new()),
                code(".text.unlikely", &self.cold, Vec::new()),
            ],
            symbols: vec![
                symbol("user", here(0), self.user.len()),
                symbol("fire", here(1), 4),
                symbol("call_later", Place::Undefined, 0),
                symbol("user.cold", here(2), self.cold.len()),
                symbol(PROFILER, Place::Undefined, 0),
                symbol("__x86_return_thunk", Place::Undefined, 0),
                symbol("__x86_indirect_thunk_rax", Place::Undefined, 0),
            ],
        }
    }

    /// What becomes of the address of `fire`.
    fn fates(&self) -> Vec<AddressFate> {
        let target = UnitSymbol { unit: "a.c".into(), name: "fire".into() };
        let found = uses(&[("a.c".into(), self.object())], &target);
        assert!(found.iter().all(|found| found.by == "user"), "{found:?}");
        found.into_iter().map(|found| found.fate).collect()
    }
}

fn passed(argument: usize) -> Vec<AddressFate> {
    vec![AddressFate::Passed { to: "call_later".into(), argument }]
}

/// AArch64.
mod a64 {
    use super::*;

    const ADRP_X2: u32 = 0x9000_0002;
    const ADD_X2: u32 = 0x9100_0042;
    const BL: u32 = 0x9400_0000;
    const RET: u32 = 0xd65f_03c0;

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The first two words of `words` put the address into a register; `calls` are words that call `call_later`.
    fn case(words: &[u32], calls: &[u64]) -> Case {
        let mut relocations = vec![
            (0, elf::R_AARCH64_ADR_PREL_PG_HI21, Named::Fire, 0),
            (4, elf::R_AARCH64_ADD_ABS_LO12_NC, Named::Fire, 0),
        ];
        relocations.extend(calls.iter().map(|word| (4 * word, elf::R_AARCH64_CALL26, Named::CallLater, 0)));
        Case { machine: elf::EM_AARCH64, user: bytes(words), cold: Vec::new(), relocations }
    }

    fn fates(words: &[u32], calls: &[u64]) -> Vec<AddressFate> {
        case(words, calls).fates()
    }

    #[test]
    fn an_address_is_followed_to_a_call_and_over_one() {
        assert_eq!(fates(&[ADRP_X2, ADD_X2, BL, RET], &[2]), passed(2));
        // adrp x19; add x19, x19; bl call_later; mov x1, x19; bl call_later
        let kept = [0x9000_0013, 0x9100_0273, BL, 0xaa13_03e1, BL, RET];
        assert_eq!(fates(&kept, &[2, 4]), passed(1));
    }

    #[test]
    fn an_address_that_is_stored_or_returned_escapes() {
        // str x2, [x1]
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0xf900_0022, RET], &[]), [AddressFate::Stored]);
        // stp x2, x3, [x1]
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0xa900_0c22, RET], &[]), [AddressFate::Stored]);
        // mov x0, x2
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0xaa02_03e0, RET], &[]), [AddressFate::Unknown]);
        // csel x3, x2, x4, eq; str x3, [x1]
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0x9a84_0043, 0xf900_0023, RET], &[]), [AddressFate::Stored]);
        // br x3, which may be a switch's
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0xd61f_0060], &[]), [AddressFate::Unknown]);
    }

    #[test]
    fn both_ways_of_a_branch_are_followed() {
        // cbz x0, .+8; str x2, [x1]; ret
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0xb400_0040, 0xf900_0022, RET], &[]), [AddressFate::Stored]);
        // cbz x0, .+8; ret; str x2, [x1]; ret
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0xb400_0040, RET, 0xf900_0022, RET], &[]), [AddressFate::Stored]);
    }

    #[test]
    fn the_cold_part_is_followed() {
        let cold = |word: u32| {
            // cbz x0, user.cold
            let mut case = case(&[ADRP_X2, ADD_X2, 0xb400_0000, RET], &[]);
            case.relocations.push((8, elf::R_AARCH64_CONDBR19, Named::Cold, 0));
            case.cold = bytes(&[word, RET]);
            case.fates()
        };
        // str x2, [x1]; str x1, [x2]
        assert_eq!(cold(0xf900_0022), [AddressFate::Stored]);
        assert_eq!(cold(0xf900_0041), []);
    }

    #[test]
    fn what_is_compared_called_or_overwritten_does_not_escape() {
        // adrp x9; add x9, x9; cmp x9, x1; blr x9
        assert_eq!(fates(&[0x9000_0009, 0x9100_0129, 0xeb01_013f, 0xd63f_0120, RET], &[]), []);
        // mov x2, x3; str x2, [x1]
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0xaa03_03e2, 0xf900_0022, RET], &[]), []);
        // ldr x2, [x2]; str x2, [x1]
        assert_eq!(fates(&[ADRP_X2, ADD_X2, 0xf940_0042, 0xf900_0022, RET], &[]), []);
    }
}

/// x86-64.
mod x86 {
    use super::*;

    const RET: u8 = 0xc3;
    const CALL: [u8; 5] = [0xe8, 0, 0, 0, 0];
    const JMP: [u8; 5] = [0xe9, 0, 0, 0, 0];
    /// `mov $fire, %rdi`, whose field is at 3.
    const MOV_RDI: [u8; 7] = [0x48, 0xc7, 0xc7, 0, 0, 0, 0];

    type Relocated = (u64, elf::RelocationType, Named, i64);

    fn case(code: &[&[u8]], relocations: &[Relocated]) -> Case {
        let relocations = relocations.to_vec();
        Case { machine: elf::EM_X86_64, user: code.concat(), cold: Vec::new(), relocations }
    }

    fn fates(code: &[&[u8]], relocations: &[Relocated]) -> Vec<AddressFate> {
        case(code, relocations).fates()
    }

    /// The address as a value in the field at `at`.
    fn value(at: u64) -> Relocated {
        (at, elf::R_X86_64_32S, Named::Fire, 0)
    }

    /// A branch whose displacement is at `at`.
    fn branch(at: u64, to: Named) -> Relocated {
        (at, elf::R_X86_64_PLT32, to, -4)
    }

    #[test]
    fn an_address_is_followed_to_a_call_and_over_one() {
        let call = branch(8, Named::CallLater);
        assert_eq!(fates(&[&MOV_RDI, &CALL, &[RET]], &[value(3), call]), passed(0));
        // lea fire(%rip), %rsi
        let lea = [0x48, 0x8d, 0x35, 0, 0, 0, 0];
        let relative = (3, elf::R_X86_64_PC32, Named::Fire, -4);
        assert_eq!(fates(&[&lea, &CALL, &[RET]], &[relative, call]), passed(1));
        // mov $fire, %rbx; call call_later; mov %rbx, %rdx; jmp call_later
        let [mov, copy]: [&[u8]; 2] = [&[0x48, 0xc7, 0xc3, 0, 0, 0, 0], &[0x48, 0x89, 0xda]];
        let relocations = [value(3), call, branch(16, Named::CallLater)];
        assert_eq!(fates(&[mov, &CALL, copy, &JMP], &relocations), passed(2));
    }

    #[test]
    fn a_call_through_a_register_is_one_through_a_pointer() {
        let pointer = [AddressFate::Passed { to: A_POINTER.into(), argument: 0 }];
        assert_eq!(fates(&[&MOV_RDI, &CALL, &[RET]], &[value(3), branch(8, Named::Retpoline)]), pointer);
        // call *%rax; jmp *%rax
        assert_eq!(fates(&[&MOV_RDI, &[0xff, 0xd0], &[RET]], &[value(3)]), pointer);
        assert_eq!(fates(&[&MOV_RDI, &[0xff, 0xe0]], &[value(3)]), pointer);
        // mov $fire, %rdi; cmove %rax, %rdi; call call_later
        let kept = [0x48, 0x0f, 0x44, 0xf8];
        assert_eq!(
            fates(&[&MOV_RDI, &kept, &CALL, &[RET]], &[value(3), branch(12, Named::CallLater)]),
            passed(0)
        );
        // mov $fire, %rbx; jmp *%rax, which may be a switch's
        let mov_rbx = [0x48, 0xc7, 0xc3, 0, 0, 0, 0];
        assert_eq!(fates(&[&mov_rbx, &[0xff, 0xe0]], &[value(3)]), [AddressFate::Unknown]);
        // mov $fire, %rax; call *%rax
        assert_eq!(fates(&[&[0x48, 0xc7, 0xc0, 0, 0, 0, 0, 0xff, 0xd0, RET]], &[value(3)]), []);
    }

    #[test]
    fn an_address_that_is_stored_escapes() {
        // movq $fire, 8(%rax); push $fire; movq $fire, var(%rip)
        assert_eq!(fates(&[&[0x48, 0xc7, 0x40, 8, 0, 0, 0, 0, RET]], &[value(4)]), [AddressFate::Stored]);
        assert_eq!(fates(&[&[0x68, 0, 0, 0, 0, RET]], &[value(1)]), [AddressFate::Stored]);
        assert_eq!(
            fates(&[&[0x48, 0xc7, 5, 0, 0, 0, 0, 0, 0, 0, 0, RET]], &[value(7)]),
            [AddressFate::Stored]
        );
        // mov %rdi, (%rax); mov %edi, (%rax); push %rdi
        for store in [&[0x48, 0x89, 0x38][..], &[0x89, 0x38], &[0x57]] {
            assert_eq!(fates(&[&MOV_RDI, store, &[RET]], &[value(3)]), [AddressFate::Stored], "{store:x?}");
        }
        // cmovne %rdi, %rcx; mov %rcx, (%rax)
        let conditional = [0x48, 0x0f, 0x45, 0xcf, 0x48, 0x89, 0x08, RET];
        assert_eq!(fates(&[&MOV_RDI, &conditional], &[value(3)]), [AddressFate::Stored]);
    }

    #[test]
    fn an_address_that_is_returned_escapes_by_a_thunk_too() {
        let mov_rax = [0x48, 0xc7, 0xc0, 0, 0, 0, 0];
        assert_eq!(fates(&[&mov_rax, &[RET]], &[value(3)]), [AddressFate::Unknown]);
        let thunk = branch(8, Named::ReturnThunk);
        assert_eq!(fates(&[&mov_rax, &JMP], &[value(3), thunk]), [AddressFate::Unknown]);
        assert_eq!(fates(&[&MOV_RDI, &JMP], &[value(3), thunk]), []);
    }

    #[test]
    fn an_access_to_the_target_takes_no_address() {
        let displaced = |at, addend| (at, elf::R_X86_64_PC32, Named::Fire, addend);
        // mov fire(%rip), %rax; mov %rax, (%rdx)
        assert_eq!(fates(&[&[0x48, 0x8b, 5, 0, 0, 0, 0, 0x48, 0x89, 2, RET]], &[displaced(3, -4)]), []);
        // movl $1, fire(%rip); incl fire(%rip); push fire(%rip)
        assert_eq!(fates(&[&[0xc7, 5, 0, 0, 0, 0, 1, 0, 0, 0, RET]], &[displaced(2, -8)]), []);
        assert_eq!(fates(&[&[0xff, 5, 0, 0, 0, 0, RET]], &[displaced(2, -4)]), []);
        assert_eq!(fates(&[&[0xff, 0x35, 0, 0, 0, 0, RET]], &[displaced(2, -4)]), []);
        // movzbl fire(%rip), %eax; mov %rax, (%rdx)
        let narrow = [0x0f, 0xb6, 5, 0, 0, 0, 0, 0x48, 0x89, 2, RET];
        assert_eq!(fates(&[&narrow], &[displaced(3, -4)]), []);
        // call fire; call *fire(%rip)
        assert_eq!(fates(&[&CALL, &[RET]], &[branch(1, Named::Fire)]), []);
        assert_eq!(fates(&[&[0xff, 0x15, 0, 0, 0, 0, RET]], &[displaced(2, -4)]), []);
    }

    #[test]
    fn what_is_compared_called_or_overwritten_does_not_escape() {
        // cmpq $fire, 8(%rax); cmp $fire, %rdi
        assert_eq!(fates(&[&[0x48, 0x81, 0x78, 8, 0, 0, 0, 0, RET]], &[value(4)]), []);
        assert_eq!(fates(&[&[0x48, 0x81, 0xff, 0, 0, 0, 0, RET]], &[value(3)]), []);
        let call = |before: usize| branch((MOV_RDI.len() + before + 1) as u64, Named::CallLater);
        // xor %edi, %edi; mov (%rdi), %rdi
        for over in [&[0x31, 0xff][..], &[0x48, 0x8b, 0x3f]] {
            assert_eq!(fates(&[&MOV_RDI, over, &CALL, &[RET]], &[value(3), call(over.len())]), []);
        }
        // rep stosq, which leaves its end in rdi and nothing in rcx
        let clear = [0xf3, 0x48, 0xab];
        assert_eq!(fates(&[&MOV_RDI, &clear, &CALL, &[RET]], &[value(3), call(3)]), []);
    }

    #[test]
    fn what_is_near_an_address_is_followed() {
        let call = |before: u64| branch(7 + before + 1, Named::CallLater);
        // add $8, %rdi; add %rax, %rdi; sub %rcx, %rdi
        for near in [&[0x48, 0x83, 0xc7, 8][..], &[0x48, 1, 0xc7], &[0x48, 0x29, 0xcf]] {
            let relocations = [value(3), call(near.len() as u64)];
            assert_eq!(fates(&[&MOV_RDI, near, &CALL, &[RET]], &relocations), passed(0), "{near:x?}");
        }
        // mov $fire, %rbx; sub %rbx, %rcx
        let distance = [0x48, 0xc7, 0xc3, 0, 0, 0, 0, 0x48, 0x29, 0xd9];
        assert_eq!(fates(&[&distance, &CALL, &[RET]], &[value(3), call(3)]), []);
    }

    #[test]
    fn a_warning_and_the_cold_part_are_gone_through() {
        // ud2; mov %rdi, (%rax)
        assert_eq!(
            fates(&[&MOV_RDI, &[0x0f, 0x0b, 0x48, 0x89, 0x38, RET]], &[value(3)]),
            [AddressFate::Stored]
        );
        // jne user.cold
        let cold = |code: &[u8]| {
            let relocations = [value(3), branch(9, Named::Cold)];
            let mut case = case(&[&MOV_RDI, &[0x0f, 0x85, 0, 0, 0, 0], &[RET]], &relocations);
            case.cold = code.to_vec();
            case.fates()
        };
        assert_eq!(cold(&[0x48, 0x89, 0x38, RET]), [AddressFate::Stored]);
        assert_eq!(cold(&[0x48, 0x89, 7, RET]), []);
    }

    #[test]
    fn an_argument_is_followed_over_the_call_of_the_tracer() {
        // call __fentry__; mov %rsi, (%rdi)
        let case = case(&[&CALL, &[0x48, 0x89, 0x37, RET]], &[branch(1, Named::Fentry)]);
        let objects = [("a.c".to_owned(), case.object())];
        let fates = |argument| {
            let found = uses_of_argument(&objects, "user", argument);
            found.into_iter().map(|found| found.fate).collect::<Vec<_>>()
        };
        assert_eq!(fates(1), [AddressFate::Stored]);
        assert_eq!(fates(0), []);
    }

    #[test]
    fn a_call_of_itself_is_a_call() {
        let itself = AddressFate::Passed { to: "user".into(), argument: 0 };
        assert_eq!(fates(&[&MOV_RDI, &JMP], &[value(3), branch(8, Named::User)]), [itself]);
    }
}

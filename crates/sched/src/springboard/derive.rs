//! From the code of `__schedule` to the contract.

use super::contract::{Base, CalleeSaved, Canary, Constant, Contract, Slot};
use super::error::Error;
use super::paths::{Callee, Code};
use super::{constants, height, orc, tail};
use schedswap_kernel::address::Addr;
use schedswap_kernel::vmlinux::Machine;

/// Derives the contract from the code; `unwind` is the kernel's ORC entry for an address.
///
/// # Errors
/// As [`derive`](super::read::derive).
pub fn derive_from(
    code: &Code<'_>,
    unwind: Option<&dyn Fn(Addr) -> Option<orc::Orc>>,
) -> Result<Contract, Error> {
    let springboard = only_springboard(code)?;
    let height = height::at_springboard(code, springboard)?;
    let stack_pointer = height
        .sp
        .filter(|sp| *sp <= code.abi().entry_sp && sp % 8 == 0)
        .ok_or(Error::StackPointerUnknown { at: springboard })?;
    let constants = constants::at_springboard(code, springboard)?;
    let tail = tail::explore(code, springboard, height, &constants)?;

    let of = |register| tail.restored.get(&register).copied().flatten();
    let all = || CalleeSaved::of(code.arch.machine());
    let slots: Vec<Slot> =
        all().filter_map(|register| of(register).map(|offset| Slot { register, offset })).collect();
    let base = base(code.arch.machine(), height.fp, of)?;
    let mut contract = Contract {
        function: code.function.to_owned(),
        entry: code.entry(),
        springboard,
        stack_pointer,
        base,
        kept: all().filter(|register| of(*register).is_none()).collect(),
        slots,
        constants: all()
            .filter(|register| tail.constants.contains(&register.number()))
            .map(|register| Constant { register, value: constants[&register.number()] })
            .collect(),
        signed: tail.signed.unwrap_or(false),
        canary: tail.canary.map(|(offset, guard)| Canary { offset, guard }),
        calls: tail.calls.into_iter().collect(),
        instructions: tail.instructions.len(),
        unwind_confirmed: false,
    };
    no_slot_twice(&contract)?;
    if let Some(entry) = unwind.and_then(|unwind| unwind(springboard)) {
        orc::confirm(&contract, entry, springboard)?;
        contract.unwind_confirmed = true;
    }
    Ok(contract)
}

/// How the frame is addressed, from where the frame pointer is and the registers' slots.
fn base(machine: Machine, fp: Option<i64>, slot: impl Fn(CalleeSaved) -> Option<i64>) -> Result<Base, Error> {
    match (machine, fp) {
        (Machine::X86_64, None) => Ok(Base::Rsp),
        (Machine::X86_64, Some(-16)) if slot(CalleeSaved::Rbp) == Some(-16) => Ok(Base::Rbp),
        (Machine::X86_64, Some(offset)) => Err(Error::FrameBase {
            register: "rbp",
            offset,
            expected: "CFA-16, where the caller's rbp is saved",
        }),
        // Without it the kernel could not unwind the stack of a sleeping thread.
        (Machine::Aarch64, Some(at))
            if slot(CalleeSaved::X29) == Some(at) && slot(CalleeSaved::X30) == Some(at + 8) =>
        {
            Ok(Base::X29(at))
        }
        (Machine::Aarch64, fp) => Err(Error::FrameBase {
            register: "x29",
            offset: fp.unwrap_or_default(),
            expected: "the place where the caller's x29 and the return address are saved",
        }),
    }
}

fn only_springboard(code: &Code<'_>) -> Result<Addr, Error> {
    match code.calls_to(&Callee::Switch).as_slice() {
        [springboard] => Ok(*springboard),
        [] => {
            let callee = code.arch.stack_switch().into();
            Err(Error::NoSpringboard { callee, found: "none of its code".into() })
        }
        several => {
            let (function, callee) = (code.function.to_owned(), code.arch.stack_switch().to_owned());
            Err(Error::SeveralSpringboards { function, callee, at: several.to_vec() })
        }
    }
}

fn no_slot_twice(contract: &Contract) -> Result<(), Error> {
    let mut used: Vec<(i64, String)> =
        contract.slots.iter().map(|slot| (slot.offset, slot.register.to_string())).collect();
    used.extend(contract.canary.map(|canary| (canary.offset, "the canary".to_owned())));
    used.sort();
    match used.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        None => Ok(()),
        Some(pair) => {
            Err(Error::SlotShared { offset: pair[0].0, first: pair[0].1.clone(), second: pair[1].1.clone() })
        }
    }
}

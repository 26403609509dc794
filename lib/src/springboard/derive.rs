//! From the code of `__schedule` to the contract.

use super::code::{Callee, Code};
use super::contract::{Base, CalleeSaved, Canary, Contract, Slot};
use super::error::Error;
use super::{height, orc, tail};
use crate::address::Addr;

/// Derives the contract from the code; `unwind` is the kernel's ORC entry for an address.
pub fn derive_from(
    code: &Code<'_>,
    unwind: Option<&dyn Fn(Addr) -> Option<orc::Orc>>,
) -> Result<Contract, Error> {
    let springboard = only_springboard(code)?;
    let height = height::at_springboard(code, springboard)?;
    let stack_pointer = height.sp.ok_or(Error::StackPointerUnknown { at: springboard })?;
    let tail = tail::explore(code, springboard, height)?;

    let of = |register| tail.restored.get(&register).copied().flatten();
    let slots: Vec<Slot> = CalleeSaved::ALL
        .into_iter()
        .filter_map(|register| of(register).map(|offset| Slot { register, offset }))
        .collect();
    let base = match height.bp {
        None => Base::Rsp,
        Some(-16) if of(CalleeSaved::Rbp) == Some(-16) => Base::Rbp,
        Some(offset) => return Err(Error::FrameBase { offset }),
    };
    let mut contract = Contract {
        function: code.function.to_owned(),
        entry: code.entry(),
        springboard,
        stack_pointer,
        base,
        kept: CalleeSaved::ALL.into_iter().filter(|register| of(*register).is_none()).collect(),
        slots,
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

fn only_springboard(code: &Code<'_>) -> Result<Addr, Error> {
    match code.calls_to(&Callee::Switch).as_slice() {
        [springboard] => Ok(*springboard),
        [] => {
            Err(Error::NoSpringboard { callee: "__switch_to_asm".into(), found: "none of its code".into() })
        }
        several => {
            Err(Error::SeveralSpringboards { function: code.function.to_owned(), at: several.to_vec() })
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

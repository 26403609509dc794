//! The proof that the assembled stub and vmlinux's tail fit.
//!
//! Runs the stub's real instructions, and from the springboard on vmlinux's, with symbols in place of values:
//! every callee-saved register and the stack pointer must come back to the caller as they were, whether the new
//! `__schedule` switches or not, the canary must be the guard, and at every instruction of the stub the kernel's
//! unwinder must find its way.

mod machine;
mod stub;

use super::code::{At, Code};
use super::contract::{Base, CalleeSaved, Contract, Guard};
use super::error::Error;
use super::orc::Orc;
use super::read::with_code;
use crate::address::Addr;
use crate::vmlinux::Image;
use iced_x86::{ConditionCode, FlowControl};
use machine::{Machine, Place, RBP, RDI, RSI, RSP, Value};
use std::collections::BTreeMap;
use stub::{Reference, Stub};

/// How much was run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Proof {
    /// Instructions of the stub at which the unwinder was checked; 0 when the object has no ORC.
    pub unwound: usize,
    /// Paths through vmlinux's tail that return.
    pub returns: usize,
}

/// Proves an object assembled from `stub.S` against the kernel that it was assembled for.
pub fn prove(contract: &Contract, stub_object: &[u8], image: &Image) -> Result<Proof, Error> {
    let address_of = |name: &str| image.unique_symbol(name).map(|symbol| symbol.addr);
    with_code(image, |code| prove_with(contract, stub_object, code, &address_of))
}

/// [`prove`] on code from anywhere; `address_of` gives the addresses of vmlinux's symbols.
pub fn prove_with(
    contract: &Contract,
    stub_object: &[u8],
    code: &Code<'_>,
    address_of: &dyn Fn(&str) -> Option<Addr>,
) -> Result<Proof, Error> {
    let stub = Stub::read(stub_object)?;
    let mut run = Run { contract, stub: &stub, address_of, proof: Proof::default() };
    let at_call = run.until_the_body()?;
    run.body_returns(at_call.clone())?;
    let at_springboard = run.body_switches(at_call.machine)?;
    run.tail(code, at_springboard)?;
    Ok(run.proof)
}

/// What stops a run of the stub.
enum Stop {
    /// `call __schedule.ss`; the run goes on at this offset when it returns.
    Body(u64),
    /// A return.
    Return,
    /// A jump to this address in vmlinux.
    Vmlinux(Addr),
}

#[derive(Clone)]
struct AtCall {
    machine: Machine,
    behind: u64,
}

struct Run<'a> {
    contract: &'a Contract,
    stub: &'a Stub<'a>,
    address_of: &'a dyn Fn(&str) -> Option<Addr>,
    proof: Proof,
}

/// No stub, and no path of a tail, is longer.
const STEPS_MAX: usize = 4096;
/// No tail has more paths (a loop is left after its second round).
const PATHS_MAX: usize = 4096;
/// Where the switch's return address lies when the body calls for it: anywhere below the stub's frame.
const BODY_BYTES: i64 = 0x100;

fn callee_saved() -> [usize; 6] {
    CalleeSaved::ALL.map(CalleeSaved::number)
}

fn broken<T>(why: impl std::fmt::Display) -> Result<T, Error> {
    Err(Error::Broken { why: why.to_string() })
}

impl Run<'_> {
    /// From vmlinux's entry to the call of the new `__schedule`.
    fn until_the_body(&mut self) -> Result<AtCall, Error> {
        let mut machine = Machine::at_entry();
        let stop = self.stub(self.stub.entry, &mut machine, None)?;
        let Stop::Body(behind) = stop else { return broken("the stub does not call __schedule.ss") };
        for argument in [RDI, RSI, 2, 1, 8, 9] {
            if machine.register(argument) != Value::Entry(argument) {
                return broken(format!("argument register {argument} does not reach __schedule.ss"));
            }
        }
        Ok(AtCall { machine, behind })
    }

    /// The new `__schedule` found nobody to switch to.
    fn body_returns(&mut self, AtCall { mut machine, behind }: AtCall) -> Result<(), Error> {
        machine.call(&callee_saved());
        match self.stub(behind, &mut machine, None)? {
            Stop::Return => back_at_the_caller(&machine, "without a switch"),
            _ => broken("the stub does not return when __schedule.ss does"),
        }
    }

    /// The new `__schedule` calls for the switch, with all registers its own.
    fn body_switches(&mut self, mut machine: Machine) -> Result<Machine, Error> {
        let Some(stub_sp) = machine.sp() else { return broken("the stub's stack pointer is lost") };
        machine.drop_below(stub_sp);
        for number in (0..16).filter(|number| *number != RSP) {
            machine.set(number, Value::Body(number));
        }
        let switch_sp = stub_sp - BODY_BYTES;
        machine.set(RSP, Value::Frame(switch_sp));
        match self.stub(self.stub.switch_to, &mut machine, Some(switch_sp))? {
            Stop::Vmlinux(target) if target == self.contract.springboard => {}
            Stop::Vmlinux(target) => return broken(format!("it jumps to {target}, not to the springboard")),
            _ => return broken("ss_switch_to does not jump to vmlinux"),
        }
        for (number, name) in [(RDI, "rdi (the previous thread)"), (RSI, "rsi (the next thread)")] {
            if machine.register(number) != Value::Body(number) {
                return broken(format!("{name} does not reach the springboard"));
            }
        }
        if machine.register(RSP) != Value::Frame(self.contract.stack_pointer) {
            return broken(format!("rsp is {:?} at the springboard", machine.register(RSP)));
        }
        if self.contract.base == Base::Rbp && machine.register(RBP) != Value::Frame(-16) {
            return broken(format!("rbp is {:?} at the springboard", machine.register(RBP)));
        }
        if let Some(canary) = self.contract.canary
            && machine.stack(canary.offset) != Value::Guard
        {
            let found = machine.stack(canary.offset);
            return broken(format!("the canary CFA{:+} is {found:?} at the springboard", canary.offset));
        }
        Ok(machine)
    }

    /// Runs the stub until something outside takes over. `switch_sp` is the stack pointer at `ss_switch_to`.
    fn stub(&mut self, start: u64, machine: &mut Machine, switch_sp: Option<i64>) -> Result<Stop, Error> {
        let mut offset = start;
        for _ in 0..STEPS_MAX {
            let (instruction, reference) = self.stub.instruction(offset)?;
            self.unwinds(offset, machine, switch_sp)?;
            let behind = instruction.next_ip();
            match instruction.flow_control() {
                FlowControl::Next => {
                    let relocated = reference.map(|reference| self.place(reference));
                    machine.run(&instruction, self.contract.canary.map(|canary| canary.guard), relocated);
                    offset = behind;
                }
                FlowControl::Return => return Ok(Stop::Return),
                FlowControl::UnconditionalBranch => match reference {
                    None => offset = instruction.near_branch_target(),
                    Some(Reference { symbol, .. }) if symbol.starts_with("__x86_return_thunk") => {
                        return Ok(Stop::Return);
                    }
                    Some(Reference { symbol, addend }) => {
                        let Some(anchor) = (self.address_of)(symbol) else {
                            return broken(format!("it jumps to `{symbol}`, which vmlinux does not have"));
                        };
                        // The field's own four bytes are part of the addend.
                        return Ok(Stop::Vmlinux(anchor.offset(addend + 4)));
                    }
                },
                FlowControl::Call if reference.is_some_and(|r| r.symbol == "__schedule.ss") => {
                    return Ok(Stop::Body(behind));
                }
                _ => return broken(format!("unexpected instruction at .text+{offset:#x}")),
            }
        }
        broken("the stub does not end")
    }

    /// What a relocated operand in memory is.
    fn place(&self, reference: &Reference) -> Place {
        if reference.symbol == "ss_frame_sp" {
            return Place::FrameSp;
        }
        let guard = self.contract.canary.map(|canary| canary.guard);
        match (guard, (self.address_of)(&reference.symbol)) {
            (Some(Guard::Address(guard)), Some(anchor)) if anchor.offset(reference.addend + 4) == guard => {
                Place::Guard
            }
            _ => Place::Other,
        }
    }

    /// Checks what the kernel's unwinder makes of an interrupt at this instruction.
    fn unwinds(&mut self, offset: u64, machine: &Machine, switch_sp: Option<i64>) -> Result<(), Error> {
        let Some(orc) = self.stub.unwind_at(offset) else { return Ok(()) };
        let base = match orc.sp_register {
            Orc::SP => machine.register(RSP),
            Orc::BP => machine.register(RBP),
            _ => Value::Junk,
        };
        let cfa = match base {
            Value::Frame(base) => Some(base + i64::from(orc.sp_offset)),
            _ => None,
        };
        let bp = match (orc.bp_register, cfa) {
            (Orc::UNDEFINED, _) => machine.register(RBP),
            (Orc::CFA, Some(cfa)) => machine.stack(cfa + i64::from(orc.bp_offset)),
            _ => Value::Junk,
        };
        // Either the frame of vmlinux's __schedule, whose caller comes next, or the call in __schedule.ss.
        let leads_to_caller = cfa == Some(0) && bp == Value::Entry(RBP);
        let leads_to_body = switch_sp.is_some_and(|sp| cfa == Some(sp + 8)) && bp == Value::Body(RBP);
        if leads_to_caller || leads_to_body {
            self.proof.unwound += 1;
            return Ok(());
        }
        broken(format!("at .text+{offset:#x} the unwinder loses its way ({orc})"))
    }

    /// The thread is switched to again: vmlinux's own code from the springboard to the return.
    fn tail(&mut self, code: &Code<'_>, mut machine: Machine) -> Result<(), Error> {
        machine.call(&callee_saved());
        let call = At { addr: self.contract.springboard, alternative: None };
        let starts = code.next(call, &code.decode(call)?).inside;
        let guard = self.contract.canary.map(|canary| canary.guard);
        let mut pending: Vec<(At, Machine, BTreeMap<At, u8>)> =
            starts.into_iter().map(|at| (at, machine.clone(), BTreeMap::new())).collect();
        let mut paths = 0;
        while let Some((at, mut machine, mut visits)) = pending.pop() {
            let count = visits.entry(at).or_default();
            *count += 1;
            if *count > 2 {
                continue;
            }
            let instruction = code.decode(at)?;
            match instruction.flow_control() {
                FlowControl::Next => machine.run(&instruction, guard, None),
                FlowControl::Call | FlowControl::IndirectCall => machine.call(&callee_saved()),
                _ => {}
            }
            let mut next = code.next(at, &instruction);
            if let Some(true) = machine.equal {
                follow_equal(&instruction, &mut next);
            }
            if next.returns || !next.outside.is_empty() {
                back_at_the_caller(&machine, "after a switch")?;
                self.proof.returns += 1;
            }
            paths += next.inside.len().saturating_sub(1);
            if paths > PATHS_MAX {
                return broken("the tail has too many paths to run them all");
            }
            pending.extend(next.inside.into_iter().map(|at| (at, machine.clone(), visits.clone())));
        }
        if self.proof.returns == 0 { broken("the tail never returns") } else { Ok(()) }
    }
}

/// Of a conditional branch after a comparison of equals, keeps the side that is taken.
fn follow_equal(instruction: &iced_x86::Instruction, next: &mut super::code::Next) {
    let target = Addr(instruction.near_branch_target());
    match instruction.condition_code() {
        ConditionCode::e => next.inside.retain(|at| at.addr == target || at.alternative.is_some()),
        ConditionCode::ne => {
            next.inside.retain(|at| at.addr != target);
            next.outside.retain(|addr| *addr != target);
        }
        _ => {}
    }
}

/// Checks that a return finds everything as the caller left it.
fn back_at_the_caller(machine: &Machine, when: &str) -> Result<(), Error> {
    if machine.register(RSP) != Value::Frame(-8) || machine.stack(-8) != Value::Caller {
        return broken(format!("{when} the stack pointer is {:?} on return", machine.register(RSP)));
    }
    for register in CalleeSaved::ALL {
        let found = machine.register(register.number());
        if found != Value::Entry(register.number()) {
            return broken(format!("{when} {register} comes back as {found:?}"));
        }
    }
    Ok(())
}

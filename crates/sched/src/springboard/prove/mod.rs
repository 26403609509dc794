//! The proof that the assembled stub and vmlinux's tail fit.
//!
//! Runs the stub's real instructions, and from the springboard on vmlinux's, with symbols in place of values:
//! every callee-saved register and the stack pointer must come back to the caller as they were, whether the new
//! `__schedule` switches or not, the canary must be the guard, and at every instruction of the stub the kernel's
//! unwinder must find its way.

mod machine;
mod stub;

use super::contract::{Base, Constant, Contract, Guard};
use super::error::Error;
use super::orc::Orc;
use super::paths::{At, Code};
use super::read::with_code;
use machine::{Machine, Memory, Value};
use schedswap_kernel::address::Addr;
use schedswap_kernel::arch::step::{Abi, Condition, Flow, Register, Step};
use schedswap_kernel::vmlinux::Image;
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
///
/// # Errors
/// When the object is not a stub, or it or vmlinux's tail does not keep the contract.
pub fn prove(contract: &Contract, stub_object: &[u8], image: &Image) -> Result<Proof, Error> {
    let address_of = |name: &str| image.unique_symbol(name).map(|symbol| symbol.addr);
    with_code(image, |code| prove_with(contract, stub_object, code, &address_of))
}

/// [`prove`] on code from anywhere; `address_of` gives the addresses of vmlinux's symbols.
///
/// # Errors
/// As [`prove`].
pub fn prove_with(
    contract: &Contract,
    stub_object: &[u8],
    code: &Code<'_>,
    address_of: &dyn Fn(&str) -> Option<Addr>,
) -> Result<Proof, Error> {
    let stub = Stub::read(stub_object, code.arch)?;
    let abi = code.abi();
    let return_thunk = code.arch.return_thunk();
    let mut run = Run { contract, stub: &stub, abi, return_thunk, address_of, proof: Proof::default() };
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
    after: u64,
}

struct Run<'a> {
    contract: &'a Contract,
    stub: &'a Stub<'a>,
    abi: &'static Abi,
    return_thunk: Option<&'static str>,
    address_of: &'a dyn Fn(&str) -> Option<Addr>,
    proof: Proof,
}

/// No stub, and no path of a tail, is longer.
const STEPS_MAX: usize = 4096;
/// No tail has more paths (a loop is left after its second round).
const PATHS_MAX: usize = 4096;
/// Where the switch's return address lies when the body calls for it: anywhere below the stub's frame.
const BODY_BYTES: i64 = 0x100;

fn broken<T>(why: impl std::fmt::Display) -> Result<T, Error> {
    Err(Error::Broken { why: why.to_string() })
}

impl Run<'_> {
    /// From vmlinux's entry to the call of the new `__schedule`.
    fn until_the_body(&mut self) -> Result<AtCall, Error> {
        let mut machine = Machine::at_entry(self.abi, self.guard());
        let stop = self.stub(self.stub.entry, &mut machine, None)?;
        let Stop::Body(after) = stop else { return broken("the stub does not call __schedule.ss") };
        for argument in self.abi.arguments {
            if machine.register(*argument) != Value::Entry(*argument) {
                let name = (self.abi.name)(*argument);
                return broken(format!("argument register {name} does not reach __schedule.ss"));
            }
        }
        self.frame_record(&machine)?;
        Ok(AtCall { machine, after })
    }

    /// The new `__schedule` found no other thread to switch to.
    fn body_returns(&mut self, AtCall { mut machine, after }: AtCall) -> Result<(), Error> {
        machine.call(self.abi);
        match self.stub(after, &mut machine, None)? {
            Stop::Return => self.back_at_the_caller(&machine, "without a switch"),
            _ => broken("the stub does not return when __schedule.ss does"),
        }
    }

    /// The new `__schedule` calls for the switch, with all registers its own.
    fn body_switches(&mut self, mut machine: Machine) -> Result<Machine, Error> {
        let Some(stub_sp) = machine.sp() else { return broken("the stub's stack pointer is lost") };
        machine.drop_below(stub_sp);
        let sp = self.abi.stack_pointer;
        let stubs_frame = machine.register(self.abi.frame_pointer);
        for number in (0..self.abi.registers).filter(|number| *number != sp) {
            machine.set(number, Value::Body(number));
        }
        let switch_sp = stub_sp - BODY_BYTES;
        machine.set(sp, Value::Frame(switch_sp));
        if let Base::X29(_) = self.contract.base {
            // AAPCS64: wherever the body has its frame record, the caller's is linked to it.
            machine.set(self.abi.frame_pointer, Value::Frame(switch_sp));
            machine.put(switch_sp, stubs_frame);
        }
        match self.stub(self.stub.switch_to, &mut machine, Some(switch_sp))? {
            Stop::Vmlinux(target) if target == self.contract.springboard => {}
            Stop::Vmlinux(target) => return broken(format!("it jumps to {target}, not to the springboard")),
            _ => return broken("ss_switch_to does not jump to vmlinux"),
        }
        for (number, thread) in self.abi.arguments.iter().zip(["previous", "next"]) {
            if machine.register(*number) != Value::Body(*number) {
                let name = (self.abi.name)(*number);
                return broken(format!("{name} (the {thread} thread) does not reach the springboard"));
            }
        }
        let expected = [
            (sp, Some(self.contract.stack_pointer)),
            (
                self.abi.frame_pointer,
                match self.contract.base {
                    Base::Rsp => None,
                    Base::Rbp => Some(-16),
                    Base::X29(at) => Some(at),
                },
            ),
        ];
        for (number, expected) in expected {
            let found = machine.register(number);
            if expected.is_some_and(|expected| found != Value::Frame(expected)) {
                return broken(format!("{} is {found:?} at the springboard", (self.abi.name)(number)));
            }
        }
        for Constant { register, value } in &self.contract.constants {
            let found = machine.register(register.number());
            if found != Value::Number(*value) {
                return broken(format!("{register} is {found:?} at the springboard, not {value}"));
            }
        }
        self.frame_record(&machine)?;
        if let Some(canary) = self.contract.canary
            && machine.stack(canary.offset) != Value::Guard
        {
            let found = machine.stack(canary.offset);
            return broken(format!("the canary CFA{:+} is {found:?} at the springboard", canary.offset));
        }
        Ok(machine)
    }

    /// The kernel unwinds arm64's stacks by frame records alone: the stub's must lead to the caller's.
    fn frame_record(&self, machine: &Machine) -> Result<(), Error> {
        let Base::X29(at) = self.contract.base else { return Ok(()) };
        let fp = self.abi.frame_pointer;
        let found = [machine.register(fp), machine.stack(at), machine.stack(at + 8)];
        let returns = if self.contract.signed { Value::Signed(self.abi.entry_sp) } else { Value::Caller };
        if found != [Value::Frame(at), Value::Entry(fp), returns] {
            return broken(format!("the frame record is {found:?}"));
        }
        Ok(())
    }

    fn guard(&self) -> Option<Guard> {
        self.contract.canary.map(|canary| canary.guard)
    }

    /// Runs the stub until something outside takes over. `switch_sp` is the stack pointer at `ss_switch_to`.
    fn stub(&mut self, start: u64, machine: &mut Machine, switch_sp: Option<i64>) -> Result<Stop, Error> {
        let mut offset = start;
        for _ in 0..STEPS_MAX {
            let (step, reference) = self.stub.instruction(offset)?;
            self.unwinds(offset, machine, switch_sp)?;
            let after = step.end().0;
            match step.flow {
                Flow::Next => {
                    let relocated = reference.map(|reference| self.place(reference));
                    machine.run(&step, relocated);
                    offset = after;
                }
                Flow::Return => return Ok(Stop::Return),
                Flow::Jump(target) => match reference {
                    None => offset = target.0,
                    Some(Reference { symbol, .. })
                        if self.return_thunk.is_some_and(|thunk| symbol.starts_with(thunk)) =>
                    {
                        return Ok(Stop::Return);
                    }
                    Some(Reference { symbol, offset }) => {
                        let Some(anchor) = (self.address_of)(symbol) else {
                            return broken(format!("it jumps to `{symbol}`, which vmlinux does not have"));
                        };
                        return Ok(Stop::Vmlinux(anchor.offset(*offset)));
                    }
                },
                Flow::Call(_) if reference.is_some_and(|r| r.symbol == "__schedule.ss") => {
                    return Ok(Stop::Body(after));
                }
                _ => return broken(format!("unexpected instruction at .text+{offset:#x}")),
            }
        }
        broken("the stub does not end")
    }

    /// What a relocated operand in memory is.
    fn place(&self, reference: &Reference) -> Memory {
        if reference.symbol == "ss_frame_sp" {
            return Memory::FrameSp;
        }
        match (self.guard(), (self.address_of)(&reference.symbol)) {
            (Some(Guard::Address(guard)), Some(anchor)) if anchor.offset(reference.offset) == guard => {
                Memory::Guard
            }
            _ => Memory::Other,
        }
    }

    /// Checks what the kernel's unwinder makes of an interrupt at this instruction.
    fn unwinds(&mut self, offset: u64, machine: &Machine, switch_sp: Option<i64>) -> Result<(), Error> {
        let Some(orc) = self.stub.unwind_at(offset) else { return Ok(()) };
        let fp: Register = self.abi.frame_pointer;
        let base = match orc.sp_register {
            Orc::SP => machine.register(self.abi.stack_pointer),
            Orc::BP => machine.register(fp),
            _ => Value::Junk,
        };
        let cfa = match base {
            Value::Frame(base) => Some(base + i64::from(orc.sp_offset)),
            _ => None,
        };
        let bp = match (orc.bp_register, cfa) {
            (Orc::UNDEFINED, _) => machine.register(fp),
            (Orc::CFA, Some(cfa)) => machine.stack(cfa + i64::from(orc.bp_offset)),
            _ => Value::Junk,
        };
        // Either the frame of vmlinux's __schedule, whose caller comes next, or the call in __schedule.ss.
        let leads_to_caller = cfa == Some(0) && bp == Value::Entry(fp);
        let leads_to_body = switch_sp.is_some_and(|sp| cfa == Some(sp + 8)) && bp == Value::Body(fp);
        if leads_to_caller || leads_to_body {
            self.proof.unwound += 1;
            return Ok(());
        }
        broken(format!("at .text+{offset:#x} the unwinder loses its way ({orc})"))
    }

    /// The thread is switched to again: vmlinux's own code from the springboard to the return.
    fn tail(&mut self, code: &Code<'_>, mut machine: Machine) -> Result<(), Error> {
        machine.call(self.abi);
        let call = At { addr: self.contract.springboard, alternative: None };
        let starts = code.next(call, &code.decode(call)?).inside;
        let mut pending: Vec<(At, Machine, BTreeMap<At, u8>)> =
            starts.into_iter().map(|at| (at, machine.clone(), BTreeMap::new())).collect();
        let mut paths = 0;
        while let Some((at, mut machine, mut visits)) = pending.pop() {
            let count = visits.entry(at).or_default();
            *count += 1;
            if *count > 2 {
                continue;
            }
            let step = code.decode(at)?;
            match step.flow {
                Flow::Next => machine.run(&step, None),
                Flow::Call(_) | Flow::CallIndirect(_) => machine.call(self.abi),
                _ => {}
            }
            let mut next = code.next(at, &step);
            if let Some(true) = machine.equal {
                follow_equal(&step, &mut next);
            }
            if next.returns || !next.outside.is_empty() {
                self.back_at_the_caller(&machine, "after a switch")?;
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

    /// Checks that a return finds everything as the caller left it.
    fn back_at_the_caller(&self, machine: &Machine, when: &str) -> Result<(), Error> {
        let (sp, entry_sp) = (self.abi.stack_pointer, self.abi.entry_sp);
        if machine.register(sp) != Value::Frame(entry_sp) {
            return broken(format!("{when} the stack pointer is {:?} on return", machine.register(sp)));
        }
        let returns_to = self.abi.link.map_or_else(|| machine.stack(entry_sp), |link| machine.register(link));
        if returns_to != Value::Caller {
            return broken(format!("{when} it returns to {returns_to:?}"));
        }
        for number in self.abi.callee_saved {
            let found = machine.register(*number);
            if found != Value::Entry(*number) {
                return broken(format!("{when} {} comes back as {found:?}", (self.abi.name)(*number)));
            }
        }
        Ok(())
    }
}

/// Of a conditional branch after a comparison of equals, keeps the side that is taken.
fn follow_equal(step: &Step, next: &mut super::paths::Next) {
    let Flow::Branch { target, condition } = step.flow else { return };
    match condition {
        Condition::Equal => next.inside.retain(|at| at.addr == target || at.alternative.is_some()),
        Condition::NotEqual => {
            next.inside.retain(|at| at.addr != target);
            next.outside.retain(|addr| *addr != target);
        }
        Condition::Other => {}
    }
}

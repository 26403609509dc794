//! Which function calls, jumps to, or takes the address of which, from the code of all functions.

use super::super::scan::{self, Code};
use super::data::{Data, Found};
use super::decoder;
use crate::address::Addr;
use crate::arch::{Branch, CodeUses, FunctionEntries, Known, Passed, Site, SiteKind, Taken};
use crate::elf::Elf;
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use std::collections::HashSet;

/// At most so many instructions are followed from the load of an argument register to the call.
const CALL_DISTANCE_MAX: usize = 256;

/// Looks at all functions.
pub(super) fn uses(elf: &Elf, known: &Known<'_>) -> CodeUses {
    let Known { entries, variables, sites } = *known;
    let scan = Scan { entries, sites, thunks: indirect_thunks(elf), data: Data::of(elf, variables) };
    scan::all(elf, |code, uses| scan.function(code, uses))
}

/// Retpolines: `__x86_indirect_thunk_rax`, `__x86_indirect_call_thunk_rax`, `__x86_indirect_its_thunk_rax`, ….
fn indirect_thunks(elf: &Elf) -> HashSet<Addr> {
    let functions = elf.functions_by_addr.iter().map(|id| elf.symbol(*id));
    functions.filter(|s| s.name.starts_with("__x86_indirect_")).map(|s| s.addr).collect()
}

struct Scan<'a> {
    entries: &'a FunctionEntries,
    sites: &'a [Site],
    thunks: HashSet<Addr>,
    data: Data<'a>,
}

impl Scan<'_> {
    fn function(&self, code: &Code<'_>, uses: &mut CodeUses) {
        let mut decoder = decoder(code.bytes, code.start.0);
        let mut instruction = Instruction::default();
        let mut is_indirect = false;
        let mut data = Found::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            let at = Addr(instruction.ip());
            if let Some(target) = branch_target(&instruction) {
                is_indirect |= self.thunks.contains(&target);
                if !code.holds(target) && self.entries.contains(target) {
                    let is_call = instruction.flow_control() == FlowControl::Call;
                    uses.branches.push(Branch { at, caller: code.id, callee: target, is_call });
                }
                continue;
            }
            self.data.instruction(code.id, &instruction, &mut data);
            match instruction.flow_control() {
                FlowControl::IndirectCall | FlowControl::IndirectBranch => {
                    is_indirect |= !self.is_made_direct_at_boot(at);
                }
                FlowControl::Next => {
                    if let Some(target) = self.address_taken(&instruction) {
                        uses.taken.push(Taken { at, function: code.id, target });
                        self.passed(code, &instruction, target, uses);
                    }
                }
                _ => {}
            }
        }
        if is_indirect {
            uses.indirect.push(code.id);
        }
        uses.data.extend(data.into_uses());
    }

    /// Whether boot code makes an indirect call direct: paravirt operations are compiled as calls through `pv_ops`.
    fn is_made_direct_at_boot(&self, at: Addr) -> bool {
        let sites = self.sites;
        let after = sites.partition_point(|s| s.addr <= at);
        sites[..after].iter().rev().take_while(|s| at.0 - s.addr.0 < u64::from(u8::MAX)).any(|s| {
            matches!(s.kind, SiteKind::Paravirt | SiteKind::Alternative) && at.0 - s.addr.0 < u64::from(s.len)
        })
    }

    /// The function's entry that the instruction computes or has as an immediate, if it is one.
    fn address_taken(&self, instruction: &Instruction) -> Option<Addr> {
        for operand in 0..instruction.op_count() {
            let value = match instruction.op_kind(operand) {
                OpKind::Immediate32to64 => instruction.immediate32to64() as u64,
                OpKind::Immediate64 => instruction.immediate64(),
                OpKind::Memory if yields_fixed_address(instruction) => instruction.memory_displacement64(),
                _ => continue,
            };
            if self.entries.contains(Addr(value)) {
                return Some(Addr(value));
            }
        }
        None
    }

    /// Follows the code from the load of an argument register to the calls that are made with it.
    fn passed(&self, code: &Code<'_>, load: &Instruction, target: Addr, uses: &mut CodeUses) {
        let register = load.op0_register().full_register();
        if load.op0_kind() != OpKind::Register || !is_argument(register) {
            return;
        }
        let at = Addr(load.ip());
        let mut info = InstructionInfoFactory::new();
        let mut starts = vec![Addr(load.next_ip())];
        let mut seen = HashSet::new();
        let mut budget = CALL_DISTANCE_MAX;
        while let Some(start) = starts.pop() {
            let Some(bytes) = code.from(start).filter(|_| seen.insert(start)) else { continue };
            for instruction in decoder(bytes, start.0) {
                budget = budget.saturating_sub(1);
                if budget == 0 {
                    return;
                }
                if let Some(next) = branch_target(&instruction) {
                    let stays = code.holds(next) && instruction.flow_control() != FlowControl::Call;
                    if stays {
                        starts.push(next);
                    } else if self.entries.contains(next) {
                        uses.passed.push(Passed { target, callee: next, at, caller: code.id });
                    }
                    if instruction.flow_control() != FlowControl::ConditionalBranch {
                        break;
                    }
                } else if instruction.flow_control() != FlowControl::Next
                    || overwrites(&mut info, &instruction, register)
                {
                    break;
                }
            }
        }
    }
}

/// Whether it is a `lea` of one address: RIP-relative (the decoder has added RIP) or absolute. With any other register
/// it is arithmetic such as `x - _text`.
fn yields_fixed_address(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Lea
        && matches!(instruction.memory_base(), Register::RIP | Register::None)
        && instruction.memory_index() == Register::None
}

fn branch_target(instruction: &Instruction) -> Option<Addr> {
    super::near_target(instruction).map(Addr)
}

/// The six registers in which the ABI passes integers and pointers.
fn is_argument(register: Register) -> bool {
    use Register::{R8, R9, RCX, RDI, RDX, RSI};
    [RDI, RSI, RDX, RCX, R8, R9].contains(&register)
}

fn overwrites(info: &mut InstructionInfoFactory, instruction: &Instruction, register: Register) -> bool {
    let writes = |access| {
        matches!(
            access,
            OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
        )
    };
    let used = info.info(instruction).used_registers();
    used.iter().any(|used| used.register().full_register() == register && writes(used.access()))
}

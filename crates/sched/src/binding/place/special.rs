//! What becomes of each section of a scheduler object, in one table with a reason for each.
//!
//! The kernel's own `objtool klp diff` has the same problem and is the reference for which sections are
//! special. A section that is loaded but not listed is an error by name, so that a new kernel's new table
//! is noticed rather than lost.

use crate::binding::boot_pointers;
use object::elf::{SHF_ALLOC, SHF_EXECINSTR};
use schedswap_kernel::arch::Arch;

/// What becomes of a section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Functions; kept and dropped one by one.
    Code,
    /// Code without symbols that functions or tables refer to; kept as far as it is referred to.
    Stubs,
    /// Objects; each shared with vmlinux, kept, or dropped, one by one.
    Data(Kept),
    /// Entries that each describe a place in code, named by the relocation at the entry's start; an entry
    /// follows the code it describes.
    Table(EntrySize),
    /// `.orc_unwind_ip`: entry n belongs with entry n of `.orc_unwind`.
    OrcIp,
    /// `.orc_unwind`.
    Orc,
    /// Not carried by the module. References to what is in there bind to vmlinux.
    Drop,
    /// A module cannot have it: a use of it is an error.
    Refuse,
}

/// Where kept objects of a data section go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// `.data`
    Data,
    /// `.rodata`
    ReadOnly,
    /// `.bss`
    Bss,
    /// `.data..percpu`: the loader copies this section, and only this one, for every CPU.
    PerCpu,
    /// `.data..ro_after_init`
    ReadOnlyAfterInit,
    /// `.data.once` and its like: the module's own, whatever its name, as a message printed once by vmlinux is
    /// not the module's.
    Once,
}

/// How large a table's entries are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntrySize {
    /// As large as this structure of the kernel; `fallback` bytes where the kernel has no such type.
    Struct {
        /// Name of the structure.
        name: &'static str,
        /// Bytes.
        fallback: u64,
    },
    /// A bare field: one relocation an entry.
    Field(u64),
}

/// One row: which sections, what becomes of them, why.
struct Row {
    name: &'static str,
    is_prefix: bool,
    policy: Policy,
    reason: &'static str,
}

const fn exact(name: &'static str, policy: Policy, reason: &'static str) -> Row {
    Row { name, is_prefix: false, policy, reason }
}

const fn prefix(name: &'static str, policy: Policy, reason: &'static str) -> Row {
    Row { name, is_prefix: true, policy, reason }
}

const fn table(name: &'static str, structure: &'static str, fallback: u64, reason: &'static str) -> Row {
    exact(name, Policy::Table(EntrySize::Struct { name: structure, fallback }), reason)
}

const fn fields(name: &'static str, size: u64, reason: &'static str) -> Row {
    exact(name, Policy::Table(EntrySize::Field(size)), reason)
}

/// First match wins.
const TABLE: &[Row] = &[
    // Code.
    exact(".init.text", Policy::Drop, "vmlinux has run it, and freed it"),
    exact(".exit.text", Policy::Drop, "built-in code never exits"),
    exact(".static_call.text", Policy::Drop, "trampolines that vmlinux patches: calls bind to vmlinux's"),
    exact(".altinstr_replacement", Policy::Stubs, "what .altinstructions puts into kept code"),
    exact(".altinstr_aux", Policy::Stubs, "the slow way of static_cpu_has, before alternatives are applied"),
    exact(".text", Policy::Code, "functions"),
    prefix(".text.", Policy::Code, "functions, one a section"),
    exact(".sched.text", Policy::Code, "functions that wchan skips"),
    exact(".cpuidle.text", Policy::Code, "the idle loop"),
    exact(".noinstr.text", Policy::Code, "its functions stay in vmlinux, but for new ones"),
    exact(".kprobes.text", Policy::Code, "functions without probes"),
    exact(".ref.text", Policy::Code, "functions that may refer to init code"),
    exact(".spinlock.text", Policy::Code, "lock functions"),
    exact(".softirqentry.text", Policy::Code, "softirq entry"),
    exact(".irqentry.text", Policy::Code, "interrupt entry"),
    // Tables that describe code.
    exact(".orc_unwind", Policy::Orc, "unwinding through kept code"),
    exact(".orc_unwind_ip", Policy::OrcIp, "unwinding through kept code"),
    exact(".orc_header", Policy::Drop, "Kbuild gives the module's own"),
    table("__jump_table", "jump_entry", 16, "static branches in kept code"),
    table(".static_call_sites", "static_call_site", 8, "static calls in kept code"),
    table(".altinstructions", "alt_instr", 0, "the loader applies them to kept code"),
    table(".parainstructions", "paravirt_patch_site", 16, "the loader applies them to kept code"),
    fields(".smp_locks", 4, "lock prefixes in kept code"),
    fields(".retpoline_sites", 4, "indirect calls in kept code"),
    fields(".return_sites", 4, "returns in kept code"),
    fields(".call_sites", 4, "calls in kept code, for call depth tracking"),
    table("__bug_table", "bug_entry", 0, "WARN and BUG in kept code"),
    table("__ex_table", "exception_table_entry", 0, "faults in kept code"),
    fields("_kprobe_blacklist", 8, "kept functions that must not be probed"),
    table(
        "_error_injection_whitelist",
        "error_injection_entry",
        16,
        "kept functions whose result may be overridden",
    ),
    // Data.
    exact(".data.once", Policy::Data(Kept::Once), "the module prints its own warnings once"),
    exact(".data..once", Policy::Data(Kept::Once), "the module prints its own warnings once"),
    exact(".data..do_once", Policy::Data(Kept::Once), "the module does its own things once"),
    exact(".data..percpu", Policy::Data(Kept::PerCpu), "per-CPU data"),
    prefix(".data..percpu..", Policy::Data(Kept::PerCpu), "per-CPU data, aligned"),
    exact(".data..ro_after_init", Policy::Data(Kept::ReadOnlyAfterInit), "written by init code only"),
    exact(".data..read_mostly", Policy::Data(Kept::Data), "data that is rarely written"),
    prefix(".data..cacheline_aligned", Policy::Data(Kept::Data), "aligned data"),
    prefix(".data..page_aligned", Policy::Data(Kept::Data), "aligned data"),
    exact(".data", Policy::Data(Kept::Data), "data"),
    prefix(".data.rel.ro", Policy::Data(Kept::ReadOnly), "constants with addresses"),
    prefix(".data.", Policy::Data(Kept::Data), "data, one object a section"),
    exact(".ref.data", Policy::Data(Kept::Data), "data that may refer to init code"),
    exact(".bss", Policy::Data(Kept::Bss), "zeroed data"),
    prefix(".bss.", Policy::Data(Kept::Bss), "zeroed data, one object a section"),
    exact(".rodata", Policy::Data(Kept::ReadOnly), "constants"),
    prefix(
        ".rodata.",
        Policy::Data(Kept::ReadOnly),
        "constants and strings, one object or function a section",
    ),
    prefix(".schedswap.", Policy::Data(Kept::Data), "what the author declares to the runtime"),
    // vmlinux's own lists. What they announce is announced already; a second time would be wrong.
    prefix(".initcall", Policy::Drop, "vmlinux has called them"),
    prefix(".init.", Policy::Drop, "vmlinux has used it, and freed it"),
    prefix(".exit.", Policy::Drop, "built-in code never exits"),
    prefix("___ksymtab", Policy::Drop, "vmlinux exports these"),
    prefix("__ksymtab", Policy::Drop, "vmlinux exports these"),
    prefix("___kcrctab", Policy::Drop, "vmlinux exports these"),
    prefix("__kcrctab", Policy::Drop, "vmlinux exports these"),
    exact(".export_symbol", Policy::Drop, "vmlinux exports these"),
    prefix("__tracepoints", Policy::Drop, "tracepoints bind to vmlinux's, where probes are attached"),
    exact("__tracepoint_check", Policy::Drop, "names that the kernel's build compares after linking"),
    exact("_ftrace_events", Policy::Drop, "vmlinux has registered them"),
    exact("_ftrace_eval_map", Policy::Drop, "vmlinux has registered them"),
    exact("__bpf_raw_tp_map", Policy::Drop, "vmlinux has registered them"),
    exact("__syscalls_metadata", Policy::Drop, "vmlinux has registered them"),
    exact("__trace_printk_fmt", Policy::Drop, "formats of vmlinux's trace_printk"),
    exact(".static_call_tramp_key", Policy::Drop, "for modules that use vmlinux's static calls"),
    exact(".BTF_ids", Policy::Drop, "ids in vmlinux's type information"),
    exact("__param", Policy::Drop, "vmlinux's own parameters"),
    prefix("__modver", Policy::Drop, "vmlinux's own versions"),
    exact("__dyndbg", Policy::Drop, "vmlinux's own debug statements; the module's are not listed"),
    exact("__dyndbg_classes", Policy::Drop, "vmlinux's own debug statements"),
    prefix(".discard.", Policy::Drop, "notes from the compiler to objtool"),
    exact(".ibt_endbr_seal", Policy::Drop, "the loader would turn the endbr of kept functions into nops"),
    exact(
        "__patchable_function_entries",
        Policy::Drop,
        "padding before functions, which boot code finds itself",
    ),
    exact(".printk_index", Policy::Drop, "index of vmlinux's messages"),
    exact(".modinfo", Policy::Drop, "built-in code has none of its own"),
    exact("__start_once", Policy::Drop, "vmlinux's own"),
    // Values that only boot code writes into instructions.
    prefix(boot_pointers::SECTION, Policy::Refuse, RUNTIME_CONST),
    prefix("runtime_shift_", Policy::Refuse, RUNTIME_CONST),
    prefix("runtime_mask_", Policy::Refuse, RUNTIME_CONST),
];

const RUNTIME_CONST: &str = "only boot code writes this value into instructions, so a module's copy would run with a placeholder; \
     keep the function in vmlinux, or read the variable instead";

/// Whether the runtime walks what is in a section, so that nothing else need refer to it.
pub fn is_for_the_runtime(name: &str) -> bool {
    name.starts_with(".schedswap.")
}

/// What becomes of a section, and why; `None` for one that would be loaded but is not known.
pub fn policy(arch: &dyn Arch, name: &str, flags: u64) -> Option<(Policy, &'static str)> {
    if name == arch.ftrace_table() {
        return Some((Policy::Table(EntrySize::Field(8)), "ftrace sites of kept code"));
    }
    of_any(name, flags)
}

fn of_any(name: &str, flags: u64) -> Option<(Policy, &'static str)> {
    // The linker script places each class by such a section: `__fair_sched_class`.
    if name.starts_with("__") && name.ends_with("_sched_class") {
        return Some((Policy::Data(Kept::ReadOnly), "a scheduling class"));
    }
    let row =
        TABLE.iter().find(|row| if row.is_prefix { name.starts_with(row.name) } else { name == row.name });
    if let Some(row) = row {
        let is_code = matches!(row.policy, Policy::Code | Policy::Stubs);
        // `.text.` of something that is not code, or the like: not what the row is about.
        if !is_code || flags & SHF_EXECINSTR.0 != 0 {
            return Some((row.policy, row.reason));
        }
    }
    if flags & SHF_ALLOC.0 == 0 || name.starts_with(".note") {
        return Some((Policy::Drop, "not loaded into the kernel"));
    }
    None
}

/// Whether a module carries a section's functions.
pub(crate) fn carries_code(name: &str, flags: u64) -> bool {
    matches!(of_any(name, flags), Some((Policy::Code, _)))
}

/// Whether a module carries anything of a section of that name.
pub fn is_carried(name: &str) -> bool {
    carries_code(name, (SHF_ALLOC | SHF_EXECINSTR).0) || carries_data(name, SHF_ALLOC.0)
}

/// Whether a module carries a section's objects, as far as they are not vmlinux's.
pub(crate) fn carries_data(name: &str, flags: u64) -> bool {
    matches!(of_any(name, flags), Some((Policy::Data(_), _)))
}

/// Whether a section holds marks that something has been done or said once.
pub(crate) fn holds_once_marks(name: &str) -> bool {
    matches!(of_any(name, SHF_ALLOC.0), Some((Policy::Data(Kept::Once), _)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u64 = 2;
    const AX: u64 = 6;

    #[test]
    fn init_code_is_dropped_before_code_is_kept() {
        assert_eq!(of_any(".init.text", AX).unwrap().0, Policy::Drop);
        assert_eq!(of_any(".text.schedule", AX).unwrap().0, Policy::Code);
    }

    #[test]
    fn once_flags_are_not_ordinary_data() {
        assert_eq!(of_any(".data.once", A).unwrap().0, Policy::Data(Kept::Once));
        assert_eq!(of_any(".data.onceler", A).unwrap().0, Policy::Data(Kept::Data));
    }

    #[test]
    fn percpu_is_not_a_variable_called_percpu() {
        assert_eq!(of_any(".data..percpu..shared_aligned", A).unwrap().0, Policy::Data(Kept::PerCpu));
        assert_eq!(of_any(".data.percpu", A).unwrap().0, Policy::Data(Kept::Data));
    }

    #[test]
    fn one_list_of_ftrace_sites_is_in_force() {
        let entries =
            |machine, name| policy(schedswap_kernel::arch::of(machine), name, A).map(|(policy, _)| policy);
        let (x86, arm64) =
            (schedswap_kernel::vmlinux::Machine::X86_64, schedswap_kernel::vmlinux::Machine::Aarch64);
        let table = Some(Policy::Table(EntrySize::Field(8)));
        assert_eq!(entries(x86, "__mcount_loc"), table);
        assert_eq!(entries(x86, "__patchable_function_entries"), Some(Policy::Drop));
        assert_eq!(entries(arm64, "__patchable_function_entries"), table);
        assert_eq!(entries(arm64, "__mcount_loc"), None);
    }

    #[test]
    fn a_new_kernels_table_is_noticed() {
        assert_eq!(of_any(".frobnication_sites", A), None);
        assert!(of_any(".debug_info", 0).is_some());
    }

    #[test]
    fn every_row_can_be_reached() {
        for (i, row) in TABLE.iter().enumerate() {
            let earlier = TABLE[..i]
                .iter()
                .find(|e| if e.is_prefix { row.name.starts_with(e.name) } else { e.name == row.name });
            if let Some(earlier) = earlier {
                panic!("{} hides {}", earlier.name, row.name);
            }
        }
    }
}

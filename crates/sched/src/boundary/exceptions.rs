//! What nothing in the kernel's binary can tell. Every list of kernel names in the boundary is here.

/// Source files all of whose functions may run in NMI context, beside those that are found by following the code from the
/// handlers on.
pub const NMI_SOURCES: &[(&str, &str)] = &[(
    "kernel/sched/clock.c",
    "local_clock() and sched_clock_cpu() are called by printk and perf from NMIs",
)];

/// Functions that NMIs run, to which no direct branch leads from the NMI's entry.
pub const NMI_ENTRIES: &[(&str, &str)] = &[
    ("exc_nmi", "the entry itself"),
    ("nmi_cpu_backtrace", "each CPU's answer to trigger_all_cpu_backtrace()"),
    ("perf_event_overflow", "the hardware's driver calls it, which is reached through a pointer"),
    ("__perf_event_overflow", "the same, of software events"),
    ("bpf_overflow_handler", "a BPF program on a perf event; perf calls it through a pointer"),
    ("vprintk_store", "printk() in an NMI, which takes locks in other contexts only"),
    ("trace_call_bpf", "a BPF program on a probe or a tracepoint of what an NMI runs"),
    ("__bpf_prog_enter", "the same by way of a trampoline (fentry, fexit)"),
    ("__bpf_prog_enter_recur", "the same since 6.1"),
    ("__bpf_prog_exit", "and the way back"),
    ("__bpf_prog_exit_recur", "the same since 6.1"),
];

/// What ends the kernel when it is called, so that it does not matter what runs below it.
pub const ENDS: &[(&str, &str)] = &[
    ("panic", "the machine stops"),
    ("nmi_panic", "it calls panic()"),
    ("__stack_chk_fail", "it calls panic()"),
];

/// Variables that must be the module's own although vmlinux has them: their size and order follow
/// features.h, which an edit may change, and the code that reads them is compiled with the edited order.
pub const PRIVATE_VARIABLES: &[(&str, &str)] = &[
    (features::BITS, "its bits are in the order of the edited features.h"),
    (features::KEYS, "one static key for each feature of the edited features.h"),
    (features::NAMES, "one name for each feature of the edited features.h"),
];

/// The feature switches, whose meaning only their source tells.
pub mod features {
    /// One bit for each feature.
    pub const BITS: &str = "sysctl_sched_features";
    /// One static key for each.
    pub const KEYS: &str = "sched_feat_keys";
    /// One name for each.
    pub const NAMES: &str = "sched_feat_names";
    /// The only function that changes their values after boot: the write method of their file in debugfs.
    pub const WRITER: &str = "sched_feat_write";
}

/// What `preempt_enable()` calls in a preemptible kernel, directly where no static call stands between (arm64): it
/// reaches `__schedule`, but a thread is on few stacks of its callers, and the stack check finds it there. That
/// `preempt_enable()` calls them, only the sources tell (include/linux/preempt.h, asm/preempt.h).
pub const PREEMPTION: &[(&str, &str)] =
    &[("preempt_schedule", "preempt_enable()"), ("preempt_schedule_notrace", "preempt_enable_notrace()")];

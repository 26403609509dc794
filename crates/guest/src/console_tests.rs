//! Real consoles, cut down to the lines around a complaint.

use super::*;

fn kinds(console: &str) -> Vec<Kind> {
    complaints(console, &[]).into_iter().map(|c| c.kind).collect()
}

#[test]
fn a_quiet_boot_has_no_complaint() {
    let console = "\
[    0.000000] Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12)
[    0.000000] Command line: console=ttyS0 panic=-1 oops=panic note=BUG:WARNING:
[    0.088855] Kernel command line: console=ttyS0 panic=-1 oops=panic
[    0.100000] Spectre V2 : WARNING-free: Retpolines
[    0.258853] rcu: Hierarchical SRCU implementation.
[    0.268853] rcu: \tMax phase no-delay instances is 1000.
[    1.370114] rcu_tasks: Setting shift to 2 and lim to 1 rcu_task_cb_adjust=1.
[    5.000000] scheduler: loading out-of-tree module taints kernel.
[    5.000001] scheduler: module verification failed: signature and/or required key missing - tainting kernel
[    6.000000] sched: RT throttling activated
[    7.000000] hackbench[311]: segfault at 0 ip 0000000000401136 sp 00007ffd5c8f4d40 error 6 in hackbench[401000+1000]
[    7.100000] traps: stress-ng[312] general protection fault ip:55d0 sp:7ffc error:0 in stress-ng[55d0+1000]
[    8.000000] hrtimer: interrupt took 12345678 ns
";
    assert_eq!(complaints(console, &[]), []);
}

#[test]
fn a_warning_with_its_trace_is_one_complaint() {
    let console = "\
[   12.000000] ------------[ cut here ]------------
[   12.000001] rq->clock_update_flags < RQCF_ACT_SKIP
[   12.000002] WARNING: CPU: 2 PID: 17 at kernel/sched/sched.h:1494 update_curr+0x1a2/0x1f0
[   12.000003] Modules linked in: scheduler(OE)
[   12.000004] CPU: 2 PID: 17 Comm: migration/2 Tainted: G           OE      6.1.0-56-cloud-amd64 #1
[   12.000005] RIP: 0010:update_curr+0x1a2/0x1f0
[   12.000006] Call Trace:
[   12.000007]  <TASK>
[   12.000008]  dequeue_entity+0x1b/0x4f0
[   12.000009]  </TASK>
[   12.000010] ---[ end trace 0000000000000000 ]---
";
    let found = complaints(console, &[]);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].kind, found[0].line), (Kind::Warning, 3));
    assert!(found[0].context.contains("rq->clock_update_flags"), "the line before the warning explains it");
    assert!(found[0].context.contains("dequeue_entity"));
}

#[test]
fn the_trace_of_what_is_expected_is_expected_once() {
    let console = "\
[   30.000001] stress-ng-vm invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=1000
[   30.000002] CPU: 1 PID: 311 Comm: stress-ng-vm Tainted: G           OE      6.1.0-56-cloud-amd64 #1
[   30.000003] Call Trace:
[   30.000004]  dump_header+0x4a/0x213
[   30.000005] Out of memory: Killed process 311 (stress-ng-vm) total-vm:268084kB
[   30.000006] Call Trace:
";
    // The second is so near that it counts as a part of the first.
    assert_eq!(kinds(console), [Kind::CallTrace]);
    let found = complaints(console, &["invoked oom-killer".to_string()]);
    assert_eq!(found.iter().map(|c| c.line).collect::<Vec<_>>(), [6]);
}

#[test]
fn a_trace_after_the_end_of_a_report_is_another() {
    let console = "\
[   12.000002] WARNING: CPU: 2 PID: 17 at kernel/sched/core.c:1 f+0x1/0x2
[   12.000010] ---[ end trace 0000000000000000 ]---
[   13.000010] Call Trace:
";
    assert_eq!(kinds(console), [Kind::Warning, Kind::CallTrace]);
}

#[test]
fn an_oops_that_panics() {
    let console = "\
[    4.101] BUG: kernel NULL pointer dereference, address: 0000000000000000
[    4.102] #PF: supervisor write access in kernel mode
[    4.103] #PF: error_code(0x0002) - not-present page
[    4.104] PGD 0 P4D 0 \r
[    4.105] Oops: 0002 [#1] PREEMPT SMP NOPTI
[    4.106] CPU: 0 PID: 1 Comm: sh Not tainted 6.1.0-56-cloud-amd64 #1  Debian 6.1.192-2
[    4.107] RIP: 0010:sysrq_handle_crash+0x16/0x20
[    4.108] Call Trace:
[    4.109]  <TASK>
[    4.110]  __handle_sysrq.cold+0x9a/0x11f
[    4.111] ---[ end trace 0000000000000000 ]---
[    4.112] Kernel panic - not syncing: Fatal exception
[    4.113] ---[ end Kernel panic - not syncing: Fatal exception ]---
";
    assert_eq!(kinds(console), [Kind::Bug, Kind::Panic, Kind::Panic]);
}

/// One real line each, from kernels 5.10 to 7.x and both architectures.
const SAMPLES: &[(Kind, &str)] = &[
    (Kind::Panic, "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"),
    (
        Kind::Panic,
        "Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: __schedule+0x9a1/0xa00",
    ),
    (Kind::Bug, "BUG: kernel NULL pointer dereference, address: 0000000000000040"),
    (Kind::Bug, "kernel BUG at kernel/sched/rt.c:1123!"),
    (Kind::Bug, "BUG: using smp_processor_id() in preemptible [00000000] code: sh/1"),
    (Kind::Oops, "BUG: unable to handle page fault for address: ffffffffc0a3d000"),
    (Kind::Oops, "Unable to handle kernel paging request at virtual address ffff80000a3d000"),
    (Kind::Oops, "Internal error: Oops: 0000000096000044 [#1] SMP"),
    (
        Kind::Oops,
        "Oops: general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1] SMP",
    ),
    (
        Kind::Oops,
        "general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1] PREEMPT SMP NOPTI",
    ),
    (Kind::Oops, "invalid opcode: 0000 [#1] PREEMPT SMP NOPTI"),
    (Kind::Oops, "traps: PANIC: double fault, error_code: 0x0"),
    (
        Kind::Oops,
        "BUG: stack guard page was hit at 00000000c5a3f1d2 (stack is 000000008a0e2b91..00000000e0c5b1a7)",
    ),
    (Kind::Warning, "WARNING: CPU: 1 PID: 0 at kernel/sched/fair.c:4111 load_balance+0x1/0x2"),
    (Kind::Warning, "WARNING: kernel/sched/core.c:1234 at try_to_wake_up+0x1/0x2, CPU#1: sh/1"),
    (Kind::Warning, "WARNING: possible circular locking dependency detected"),
    (Kind::Warning, "WARNING: stack recursion on stack type 2"),
    (Kind::Atomic, "BUG: scheduling while atomic: kworker/2:1/45/0x00000002"),
    (Kind::Atomic, "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:283"),
    (Kind::RcuStall, "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"),
    (Kind::RcuStall, "rcu: INFO: rcu_preempt self-detected stall on CPU"),
    (
        Kind::RcuStall,
        "rcu: INFO: rcu_sched detected expedited stalls on CPUs/tasks: { 3-... } 25 jiffies s: 61 root: 0x8/.",
    ),
    (
        Kind::RcuStall,
        "rcu: rcu_preempt kthread starved for 5252 jiffies! g-1095 f0x0 RCU_GP_WAIT_FQS(5) ->state=0x0 ->cpu=1",
    ),
    (Kind::Lockup, "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [migration/1:17]"),
    (Kind::Lockup, "NMI watchdog: Watchdog detected hard LOCKUP on cpu 3"),
    (Kind::Lockup, "BUG: workqueue lockup - pool cpus=2 node=0 flags=0x0 nice=0 stuck for 31s!"),
    (Kind::HungTask, "INFO: task kworker/0:1:9 blocked for more than 120 seconds."),
    (Kind::Corruption, "list_del corruption. prev->next should be ffff8881, but was dead000000000100"),
    (Kind::Corruption, "refcount_t: underflow; use-after-free."),
    (Kind::Corruption, "BUG: Bad page state in process sh  pfn:12345"),
    (
        Kind::Corruption,
        "jump_label: Fatal kernel bug, unexpected op at load_balance+0x1/0x2 [00000000a] (eb 3 != 66 90)",
    ),
    (Kind::DroppedMessages, "** 123 printk messages dropped **"),
    (Kind::CallTrace, "Call Trace:"),
    (Kind::Taint, "Disabling lock debugging due to kernel taint"),
];

#[test]
fn every_kind_is_recognised() {
    for &(kind, line) in SAMPLES {
        let expected = if kind == Kind::Corruption && line.starts_with("BUG") { Kind::Bug } else { kind };
        assert_eq!(kinds(&format!("[   12.345678] {line}\n")), [expected], "{line}");
        assert_eq!(kinds(&format!("[   12.345678][  T312] {line}\r\n")), [expected], "{line}");
    }
}

#[test]
fn an_expected_line_is_no_complaint() {
    let console = "[ 1.0] WARNING: planted\n[ 2.0] WARNING: real\n";
    let found = complaints(console, &["planted".to_string()]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].text, "WARNING: real");
}

#[test]
fn taints_other_than_allowed_are_named() {
    assert_eq!(unexpected_taints(1 << 12 | 1 << 13, "OE"), None);
    assert_eq!(unexpected_taints(1 << 12 | 1 << 9, "OE").unwrap(), "W (warning)");
    assert_eq!(unexpected_taints(1 << 40, "OE").unwrap(), "bit 40");
}

#[test]
fn tail_is_the_end() {
    assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
    assert_eq!(tail("", 2), "");
}

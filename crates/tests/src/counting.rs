//! Two releases of one scheduler, which count in variables of their own, and what runs on a machine.

use crate::modules::{Packages, package};
use anyhow::{Result, ensure};
use schedswap_guest::debian::Machine;

/// Where a release says its number and how often it was asked.
pub const FEATURES: &str = "/sys/kernel/debug/sched/features";

/// A release that says its number and how often it was asked; it counts on from the release before it.
pub fn counting(release: &str) -> Result<Packages> {
    package("counting", release, |tree| {
        tree.before(
            "debug.c",
            "sched_feat_show",
            "static unsigned long test_reads;\nstatic DEFINE_PER_CPU(unsigned int, test_reads_here);\n",
        )?;
        tree.at_entry(
            "debug.c",
            "sched_feat_show",
            &format!(
                "{{ unsigned int sum = 0; int cpu; static int local; test_reads++; local++; \
                 this_cpu_inc(test_reads_here); \
                 for_each_possible_cpu(cpu) sum += per_cpu(test_reads_here, cpu); \
                 seq_printf(m, \"release={release} reads=%lu,%u,%d \", test_reads, sum, local); }}"
            ),
        )
    })
}

/// What runs, as the loader says; empty for the kernel's own.
pub fn running(machine: &Machine) -> Result<String> {
    Ok(machine.sh("cat /sys/kernel/schedswap/version 2>/dev/null || true")?)
}

/// What the release that runs says, which is one reading more.
pub fn reads(machine: &Machine) -> Result<String> {
    Ok(machine.sh(&format!("grep -o 'release=.* reads=[0-9,]*' {FEATURES}"))?)
}

/// Fails unless that release runs, and nothing else is loaded.
pub fn assert_runs(machine: &Machine, packages: &Packages) -> Result<()> {
    ensure!(running(machine)? == packages.version(), "{} should run: {}", packages.version(), said(machine)?);
    machine.sh("test $(ls -d /sys/module/scheduler_???????? | wc -l) = 1")?;
    Ok(())
}

/// Fails unless the kernel's own scheduler runs, and nothing is loaded.
pub fn assert_own_runs(machine: &Machine) -> Result<()> {
    ensure!(running(machine)?.is_empty(), "the kernel's own should run: {}", said(machine)?);
    machine.sh("! ls -d /sys/module/scheduler_???????? && ! ls -d /sys/kernel/schedswap")?;
    Ok(())
}

/// For errors: what loader and journal say.
pub fn said(machine: &Machine) -> Result<String> {
    let output = machine.run(
        "/var/lib/schedswap/loader status; systemctl status --no-pager schedswap.service; find /var/lib/schedswap; \
         dmesg | grep schedswap | tail",
    )?;
    Ok(format!("{}{}", output.stdout, output.stderr))
}

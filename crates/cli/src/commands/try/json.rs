//! The file that `try --json` writes.

use super::TryArgs;
use anyhow::Context;
use schedswap_guest::Usage;
use schedswap_guest::scenario::Findings;
use serde::Serialize;
use std::fs;
use std::path::Path;

/// The file that --json names.
#[derive(Serialize)]
pub struct Measured<'a> {
    release: &'a str,
    cpus: u32,
    memory_mib: u32,
    #[serde(flatten)]
    findings: Option<&'a Findings>,
    script_status: Option<i32>,
    boot_seconds: f64,
    wall_seconds: f64,
    qemu_cpu_seconds: f64,
    qemu_peak_rss_bytes: u64,
}

impl<'a> Measured<'a> {
    pub fn new(
        args: &TryArgs,
        release: &'a str,
        findings: Option<&'a Findings>,
        script_status: Option<i32>,
        usage: Usage,
    ) -> Measured<'a> {
        Measured {
            release,
            cpus: args.cpus,
            memory_mib: args.memory,
            findings,
            script_status,
            boot_seconds: usage.boot.as_secs_f64(),
            wall_seconds: usage.wall.as_secs_f64(),
            qemu_cpu_seconds: usage.cpu.as_secs_f64(),
            qemu_peak_rss_bytes: usage.peak_rss_bytes,
        }
    }

    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self).context("cannot write JSON")?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

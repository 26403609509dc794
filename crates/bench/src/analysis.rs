//! Reading vmlinux, computing the boundary and rewriting objects: each several times, each in a process of its own.

use crate::alone::{self, Cost, Piece};
use crate::figures::{Findings, Target};
use anyhow::Result;
use serde_json::json;
use std::fs;

const TIMES: u32 = 5;

/// Measures into `findings`.
pub fn measure(findings: &mut Findings) -> Result<()> {
    // What is measured is our work, not the disk's.
    let vmlinux_bytes = fs::read(schedswap_tests::kernel()?.vmlinux)?.len();
    let analyse = costs(Piece::Analyse, findings)?;
    let what = format!("reading {:.0} MB of vmlinux and computing the boundary", vmlinux_bytes as f64 / 1e6);
    findings.note(&what, seconds(&analyse), "s", Target::AtMost(2.0));
    let peak = analyse.iter().max_by_key(|cost| cost.peak_rss_bytes).copied();
    if let Some(peak) = peak {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        findings.note("  peak memory", megabytes(peak.peak_rss_bytes), "MB", Target::AtMost(600.0));
        findings.note("  of which pages of files at the end", megabytes(peak.file_rss_bytes), "MB", None);
    }
    let rewrite = costs(Piece::Rewrite, findings)?;
    findings.note("rewriting the scheduler's objects", seconds(&rewrite), "s", Target::AtMost(1.0));
    Ok(())
}

fn costs(piece: Piece, findings: &mut Findings) -> Result<Vec<Cost>> {
    let mut costs = Vec::new();
    for _ in 0..TIMES {
        let cost = alone::cost(piece)?;
        findings.samples.push(json!({ "piece": format!("{piece:?}"), "cost": cost }));
        costs.push(cost);
    }
    Ok(costs)
}

/// The shortest: whatever else the machine does can only add.
fn seconds(costs: &[Cost]) -> f64 {
    costs.iter().map(|cost| cost.wall_ns).min().unwrap_or(0) as f64 / 1e9
}

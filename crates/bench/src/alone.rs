//! Pieces of work done in a process of their own, whose peak memory is then theirs.

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use schedswap_kernel::objects;
use schedswap_kernel::vmlinux;
use schedswap_sched::binding::{Binding, UnitObject, anchor, rewrite};
use schedswap_sched::boundary;
use schedswap_sched::compile::Build;
use schedswap_sdk::workdir::Workdir;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

/// A piece of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Piece {
    /// Reading vmlinux and computing the boundary.
    Analyse,
    /// Rewriting the pristine objects of the work dir.
    Rewrite,
}

/// What it cost.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    pub wall_ns: u64,
    pub peak_rss_bytes: u64,
    /// Of the memory held at the end, pages of files: vmlinux is mapped, and the kernel may take those back.
    pub file_rss_bytes: u64,
}

/// Runs a piece in a process of its own.
pub fn cost(piece: Piece) -> Result<Cost> {
    let name = piece.to_possible_value().context("a piece has a name")?;
    let output = Command::new(std::env::current_exe()?).args(["--alone", name.get_name()]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("what the piece printed")
}

/// Does the work here and prints its [`Cost`].
pub fn run(piece: Piece) -> Result<()> {
    let wall_ns = match piece {
        Piece::Analyse => analyse()?,
        Piece::Rewrite => rewrite_objects()?,
    };
    let cost =
        Cost { wall_ns, peak_rss_bytes: status_bytes("VmHWM:")?, file_rss_bytes: status_bytes("RssFile:")? };
    println!("{}", serde_json::to_string(&cost)?);
    Ok(())
}

fn analyse() -> Result<u64> {
    let path = schedswap_tests::kernel()?.vmlinux;
    let begun = Instant::now();
    let image = vmlinux::open(&path)?;
    let boundary = boundary::compute(&image, &schedswap_sched::config::Config::default())?;
    let took = begun.elapsed();
    ensure!(!boundary.functions.is_empty(), "the boundary is empty");
    Ok(took.as_nanos() as u64)
}

fn rewrite_objects() -> Result<u64> {
    let (root, _lock) = schedswap_tests::work_dir()?;
    let work = Workdir::open(&root)?;
    let image = work.image()?;
    let (boundary, addresses) = (work.boundary()?, work.addresses()?);
    let pristine = work.pristine(Build::Module)?.into_iter();
    let units: Vec<UnitObject> = pristine.map(|(unit, object)| UnitObject::new(unit, object)).collect();
    let binding = Binding {
        image: &image,
        boundary: &boundary,
        addresses: &addresses,
        anchor: anchor(&image)?,
        called_otherwise: &BTreeSet::new(),
    };
    let begun = Instant::now();
    let bytes = objects::write(&rewrite(&units, &binding)?.object)?;
    let took = begun.elapsed();
    ensure!(!bytes.is_empty(), "the rewritten object is empty");
    Ok(took.as_nanos() as u64)
}

/// A line of `/proc/self/status` that counts KiB.
fn status_bytes(key: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).context("/proc/self/status")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("/proc/self/status")?;
    Ok(kib << 10)
}

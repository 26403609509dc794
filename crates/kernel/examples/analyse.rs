//! Reads a debug vmlinux stage by stage, and prints what each found, how long it took, and peak memory.
//!
//! ```text
//! cargo run --release -p schedswap-kernel --example analyse -- VMLINUX
//! ```

use schedswap_kernel::vmlinux::{Error, Identified, Image, Sidecars, Uses};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: analyse VMLINUX")?);
    let start = Instant::now();
    let image = read(&path)?;
    print_time(start.elapsed(), "in all");
    println!("{:>9}  peak memory", status_line("VmHWM:"));
    println!("           of which file pages {} now", status_line("RssFile:"));
    print_kernel(&image);
    print_units(&image);
    print_uses(&image.uses);
    print_sites(&image);
    Ok(())
}

/// What [`schedswap_kernel::vmlinux::open`] does, with a line about each stage.
fn read(path: &Path) -> Result<Image, Error> {
    let start = Instant::now();
    let identified = Identified::open(path)?;
    let (symbols, exports) = (identified.elf().symbols.len(), identified.exports().len());
    print_time(start.elapsed(), &format!("symbols: {symbols} symbols, {exports} exports"));

    let start = Instant::now();
    let described = identified.describe(&Sidecars::new())?;
    print_time(start.elapsed(), &format!("debug information: {} units", described.units().len()));

    let start = Instant::now();
    let sited = described.find_sites()?;
    print_time(start.elapsed(), &format!("rewritten places: {} sites", sited.sites().len()));

    let start = Instant::now();
    let image = sited.find_uses();
    let branches = image.uses.branches.len();
    print_time(start.elapsed(), &format!("code and data: {branches} branches between functions"));
    Ok(image)
}

fn print_time(time: Duration, what: &str) {
    println!("{:6.0} ms  {what}", time.as_secs_f64() * 1e3);
}

fn print_kernel(image: &Image) {
    let build_id: String = image.build_id.iter().map(|b| format!("{b:02x}")).collect();
    println!("release {}, build-id {build_id}, {}", image.release, image.compiler);
    println!("symbols {}, functions {}", image.symbols.len(), image.functions_by_addr.len());
    let gpl = image.exports.values().filter(|gpl| **gpl).count();
    println!("exports {}, GPL only {gpl}", image.exports.len());
}

fn print_units(image: &Image) {
    for unit in &image.units {
        let (functions, variables) = (unit.functions.len(), unit.variables.len());
        let inlined = unit.inlined.len();
        println!("{}: functions {functions}, variables {variables}, inlined copies {inlined}", unit.name);
    }
    let functions: usize = image.units.iter().map(|u| u.functions.len()).sum();
    println!("functions of the scheduler {functions}");
    println!("inlined outside {}", image.inlined_outside.len());
    for copy in &image.inlined_outside {
        println!("  {} {} into {} ({})", copy.addr, copy.name, copy.into, copy.unit);
    }
}

fn print_uses(uses: &Uses) {
    println!(
        "branches {}, taken {}, stored {}, passed {}, functions with indirect calls {}",
        uses.branches.len(),
        uses.taken.len(),
        uses.stored.len(),
        uses.passed.len(),
        uses.indirect.len()
    );
}

fn print_sites(image: &Image) {
    let mut kinds = BTreeMap::new();
    for site in &image.sites {
        *kinds.entry((site.kind, site.len)).or_insert(0) += 1;
    }
    for ((kind, len), count) in kinds {
        println!("sites {kind:?} of {len} bytes: {count}");
    }
    for (name, size) in &image.entry_sizes {
        println!("struct {name}: {size} bytes");
    }
}

/// A line of this process's `/proc/self/status`.
fn status_line(key: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.map(|value| value.trim().to_owned()).unwrap_or_default()
}

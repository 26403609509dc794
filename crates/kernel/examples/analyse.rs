//! Reads a debug vmlinux and prints what was found, how long each stage took, and peak memory.
//!
//! `cargo run --release --example analyse -- <vmlinux>`

use schedswap_host::progress::Progress;
use schedswap_kernel::vmlinux::{self, Image, Sidecars};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

struct Timings {
    current: Mutex<Option<(String, Instant)>>,
}

impl Progress for Timings {
    fn begin(&self, what: &str, _total: Option<u64>) {
        *self.current.lock().unwrap() = Some((what.to_owned(), Instant::now()));
    }

    fn at(&self, _position: u64) {}

    fn end(&self, result: &str) {
        if let Some((what, start)) = self.current.lock().unwrap().take() {
            println!("{:6.0} ms  {what}: {result}", start.elapsed().as_secs_f64() * 1e3);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: analyse <vmlinux>")?);
    let start = Instant::now();
    let image = vmlinux::open_with(&path, &Sidecars::new(), &Timings { current: Mutex::new(None) })?;
    println!("{:6.0} ms  in all", start.elapsed().as_secs_f64() * 1e3);
    println!("{:>9}  peak memory", status_line("VmHWM:"));
    println!("           of which file pages {} now", status_line("RssFile:"));
    print_counts(&image);
    Ok(())
}

fn print_counts(image: &Image) {
    let build_id: String = image.build_id.iter().map(|b| format!("{b:02x}")).collect();
    println!("release {}, build-id {build_id}, {}", image.release, image.compiler);
    println!("symbols {}, functions {}", image.symbols.len(), image.functions_by_addr.len());
    let gpl = image.exports.values().filter(|gpl| **gpl).count();
    println!("exports {}, GPL only {gpl}", image.exports.len());
    for unit in &image.units {
        println!(
            "{}: functions {}, variables {}, inlined copies {}",
            unit.name,
            unit.functions.len(),
            unit.variables.len(),
            unit.inlined.len()
        );
    }
    let functions: usize = image.units.iter().map(|u| u.functions.len()).sum();
    println!("functions of the scheduler {functions}");
    println!("inlined outside {}", image.inlined_outside.len());
    for copy in &image.inlined_outside {
        println!("  {} {} into {} ({})", copy.addr, copy.name, copy.into, copy.unit);
    }
    let uses = &image.uses;
    println!(
        "branches {}, taken {}, stored {}, passed {}, functions with indirect calls {}",
        uses.branches.len(),
        uses.taken.len(),
        uses.stored.len(),
        uses.passed.len(),
        uses.indirect.len()
    );
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

fn status_line(key: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.map(|value| value.trim().to_owned()).unwrap_or_default()
}

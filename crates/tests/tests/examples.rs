//! The schedulers of `examples/`: each is a folder with a series of patches, applied in the order of their names,
//! and perhaps a script `steps.sh` that runs in the guest with `before`, `loaded` and `after` as its argument.
//! Each example has to pass `check`, to be swapped in and out under load, and to leave the kernel as it was.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Guest;
use schedswap_guest::memory::Memory;
use schedswap_guest::scenario::{Cycle, CycleResult, Scenario};
use schedswap_tests::{MODULE, build, guest, image};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CYCLES: u32 = 10;
/// For the guest's whole life, on a machine that is also busy with other work.
const LIMIT: Duration = Duration::from_secs(1200);
/// The path of `steps.sh` in the guest.
const STEPS: &str = "/schedswap/steps.sh";

#[test]
#[ignore = "takes minutes: make soak"]
fn minimal() -> Result<()> {
    comes_and_goes("minimal")
}

#[test]
#[ignore = "takes minutes: make soak"]
fn no_bandwidth_control() -> Result<()> {
    comes_and_goes("no-bandwidth-control")
}

fn comes_and_goes(name: &str) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let patches = patches_in(&folder)?;
    let module = build(name, |tree| {
        patches.iter().try_for_each(|patch| tree.patch(&format!("examples/{name}/{patch}")))
    })?;
    let steps = fs::read(folder.join("steps.sh")).ok();
    let guest = guest(&module, |config| {
        config.time_limit = LIMIT;
        if let Some(script) = &steps {
            config.initramfs.bytes(STEPS, script, 0o755);
        }
    })?;
    if steps.is_some() {
        run_steps(&guest)?;
    }
    run_cycles(&guest)?;
    guest.shutdown()?;
    Ok(())
}

/// File names, in order.
fn patches_in(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let is_patch = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "patch");
    let names = paths.iter().filter(is_patch).filter_map(|path| path.file_name()?.to_str());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    ensure!(!names.is_empty(), "{} holds no patches", folder.display());
    Ok(names)
}

fn run_steps(guest: &Guest) -> Result<()> {
    for command in [
        &format!("{STEPS} before"),
        &format!("loader install --retries 30 --wait 1s {MODULE}"),
        &format!("{STEPS} loaded"),
        "loader uninstall --retries 30 --wait 1s",
        &format!("{STEPS} after"),
    ] {
        eprintln!("{}", guest.sh(command)?);
    }
    Ok(())
}

/// The mixed load has every policy, quotas, forks and affinities; a CPU comes and goes while the example runs.
fn run_cycles(guest: &Guest) -> Result<()> {
    let scenario = Scenario {
        cycles: CYCLES,
        threads: 200,
        load: true,
        baseline: Duration::ZERO,
        hold: Duration::ZERO,
        hotplug: Some(1),
        memory: Some(Memory::of(image())),
        limit: LIMIT,
    };
    let findings = scenario.run(guest, |_| ())?;
    let done = |cycle: &&Cycle| cycle.result == CycleResult::Ok;
    let done = findings.cycles.iter().filter(done).count();
    eprintln!(
        "{done} of {CYCLES} cycles done; longest stand-still by kind, in ms: {:?}",
        findings.longest_gap_ms
    );
    // If many were refused, the cycles would have shown little.
    ensure!(done * 2 > CYCLES as usize, "only {done} of {CYCLES} cycles could be done");
    ensure!(findings.identical_bytes > Some(1 << 20), "memory was not compared");
    Ok(())
}

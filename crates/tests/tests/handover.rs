//! A scheduler that was built by a schedswap whose modules hand over differently (`SS_HANDOVER_ABI`) cannot be taken
//! over from: the successor refuses, the loader says what to do instead, and what runs is not touched.

use anyhow::{Context, Result, ensure};
use schedswap_payload::report::{Outcome, Report};
use schedswap_tests::{MODULE, build, guest, memory, pristine};
use std::fs;

/// How a module's handover begins, and the number after it, as in the runtime.
const HEADER: &str = include_str!("../../../runtime/handover.h");
const OTHER: &str = "/other/scheduler.ko";

fn constant(name: &str) -> Result<&'static str> {
    let define = format!("#define {name} ");
    let line = HEADER.lines().find_map(|line| line.strip_prefix(&define)).context(define)?;
    line.split_whitespace().next().context(line)
}

/// The module as another schedswap would have built it: with the next number.
fn of_another_abi(module: &[u8]) -> Result<Vec<u8>> {
    let magic = constant("SS_HANDOVER_MAGIC")?.trim_start_matches("0x").trim_end_matches("ULL");
    let magic = u64::from_str_radix(magic, 16)?.to_le_bytes();
    let abi: u32 = constant("SS_HANDOVER_ABI")?.parse()?;
    let handover = |abi: u32| [&magic[..], &abi.to_le_bytes()].concat();
    let (ours, others) = (handover(abi), handover(abi + 1));
    let at: Vec<usize> =
        (0..module.len() - ours.len()).filter(|at| module[*at..].starts_with(&ours)).collect();
    ensure!(at.len() == 1, "the module has {} handovers", at.len());
    let mut other = module.to_vec();
    other[at[0]..][..others.len()].copy_from_slice(&others);
    Ok(other)
}

#[test]
fn a_scheduler_of_another_abi_is_not_taken_over_from() -> Result<()> {
    let other = of_another_abi(&fs::read(build("other-abi", |_| Ok(()))?.module())?)?;
    let guest = guest(&pristine()?, |config| {
        config.initramfs.bytes(OTHER, &other, 0o644);
    })?;
    let in_charge =
        "cd /sys/kernel/schedswap && cat version state since handover && ls /sys/kernel /sys/module";
    let loader = |arguments: &str| -> Result<Report> {
        let output = guest.run(&format!("loader --json {arguments} --retries 30 --wait 1s"))?;
        serde_json::from_str(output.stdout.trim()).with_context(|| format!("{output:?}"))
    };
    ensure!(loader(&format!("install {OTHER}"))?.outcome == Outcome::Ok);
    let before = guest.sh(in_charge)?;
    ensure!(before.starts_with("other-abi-1\nenabled\n"), "{before}");
    memory().save(&guest, "before")?;

    let words = ["another version of schedswap", "Run `uninstall`, then install this one"];
    let report = loader(&format!("switch {MODULE}"))?;
    ensure!(report.outcome == Outcome::Refused, "{report:?}");
    let said = [report.errors, report.kernel_log].concat().join("\n");
    ensure!(words.iter().all(|word| said.contains(word)), "{said}");
    ensure!(said.contains("remove it first"), "the kernel does not say it: {said}");
    let plan = guest.run(&format!("loader plan {MODULE}"))?;
    ensure!(plan.status == 3 && plan.stderr.contains(words[1]), "{plan:?}");
    // Without the loader: EPROTO.
    let insmod = guest.run(&format!("insmod {MODULE} replace=1"))?;
    ensure!(insmod.status != 0 && insmod.stderr.contains("Protocol error"), "{insmod:?}");
    ensure!(guest.sh(in_charge)? == before, "what runs has changed");
    memory().save(&guest, "after")?;
    memory().compare(&guest, "before", "after")?;

    // What the message said to do.
    ensure!(loader("uninstall")?.outcome == Outcome::Ok);
    ensure!(loader(&format!("install {MODULE}"))?.outcome == Outcome::Ok);
    ensure!(guest.sh("cat /sys/kernel/schedswap/version")? == "pristine-1");
    ensure!(loader("uninstall")?.outcome == Outcome::Ok);
    guest.shutdown()?;
    Ok(())
}

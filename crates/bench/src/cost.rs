//! What programs pay for running on a swapped-in scheduler that is the stock one, unmodified.
//!
//! Runs on the stock scheduler and on the swapped-in one alternate within one guest, whose clock counts instructions.

use crate::counted::counted;
use crate::figures::{Findings, Table, Target, median};
use anyhow::{Context, Result, ensure};
use serde_json::json;

/// Also in the command below.
const PIPE_ROUNDS: u64 = 5000;
/// By name, and the command that prints how many ns (here: instructions) it took.
const PROGRAMS: [(&str, &str); 2] =
    [("hackbench", "guest-load time hackbench -g 1 -f 10 -l 500"), ("pipe", "guest-load pipe --rounds 5000")];

/// What a run was on.
const KINDS: [&str; 2] = ["stock", "swapped"];

/// Measures into `findings`.
pub fn measure(rounds: u32, findings: &mut Findings) -> Result<()> {
    let module = schedswap_tests::pristine()?;
    let mut included = Ok(());
    let guest = schedswap_tests::guest(&module, |config| {
        counted(config);
        included = config.initramfs.program("hackbench").map(|_| ());
    })?;
    included.context("hackbench (package rt-tests) is taken along")?;
    guest.sh(&format!("insmod {} enable=0", schedswap_tests::MODULE))?;

    let mut samples: Vec<(&str, &str, u64)> = Vec::new();
    // The first time fills caches of the kernel's allocators.
    for (_, command) in PROGRAMS {
        guest.sh(command)?;
    }
    for _ in 0..rounds {
        for kind in KINDS {
            let enable = u8::from(kind == "swapped");
            guest.sh(&format!("echo {enable} >/sys/kernel/schedswap/enable"))?;
            for (program, command) in PROGRAMS {
                let printed = guest.sh(command)?;
                let ns = printed.trim().parse().with_context(|| format!("{program} printed {printed:?}"))?;
                findings.samples.push(json!({ "program": program, "on": kind, "instructions": ns }));
                samples.push((program, kind, ns));
            }
        }
    }
    guest.sh("echo 0 >/sys/kernel/schedswap/enable")?;
    ensure!(!samples.is_empty(), "no rounds were asked for");
    report(&samples, findings);
    guest.shutdown()?;
    Ok(())
}

fn report(samples: &[(&str, &str, u64)], findings: &mut Findings) {
    let mut rows = Vec::new();
    for (program, _) in PROGRAMS {
        let of = |kind| {
            let chosen = samples.iter().filter(move |sample| (sample.0, sample.1) == (program, kind));
            chosen.map(|sample| sample.2)
        };
        for kind in KINDS {
            let ends = [of(kind).min(), Some(median(of(kind))), of(kind).max()];
            let mut row = vec![program.to_owned(), kind.to_owned()];
            row.extend(ends.map(|ns| ns.unwrap_or(0).to_string()));
            rows.push(row);
        }
        let ratio = median(of("swapped")) as f64 / median(of("stock")) as f64;
        let what = format!("{program}: instructions more when swapped in");
        findings.note(&what, (ratio - 1.0) * 100.0, "%", Target::AtMost(1.0));
        if program == "pipe" {
            let more = median(of("swapped")) as f64 - median(of("stock")) as f64;
            findings.note(
                "pipe: more a round (two switches)",
                more / PIPE_ROUNDS as f64,
                "instructions",
                None,
            );
        }
    }
    let head = ["", "on", "minimum", "median", "maximum"].map(str::to_owned).to_vec();
    findings.tables.push(Table { title: "instructions".to_owned(), head, rows });
}

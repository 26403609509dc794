//! The scheduler's tunables keep their values across a load, and what is written while the new scheduler is loaded
//! survives its unload.
//!
//! The guest is asked which tunables there are. Files below the same directories that are not among them:
//! * `debug`, which is a report and read-only;
//! * `features`, which differ between the two schedulers on purpose: the demo's test covers them;
//! * `domains/`, which the kernel computes from the machine, and again whenever a CPU comes or goes.

use anyhow::{Result, ensure};
use schedswap_guest::Guest;
use schedswap_tests::{MODULE, guest, pristine};
use std::collections::BTreeMap;

/// `tunable_scaling` first: writing it recomputes others.
const LIST: &str = "cd /sys/kernel/debug/sched 2>/dev/null && { ls -d $PWD/tunable_scaling; \
                    find $PWD -type f -perm -200 ! -path '*/domains/*' ! -name features ! -name tunable_scaling; }; \
                    find /proc/sys/kernel -type f -name 'sched_*' -perm -200";

/// The content of all files, read in one go: `path value`, one per line.
fn read(guest: &Guest, files: &[String]) -> Result<BTreeMap<String, String>> {
    let text = guest.sh(&format!("for f in {}; do echo $f $(cat $f 2>&1); done", files.join(" ")))?;
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.map(|(file, value)| (file.to_owned(), value.to_owned())).collect())
}

/// Values to try instead of `value`, other than `before`: only the kernel can tell which are accepted.
fn candidates(value: &str, before: &str) -> Vec<String> {
    let mut candidates: Vec<String> = match (value, value.parse::<i64>()) {
        ("Y" | "N", _) => vec!["N".into(), "Y".into()],
        // A percentage, a flag, a time in ns that must be a multiple of a tick's: each accepts some of these.
        (_, Ok(n)) => [n + 1, n - 1, n + 2, n - 2, n * 2, n / 2, n + 8].map(|n| n.to_string()).to_vec(),
        // `none voluntary (full)`
        _ => value.split_whitespace().filter(|word| !word.starts_with('(')).map(str::to_owned).collect(),
    };
    candidates.retain(|candidate| candidate != value && candidate != before);
    candidates
}

/// Gives every file another value than it has, and than `before` if the kernel has a third one; returns the content
/// of each afterwards, and the files whose value could not be changed.
fn change(
    guest: &Guest,
    files: &[String],
    before: &BTreeMap<String, String>,
) -> Result<(BTreeMap<String, String>, Vec<String>)> {
    let now = read(guest, files)?;
    let mut script = String::new();
    for file in files {
        let value = &now[file];
        let mut tries = candidates(value, &before[file]);
        tries.extend(candidates(value, ""));
        script += &format!(
            "for v in {}; do echo $v >{file} 2>/dev/null && [ \"$(cat {file})\" != '{value}' ] && break; done\n",
            tries.join(" ")
        );
    }
    guest.sh(&format!("{script} true"))?;
    let changed = read(guest, files)?;
    let stuck = files.iter().filter(|file| changed[*file] == now[*file]).cloned().collect();
    Ok((changed, stuck))
}

#[test]
fn values_are_kept_both_ways() -> Result<()> {
    let guest = guest(&pristine()?, |_| ())?;
    let list = guest.sh(LIST)?;
    let files: Vec<String> = list.lines().map(str::to_owned).collect();
    let defaults = read(&guest, &files)?;
    ensure!(files.len() >= 15, "too few tunables: {defaults:#?}");
    ensure!(defaults.len() == files.len(), "{files:?} read as {defaults:?}");

    // Values that are not the defaults, so that a scheduler that resets them is noticed.
    let (before, stuck) = change(&guest, &files, &defaults)?;
    eprintln!("{} tunables; not to be changed on this machine: {stuck:?}", files.len());
    // It returns EOPNOTSUPP if all CPUs have the same capacity.
    let excused = |file: &String| file.ends_with("/sched_energy_aware");
    ensure!(stuck.iter().all(excused), "the kernel takes no other value: {stuck:?} of {before:#?}");

    guest.sh(&format!("loader install {MODULE}"))?;
    assert_eq!(read(&guest, &files)?, before, "loading has changed values");
    let (loaded, stuck_now) = change(&guest, &files, &before)?;
    assert_eq!(stuck_now, stuck, "the new scheduler's tunables cannot be written");
    assert_eq!(read(&guest, &files)?, loaded);

    guest.sh("loader uninstall")?;
    assert_eq!(read(&guest, &files)?, loaded, "unloading has changed values");
    let (_, stuck_now) = change(&guest, &files, &loaded)?;
    assert_eq!(stuck_now, stuck, "the kernel's own tunables cannot be written any more");
    guest.shutdown()?;
    Ok(())
}

//! What can be checked in the container's files without running them.

use super::{BASES, repository, stages};
use anyhow::{Context, Result, ensure};
use schedswap_tests::container::Step;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// Whether git has it, and as an executable.
fn mode_in_git(path: &str) -> Result<Vec<String>> {
    let listed =
        Command::new("git").current_dir(repository()).args(["ls-files", "-s", "--", path]).output()?;
    let text = String::from_utf8(listed.stdout)?;
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

#[test]
fn what_is_copied_is_in_git_or_comes_of_an_earlier_stage() -> Result<()> {
    for (base, _) in BASES {
        let stages = stages(base)?;
        let copied = |stage: usize| {
            stages[stage].steps.iter().filter_map(|step| match step {
                Step::Copy(copied) => Some(copied),
                _ => None,
            })
        };
        for (index, copied) in (0..stages.len()).flat_map(|index| copied(index).map(move |c| (index, c))) {
            match &copied.from {
                None => {
                    ensure!(repository().join(&copied.source).exists(), "{} is not there", copied.source);
                    ensure!(!mode_in_git(&copied.source)?.is_empty(), "{} is not in git", copied.source);
                }
                Some(name) => {
                    let earlier = stages[..index].iter().any(|stage| stage.name.as_ref() == Some(name));
                    ensure!(earlier, "{} is copied from {name}, no earlier stage", copied.source);
                }
            }
        }
    }
    Ok(())
}

#[test]
fn every_step_is_a_script_and_every_script_a_step() -> Result<()> {
    let mut run = BTreeSet::new();
    for stage in stages("debian:12")? {
        for step in &stage.steps {
            let Step::Run(script) = step else { continue };
            ensure!(script.starts_with("container/"), "RUN {script} is none of the scripts");
            ensure!(mode_in_git(script)? == ["100755"], "{script} is not an executable file in git");
            run.insert(script.clone());
        }
    }
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(repository().join("container"))? {
        there.insert(format!("container/{}", entry?.file_name().display()));
    }
    assert_eq!(run, there);
    Ok(())
}

#[test]
fn scripts_are_what_a_bare_debian_can_run() -> Result<()> {
    for entry in fs::read_dir(repository().join("container"))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        ensure!(text.starts_with("#!/bin/sh\n"), "{}: needs another shell than sh", path.display());
        let checked = Command::new("sh").arg("-n").arg(&path).output()?;
        ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
    Ok(())
}

/// Top-level domains.
const DOMAINS: [&str; 6] = ["com", "dev", "io", "net", "org", "test"];

fn hosts(text: &str) -> Vec<&str> {
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_host = |word: &&str| {
        let last = word.rsplit_once('.').map(|(_, last)| last);
        last.is_some_and(|last| DOMAINS.contains(&last))
    };
    text.split(|c: char| !is_of_a_name(c)).filter(is_host).collect()
}

#[test]
fn no_host_is_named_but_the_archives_are_the_bases_own() -> Result<()> {
    assert_eq!(hosts("FROM registry.test/debian:12 # Cargo.toml, packages.sh."), ["registry.test"]);
    let mut files = vec![repository().join("Containerfile")];
    for entry in fs::read_dir(repository().join("container"))? {
        files.push(entry?.path());
    }
    for file in files {
        let text = fs::read_to_string(&file)?;
        ensure!(hosts(&text).is_empty(), "{} names {:?}", file.display(), hosts(&text));
        ensure!(!text.contains("://"), "{} has an address", file.display());
    }
    for (base, _) in BASES {
        for stage in stages(base)? {
            let is_plain = BASES.iter().any(|(known, _)| stage.base == *known);
            ensure!(is_plain, "FROM {}: not one of the bases", stage.base);
        }
    }
    Ok(())
}

#[test]
fn what_was_built_on_the_machine_stays_out() -> Result<()> {
    let patterns = |name: &str| -> Result<BTreeSet<String>> {
        let text = fs::read_to_string(repository().join(name)).with_context(|| name.to_owned())?;
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Ok(lines.map(|line| line.trim_start_matches('/').to_owned()).collect())
    };
    let mut of_git = patterns(".gitignore")?;
    ensure!(of_git.remove("vendor"), "git does not ignore vendor/");
    assert_eq!(patterns(".dockerignore")?, of_git);
    Ok(())
}

//! A stock arm64 kernel's scheduler, edited and swapped in and out in an emulated arm64 machine. It is compiled by
//! its own compiler, which is emulated too, so this takes a quarter of an hour on an otherwise idle machine.
//!
//! This is not the kernel under test; only `make soak` fetches it.

use anyhow::{Context, Result, ensure};
use schedswap_tests::edit::Tree;
use schedswap_tests::{own, schedswap};
use std::fs;

/// Runs the command, which must succeed.
fn done(arguments: &[&str]) -> Result<String> {
    let output = schedswap(arguments)?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(
        output.status.success(),
        "schedswap {} ended with {}:\n{text}",
        arguments.join(" "),
        output.status
    );
    Ok(text)
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set; run the tests through `make soak`"))
}

#[test]
#[ignore = "needs the arm64 kernel, which make soak fetches"]
fn an_edited_scheduler_comes_speaks_and_goes() -> Result<()> {
    let (release, source) =
        (variable("SCHEDSWAP_TEST_ARM64_RELEASE")?, variable("SCHEDSWAP_TEST_ARM64_SOURCE")?);
    let dir = own()?;
    let path = dir.join("work");
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    let work = path.to_str().context("a path that is not UTF-8")?;
    // Refuses unless all functions are identical and, once bound, are vmlinux's again.
    done(&["init", "--no-config", &release, &source, work])?;
    Tree::at(&path).patch("examples/demo/schedswap_test.patch")?;
    done(&["build", work])?;
    let names: Vec<String> = fs::read_dir(&path)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    for end in [".arm64.deb", ".aarch64.rpm"] {
        ensure!(names.iter().any(|name| name.ends_with(end)), "no package {end} among {names:?}");
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/demo/features.sh");
    let demo = done(&["try", work, "--run", script])?;
    ensure!(demo.contains("I am the new scheduler: __schedule"), "it has not spoken:\n{demo}");
    // From 6.4 on, ftrace also writes before functions.
    done(&["try", work, "--run", concat!(env!("CARGO_MANIFEST_DIR"), "/tracing/swap.sh")])?;
    // Fails if the kernel complains, or if its memory is not as before.
    let console = dir.join("cycles.console");
    let console = console.to_str().context("a path that is not UTF-8")?;
    let cycles = ["--cycles", "25", "--threads", "500", "--time-limit", "3600", "--console", console];
    let cycles = done(&[&["try", work], &cycles[..]].concat())?;
    ensure!(cycles.contains("classes afterwards: identical"), "memory was not compared:\n{cycles}");
    Ok(())
}

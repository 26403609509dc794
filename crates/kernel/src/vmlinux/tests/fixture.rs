//! A kernel in miniature, compiled from the sources in `fixture/` by the machine's gcc.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// DWARF 5, as today's kernels have it.
pub(super) static DWARF5: LazyLock<Vec<u8>> = LazyLock::new(|| build("5"));

/// DWARF 4, as 5.10 has it.
pub(super) static DWARF4: LazyLock<Vec<u8>> = LazyLock::new(|| build("4"));

pub(super) fn fixture_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/vmlinux/tests/fixture")
}

fn build(dwarf: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = dir.path().join("vmlinux");
    let status = Command::new("sh")
        .arg(fixture_dir().join("build.sh"))
        .arg(&output)
        .arg(dwarf)
        .status()
        .expect("sh runs");
    assert!(status.success(), "these tests compile a small kernel: they need gcc and binutils");
    std::fs::read(&output).expect("build.sh wrote its output")
}

//! The SDK's container: its files, and its steps run in chroots of every base.

mod files;
mod sdk;

use schedswap_tests::container::{Stage, parse};
use std::fs;
use std::path::{Path, PathBuf};

/// The documented bases, and the suite that each image holds.
const BASES: [(&str, &str); 3] =
    [("debian:11", "bullseye"), ("debian:12", "bookworm"), ("debian:13", "trixie")];

/// This checkout.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The stages that make the image of a base.
fn stages(base: &str) -> anyhow::Result<Vec<Stage>> {
    parse(&fs::read_to_string(repository().join("Containerfile"))?, &[("BASE", base)])
}

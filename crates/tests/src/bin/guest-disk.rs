//! Puts into the cache what machines with a disk are made of: their root file system, and the other kernel that they
//! are booted into. Prints that kernel's release.
//!
//! ```text
//! $ guest-disk bookworm/amd64
//! 6.1.0-56-amd64
//! ```

use anyhow::{Context, Result};
use schedswap_guest::debian::RootImage;
use schedswap_host::progress::Progress;
use schedswap_source::{Cache, Request, fetch_image};
use schedswap_tests::SUITE;
use std::env;

/// Lines on the standard error.
struct Lines;

impl Progress for Lines {
    fn begin(&self, what: &str, _total: Option<u64>) {
        eprintln!("{what}");
    }
    fn at(&self, _position: u64) {}
    fn end(&self, _result: &str) {}
}

fn main() -> Result<()> {
    let other: Request = env::args().nth(1).context("usage: guest-disk SUITE/FLAVOUR | RELEASE")?.parse()?;
    let cache = Cache::from_environment()?;
    let kernel = fetch_image(&other, &cache, &Lines)?;
    let image = RootImage::of_suite(SUITE, &cache, &Lines)?;
    eprintln!("{}", image.file().display());
    println!("{}", kernel.release);
    Ok(())
}

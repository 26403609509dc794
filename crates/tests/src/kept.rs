//! Where a test's files stay, to be looked at after it failed.

use anyhow::{Context, Result};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// What the test programs share.
pub(crate) fn out() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../out/test")
}

/// What belongs to this test program alone, as others run beside it.
pub fn own() -> Result<PathBuf> {
    let program = env::current_exe()?;
    let name = program.file_stem().and_then(|stem| stem.to_str()).context("a test program without a name")?;
    // Cargo's hash changes with each change of the code.
    let dir = out().join(name.rsplit_once('-').map_or(name, |(name, _)| name));
    fs::create_dir_all(&dir)?;
    Ok(dir.canonicalize()?)
}

/// The console of the next guest.
pub(crate) fn console() -> Result<PathBuf> {
    static GUESTS: AtomicU32 = AtomicU32::new(1);
    let guest = GUESTS.fetch_add(1, Ordering::Relaxed);
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default().replace("::", "-");
    Ok(own()?.join(format!("{test}-guest-{guest}.console")))
}

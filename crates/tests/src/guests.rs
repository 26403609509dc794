//! Guests on the kernel under test.

use crate::kept::console;
use crate::kernel::{image, kernel};
use crate::modules::Built;
use anyhow::Result;
use schedswap_guest::memory::Memory;
use schedswap_guest::{Config, Guest, Initramfs, Tools};
use schedswap_source::Cache;
use std::sync::OnceLock;

/// Where the module lies in a guest, as scripts know it by `$SCHEDSWAP_MODULE`.
pub const MODULE: &str = "/schedswap/scheduler.ko";

/// A guest on the stock kernel, with the loader but without a module. `change` may alter what it is made of.
pub fn stock_guest(change: impl FnOnce(&mut Config)) -> Result<Guest> {
    launch(None, change)
}

/// A guest that has a module at [`MODULE`], with its manifest beside it, not yet loaded.
pub fn guest(built: &Built, change: impl FnOnce(&mut Config)) -> Result<Guest> {
    launch(Some(built), change)
}

/// The kernel memory that no swap may leave changed. Every guest has what it takes to save and compare it.
pub fn memory() -> &'static Memory {
    static MEMORY: OnceLock<Memory> = OnceLock::new();
    MEMORY.get_or_init(|| Memory::of(image()))
}

fn launch(built: Option<&Built>, change: impl FnOnce(&mut Config)) -> Result<Guest> {
    let busybox = Cache::from_environment().ok().and_then(|cache| cache.busybox());
    let mut initramfs = Initramfs::new(&Tools::find_with(busybox.as_deref())?)?;
    memory().put_into(&mut initramfs);
    if let Some(built) = built {
        initramfs.copy(&built.module(), MODULE)?;
        initramfs.copy(&built.dir.join("manifest.json"), "/schedswap/manifest.json")?;
    }
    let mut config = Config::new(&kernel()?.bzimage, initramfs);
    config.console = Some(console()?);
    change(&mut config);
    Ok(Guest::launch(config)?)
}

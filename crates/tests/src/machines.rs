//! Machines with a disk, on the kernel under test and on another one.

use crate::kept::console;
use crate::kernel::kernel;
use anyhow::{Context, Result};
use schedswap_guest::Tools;
use schedswap_guest::debian::{Machine, RootImage};
use schedswap_host::progress::Silent;
use schedswap_source::{Bootable, Cache};
use std::env;
use std::time::Duration;

/// The suite that they are made of.
pub const SUITE: &str = "bookworm";

/// For a boot, and for a command that installs a package and all that follows from it: on a host that is busy with other
/// things, where 300 s were too few for a boot.
const LIMIT: Duration = Duration::from_secs(600);

/// A machine with a fresh disk, off, that will boot the kernel under test.
pub fn machine() -> Result<Machine> {
    let cache = Cache::from_environment()?;
    let tools = Tools::find_with(cache.busybox().as_deref())?;
    let image = RootImage::of_suite(SUITE, &cache, &Silent)?;
    let mut machine = Machine::new(&image, kernel_under_test()?, &tools, &cache)?;
    machine.config.console = Some(console()?);
    machine.config.boot_limit = LIMIT;
    machine.config.command_limit = LIMIT;
    Ok(machine)
}

/// What boots of the kernel under test.
pub fn kernel_under_test() -> Result<Bootable> {
    let kernel = kernel()?;
    Ok(Bootable::below(&kernel.sysroot, &kernel.release)?)
}

/// Another kernel, of which nothing is known but that it boots.
pub fn other_kernel() -> Result<Bootable> {
    let release = env::var("SCHEDSWAP_TEST_OTHER_RELEASE")
        .context("SCHEDSWAP_TEST_OTHER_RELEASE is not set; run the tests through `make test`")?;
    let cache = Cache::from_environment()?;
    let place = cache.image(&release).complete().or_else(|| cache.kernel(&release).complete());
    let place = place.with_context(|| format!("kernel {release} is not in the cache"))?;
    Ok(Bootable::below(&place.sysroot(), &release)?)
}

//! `uninstall`: switch back, wait until nothing holds on to the module, take it out.

use crate::error::LoaderError;
use crate::switch::{self, Patience, Target};
use crate::{lock, running};
use rustix::io::Errno;
use schedswap_payload::report::Attempt;
use schedswap_payload::sysfs::State;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Puts vmlinux's own scheduler back and unloads the module. `version` stays `None` if none was loaded.
pub fn uninstall(
    patience: Patience,
    attempts: &mut Vec<Attempt>,
    version: &mut Option<String>,
) -> Result<(), LoaderError> {
    let _lock = lock::take()?;
    let Some(loaded) = running::scheduler()? else { return Ok(()) };
    *version = Some(loaded.version);
    if loaded.state != State::Disabled {
        switch::switch(Target::Vmlinux, patience, attempts)?;
    }
    unload()
}

/// How often the kernel is asked whether the module may go, and for how long: a program that reads one of its
/// files holds it for a moment.
const POLL: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(10);

/// Takes a disabled module out of the kernel. Returns when its memory is freed: its exit waits until no
/// thread's stack holds its text.
pub fn unload() -> Result<(), LoaderError> {
    let started = Instant::now();
    loop {
        match delete() {
            Ok(()) => return Ok(()),
            Err(Errno::BUSY | Errno::AGAIN) if started.elapsed() < LIMIT => sleep(POLL),
            Err(Errno::BUSY | Errno::AGAIN) => return Err(LoaderError::StillInUse { waited: LIMIT }),
            Err(errno) => return Err(LoaderError::NotUnloaded { source: errno.into() }),
        }
    }
}

fn delete() -> rustix::io::Result<()> {
    // Without O_NONBLOCK the kernel marks the module as going at once, whoever still uses it.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    match rustix::system::delete_module(c"scheduler", flags) {
        // Gone meanwhile: what was wanted.
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_module_s_name_is_the_shared_one() {
        assert_eq!(c"scheduler".to_str(), Ok(schedswap_payload::MODULE_NAME));
    }
}

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
    drain: Duration,
    attempts: &mut Vec<Attempt>,
    version: &mut Option<String>,
) -> Result<(), LoaderError> {
    let _lock = lock::take()?;
    let Some(loaded) = running::scheduler()? else { return Ok(()) };
    *version = Some(loaded.version);
    if running::read("enable")?.trim() == "1" {
        switch::switch(Target::Vmlinux, patience, attempts)?;
    }
    unload(drain)
}

/// How often the module is asked whether it may go.
const POLL: Duration = Duration::from_millis(20);

/// Takes a disabled module out of the kernel, waiting up to `limit` until no stack holds its text.
pub fn unload(limit: Duration) -> Result<(), LoaderError> {
    let started = Instant::now();
    loop {
        let in_use = match running::state() {
            Ok(State::Draining) => "some thread's stack still holds the module's text".to_owned(),
            // Anything else is for the kernel to decide, which asks the module.
            _ => match delete() {
                Ok(()) => return Ok(()),
                Err(Errno::BUSY | Errno::AGAIN) => "the kernel counts users of it".to_owned(),
                Err(errno) => return Err(LoaderError::NotUnloaded { source: errno.into() }),
            },
        };
        if started.elapsed() >= limit {
            return Err(LoaderError::StillInUse { waited: limit, detail: in_use });
        }
        sleep(POLL);
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

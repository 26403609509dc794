//! Allows only one loader at a time.

use crate::error::LoaderError;
use crate::paths::Paths;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Held until dropped, even if the process is killed: the kernel releases it.
#[derive(Debug)]
pub struct Lock {
    /// `None` if there is no place for a lock file.
    _file: Option<OwnedFd>,
}

/// The first that exists is used. An initramfs may have none of them, but there no other loader runs. An image that
/// is being built has no /run of its own, but has the state directory.
const DIRECTORIES: [&str; 3] = ["run", "dev/shm", "var/lib/schedswap"];
const POLL: Duration = Duration::from_millis(50);

/// Takes the lock; if another loader has it, waits for at most `limit`.
pub fn take(paths: &Paths, limit: Duration) -> Result<Lock, LoaderError> {
    match DIRECTORIES.iter().map(|name| paths.of(name)).find(|directory| directory.is_dir()) {
        Some(directory) => take_in(&directory, limit),
        None => Ok(Lock { _file: None }),
    }
}

fn take_in(directory: &Path, limit: Duration) -> Result<Lock, LoaderError> {
    let path = directory.join("schedswap.lock");
    // NOFOLLOW: other users may write to /dev/shm, and a link there must not make root create files elsewhere.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed =
        |errno: Errno| LoaderError::State { doing: "lock", path: path.clone(), source: errno.into() };
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    let started = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Lock { _file: Some(file) }),
            Err(Errno::WOULDBLOCK) if started.elapsed() < limit => sleep(POLL),
            Err(Errno::WOULDBLOCK) => return Err(LoaderError::Locked { path, waited: limit }),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_refused_until_the_first_lets_go() {
        let directory = tempfile::tempdir().unwrap();
        let first = take_in(directory.path(), Duration::ZERO).unwrap();
        let error = take_in(directory.path(), Duration::from_millis(120)).unwrap_err();
        assert!(matches!(error, LoaderError::Locked { .. }));
        drop(first);
        assert!(take_in(directory.path(), Duration::ZERO).is_ok());
    }

    #[test]
    fn a_second_taker_waits_for_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = take_in(directory.path(), Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| take_in(directory.path(), Duration::from_secs(20)).is_ok());
            sleep(POLL);
            drop(first);
            assert!(second.join().unwrap());
        });
    }
}

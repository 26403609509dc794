//! One install or uninstall at a time.

use crate::error::LoaderError;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Held until dropped, also when the process is killed: the kernel releases it.
pub struct Lock {
    /// `None` where there is no place for a lock file.
    _file: Option<OwnedFd>,
}

/// The first that exists is used. An initramfs may have neither; there, nobody races with us.
const DIRECTORIES: [&str; 2] = ["/run", "/dev/shm"];

/// Takes the lock, or says who holds it.
pub fn take() -> Result<Lock, LoaderError> {
    match DIRECTORIES.iter().map(Path::new).find(|directory| directory.is_dir()) {
        Some(directory) => take_in(directory),
        None => Ok(Lock { _file: None }),
    }
}

fn take_in(directory: &Path) -> Result<Lock, LoaderError> {
    let path = directory.join("schedswap.lock");
    // NOFOLLOW: others may write to /dev/shm, and a link there must not make root create files elsewhere.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR) else {
        return Ok(Lock { _file: None });
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(LoaderError::Locked { path }),
        _ => Ok(Lock { _file: Some(file) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_refused_until_the_first_lets_go() {
        let directory = std::env::temp_dir().join(format!("schedswap-lock-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let first = take_in(&directory).unwrap();
        assert!(matches!(take_in(&directory), Err(LoaderError::Locked { .. })));
        drop(first);
        assert!(take_in(&directory).is_ok());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

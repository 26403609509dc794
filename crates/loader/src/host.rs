//! What the loader needs from the kernel and the service manager. Tests replace it.

use crate::module_file::ModuleFile;
use crate::priority::RaisedPriority;
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::disk::Disk;
use crate::paths::Paths;

/// The machine that a command works on.
pub struct Machine {
    /// The places of its files.
    pub paths: Paths,
    /// Its kernel.
    pub host: Box<dyn Host>,
    /// Its disk.
    pub disk: Disk,
    /// The user to whom a payload must belong: root, except in an image that another user builds.
    pub owner: u32,
    /// Whether this is the running machine, not an image of one.
    pub is_live: bool,
    /// How many MiB all loaded scheduler modules may keep together.
    pub retired_max_mib: u64,
}

/// The calls that change a running machine.
pub trait Host {
    /// `uname -r`.
    fn release(&self) -> String;
    /// `finit_module(2)`.
    fn load(&self, module: &ModuleFile, parameters: &CStr) -> Result<(), Errno>;
    /// `delete_module(2)`; does not wait while the module is in use.
    fn unload(&self, name: &str) -> Result<(), Errno>;
    /// Writes to a file of a loaded module.
    fn write(&self, file: &Path, value: char) -> io::Result<()>;
    /// Runs systemctl.
    fn systemctl(&self, arguments: &[&str]) -> io::Result<()>;
    /// Sleeps.
    fn pause(&self, length: Duration);
    /// Seconds since 1970.
    fn epoch_seconds(&self) -> u64;
}

/// The running machine.
pub struct Running;

impl Host for Running {
    fn release(&self) -> String {
        rustix::system::uname().release().to_string_lossy().into_owned()
    }

    fn load(&self, module: &ModuleFile, parameters: &CStr) -> Result<(), Errno> {
        // A second of computing on a slow machine takes many times as long for a loader that has to share its CPU.
        let _raised = RaisedPriority::raise();
        rustix::system::finit_module(&module.file, parameters, 0)
    }

    fn unload(&self, name: &str) -> Result<(), Errno> {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        // Without O_NONBLOCK the kernel marks the module as going at once, even if it is in use.
        rustix::system::delete_module(&name, rustix::fs::OFlags::NONBLOCK.bits() as i32)
    }

    fn write(&self, file: &Path, value: char) -> io::Result<()> {
        // Only during the attempt: during the pauses the other threads are to run and get out of the way.
        let _raised = RaisedPriority::raise();
        std::fs::write(file, [value as u8])
    }

    fn systemctl(&self, arguments: &[&str]) -> io::Result<()> {
        let output = Command::new("systemctl").args(arguments).stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    fn pause(&self, length: Duration) {
        std::thread::sleep(length);
    }

    fn epoch_seconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

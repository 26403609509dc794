//! The disks of a guest.

use super::host;
use super::{Error, Result};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The format of a disk's file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Raw: the bytes that the guest sees.
    Raw,
    /// An overlay: only what differs from another file.
    Qcow2,
}

/// A virtio disk, as a file of this machine.
///
/// When the emulator is killed, only what the guest has flushed counts as written: qcow2 keeps the places of new data
/// in the emulator's memory until the guest asks for a flush. This machine itself goes on running, so its page cache
/// is as good as a medium and no flush has to wait for a real disk (`cache=unsafe` leaves out exactly that wait).
#[derive(Clone, Debug)]
pub struct Disk {
    /// The file.
    pub file: PathBuf,
    /// Its format.
    pub format: Format,
    /// Whether the guest may only read.
    pub read_only: bool,
    /// By which the guest finds it: `/sys/block/vd*/serial`. At most 20 characters.
    pub serial: &'static str,
}

impl Disk {
    /// A file that guests only read, so they may share it.
    pub fn shared(file: &Path, serial: &'static str) -> Disk {
        Disk { file: file.to_path_buf(), format: Format::Raw, read_only: true, serial }
    }

    /// Makes `file` a disk that begins with the content of `base`. It never changes `base`, but always needs it.
    ///
    /// # Errors
    /// [`Error::HostProgramMissing`] or [`Error::HostProgramFailed`] for `qemu-img`.
    pub fn overlay(base: &Path, file: &Path, serial: &'static str) -> Result<Disk> {
        let base = std::path::absolute(base).unwrap_or_else(|_| base.to_path_buf());
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(&base).arg(file);
        host::run(&mut command, "qemu-utils", "making a disk for a guest")?;
        Ok(Disk { file: file.to_path_buf(), format: Format::Qcow2, read_only: false, serial })
    }

    /// Checks the ext4 file system on it, whose journal must have been replayed. The guest must be off.
    ///
    /// # Errors
    /// [`Error::HostProgramFailed`] with the findings of `e2fsck`; [`Error::HostProgramMissing`] if it or `qemu-img`
    /// is not installed.
    pub fn check_ext4(&self) -> Result<()> {
        let raw = self.file.with_extension("raw");
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-O", "raw"]).arg(&self.file).arg(&raw);
        host::run(&mut convert, "qemu-utils", "reading a guest's disk")?;
        let mut check = Command::new("/sbin/e2fsck");
        let checked = host::run(check.args(["-f", "-n"]).arg(&raw), "e2fsprogs", "checking a guest's disk");
        fs::remove_file(&raw).map_err(Error::io(format!("cannot remove {}", raw.display())))?;
        checked.map(drop)
    }

    /// QEMU's arguments.
    pub(super) fn qemu_arguments(&self) -> Vec<OsString> {
        let format = match self.format {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
        };
        let read_only = if self.read_only { "on" } else { "off" };
        let (serial, file) = (self.serial, super::config::option_value(&self.file));
        let drive = format!(
            "if=none,id={serial},file={file},format={format},read-only={read_only},cache=unsafe,discard=unmap"
        );
        let device = format!("virtio-blk-pci,drive={serial},serial={serial}");
        ["-drive".into(), drive.into(), "-device".into(), device.into()].into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_the_file_is_doubled() {
        let disk = Disk::shared("/a,b".as_ref(), "modules");
        let arguments = format!("{:?}", disk.qemu_arguments());
        assert!(arguments.contains("file=/a,,b,format=raw,read-only=on"), "{arguments}");
        assert!(arguments.contains("serial=modules"), "{arguments}");
    }
}

//! Disks of a guest.

use super::host;
use super::{Error, Result};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a disk's file is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// As the guest sees it.
    Raw,
    /// What differs from another file.
    Qcow2,
}

/// A virtio disk, as a file of this machine.
///
/// What counts as written when the emulator is killed is what the guest has flushed: qcow2 keeps in the
/// emulator's memory where it has put new data, until the guest asks for a flush. As this machine goes on
/// running, its own page cache is as good as a medium, so no flush has to wait for a real disk
/// (`cache=unsafe` leaves out just that).
#[derive(Clone, Debug)]
pub struct Disk {
    /// The file.
    pub file: PathBuf,
    /// Its layout.
    pub format: Format,
    /// Whether the guest may only read.
    pub read_only: bool,
    /// By which the guest finds it: `/sys/block/vd*/serial`. At most 20 characters.
    pub serial: &'static str,
}

impl Disk {
    /// A file that guests only read, and may share.
    pub fn shared(file: &Path, serial: &'static str) -> Disk {
        Disk { file: file.to_path_buf(), format: Format::Raw, read_only: true, serial }
    }

    /// Makes `file` a disk that begins as `base`, which it never changes and always needs.
    pub fn overlay(base: &Path, file: &Path, serial: &'static str) -> Result<Disk> {
        let base = std::path::absolute(base).unwrap_or_else(|_| base.to_path_buf());
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(&base).arg(file);
        host::run(&mut command, "qemu-utils", "making a disk for a guest")?;
        Ok(Disk { file: file.to_path_buf(), format: Format::Qcow2, read_only: false, serial })
    }

    /// Checks the ext4 file system on it, whose journal must have been replayed. The guest must be off.
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

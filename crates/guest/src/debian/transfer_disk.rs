//! Hands files to a running machine faster than the serial port does: the host writes to a disk, which the guest
//! reads without its page cache. The disk has no file system and holds one file at a time.

use crate::{Disk, Error, Guest, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most that fits; the disk's file takes only as much space as was written.
const SIZE_BYTES: u64 = 1 << 30;
/// How much the guest reads at once.
const BLOCK_BYTES: u64 = 1 << 16;
/// For one file, under emulation.
const LIMIT: Duration = Duration::from_secs(300);

/// The host's side.
pub(super) struct TransferDisk {
    file: PathBuf,
}

impl TransferDisk {
    pub(super) fn new(dir: &Path) -> Result<TransferDisk> {
        let file = dir.join("transfer");
        File::create(&file)
            .and_then(|created| created.set_len(SIZE_BYTES))
            .map_err(Error::io(format!("cannot write {}", file.display())))?;
        Ok(TransferDisk { file })
    }

    pub(super) fn disk(&self) -> Disk {
        Disk::shared(&self.file, "transfer")
    }

    /// Copies a file of this machine into the guest, with its permissions.
    pub(super) fn hand_over(&self, guest: &Guest, from: &Path, to: &str, mode: u32) -> Result<()> {
        let bytes = fs::read(from).map_err(Error::io(format!("cannot read {}", from.display())))?;
        let len = bytes.len() as u64;
        if len > SIZE_BYTES {
            return Err(Error::Scenario(format!(
                "{} has {len} bytes, and at most {SIZE_BYTES} can be handed over",
                from.display()
            )));
        }
        // Written in place: the emulator has this file open.
        let write = |bytes: &[u8]| {
            let file = File::options().write(true).open(&self.file)?;
            std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0)
        };
        write(&bytes).map_err(Error::io(format!("cannot write {}", self.file.display())))?;
        let blocks = len.div_ceil(BLOCK_BYTES);
        let to = quoted(to);
        let command = format!(
            "set -e; mkdir -p \"$(dirname {to})\"
             dd if=/run/schedswap/transfer iflag=direct bs={BLOCK_BYTES} count={blocks} status=none | head -c {len} >{to}
             test \"$(stat -c %s {to})\" = {len}; chmod {mode:o} {to}"
        );
        let output = guest.run_within(&command, LIMIT)?;
        match output.status {
            0 => Ok(()),
            status => Err(Error::CommandFailed { command, status, output: output.stderr }),
        }
    }
}

/// Quotes one word for a shell.
pub(super) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

//! Files for a machine that runs, faster than over the serial port: a disk that the host writes and the guest reads
//! past its own cache. It has no file system, only one file at a time.

use crate::{Disk, Error, Guest, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most that fits; the disk's file takes as much room as was written.
const SIZE_BYTES: u64 = 1 << 30;
/// What the guest reads at once.
const BLOCK_BYTES: u64 = 1 << 16;
/// For one file, under emulation.
const LIMIT: Duration = Duration::from_secs(300);

/// The host's side.
pub(super) struct Hatch {
    file: PathBuf,
}

impl Hatch {
    pub(super) fn new(dir: &Path) -> Result<Hatch> {
        let file = dir.join("hatch");
        File::create(&file)
            .and_then(|created| created.set_len(SIZE_BYTES))
            .map_err(Error::io(format!("cannot write {}", file.display())))?;
        Ok(Hatch { file })
    }

    pub(super) fn disk(&self) -> Disk {
        Disk::shared(&self.file, "hatch")
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
        // In place: the emulator has this file open.
        let write = |bytes: &[u8]| {
            let file = File::options().write(true).open(&self.file)?;
            std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0)
        };
        write(&bytes).map_err(Error::io(format!("cannot write {}", self.file.display())))?;
        let blocks = len.div_ceil(BLOCK_BYTES);
        let to = quoted(to);
        let command = format!(
            "set -e; mkdir -p \"$(dirname {to})\"
             dd if=/run/schedswap/hatch iflag=direct bs={BLOCK_BYTES} count={blocks} status=none | head -c {len} >{to}
             test \"$(stat -c %s {to})\" = {len}; chmod {mode:o} {to}"
        );
        let output = guest.run_within(&command, LIMIT)?;
        match output.status {
            0 => Ok(()),
            status => Err(Error::CommandFailed { command, status, output: output.stderr }),
        }
    }
}

/// One word for a shell.
pub(super) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

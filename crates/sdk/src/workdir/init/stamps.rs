//! What tells whether the inputs of a step have changed.

use crate::workdir::kernel_source::{self, Found};
use crate::workdir::store::read_json;
use crate::workdir::{Error, Result};
use schedswap_kernel::vmlinux::Sidecars;
use schedswap_sched::compile::Commands;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// What tells whether a file is another one than before, without reading all of it.
pub(super) fn file_stamp(path: &Path) -> Result<(PathBuf, u64, u128)> {
    let meta = fs::metadata(path).map_err(|e| Error::io("read", path, e))?;
    let modified = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    Ok((path.to_owned(), meta.len(), modified.map_or(0, |t| t.as_nanos())))
}

/// For a directory that is the files which matter most: its version and the scheduler's own.
pub(super) fn source_stamp(found: &Found, sidecars: &Sidecars) -> Result<Vec<(PathBuf, u64, u128)>> {
    let dir = match found {
        Found::Tarball(tarball) => return Ok(vec![file_stamp(tarball)?]),
        Found::Dir(dir) => dir,
    };
    let sched = dir.join("kernel/sched");
    // A build in that tree changes none of them.
    let mut files = kernel_source::sources_in(&sched)?;
    files.retain(|path| path.is_file());
    files.push(dir.join("Makefile"));
    // One that is missing is reported when it is copied.
    files.extend(sidecars.keys().map(|unit| dir.join(unit)).filter(|path| path.is_file()));
    files.iter().map(|path| file_stamp(path)).collect()
}

/// Whether the recorded commands would run another compiler than when they were asked for.
pub(super) fn compiler_has_changed(commands: &Path) -> bool {
    read_json::<Commands>(commands).is_ok_and(|recorded| !recorded.compiler.is_as_recorded(&recorded.cwd))
}

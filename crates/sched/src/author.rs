//! The header through which the author of a scheduler declares state and hooks to the runtime.

use std::fs;
use std::io;
use std::path::Path;

/// Its text.
pub const HEADER: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../runtime/include/schedswap/author.h"));

/// Directory below a work dir from which `#include <schedswap/author.h>` finds it.
pub const INCLUDE: &str = ".schedswap/include";

/// Puts it where builds for a module look for it.
///
/// # Errors
/// It cannot be written.
pub fn write(work_dir: &Path) -> io::Result<()> {
    let path = work_dir.join(INCLUDE).join("schedswap/author.h");
    if fs::read(&path).is_ok_and(|there| there == HEADER.as_bytes()) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, HEADER)
}

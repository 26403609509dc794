//! Where to find the programs of this project that run elsewhere: in guests and on hosts.

use std::env;
use std::path::{Path, PathBuf};

/// `$SCHEDSWAP_LIBEXEC`, the directory of the running program, the directory above that (a test's program is in
/// `deps/`), and `../libexec/schedswap`, in this order.
pub fn directories() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = env::var_os("SCHEDSWAP_LIBEXEC").map(PathBuf::from).into_iter().collect();
    if let Some(beside) = env::current_exe().ok().as_deref().and_then(Path::parent) {
        let above = beside.parent().unwrap_or(beside);
        dirs.extend([beside.to_path_buf(), above.to_path_buf(), above.join("libexec/schedswap")]);
    }
    dirs
}

/// A program in the first of the directories that has it.
pub fn find(name: &str, dirs: &[PathBuf]) -> Option<PathBuf> {
    dirs.iter().map(|dir| dir.join(name)).find(|path| path.is_file())
}

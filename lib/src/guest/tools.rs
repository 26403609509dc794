//! Where the programs are that go into every guest.

use super::{Error, Result};
use crate::libexec::{self, find};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Programs for the guest, as files of this machine.
#[derive(Clone, Debug)]
pub struct Tools {
    /// A statically linked busybox.
    pub busybox: PathBuf,
    /// Our agent and load (`guest-load`).
    pub guest_load: PathBuf,
    /// The loader of scheduler modules; guests that load none do without.
    pub loader: Option<PathBuf>,
}

impl Tools {
    /// Looks for all of them: busybox in `$SCHEDSWAP_BUSYBOX` and where packages put it, ours in
    /// [`libexec::directories`].
    pub fn find() -> Result<Tools> {
        Tools::find_with(None)
    }

    /// The same, with a busybox that goes before those of the machine.
    pub fn find_with(busybox: Option<&Path>) -> Result<Tools> {
        let ours = libexec::directories();
        let listed =
            |dirs: &[PathBuf]| dirs.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(", ");
        let busybox: Vec<PathBuf> = env::var_os("SCHEDSWAP_BUSYBOX")
            .map(PathBuf::from)
            .into_iter()
            .chain(busybox.map(Path::to_path_buf))
            .chain(ours.iter().map(|dir| dir.join("busybox")))
            .chain(
                ["/bin/busybox", "/usr/bin/busybox", "/sbin/busybox", "/bin/busybox.static"]
                    .map(PathBuf::from),
            )
            .collect();
        Ok(Tools {
            busybox: busybox.iter().find(|path| is_static(path)).cloned().ok_or_else(|| Error::ToolMissing {
                name: "a statically linked busybox",
                looked_in: listed(&busybox),
                hint: "install the package busybox-static (Debian) or busybox, or set SCHEDSWAP_BUSYBOX to the file",
            })?,
            guest_load: find("guest-load", &ours).ok_or_else(|| Error::ToolMissing {
                name: "guest-load",
                looked_in: listed(&ours),
                hint: "run `make`, or set SCHEDSWAP_LIBEXEC to the directory that holds it",
            })?,
            loader: find("schedswap-loader", &ours),
        })
    }
}

fn is_static(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| super::programs::interpreter(&bytes).is_ok_and(|found| found.is_none()))
}

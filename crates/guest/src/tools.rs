//! Where the programs are that go into every guest.

use super::{Error, Result};
use schedswap_host::libexec::{self, find};
use schedswap_kernel::vmlinux::Machine;
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

    /// The same for a guest of another machine: ours in that machine's own directory, and this busybox.
    pub fn find_for(machine: Machine, busybox: Option<&Path>) -> Result<Tools> {
        if Machine::host() == Some(machine) {
            return Tools::find_with(busybox);
        }
        let ours: Vec<PathBuf> =
            libexec::directories().into_iter().map(|directory| directory.join(machine.name())).collect();
        let looked_in = || ours.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(", ");
        let missing = |name, hint| Error::ToolMissing { name, looked_in: looked_in(), hint };
        let busybox = busybox.map(Path::to_path_buf).or_else(|| find("busybox", &ours));
        Ok(Tools {
            busybox: busybox.ok_or_else(|| {
                missing("that machine's statically linked busybox", "`schedswap fetch` gets it with a kernel")
            })?,
            guest_load: find("guest-load", &ours).ok_or_else(|| {
                missing("that machine's guest-load", "run `make static-arm64` in schedswap's source")
            })?,
            loader: find("schedswap-loader", &ours),
        })
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

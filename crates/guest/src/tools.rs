//! Where to find the programs that go into every guest.

use super::{Error, Result};
use schedswap_host::libexec::{self, find};
use schedswap_kernel::vmlinux::Machine;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Programs for the guest, as files of this machine.
#[derive(Clone, Debug)]
pub struct Tools {
    /// A busybox that is linked statically.
    pub busybox: PathBuf,
    /// The agent and load program (`guest-load`).
    pub guest_load: PathBuf,
    /// The loader of scheduler modules; guests that load no scheduler do not need it.
    pub loader: Option<PathBuf>,
}

impl Tools {
    /// Looks for all of them: for busybox in `$SCHEDSWAP_BUSYBOX` and where packages put it, for the others in
    /// [`libexec::directories`].
    ///
    /// # Errors
    /// [`Error::ToolMissing`] if busybox or `guest-load` was not found; it lists where they were looked for.
    pub fn find() -> Result<Tools> {
        Tools::find_with(None)
    }

    /// The same for a guest with another architecture: the programs in that architecture's directory, and the given
    /// busybox.
    ///
    /// # Errors
    /// [`Error::ToolMissing`] if busybox or `guest-load` was not found for that architecture.
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
                missing(
                    "a statically linked busybox for that machine",
                    "run `schedswap fetch` for a kernel \
                    of that machine",
                )
            })?,
            guest_load: find("guest-load", &ours).ok_or_else(|| {
                missing("guest-load for that machine", "run `make static-arm64` in the source of schedswap")
            })?,
            loader: find("schedswap-loader", &ours),
        })
    }

    /// The same, with a busybox that takes precedence over those of the machine.
    ///
    /// # Errors
    /// [`Error::ToolMissing`] if busybox or `guest-load` was not found.
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

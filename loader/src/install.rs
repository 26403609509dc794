//! `install`: check, load, switch; or leave nothing behind.

use crate::error::LoaderError;
use crate::module_file::{self, ModuleFile};
use crate::switch::{self, Patience, Target};
use crate::urgency::Urgent;
use crate::{lock, running, uninstall};
use rustix::io::Errno;
use schedswap_payload::MODULE_NAME;
use schedswap_payload::report::Attempt;
use std::path::{Path, PathBuf};

/// Installs the scheduler at `path` and returns its name and version.
pub fn install(
    path: &Path,
    patience: Patience,
    attempts: &mut Vec<Attempt>,
    version: &mut Option<String>,
) -> Result<(), LoaderError> {
    let _lock = lock::take()?;
    let module = module_file::open(path)?;
    version.clone_from(&module.info.version);
    check_kernel(&module)?;
    check_nothing_loaded()?;
    load(&module)?;
    let outcome = running::read("version")
        .map(|text| *version = Some(text.trim().to_owned()))
        .and_then(|()| switch::switch(Target::Module, patience, attempts));
    outcome.map_err(|first| match uninstall::unload() {
        Ok(()) => first,
        Err(cleanup) => LoaderError::LeftLoaded { first: Box::new(first), cleanup: Box::new(cleanup) },
    })
}

/// Where the scheduler is when none is named: beside the loader, as packages lay it out.
pub fn default_path() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().unwrap_or(Path::new(".")).to_owned()
}

fn check_kernel(module: &ModuleFile) -> Result<(), LoaderError> {
    let release = running::release();
    if module.info.kernel_release != release {
        let expected = module.info.kernel_release.clone();
        return Err(LoaderError::WrongRelease { running: release, expected });
    }
    // The same release can be built twice, and the addresses in the module hold for one build only.
    let running = running::build_id()?;
    if module.info.build_id != running {
        let expected = module.info.build_id.clone();
        return Err(LoaderError::WrongBuildId { release, running, expected });
    }
    Ok(())
}

fn check_nothing_loaded() -> Result<(), LoaderError> {
    if let Some(loaded) = running::scheduler()? {
        return Err(LoaderError::AlreadyLoaded { version: loaded.version, state: loaded.state });
    }
    if running::module_is_loaded() {
        return Err(LoaderError::NameTaken { name: MODULE_NAME.to_owned() });
    }
    Ok(())
}

fn load(module: &ModuleFile) -> Result<(), LoaderError> {
    // A second of computing on a slow machine, and many times that for a loader that has to share its CPU.
    let _urgent = Urgent::now();
    rustix::system::finit_module(&module.file, c"enable=0", 0).map_err(|errno| {
        let source = std::io::Error::from(errno);
        let hint = match errno {
            Errno::EXIST => return LoaderError::NameTaken { name: MODULE_NAME.to_owned() },
            // What the module's own init returns when one of its checks does not hold.
            Errno::INVAL => return LoaderError::ModuleRefused { source },
            Errno::NOEXEC => "it is damaged, or not built for this kernel; see the kernel log",
            Errno::NOENT => "it needs a symbol that this kernel does not export; see the kernel log",
            Errno::PERM | Errno::ACCESS => {
                "modules may not be loaded: check kernel.modules_disabled, lockdown and CAP_SYS_MODULE"
            }
            Errno::KEYREJECTED | Errno::NOKEY | Errno::BADMSG => {
                "this kernel takes signed modules only; sign it with a key that the kernel trusts"
            }
            Errno::NOMEM => "the kernel has no memory for it",
            _ => "see the kernel log",
        };
        LoaderError::NotLoaded { source, hint }
    })
}

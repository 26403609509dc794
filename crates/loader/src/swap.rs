//! What is done to the kernel: a module is brought in, beside what runs and in its stead, or taken out.

use crate::error::LoaderError;
use crate::host::Machine;
use crate::module_file::ModuleFile;
use crate::record::Record;
use crate::running::{self, Loaded};
use crate::switch::{self, Patience, Target};
use rustix::io::Errno;
use schedswap_payload::sysfs::State;
use std::ffi::CStr;
use std::time::Duration;

/// How a module is to be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Beside {
    /// As the only one.
    Nobody,
    /// Beside one that runs.
    Another,
}

/// Whether `loaded` is what that file holds. Where the name does not say it, the version that the payload's manifest
/// gives, `<name>-<release>`, does.
pub fn is_that(loaded: &Loaded, module: &ModuleFile, version: Option<&str>) -> bool {
    loaded.is(&module.info.name, version.unwrap_or_default())
}

/// Makes the module's scheduler run: from vmlinux's own, or in one stop from the one that runs. On an error what ran
/// before runs still, and the module is out again.
pub fn bring_in(
    machine: &Machine,
    module: &ModuleFile,
    patience: Patience,
    record: &mut Record,
) -> Result<(), LoaderError> {
    clear_leftovers(machine, record)?;
    let old = running::scheduler(&machine.paths)?;
    let (beside, target) = match old {
        None => (Beside::Nobody, Target::Module),
        Some(_) => (Beside::Another, Target::ModuleFromModule),
    };
    load(machine, module, beside)?;
    let name = &module.info.name;
    let version = running::of_module(&machine.paths, name).map(|loaded| loaded.map(|l| l.says.version));
    let outcome = version.and_then(|version| {
        record.version = version.or(record.version.take());
        switch::switch(machine, name, target, patience, &mut record.attempts)
    });
    if let Err(first) = outcome {
        return Err(match unload(machine, name) {
            Ok(()) => first,
            Err(cleanup) => LoaderError::LeftLoaded { first: Box::new(first), cleanup: Box::new(cleanup) },
        });
    }
    if let Some(old) = old
        && let Err(error) = unload(machine, &old.says.module)
    {
        // It runs no more; the next command takes it out.
        record.notes.push(format!("{} is out of use but still loaded: {error}", old.says.version));
    }
    Ok(())
}

/// Makes vmlinux's own scheduler run again, and takes the module out.
pub fn take_out(machine: &Machine, patience: Patience, record: &mut Record) -> Result<(), LoaderError> {
    if let Some(loaded) = running::scheduler(&machine.paths)? {
        record.version = Some(loaded.says.version.clone());
        if loaded.is_in_use() {
            switch::switch(machine, &loaded.says.module, Target::Vmlinux, patience, &mut record.attempts)?;
        }
        unload(machine, &loaded.says.module)?;
    }
    clear_leftovers(machine, record)
}

/// Takes out what a command that was cut short has left: modules that nothing leads into.
pub fn clear_leftovers(machine: &Machine, record: &mut Record) -> Result<(), LoaderError> {
    for loaded in running::beside(&machine.paths)? {
        if !loaded.is_in_use() {
            unload(machine, &loaded.says.module)?;
            record.notes.push(format!("{}, left over from before, was taken out", loaded.says.version));
        }
    }
    let idle = running::scheduler(&machine.paths)?.filter(|loaded| loaded.says.state == State::Disabled);
    if let Some(loaded) = idle {
        unload(machine, &loaded.says.module)?;
    }
    Ok(())
}

/// Loads a module without letting it do anything yet, lets `look` look at it, and takes it out again.
pub fn visit<T>(
    machine: &Machine,
    module: &ModuleFile,
    look: impl FnOnce(&Loaded) -> Result<T, LoaderError>,
) -> Result<T, LoaderError> {
    let is_alone = running::scheduler(&machine.paths)?.is_none();
    load(machine, module, if is_alone { Beside::Nobody } else { Beside::Another })?;
    let name = &module.info.name;
    let loaded = running::of_module(&machine.paths, name);
    let result = loaded.and_then(|loaded| match loaded {
        Some(loaded) => look(&loaded),
        None => Err(LoaderError::Vanished { module: name.clone() }),
    });
    match (result, unload(machine, name)) {
        (result, Ok(())) => result,
        (Ok(_), Err(cleanup)) => Err(cleanup),
        (Err(first), Err(cleanup)) => {
            Err(LoaderError::LeftLoaded { first: Box::new(first), cleanup: Box::new(cleanup) })
        }
    }
}

/// What to do where the kernel takes signed modules only, and this one is not.
pub const UNSIGNED: &str = "this kernel takes signed modules only, and this one is not: build it with --sign-key and \
     --sign-cert; the kernel has to trust the certificate, to which `mokutil --import` adds one";
/// And where it is signed. The kernel says by one number that nobody it trusts has signed it, and that what was signed
/// is something else.
const BAD_SIGNATURE: &str = "its signature does not hold here. Either the kernel does not trust the key: add its \
     certificate (`mokutil --import`, and boot once more), or sign with another. Or the module was altered after it was \
     signed: get it anew from where it was built";

fn load(machine: &Machine, module: &ModuleFile, beside: Beside) -> Result<(), LoaderError> {
    let name = &module.info.name;
    if running::module_is_loaded(&machine.paths, name) {
        return Err(LoaderError::NameTaken { name: name.clone() });
    }
    let parameters: &CStr = match beside {
        Beside::Nobody => c"enable=0",
        Beside::Another => c"enable=0 replace=1",
    };
    let loaded = running::scheduler(&machine.paths)?;
    machine.host.load(module, parameters).map_err(|errno| {
        let source = std::io::Error::from(errno);
        let hint = match (errno, loaded) {
            // The module's own refusal, or the kernel's for its name.
            (Errno::EXIST, Some(Loaded { says, .. })) => {
                return LoaderError::AlreadyLoaded { version: says.version, state: says.state };
            }
            (Errno::EXIST, None) => return LoaderError::NameTaken { name: name.clone() },
            // What the module's own init returns when one of its checks does not hold.
            (Errno::INVAL, _) => return LoaderError::ModuleRefused { source },
            (Errno::NOEXEC, _) => "it is damaged, or not built for this kernel; see the kernel log",
            (Errno::NOENT, _) => "it needs a symbol that this kernel does not export; see the kernel log",
            (Errno::PERM | Errno::ACCESS, _) => {
                "modules may not be loaded: check kernel.modules_disabled, lockdown and CAP_SYS_MODULE"
            }
            (Errno::KEYREJECTED | Errno::NOKEY | Errno::BADMSG, _) if module.is_signed => BAD_SIGNATURE,
            (Errno::KEYREJECTED | Errno::NOKEY | Errno::BADMSG, _) => UNSIGNED,
            (Errno::NOMEM, _) => "the kernel has no memory for it",
            _ => "see the kernel log",
        };
        LoaderError::NotLoaded { source, hint }
    })
}

/// How often the kernel is asked whether the module may go, and how many times: a program that reads one of its
/// files holds it for a moment.
const POLL: Duration = Duration::from_millis(20);
const POLLS: u32 = 500;

/// Takes a module that is not in use out of the kernel. Returns when its memory is freed: its exit waits until no
/// thread's stack holds its text.
pub fn unload(machine: &Machine, name: &str) -> Result<(), LoaderError> {
    for _ in 0..POLLS {
        match machine.host.unload(name) {
            // Gone meanwhile: what was wanted.
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY | Errno::AGAIN) => machine.host.pause(POLL),
            Err(errno) => return Err(LoaderError::NotUnloaded { source: errno.into() }),
        }
    }
    Err(LoaderError::StillInUse { waited: POLL * POLLS })
}

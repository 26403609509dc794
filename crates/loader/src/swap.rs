//! Changes to the kernel: loads a module beside the running one and puts it in charge, or unloads it.

use crate::error::LoaderError;
use crate::host::Machine;
use crate::module_file::ModuleFile;
use crate::record::Record;
use crate::retired::{self, Memory};
use crate::running::{self, Loaded};
use crate::switch::{self, Direction, Patience};
use rustix::io::Errno;
use schedswap_payload::sysfs::State;
use std::ffi::CStr;
use std::time::Duration;

/// How to load a module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Beside {
    /// As the only one.
    Nobody,
    /// Beside one that runs.
    Another,
}

/// Whether `loaded` is the module in that file. If the name does not tell, the version in the payload's manifest,
/// `<name>-<release>`, does.
pub fn is_that(loaded: &Loaded, module: &ModuleFile, version: Option<&str>) -> bool {
    loaded.is(&module.info.name, version.unwrap_or_default())
}

/// Makes the module's scheduler run, switching from vmlinux's own or in one stop from the one that runs. After an
/// error, what ran before still runs, and the module is taken away again.
pub fn bring_in(
    machine: &Machine,
    module: &ModuleFile,
    patience: Patience,
    record: &mut Record,
) -> Result<(), LoaderError> {
    clear_leftovers(machine, record)?;
    let old = running::scheduler(&machine.paths)?;
    let (beside, direction) = match old {
        None => (Beside::Nobody, Direction::Module),
        Some(_) => (Beside::Another, Direction::ModuleFromModule),
    };
    load(machine, module, beside)?;
    let name = &module.info.name;
    let version = running::of_module(&machine.paths, name).map(|loaded| loaded.map(|l| l.says.version));
    let outcome = version.and_then(|version| {
        record.version = version.or(record.version.take());
        switch::switch(machine, name, direction, patience, &mut record.attempts)
    });
    if let Err(first) = outcome {
        return Err(match retired::put_away(machine, name) {
            Ok(()) => first,
            Err(cleanup) => LoaderError::LeftLoaded { first: Box::new(first), cleanup: Box::new(cleanup) },
        });
    }
    if let Some(old) = old
        && let Err(error) = retired::put_away(machine, &old.says.module)
    {
        // It no longer runs; the next command takes it away.
        record.notes.push(format!("{} is out of use but still loaded: {error}", old.says.version));
    }
    Ok(())
}

/// Makes vmlinux's own scheduler run again, and takes the module away.
pub fn take_out(
    machine: &Machine,
    memory: Memory,
    patience: Patience,
    record: &mut Record,
) -> Result<(), LoaderError> {
    if let Some(loaded) = running::scheduler(&machine.paths)? {
        let version = loaded.says.version.clone();
        record.version = Some(version.clone());
        if memory == Memory::Free {
            retired::refuse_unproved(&loaded)?; // while nothing is changed
        }
        if loaded.is_in_use() {
            switch::switch(machine, &loaded.says.module, Direction::Vmlinux, patience, &mut record.attempts)?;
        }
        let size = retired::kib(retired::bytes_of(&machine.paths, &loaded.says.module));
        let what = if memory == Memory::Free || !loaded.is_kept() {
            retired::free(machine, &loaded)?;
            format!("is unloaded, and its memory ({size}) is free")
        } else {
            retired::put_away(machine, &loaded.says.module)?;
            format!("has retired, and keeps {size} until the next boot")
        };
        record.done = Some(format!("the kernel's own scheduler runs again; {version} {what}"));
    }
    clear_leftovers(machine, record)
}

/// Takes away what an interrupted command has left: modules into which nothing leads.
pub fn clear_leftovers(machine: &Machine, record: &mut Record) -> Result<(), LoaderError> {
    for loaded in running::beside(&machine.paths)? {
        if !loaded.is_in_use() {
            retired::put_away(machine, &loaded.says.module)?;
            record
                .notes
                .push(format!("{}, left over from an earlier command, was taken away", loaded.says.version));
        }
    }
    let idle = running::scheduler(&machine.paths)?.filter(|loaded| loaded.says.state == State::Disabled);
    if let Some(loaded) = idle {
        retired::put_away(machine, &loaded.says.module)?;
    }
    Ok(())
}

/// Loads a module without letting it do anything yet, calls `look` with it, and unloads it again.
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

/// What to do if the kernel accepts only signed modules, and this one is not signed.
pub const UNSIGNED: &str = "this kernel takes signed modules only, but this one is not signed: build it with \
    --sign-key and --sign-cert. The kernel has to trust the certificate; `mokutil --import` adds it";
/// The same for a signed module. The kernel returns one error number both if it does not trust the signer, and if the
/// signed content was altered.
const BAD_SIGNATURE: &str = "the kernel rejects its signature. Either the kernel does not trust the key: add its \
     certificate (`mokutil --import`, then reboot), or sign with another key. Or the module was altered \
     after it was signed: copy it again from where it was built";

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
            // The module's own refusal, or the kernel's because of its name.
            (Errno::EXIST, Some(Loaded { says, .. })) => {
                return LoaderError::AlreadyLoaded { version: says.version, state: says.state };
            }
            (Errno::EXIST, None) => return LoaderError::NameTaken { name: name.clone() },
            // The module's own init returns this if one of its checks fails.
            (Errno::INVAL, _) => return LoaderError::ModuleRefused { source },
            (Errno::NOEXEC, _) => "it is damaged, or was not built for this kernel; see the kernel log",
            (Errno::NOENT, _) => "it needs a symbol that this kernel does not export; see the kernel log",
            (Errno::PERM | Errno::ACCESS, _) => {
                "modules may not be loaded: check kernel.modules_disabled, lockdown and CAP_SYS_MODULE"
            }
            (Errno::KEYREJECTED | Errno::NOKEY | Errno::BADMSG, _) if module.is_signed => BAD_SIGNATURE,
            (Errno::KEYREJECTED | Errno::NOKEY | Errno::BADMSG, _) => UNSIGNED,
            (Errno::NOMEM, _) => "the kernel does not have enough memory for it",
            _ => "see the kernel log",
        };
        LoaderError::NotLoaded { source, hint }
    })
}

/// How often to ask the kernel to unload the module, and with what pauses: a program that reads one of its files
/// holds it for a moment.
const POLL: Duration = Duration::from_millis(20);
const POLLS: u32 = 500;

/// Unloads a module that is not in use. Returns once its memory is freed: its exit waits until no thread's stack
/// refers to its text.
pub fn unload(machine: &Machine, name: &str) -> Result<(), LoaderError> {
    for _ in 0..POLLS {
        match machine.host.unload(name) {
            // It is gone already, which is what was wanted.
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY | Errno::AGAIN) => machine.host.pause(POLL),
            Err(errno) => return Err(LoaderError::NotUnloaded { source: errno.into() }),
        }
    }
    Err(LoaderError::StillInUse { waited: POLL * POLLS })
}

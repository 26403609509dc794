//! Linking the runtime, the tables, the stub and the scheduler.
//!
//! All of them have been bound to vmlinux. Kbuild takes the objects as they are (`.o_shipped`), and supplies what only
//! the kernel's own build knows: `struct module`, vermagic and the CRCs of exported symbols.

use crate::compile::{self, OBJTOOL_ON_EACH_OBJECT, look_first_in};
use schedswap_payload::MODULE_NAME;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use thiserror::Error;

/// The object of the bound scheduler.
const SCHEDULER: &str = "sched";

/// Why the module could not be linked.
#[derive(Debug, Error)]
pub enum Error {
    /// A file of the build directory.
    #[error(transparent)]
    File(#[from] compile::Error),
    /// make could not be started.
    #[error("cannot run make: {0}; install the package make")]
    NoMake(std::io::Error),
    /// Kbuild failed.
    #[error("the kernel's build system cannot link the module in {dir}; make said:\n{output}")]
    Kbuild {
        /// Where.
        dir: PathBuf,
        /// What make and the compiler printed.
        output: String,
    },
}

/// The kernel's build system.
#[derive(Clone, Copy)]
pub struct Kbuild<'a> {
    /// For `make -C`.
    pub dir: &'a Path,
    /// Where the compiler is, if it is not the machine's own.
    pub programs: Option<&'a Path>,
    /// What make needs to build for another machine.
    pub env: &'a BTreeMap<String, String>,
}

/// One object of the runtime.
pub struct RuntimeObject {
    /// Name without ending.
    pub name: String,
    /// The ELF file.
    pub bytes: Vec<u8>,
}

/// Writes a file only if its content differs, so that make rebuilds no more than it must.
///
/// # Errors
/// It cannot be written.
pub fn write_if_changed(path: &Path, content: &[u8]) -> Result<(), compile::Error> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let write = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content)
    };
    write().map_err(|source| compile::Error::io("write", path, source))
}

/// The name of the module that these make: a different one for each different content, so that a kernel can hold two
/// versions while one takes over from the other.
pub fn module_name(scheduler: &[u8], runtime: &[RuntimeObject]) -> String {
    let mut hash = Sha256::new();
    hash.update(scheduler);
    runtime.iter().for_each(|object| hash.update(&object.bytes));
    let digest = hash.finalize();
    let digits: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{MODULE_NAME}_{digits}")
}

/// Links the bound objects into the module `name` in `dir` and returns its path.
///
/// # Errors
/// A file cannot be written, make cannot be started, or Kbuild fails.
pub fn link(
    kbuild: Kbuild<'_>,
    dir: &Path,
    name: &str,
    scheduler: &[u8],
    runtime: &[RuntimeObject],
) -> Result<PathBuf, Error> {
    remove_others(dir, name)?;
    let named = runtime.iter().map(|o| (o.name.as_str(), o.bytes.as_slice()));
    let objects: Vec<(&str, &[u8])> = std::iter::once((SCHEDULER, scheduler)).chain(named).collect();
    for (name, bytes) in &objects {
        write_if_changed(&dir.join(format!("{name}.o_shipped")), bytes)?;
        // modpost looks for the sources that an object was made of; a shipped object has none.
        let object = dir.join(format!("{name}.o"));
        let object = object.display();
        let sources = format!(
            "source_{object} := {object}_shipped\n\ndeps_{object} := \\\n\n{object}: $(deps_{object})\n"
        );
        write_if_changed(&dir.join(format!(".{name}.o.cmd")), sources.as_bytes())?;
    }
    let list: Vec<String> = objects.iter().map(|(name, _)| format!("{name}.o")).collect();
    // Objects come from objtool already: it must not run again over the whole module. No BTF: the
    // scheduler's types are vmlinux's.
    let mut kbuild_file = format!("obj-m := {name}.o\n{name}-y := {}\n", list.join(" "));
    // Kbuild's own rule for them is a pattern, which from 7.x on, where a module is built in its directory, fits no name.
    for (object, _) in &objects {
        kbuild_file += &format!("$(obj)/{object}.o: $(src)/{object}.o_shipped\n\t@cat $< >$@\n");
    }
    write_if_changed(&dir.join("Kbuild"), kbuild_file.as_bytes())?;
    let overrides = ["modules", "CONFIG_DEBUG_INFO_BTF_MODULES=", "KCFLAGS=-g0"];
    let overrides: Vec<String> =
        overrides.iter().chain(&OBJTOOL_ON_EACH_OBJECT).map(|word| (*word).to_owned()).collect();
    make(kbuild, dir, &overrides)?;
    Ok(dir.join(format!("{name}.ko")))
}

/// Removes what earlier links made under other names.
fn remove_others(dir: &Path, name: &str) -> Result<(), Error> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let made = file.trim_start_matches('.');
        if made.starts_with(&format!("{MODULE_NAME}_")) && !made.starts_with(name) {
            let path = entry.path();
            fs::remove_file(&path).map_err(|source| compile::Error::io("remove", path, source))?;
        }
    }
    Ok(())
}

fn make(kbuild: Kbuild<'_>, dir: &Path, arguments: &[String]) -> Result<(), Error> {
    let mut command = Command::new("make");
    command
        .arg("-C")
        .arg(kbuild.dir)
        .arg(format!("M={}", dir.display()))
        .arg("-j2")
        .args(arguments)
        .envs(kbuild.env)
        // If make started this program, its options are not for this make.
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS");
    look_first_in(kbuild.programs, &mut command);
    let output = command.output().map_err(Error::NoMake)?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(Error::Kbuild { dir: dir.to_path_buf(), output: String::from_utf8_lossy(&text).into_owned() })
}

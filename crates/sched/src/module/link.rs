//! Linking: runtime, stub, tables and the bound scheduler, in two runs of Kbuild.
//!
//! The first compiles the runtime as ordinary module code. Its objects are then bound to vmlinux like the
//! scheduler's, since the runtime calls functions that are not exported. The second run takes all of them as
//! they are (`.o_shipped`), and supplies what only the kernel's own build knows: `struct module`, vermagic and
//! the CRCs of exported symbols.

use crate::compile::{OBJTOOL_ON_EACH_OBJECT, look_first_in};
use schedswap_payload::MODULE_NAME;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use thiserror::Error;

/// Name under which the runtime is compiled; the module has a name of its own.
const RUNTIME: &str = "runtime";
/// The object of the bound scheduler.
const SCHEDULER: &str = "sched";

/// Why the module could not be linked.
#[derive(Debug, Error)]
pub enum Error {
    /// A file of the build directory.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// make could not be started.
    #[error("cannot run make: {0}; install the package make")]
    NoMake(std::io::Error),
    /// Kbuild failed.
    #[error("{what} failed in {dir}:\n{output}")]
    Kbuild {
        /// Which of the two runs.
        what: &'static str,
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

/// One object of the runtime, compiled and not yet bound.
pub struct RuntimeObject {
    /// Name without ending.
    pub name: String,
    /// The ELF file.
    pub bytes: Vec<u8>,
}

/// Writes a file only if its content differs, so that make rebuilds no more than it must.
pub fn write_if_changed(path: &Path, content: &[u8]) -> Result<(), Error> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let write = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content)
    };
    write().map_err(|source| Error::Write { path: path.to_path_buf(), source })
}

/// Compiles the runtime in `dir`. `sources` are its files as (path below `dir`, content); every `.c` and `.S`
/// becomes an object. `include` are further directories of headers.
pub fn compile_runtime(
    kbuild: Kbuild<'_>,
    dir: &Path,
    sources: &[(&str, &[u8])],
    include: &[&Path],
) -> Result<Vec<RuntimeObject>, Error> {
    let mut names = Vec::new();
    for (path, content) in sources {
        // Kbuild descends only into directories with a makefile of their own, so what is compiled lies flat.
        let file = path.rsplit('/').next().unwrap_or(path);
        match file.rsplit_once('.') {
            Some((stem, "c" | "S")) => {
                write_if_changed(&dir.join(file), content)?;
                names.push(stem.to_string());
            }
            _ => write_if_changed(&dir.join(path), content)?,
        }
    }
    names.sort();
    let objects: Vec<String> = names.iter().map(|n| format!("{n}.o")).collect();
    let flags: String = include.iter().map(|dir| format!(" -I{}", dir.display())).collect();
    // No debug information and no names of directories: the module is the same wherever it is built, and no larger
    // than it must be on the host.
    let anonymous: String =
        include.iter().chain([&dir]).map(|dir| format!(" -ffile-prefix-map={}=.", dir.display())).collect();
    let kbuild_file = format!(
        "obj-m := {RUNTIME}.o\n{RUNTIME}-y := {}\nccflags-y += -g0{anonymous} -I{here} -I{here}/include{flags}\n\
         asflags-y += -g0 -I{here}\n",
        objects.join(" "),
        here = dir.display(),
    );
    write_if_changed(&dir.join("Kbuild"), kbuild_file.as_bytes())?;
    // What comes out is not gone over once more when it is linked.
    let arguments: Vec<String> =
        OBJTOOL_ON_EACH_OBJECT.map(String::from).into_iter().chain(objects.clone()).collect();
    make(kbuild, dir, "compiling the runtime", &arguments)?;
    names
        .into_iter()
        .map(|name| {
            let path = dir.join(format!("{name}.o"));
            let bytes = fs::read(&path).map_err(|source| Error::Write { path, source })?;
            Ok(RuntimeObject { name, bytes })
        })
        .collect()
}

/// The name of the module that these make: another one for every other content, so that a kernel can hold two
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
    make(kbuild, dir, "linking the module", &overrides)?;
    Ok(dir.join(format!("{name}.ko")))
}

/// What earlier links left behind under other names.
fn remove_others(dir: &Path, name: &str) -> Result<(), Error> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let made = file.trim_start_matches('.');
        if made.starts_with(&format!("{MODULE_NAME}_")) && !made.starts_with(name) {
            let path = entry.path();
            fs::remove_file(&path).map_err(|source| Error::Write { path, source })?;
        }
    }
    Ok(())
}

fn make(kbuild: Kbuild<'_>, dir: &Path, what: &'static str, arguments: &[String]) -> Result<(), Error> {
    let mut command = Command::new("make");
    command
        .arg("-C")
        .arg(kbuild.dir)
        .arg(format!("M={}", dir.display()))
        .arg("-j2")
        .args(arguments)
        .envs(kbuild.env)
        // A make that runs us must not hand its own options down.
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS");
    look_first_in(kbuild.programs, &mut command);
    let output = command.output().map_err(Error::NoMake)?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(Error::Kbuild { what, dir: dir.to_path_buf(), output: String::from_utf8_lossy(&text).into_owned() })
}

//! Asking Kbuild how it compiles.
//!
//! A probe directory holds the Makefile of one directory of the kernel (for its per-object flags) and empty
//! sources; after `make -C <headers> M=<probe>` the `.NAME.o.cmd` files beside the objects hold the commands.

use super::compiler::{Compiler, look_first_in};
use super::cross;
use super::shell_words::{saved_command, simple_commands};
use super::spawn_error;
use super::{Error, Result};
use schedswap_kernel::vmlinux::Machine;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How this kernel's code is compiled. Kept in the work dir as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Commands {
    /// The directory in which the commands run: what `make -C` was given.
    pub cwd: PathBuf,
    /// Variables that the commands need (`SRCARCH`, which objtool's wrapper in some packages reads), and make, to
    /// compile for another machine.
    pub env: BTreeMap<String, String>,
    /// The kernel's name of the architecture: `x86`, `arm64`.
    pub srcarch: String,
    /// Unit (`kernel/sched/core.c`) → its command as built-in code.
    pub units: BTreeMap<String, Template>,
    /// A C file of a module.
    pub module_c: Template,
    /// An assembler file of a module.
    pub module_asm: Template,
    /// The compiler that the commands run.
    pub compiler: Compiler,
}

/// A command with holes: `{source}`, `{object}`, `{depfile}`, `{tree}` (the kernel source's root),
/// `{basename}` and `{modname}`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Template {
    /// The compiler and its arguments.
    pub compile: Vec<String>,
    /// objtool and its arguments, where the kernel runs it on each object.
    pub objtool: Option<Vec<String>>,
}

/// What fills a template's holes. Absolute paths.
#[derive(Clone, Debug)]
pub struct Slots<'a> {
    /// File to compile.
    pub source: &'a Path,
    /// Where the object goes.
    pub object: &'a Path,
    /// Where the list of headers read goes.
    pub depfile: &'a Path,
    /// Root of the kernel source copy; `__FILE__` is relative to it.
    pub tree: &'a Path,
    /// Name of the module, for `KBUILD_MODNAME` (unused by a unit's template, which has its own).
    pub modname: &'a str,
}

impl Template {
    /// The compiler's command line.
    pub fn compile_argv(&self, slots: &Slots) -> Vec<String> {
        self.compile.iter().map(|word| slots.fill(word)).collect()
    }

    /// objtool's command line.
    pub fn objtool_argv(&self, slots: &Slots) -> Option<Vec<String>> {
        Some(self.objtool.as_ref()?.iter().map(|word| slots.fill(word)).collect())
    }
}

impl Slots<'_> {
    pub(super) fn fill(&self, word: &str) -> String {
        if !word.contains('{') {
            return word.to_owned();
        }
        let basename = self.source.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
        word.replace("{source}", &self.source.to_string_lossy())
            .replace("{object}", &self.object.to_string_lossy())
            .replace("{depfile}", &self.depfile.to_string_lossy())
            .replace("{tree}", &self.tree.to_string_lossy())
            .replace("{basename}", &basename)
            .replace("{modname}", self.modname)
    }
}

const MODULE_C: &str = "schedswap_probe_c";
const MODULE_ASM: &str = "schedswap_probe_asm";
/// Variables for make. Kernels with IBT or LTO run objtool on what is linked, not on each object. With these it
/// runs on each, and does all but what it can do on the whole only: `--ibt`, which changes no code.
pub(crate) const OBJTOOL_ON_EACH_OBJECT: [&str; 2] =
    ["delay-objtool=", "objtool-args=$(filter-out --ibt,$(objtool-args-y)) $(if $(part-of-module),--module)"];

/// Marks the probe's own line in make's output.
const MARK: &str = "schedswap-probe:";

/// Asks the kernel's build system how `units` (`kernel/sched/core.c`, …) are compiled as built-in code, and
/// how a module is. `kbuild` is a directory for `make -C`; `tree` holds the Makefile of each unit's directory; `machine` is
/// what the kernel runs on; `programs` is where the compiler is, if it is not the machine's own.
///
/// # Errors
/// make or the compiler is missing or fails, or a command is of a form that is not understood.
pub fn commands(
    kbuild: &Path,
    tree: &Path,
    units: &[String],
    machine: Machine,
    programs: Option<&Path>,
) -> Result<Commands> {
    let mut env = cross::environment(machine);
    let directories: BTreeSet<&Path> = units.iter().map(|unit| directory(unit)).collect();
    let mut templates = BTreeMap::new();
    let mut module = None;
    for directory in directories {
        let of_directory: Vec<&str> =
            units.iter().map(String::as_str).filter(|unit| self::directory(unit) == directory).collect();
        let probe = Probe::run(kbuild, &env, tree, directory, &of_directory, programs)?;
        for unit in of_directory {
            let mut template = probe.template(stem(unit), ".c")?;
            name_file(&mut template.compile, unit.strip_suffix(".c").unwrap_or(unit));
            templates.insert(unit.to_owned(), template);
        }
        // The runtime is compiled with the flags of kernel/sched/Makefile, as the scheduler is.
        if module.is_none() || directory == Path::new("kernel/sched") {
            module = Some(probe);
        }
    }
    let Some(probe) = module else {
        return Err(Error::UnknownUnit { unit: "kernel/sched/core.c".to_owned(), known: units.to_vec() });
    };
    let mut module_c = probe.template(MODULE_C, ".c")?;
    let mut module_asm = probe.template(MODULE_ASM, ".S")?;
    name_module(&mut module_c.compile);
    name_module(&mut module_asm.compile);
    let compiler =
        Compiler::of(&module_c.compile, kbuild, programs, &probe.dir.join(format!("{MODULE_C}.o")))?;
    env.insert("SRCARCH".to_owned(), probe.srcarch.clone());
    Ok(Commands {
        cwd: kbuild.to_owned(),
        env,
        srcarch: probe.srcarch,
        units: templates,
        module_c,
        module_asm,
        compiler,
    })
}

/// `core` of `kernel/sched/core.c`.
fn stem(unit: &str) -> &str {
    Path::new(unit).file_stem().and_then(|s| s.to_str()).unwrap_or(unit)
}

/// `kernel/sched` of `kernel/sched/core.c`.
fn directory(unit: &str) -> &Path {
    Path::new(unit).parent().unwrap_or(Path::new(""))
}

/// What make answered for one directory of the kernel.
struct Probe<'a> {
    /// Where it ran; gone with this value.
    _held: tempfile::TempDir,
    /// The same, as make resolves it: that is how Kbuild names objects.
    dir: PathBuf,
    /// The directory that it stood for.
    stands_for: &'a Path,
    srcarch: String,
}

impl<'a> Probe<'a> {
    fn run(
        kbuild: &Path,
        env: &BTreeMap<String, String>,
        tree: &Path,
        stands_for: &'a Path,
        units: &[&str],
        programs: Option<&Path>,
    ) -> Result<Probe<'a>> {
        let held =
            tempfile::tempdir().map_err(|e| Error::io("make a directory in", std::env::temp_dir(), e))?;
        let dir = fs::canonicalize(held.path()).map_err(|e| Error::io("find", held.path(), e))?;
        let stems: Vec<&str> = units.iter().map(|unit| stem(unit)).collect();
        lay_out_probe(&dir, &tree.join(stands_for).join("Makefile"), &stems)?;

        let targets = stems.iter().copied().chain([MODULE_C, MODULE_ASM]).map(|stem| format!("{stem}.o"));
        let mut make = Command::new("make");
        make.arg("-C")
            .arg(kbuild)
            .arg(format!("M={}", dir.display()))
            .args(OBJTOOL_ON_EACH_OBJECT)
            .args(targets)
            .env("LC_ALL", "C")
            .envs(env);
        // If make started this program, its flags are not for this make.
        for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "KBUILD_VERBOSE", "V"] {
            make.env_remove(variable);
        }
        look_first_in(programs, &mut make);
        let output = make.output().map_err(|e| spawn_error("make", e))?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let said = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            return Err(match missing_program(&said) {
                Some(program) => Error::ProgramMissing { program },
                None => {
                    let (kbuild, directory) = (kbuild.to_owned(), stands_for.to_owned());
                    Error::Kbuild { kbuild, directory, output: said }
                }
            });
        }
        let srcarch =
            stdout.lines().find_map(|line| line.strip_prefix(MARK)).map(|word| word.trim().to_owned());
        match srcarch {
            Some(srcarch) => Ok(Probe { _held: held, dir, stands_for, srcarch }),
            None => {
                let (kbuild, directory) = (kbuild.to_owned(), stands_for.to_owned());
                Err(Error::Kbuild { kbuild, directory, output: said })
            }
        }
    }

    /// The command of one of its files.
    fn template(&self, stem: &str, extension: &str) -> Result<Template> {
        let path = self.dir.join(format!(".{stem}.o.cmd"));
        let text = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        let line = saved_command(&text).unwrap_or_default();
        template((&self.dir, self.stands_for), stem, extension, &line)
    }
}

fn lay_out_probe(dir: &Path, makefile: &Path, stems: &[&str]) -> Result<()> {
    let write = |name: &str, content: &str| {
        let path = dir.join(name);
        fs::write(&path, content).map_err(|e| Error::io("write", path, e))
    };
    fs::copy(makefile, dir.join("Makefile")).map_err(|e| Error::io("read", makefile, e))?;
    // Kbuild prefers a file named Kbuild to one named Makefile.
    write(
        "Kbuild",
        &format!(
            "include $(dir $(lastword $(MAKEFILE_LIST)))Makefile\nobj-m := {MODULE_C}.o {MODULE_ASM}.o\n\
             $(info {MARK} $(SRCARCH))\n"
        ),
    )?;
    for stem in stems.iter().chain([&MODULE_C]) {
        write(&format!("{stem}.c"), "")?;
    }
    // objtool refuses an object without any symbol (7.x).
    write(&format!("{MODULE_ASM}.S"), "\t.data\n\t.globl schedswap_probe\nschedswap_probe:\n\t.long 0\n")
}

/// The program of which make's shell said that it is not there.
fn missing_program(said: &str) -> Option<String> {
    said.lines().filter(|line| line.contains("not found") || line.contains("No such file")).find_map(|line| {
        let (before, _) =
            line.split_once(": not found").or_else(|| line.split_once(": command not found"))?;
        let program = before.rsplit(": ").next()?.trim();
        (!program.is_empty() && !program.contains(' ')).then(|| program.to_owned())
    })
}

/// Turns a saved command line into a template. `dir` is the probe's directory, `stands_for` the kernel's that it
/// stands for.
fn template((dir, stands_for): (&Path, &Path), stem: &str, extension: &str, line: &str) -> Result<Template> {
    let odd = |found: String, expected| Error::OddCommand {
        object: format!("{stem}.o"),
        found,
        expected,
        command: line.to_owned(),
    };
    let holes = Holes {
        dir: dir.to_string_lossy().into_owned(),
        stands_for: format!("{{tree}}/{}", stands_for.display()),
        stem,
        extension,
    };
    let mut compile = None;
    let mut objtool = None;
    for words in simple_commands(line).ok_or_else(|| odd("an open quote".to_owned(), "shell words"))? {
        if words.iter().any(|w| w == "-c") && words.iter().any(|w| holes.is(w, extension)) {
            compile = Some(holes.punch(&words));
        } else if words[0].ends_with("/objtool") {
            objtool = Some(holes.punch(&words));
        }
    }
    let compile = compile.ok_or_else(|| odd("no compiler".to_owned(), "`CC … -c -o object source`"))?;
    for hole in ["{source}", "{object}", "{depfile}"] {
        let count = compile.iter().filter(|word| word.contains(hole)).count();
        if count != 1 {
            return Err(odd(format!("{hole} {count} times"), "it once"));
        }
    }
    Ok(Template { compile, objtool })
}

struct Holes<'a> {
    dir: String,
    stands_for: String,
    stem: &'a str,
    extension: &'a str,
}

impl Holes<'_> {
    /// Whether `word` is the probe's file with that extension: absolute, or (6.13 on) relative to the probe.
    fn is(&self, word: &str, extension: &str) -> bool {
        let relative = word.strip_prefix(&self.dir).map_or(word, |rest| rest.trim_start_matches('/'));
        relative.trim_start_matches("./").strip_suffix(extension) == Some(self.stem)
    }

    fn punch(&self, words: &[String]) -> Vec<String> {
        let mut out = Vec::with_capacity(words.len() + 2);
        for word in words {
            if self.is(word, self.extension) {
                out.push("{source}".to_owned());
            } else if self.is(word, ".o") {
                out.push("{object}".to_owned());
            } else if word.starts_with("-Wp,-MMD,") || word.starts_with("-Wp,-MD,") {
                // The same by options that allow a comma in the path.
                let option = if word.starts_with("-Wp,-MMD,") { "-MMD" } else { "-MD" };
                out.extend([option.to_owned(), "-MF".to_owned(), "{depfile}".to_owned()]);
            } else if is_debug_info_option(word) {
                // Debug information takes a third of the time and does not change the code. The gate shows that:
                // vmlinux was compiled with it.
            } else {
                out.push(word.replace(&self.dir, &self.stands_for));
            }
        }
        out
    }
}

fn is_debug_info_option(word: &str) -> bool {
    word == "-g" || word.starts_with("-gdwarf") || word.starts_with("-gz") || word == "-gsplit-dwarf"
}

/// The kernel's own build had `kernel/sched/core` where the probe's has its directory.
fn name_file(compile: &mut [String], file: &str) {
    for word in compile.iter_mut().filter(|word| word.starts_with("-DKBUILD_MODFILE=")) {
        *word = format!("-DKBUILD_MODFILE=\"{file}\"");
    }
}

fn name_module(compile: &mut [String]) {
    for word in compile.iter_mut() {
        let name = word.split('=').next().unwrap_or_default().to_owned();
        match name.as_str() {
            "-DKBUILD_MODFILE" => *word = "-DKBUILD_MODFILE=\"{modname}\"".to_owned(),
            "-DKBUILD_MODNAME" => *word = "-DKBUILD_MODNAME=\"{modname}\"".to_owned(),
            // `kmod_NAME` up to 6.12, NAME in 7.3.
            "-D__KBUILD_MODNAME" => {
                let prefix = if word.contains("=kmod_") { "kmod_" } else { "" };
                *word = format!("-D__KBUILD_MODNAME={prefix}{{modname}}");
            }
            "-DKBUILD_BASENAME" => *word = "-DKBUILD_BASENAME=\"{basename}\"".to_owned(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "gcc -Wp,-MMD,/p/.core.o.d -I./include -g -DKBUILD_MODFILE='\"/p/core\"' -I/p -c -o /p/core.o /p/core.c ; ./tools/objtool/objtool --orc /p/core.o";

    #[test]
    fn absolute_paths_become_holes() {
        let t = template((Path::new("/p"), Path::new("kernel/sched")), "core", ".c", LINE).unwrap();
        assert_eq!(
            t.compile.join(" "),
            "gcc -MMD -MF {depfile} -I./include -DKBUILD_MODFILE=\"{tree}/kernel/sched/core\" -I{tree}/kernel/sched -c -o {object} {source}"
        );
        assert_eq!(t.objtool.unwrap().join(" "), "./tools/objtool/objtool --orc {object}");
    }

    #[test]
    fn relative_paths_become_holes() {
        let t = template(
            (Path::new("/p"), Path::new("kernel/sched")),
            "core",
            ".c",
            "gcc -Wp,-MMD,./.core.o.d -c -o core.o core.c",
        )
        .unwrap();
        assert_eq!(t.compile.join(" "), "gcc -MMD -MF {depfile} -c -o {object} {source}");
        assert_eq!(t.objtool, None);
    }

    #[test]
    fn a_linked_module_object_keeps_only_compiler_and_objtool() {
        let line =
            "gcc -Wp,-MMD,./.m.o.d -c -o m.o m.c ; ld -r -o .tmp_m.o m.o; mv .tmp_m.o m.o ; /k/objtool m.o";
        let t = template((Path::new("/p"), Path::new("kernel/sched")), "m", ".c", line).unwrap();
        assert_eq!(t.objtool.unwrap(), ["/k/objtool", "{object}"]);
    }

    #[test]
    fn a_command_without_an_object_is_odd() {
        let error = template(
            (Path::new("/p"), Path::new("kernel/sched")),
            "core",
            ".c",
            "gcc -Wp,-MMD,x.d -c core.c",
        )
        .unwrap_err();
        assert!(error.to_string().contains("{object} 0 times"), "{error}");
    }

    #[test]
    fn a_missing_compiler_is_named() {
        assert_eq!(missing_program("/bin/sh: 1: gcc-12: not found\n").as_deref(), Some("gcc-12"));
        assert_eq!(missing_program("make: gcc-9: No such file or directory\n"), None);
    }
}

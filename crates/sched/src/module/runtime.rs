//! The runtime's sources, carried inside the program so that it works from any place, and the jobs that compile
//! them: once for a kernel, beside the scheduler's units, and again only where something they were made from changes.

use super::link::write_if_changed;
use super::tables;
use crate::compile::{self, Commands, Job, Template};
use schedswap_kernel::arch;
use schedswap_kernel::vmlinux::Machine;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

macro_rules! runtime {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../runtime/", $path)) as &[u8])),*]
    };
}

/// `KBUILD_MODNAME` of the runtime's files; the module has a name of its own.
const MODNAME: &str = "runtime";
/// Headers that `build` writes for the module at hand. A file that includes one of them waits for that.
const WRITTEN_BY_BUILD: [&str; 2] = ["springboard.h", "entries.h"];
/// Everything else that is C, as one unit: most of a unit's compile time is the kernel's headers, which these share.
const UNIT: &str = "runtime.c";
/// What only some kernels have in the scheduler's private header. C cannot ask, and stable kernels get them too, so the
/// version does not tell either: `compat.h` finds `SS_HAS_<name>` defined.
const NAMES: [&str; 5] = ["h_curr", "sum_weight", "tg_se", "throttled_limbo_list", "zero_vruntime"];
/// The tables, which `build` writes too.
pub(super) const TABLES: &str = "tables.c";
/// Not a part of the module: its debug information describes the structures of the tables.
pub(super) const STRUCTURES: &str = "structures.c";

/// The runtime in a work dir.
#[derive(Clone, Copy, Debug)]
pub struct Runtime<'a> {
    /// How a module is compiled.
    pub commands: &'a Commands,
    /// What the kernel runs on.
    pub machine: Machine,
    /// The edited kernel source, whose private header the runtime includes.
    pub tree: &'a Path,
    /// Where its sources and objects are.
    pub dir: &'a Path,
    /// Where work dirs share the objects that depend on the kernel and its private headers alone.
    pub shared: Option<&'a Path>,
}

impl<'a> Runtime<'a> {
    /// Writes the sources.
    ///
    /// # Errors
    /// One of them cannot be written.
    pub fn write(&self) -> compile::Result<()> {
        for (path, content) in sources(self.machine) {
            // What is compiled lies flat: its object is beside it.
            let path = if is_compiled(path) { file_name(path) } else { path };
            write_if_changed(&self.dir.join(path), &named(path, content))?;
        }
        write_if_changed(&self.dir.join(UNIT), unit(self.machine).as_bytes())?;
        write_if_changed(&self.dir.join(STRUCTURES), tables::structures().as_bytes())
    }

    /// The jobs that depend on the kernel and its private headers alone, so that they can be done before anything is
    /// known of the module. [`Runtime::write`] comes first.
    pub fn jobs(&self) -> Vec<Job<'a>> {
        let mut structures = self.job(STRUCTURES);
        structures.extra_flags.push("-gdwarf-4".to_owned());
        [self.job(UNIT), structures].map(|job| Job { shared: self.shared, ..job }).into()
    }

    /// The jobs that wait for what `build` writes, `wanted` among them.
    pub(super) fn jobs_of_module(&self, wanted: impl Fn(&str) -> bool) -> Vec<Job<'a>> {
        let files = sources(self.machine).filter(|(path, content)| is_compiled(path) && waits(content));
        let mut jobs: Vec<Job> =
            files.filter(|(path, _)| wanted(path)).map(|(path, _)| self.job(path)).collect();
        let mut tables = self.job(TABLES);
        // The compiler's word that every value has the kind of its member.
        tables.extra_flags.extend(["-Werror=int-conversion", "-Werror=overflow"].map(str::to_owned));
        jobs.push(tables);
        jobs
    }

    fn job(&self, path: &str) -> Job<'a> {
        let file = file_name(path);
        let is_c = file.ends_with(".c");
        Job {
            label: format!("runtime/{path}"),
            template: self.template(is_c),
            source: self.dir.join(file),
            object: self.dir.join(file).with_extension("o"),
            tree: self.tree,
            extra_flags: self.flags(is_c),
            roots: Vec::new(),
            modname: MODNAME,
            shared: None,
        }
    }

    fn template(&self, is_c: bool) -> &'a Template {
        if is_c { &self.commands.module_c } else { &self.commands.module_asm }
    }

    /// No debug information and no names of directories: the module is the same wherever it is built, and no larger
    /// than it must be on the host.
    fn flags(&self, is_c: bool) -> Vec<String> {
        let dir = self.in_tree(self.dir);
        if !is_c {
            return vec!["-g0".to_owned(), format!("-I{dir}")];
        }
        let sched = self.tree.join("kernel/sched");
        let header = std::fs::read_to_string(sched.join("sched.h")).unwrap_or_default();
        let sched = self.in_tree(&sched);
        let mut flags = vec![
            "-g0".to_owned(),
            format!("-ffile-prefix-map={sched}=."),
            format!("-ffile-prefix-map={dir}=."),
            format!("-I{dir}"),
            format!("-I{dir}/include"),
            format!("-I{sched}"),
        ];
        flags.extend(names(&header).iter().map(|name| format!("-DSS_HAS_{name}")));
        flags
    }

    /// A path as a template has it: what is below the tree is the same in every work dir.
    fn in_tree(&self, path: &Path) -> String {
        match path.strip_prefix(self.tree) {
            Ok(below) => format!("{{tree}}/{}", below.display()),
            Err(_) => path.display().to_string(),
        }
    }
}

/// Those of [`NAMES`] that a header has.
fn names(header: &str) -> Vec<&'static str> {
    let words: HashSet<&str> = header.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    NAMES.into_iter().filter(|name| words.contains(name)).collect()
}

/// The files that [`UNIT`] consists of.
fn parts(machine: Machine) -> impl Iterator<Item = &'static str> {
    let parts = sources(machine).filter(|(path, content)| path.ends_with(".c") && !waits(content));
    parts.map(|(path, _)| file_name(path))
}

fn unit(machine: Machine) -> String {
    parts(machine).map(|file| format!("#include \"{file}\"\n")).collect()
}

/// Where the runtime is below the directory of what `build` makes.
pub fn directory(build: &Path) -> PathBuf {
    build.join("runtime")
}

/// What everything but the files that wait for the build is compiled to.
pub fn unit_object(dir: &Path) -> PathBuf {
    dir.join(UNIT).with_extension("o")
}

/// The source, which says itself what it is called. gcc writes the names of files into objects, for the places that the
/// undefined-behaviour sanitizer (UBSAN) reports, and there no option takes the directory off.
fn named(path: &str, content: &[u8]) -> Vec<u8> {
    let line = if path.ends_with(".S") { String::new() } else { format!("#line 1 \"{path}\"\n") };
    [line.as_bytes(), content].concat()
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn is_compiled(path: &str) -> bool {
    path.ends_with(".c") || path.ends_with(".S")
}

/// Whether a file includes what `build` writes for the module at hand.
fn waits(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    WRITTEN_BY_BUILD.iter().any(|header| text.contains(&format!("#include \"{header}\"")))
}

/// What a module for that kind of machine is made of: path below `runtime/`, content.
fn sources(machine: Machine) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let directory = arch::of(machine).directory();
    SOURCES.iter().copied().filter(move |(path, _)| match path.strip_prefix("arch/") {
        Some(rest) => rest.split_once('/').is_some_and(|(of, _)| of == directory),
        None => true,
    })
}

/// The C of all machines.
#[cfg(test)]
pub(crate) fn sources_in_c() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    SOURCES.iter().copied().filter(|(path, _)| path.ends_with(".c") || path.ends_with(".h"))
}

/// Every file of `runtime/`.
const SOURCES: &[(&str, &[u8])] = runtime![
    "arch/arm64/stub.S",
    "arch/arm64/text.h",
    "arch/arm64/veneers.c",
    "arch/arm64/walk.c",
    "arch/x86/stub.S",
    "arch/x86/text.h",
    "checks.c",
    "compat.h",
    "extension.c",
    "extension.h",
    "feature_write.c",
    "features.c",
    "groups.c",
    "handover.c",
    "handover.h",
    "hold.c",
    "hooks.c",
    "hooks.h",
    "include/schedswap/author.h",
    "main.c",
    "order.c",
    "place.c",
    "rebuild.c",
    "report.c",
    "retire.c",
    "runtime.h",
    "schedswap.h",
    "slots.c",
    "stackcheck.c",
    "state.c",
    "swap.c",
    "switchlog.c",
    "sysfs.c",
    "table.c",
    "tasks.c",
    "text.c",
    "unused.c",
];

#[cfg(test)]
mod tests {
    use super::{Runtime, SOURCES, file_name, is_compiled, named, names, parts, sources, waits};
    use crate::compile::{Commands, Compiler, Template};
    use schedswap_kernel::vmlinux::Machine;
    use std::path::{Path, PathBuf};

    /// A file added to `runtime/` and forgotten here would be missing from every module.
    #[test]
    fn every_file_of_the_runtime_is_carried() {
        fn walk(dir: &Path, below: &str, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).expect("runtime/").flatten() {
                let name = format!("{below}{}", entry.file_name().to_string_lossy());
                if entry.path().is_dir() {
                    walk(&entry.path(), &format!("{name}/"), found);
                } else if [".c", ".h", ".S"].iter().any(|e| name.ends_with(e)) {
                    found.push(name);
                }
            }
        }
        let mut there = Vec::new();
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime"), "", &mut there);
        there.sort();
        let carried: Vec<&str> = SOURCES.iter().map(|(path, _)| *path).collect();
        assert_eq!(there, carried);
    }

    /// The assembler's files wait for the build, so nothing is compiled but the unit, and what waits.
    #[test]
    fn whatever_is_compiled_waits_or_is_a_part_of_the_unit() {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            let compiled = sources(machine).filter(|(path, _)| is_compiled(path));
            for (path, content) in compiled {
                let part = parts(machine).any(|part| part == file_name(path));
                assert_ne!(part, waits(content), "{path}");
            }
        }
    }

    #[test]
    fn what_a_header_has_is_found_by_its_whole_name() {
        let header = "struct cfs_rq {\n\tu64 sum_weight;\n\tstruct sched_entity *h_curr;\n\tu64 zero_vruntime_fi;\n};\n";
        assert_eq!(names(header), ["h_curr", "sum_weight"]);
    }

    /// They are compiled in one directory.
    #[test]
    fn no_two_files_of_a_machine_have_one_name() {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            let mut names: Vec<&str> = sources(machine)
                .map(|(path, _)| path)
                .filter(|path| is_compiled(path))
                .map(file_name)
                .collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{names:?}");
        }
    }

    /// Otherwise no work dir could use what another has compiled.
    #[test]
    fn the_commands_do_not_name_the_work_dir() {
        let template = Template { compile: vec!["gcc".to_owned()], objtool: None };
        let compiler = Compiler {
            command: vec!["gcc".to_owned()],
            version: String::new(),
            comment: String::new(),
            programs: None,
        };
        let commands = Commands {
            cwd: PathBuf::new(),
            env: Default::default(),
            srcarch: "x86".to_owned(),
            units: Default::default(),
            module_c: template.clone(),
            module_asm: template,
            compiler,
        };
        let flags = |work: &str| {
            let (tree, dir) = (Path::new(work), Path::new(work).join(".schedswap/build/runtime"));
            let runtime =
                Runtime { commands: &commands, machine: Machine::X86_64, tree, dir: &dir, shared: None };
            runtime.jobs().into_iter().map(|job| job.extra_flags).collect::<Vec<_>>()
        };
        assert_eq!(flags("/one"), flags("/other/work"));
        assert!(flags("/one")[0].contains(&"-I{tree}/kernel/sched".to_owned()));
    }

    #[test]
    fn only_what_depends_on_the_module_waits_for_the_build() {
        let waiting: Vec<&str> =
            sources(Machine::X86_64).filter(|(_, content)| waits(content)).map(|(path, _)| path).collect();
        assert_eq!(waiting, ["arch/x86/stub.S", "feature_write.c", "groups.c", "tasks.c"]);
    }

    #[test]
    fn an_object_does_not_name_the_directory_in_which_it_was_compiled() {
        let dir = tempfile::tempdir().expect("a directory");
        let header = "static inline int shifted(int by) { return 1 << by; }\n";
        let source = "#include \"h.h\"\nint table[4]; int at(int n) { return table[n] + shifted(n); }\n";
        std::fs::write(dir.path().join("h.h"), named("h.h", header.as_bytes())).expect("a file");
        std::fs::write(dir.path().join("a.c"), named("a.c", source.as_bytes())).expect("a file");
        let object = dir.path().join("a.o");
        let compiled = std::process::Command::new("gcc")
            .args(["-fsanitize=bounds-strict,shift", "-O2", "-c", "-o"])
            .args([&object, &dir.path().join("a.c")])
            .status()
            .expect("gcc runs: the kernel is built with it");
        assert!(compiled.success());
        let bytes = std::fs::read(&object).expect("the object");
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(has("a.c\0") && has("h.h\0"));
        assert!(!has(&dir.path().display().to_string()));
    }

    #[test]
    fn each_machine_has_its_own_stub() {
        for (machine, own) in [(Machine::X86_64, "arch/x86/stub.S"), (Machine::Aarch64, "arch/arm64/stub.S")]
        {
            let stubs: Vec<&str> =
                sources(machine).map(|(path, _)| path).filter(|path| path.ends_with("/stub.S")).collect();
            assert_eq!(stubs, [own]);
        }
    }
}

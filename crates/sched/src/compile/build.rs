//! Running the commands, several at a time, only where an object is out of date.

use super::compiler::look_first_in;
use super::freshness::{FileHashes, Made, hash_of, prerequisites, still_fresh, write_stamp};
use super::shared::Shared;
use super::spawn_error;
use super::{Commands, Error, Result, Slots, Template, file_names};
use crate::author;
use schedswap_host::progress::Progress;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What the objects are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Build {
    /// Comparing with vmlinux: the kernel's exact flags.
    Gate,
    /// Going into the module: every function and object in a section of its own, which turns each reference
    /// between them into a relocation.
    Module,
    /// The same with debug information, which says how an edit declares what it adds. It changes no code.
    Declarations,
}

const NO_ANCHORS: &str = "-fno-section-anchors";

impl Build {
    /// Whether a module build has the kernel's own code. It does not where the kernel reaches several objects from the
    /// address of their section (section anchors): objects in sections of their own need other code.
    pub fn module_keeps_code(srcarch: &str) -> bool {
        !Build::Module.extra_flags(srcarch).iter().any(|flag| flag == NO_ANCHORS)
    }

    /// Flags beyond the kernel's own.
    fn extra_flags(self, srcarch: &str) -> Vec<String> {
        let flags: &[&str] = match (self, srcarch) {
            (Build::Gate, _) => &[],
            // Section anchors hide which object a reference means.
            (Build::Module, "arm64") => &["-ffunction-sections", "-fdata-sections", NO_ANCHORS],
            (Build::Module, _) => &["-ffunction-sections", "-fdata-sections"],
            (Build::Declarations, _) => &["-ffunction-sections", "-fdata-sections", "-gdwarf-4"],
        };
        let mut flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        if self != Build::Gate {
            flags.push(format!("-I{{tree}}/{}", author::INCLUDE));
        }
        flags
    }
}

/// One object to make.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// What to call it: the unit, or the file.
    pub label: String,
    /// Its command.
    pub template: &'a Template,
    /// Absolute path of the source.
    pub source: PathBuf,
    /// Absolute path of the object.
    pub object: PathBuf,
    /// Root of the kernel source copy.
    pub tree: &'a Path,
    /// Flags after the template's; may have its holes.
    pub extra_flags: Vec<String>,
    /// Prefixes that names of source files in the object lose; may have the template's holes.
    pub roots: Vec<String>,
    /// `KBUILD_MODNAME`, for module files.
    pub modname: &'a str,
    /// Where work dirs share such objects.
    pub shared: Option<&'a Path>,
}

/// One object made.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The job's label.
    pub label: String,
    /// Where it is.
    pub object: PathBuf,
    /// It was up to date.
    pub cached: bool,
    /// The compiler's and objtool's messages (of the time it was compiled), unchanged.
    pub diagnostics: String,
    /// Time taken.
    pub took: Duration,
}

/// Where a unit's object is: `core.o` of the scheduler's own, `kernel-cgroup-cpuset.o` of others.
pub fn object_path(dir: &Path, unit: &str) -> PathBuf {
    let name = unit.strip_prefix("kernel/sched/").unwrap_or(unit).replace('/', "-");
    dir.join(name).with_extension("o")
}

/// The jobs that compile all of the scheduler's units in `tree` (which holds `kernel/sched/`) into `out`.
pub fn scheduler_jobs<'a>(commands: &'a Commands, kind: Build, tree: &'a Path, out: &Path) -> Vec<Job<'a>> {
    let job = |(unit, template): (&String, &'a Template)| {
        let mut extra_flags = kind.extra_flags(&commands.srcarch);
        let headers = file_names::headers_root(template).map(str::to_owned);
        let roots: Vec<String> = std::iter::once("{tree}/".to_owned()).chain(headers).collect();
        // `__FILE__` as the kernel's build had it.
        extra_flags.extend(roots.iter().map(|root| format!("-fmacro-prefix-map={root}=")));
        Job {
            label: unit.clone(),
            template,
            source: tree.join(unit),
            object: object_path(out, unit),
            tree,
            extra_flags,
            roots,
            modname: "",
            shared: None,
        }
    };
    commands.units.iter().map(job).collect()
}

/// Makes the objects that are out of date, as many at a time as there are CPUs. The result is in the order of
/// `jobs`. When the compiler rejects a source the other jobs are done all the same, so that one run shows the messages
/// of all of them.
///
/// # Errors
/// The tools reject a source ([`Error::Rejected`] has all messages), cannot be run, or a file cannot be read or written.
pub fn compile(commands: &Commands, jobs: &[Job], progress: &dyn Progress) -> Result<Vec<Compiled>> {
    let compiler = commands.compiler.version_today(&commands.cwd)?;
    let hashes = FileHashes::default();
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let done = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<Compiled>>>> = Mutex::new(jobs.iter().map(|_| None).collect());
    // The largest source first: with few CPUs the order decides when the last one ends.
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|i| {
        std::cmp::Reverse(fs::metadata(&jobs[*i].source).map(|m| m.len()).unwrap_or_default())
    });
    let worker = || {
        while let Some(index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let result = make_one(commands, &jobs[*index], &compiler, &hashes);
            if !matches!(&result, Ok(_) | Err(Error::Rejected { .. })) {
                stop.store(true, Ordering::Relaxed);
            }
            results.lock().expect("no holder of this lock panics")[*index] = Some(result);
            progress.at(done.fetch_add(1, Ordering::Relaxed) as u64 + 1);
        }
    };
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
    progress.begin("compiling", Some(jobs.len() as u64));
    std::thread::scope(|scope| {
        for _ in 0..cpus.min(jobs.len()) {
            scope.spawn(worker);
        }
    });
    let results = results.into_inner().expect("no holder of this lock panics");
    let outcome = collect(results);
    progress.end(&match &outcome {
        Ok(compiled) => {
            let cached = compiled.iter().filter(|c| c.cached).count();
            format!("{} compiled, {cached} up to date", compiled.len() - cached)
        }
        Err(_) => "failed".to_owned(),
    });
    outcome
}

/// All results, or the worst error: one that is not about a source first, else all rejections together.
fn collect(results: Vec<Option<Result<Compiled>>>) -> Result<Vec<Compiled>> {
    let mut compiled = Vec::new();
    let mut rejected = Vec::new();
    for result in results.into_iter().flatten() {
        match result {
            Ok(object) => compiled.push(object),
            Err(Error::Rejected { failed }) => rejected.extend(failed),
            Err(other) => return Err(other),
        }
    }
    if rejected.is_empty() { Ok(compiled) } else { Err(Error::Rejected { failed: rejected }) }
}

fn make_one(commands: &Commands, job: &Job, compiler: &str, hashes: &FileHashes) -> Result<Compiled> {
    let started = Instant::now();
    let beside = |suffix: &str| {
        let mut name = job.object.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    };
    // objtool reads the path to judge by, so the name in progress ends in `.o` too.
    let (fresh_object, depfile, stamp) = (beside(".new.o"), beside(".d"), beside(".json"));
    let slots = Slots {
        source: &job.source,
        object: &fresh_object,
        depfile: &depfile,
        tree: job.tree,
        modname: job.modname,
    };
    let mut compile = job.template.compile_argv(&slots);
    compile.extend(job.extra_flags.iter().map(|flag| slots.fill(flag)));
    // The holes stay unfilled here: an object does not depend on where it and its tree are.
    let command = hash_of(&(job.template, &job.extra_flags, job.modname, compiler));
    let result = |cached, diagnostics| Compiled {
        label: job.label.clone(),
        object: job.object.clone(),
        cached,
        diagnostics,
        took: started.elapsed(),
    };
    if let Some(diagnostics) = still_fresh(&job.object, &stamp, command, job.tree, hashes) {
        return Ok(result(true, diagnostics));
    }
    if let Some(dir) = job.object.parent() {
        fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    }
    let shared = job.shared.map(|store| Shared::of(store, command));
    let taken = shared.as_ref().and_then(|s| s.take(command, job.tree, hashes, &job.object, &stamp));
    if let Some(diagnostics) = taken {
        return Ok(result(true, diagnostics));
    }
    let mut diagnostics = run(commands, &compile, job)?;
    let roots: Vec<String> = job.roots.iter().map(|root| slots.fill(root)).collect();
    file_names::shorten(&fresh_object, &roots)?;
    if let Some(objtool) = job.template.objtool_argv(&slots) {
        diagnostics += &run(commands, &objtool, job)?;
    }
    let deps = fs::read_to_string(&depfile).map_err(|e| Error::io("read", &depfile, e))?;
    let _ = fs::remove_file(&depfile);
    fs::rename(&fresh_object, &job.object).map_err(|e| Error::io("write", &job.object, e))?;
    let inputs = prerequisites(&deps, &commands.cwd);
    write_stamp(&stamp, Made { command, inputs: &inputs, diagnostics: &diagnostics }, job.tree, hashes)?;
    if let Some(shared) = shared {
        // Without it the next work dir compiles for itself.
        let _ = shared.put(&job.object, &stamp);
    }
    Ok(result(false, diagnostics))
}

fn run(commands: &Commands, argv: &[String], job: &Job) -> Result<String> {
    let (program, arguments) = argv.split_first().expect("a template's command names its program");
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&commands.cwd).envs(&commands.env);
    look_first_in(commands.compiler.programs.as_deref(), &mut command);
    let output = command.output().map_err(|e| spawn_error(program, e))?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        Ok(said)
    } else if said.contains("No space left on device") {
        Err(Error::DiskFull { path: job.object.clone() })
    } else {
        let said = if said.trim().is_empty() {
            format!("{}: {program} failed without a message ({})", job.label, output.status)
        } else {
            said
        };
        Err(Error::Rejected { failed: vec![(job.label.clone(), said)] })
    }
}

//! The work dir: where the developer edits, and all that was learnt of the kernel.
//!
//! ```text
//! kernel/sched/            pristine copy of the scheduler, to be edited
//! kernel/sched/mod -> .    so that kernel/sched/mod/core.c and upstream's a/kernel/sched/core.c are one file
//! kernel/*.h, io_uring/*.h the private headers it includes; sidecars' files, each where it is in the kernel
//! boundary.txt             who is replaced and who stays, to be read
//! boundary.yaml            the effective configuration
//! boundary_extract.yaml    every function and variable: class, fate, reason
//! boundary_doc.yaml        every structure of the scheduler: its members, and who outside uses them
//! .git                     first commit: the pristine state
//! .schedswap/              generated
//!   config.json            release, places, choices
//!   kernel.json            what was read of the kernel
//!   commands.json          how Kbuild compiles it
//!   kbuild/                headers for `make -C`, where those packaged do not serve as they are
//!   tree/                  the pristine source once more: what the pristine objects are made of
//!   pristine/gate, module  its objects
//!   gate.json, springboard.json, addresses.json
//!   boundary.json, boundary_config.json, boundary_doc.json: the same as the YAML files
//!   build/                 what `build` makes
//!   steps/NN-name          completion stamps
//! ```

mod boundary_files;
mod boundary_text;
mod config;
mod git;
mod init;
mod kernel_source;
mod report;
mod steps;
mod store;

pub use config::{Config, KernelFacts};
pub use git::history;
pub use init::{Options, init};
pub use kernel_source::version as source_version;
pub use report::{Origins, Summary, UnitRow};
pub use steps::Step;

use schedswap_host::progress::Progress;
use schedswap_kernel::objects::{self, Object};
use schedswap_kernel::vmlinux::{self, Image};
use schedswap_sched::author;
use schedswap_sched::boundary::Boundary;
use schedswap_sched::compile::{self, Build, Commands, Compiled};
use schedswap_sched::identity::{Addresses, Gate};
use schedswap_sched::module::runtime::{self, Runtime};
use schedswap_sched::springboard::Contract;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Why there is no (complete) work dir.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {doing} {path}")]
    Io {
        /// `read`, `write`, …
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No room on the disk.
    #[error(
        "the disk that holds {path} is full; a work dir takes about 60 MB: free some space and run the same command again, it goes on where it stopped"
    )]
    DiskFull {
        /// A file that could not be written.
        path: PathBuf,
    },
    /// A generated file is not what was written.
    #[error(
        "{path} is damaged; run `schedswap init` again after deleting it and the stamps in .schedswap/steps"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A program is not installed.
    #[error("`{program}` was not found; install the package that has it (Debian: `apt install {}`)", package_of(.program))]
    ProgramMissing {
        /// What was to be run.
        program: &'static str,
    },
    /// Files of somebody else are there.
    #[error(
        "{path} is not empty and is no work dir of schedswap; name a directory that does not exist or is empty"
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Not a work dir.
    #[error(
        "{path} is no work dir of schedswap (it has no .schedswap/config.json); make one with `schedswap init`"
    )]
    NotAWorkDir {
        /// The directory.
        path: PathBuf,
    },
    /// It was made for another kernel.
    #[error("{path} is a work dir for {found}, not for {wanted}; use a work dir for each kernel")]
    OtherRelease {
        /// The directory.
        path: PathBuf,
        /// Its release.
        found: String,
        /// The release asked for.
        wanted: String,
    },
    /// `init` did not get to its end.
    #[error("{path} is not complete: step {} ({}) is missing; run `schedswap init` again, it goes on where it stopped", *.step as usize, .step.name())]
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// The first step that is missing.
        step: Step,
    },
    /// The pristine state changed under an edited tree.
    #[error(
        "the kernel's source in {source_path} is not the one that {path} was made from, and the tree there may hold your changes; take it aside, or use a new work dir"
    )]
    SourceChanged {
        /// The work dir.
        path: PathBuf,
        /// The source.
        source_path: PathBuf,
    },
    /// No kernel source.
    #[error(
        "{path} is not the source of a kernel: it has no {missing}; give its top directory, or a tarball of it"
    )]
    NotASource {
        /// What was given.
        path: PathBuf,
        /// What is missing.
        missing: &'static str,
    },
    /// A sidecar's file is not in the kernel's source.
    #[error(
        "{path} has no {missing}, which the configuration names as a sidecar; expected a file's path from the source's top directory, such as kernel/cgroup/cpuset.c"
    )]
    NoSidecar {
        /// The source.
        path: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// The tarball cannot be unpacked, or has no kernel in it.
    #[error("{path} cannot be unpacked to a kernel's source{}", if .said.is_empty() { ": it has no kernel/sched".to_owned() } else { format!("; tar said:\n{said}") })]
    BadTarball {
        /// The tarball.
        path: PathBuf,
        /// tar's messages.
        said: String,
    },
    /// The vmlinux is of another release.
    #[error("{vmlinux} is the kernel {found}, not {wanted}; give the debug vmlinux of {wanted}")]
    WrongRelease {
        /// The file.
        vmlinux: PathBuf,
        /// Its release.
        found: String,
        /// The release asked for.
        wanted: String,
    },
    /// The source is of another version.
    #[error(
        "the source is version {found}, but the kernel is {banner:?}; take the source package of the same version (--allow-different goes on all the same)"
    )]
    WrongSource {
        /// The source's version.
        found: String,
        /// The kernel's banner.
        banner: String,
    },
    /// The gate is closed.
    #[error("{0}")]
    Different(Box<report::Refusal>),
    /// The binding is not what it should be.
    #[error("the unmodified scheduler, bound to vmlinux, is not vmlinux again, which is a fault of schedswap or a kernel that it misreads; nothing can be built for it:\n{}", .0.join("\n"))]
    WrongBinding(Vec<String>),
    /// An object cannot be bound.
    #[error(transparent)]
    Binding(#[from] schedswap_sched::binding::Error),
    /// git failed.
    #[error("`git {command}` failed in {root}: {said}")]
    Git {
        /// Its arguments.
        command: String,
        /// Where.
        root: PathBuf,
        /// Its message.
        said: String,
    },
    /// Reading the kernel failed.
    #[error(transparent)]
    Vmlinux(#[from] vmlinux::Error),
    /// The headers do not serve.
    #[error(transparent)]
    Headers(#[from] schedswap_source::SourceError),
    /// Compiling failed.
    #[error(transparent)]
    Compile(#[from] compile::Error),
    /// An object could not be read.
    #[error(transparent)]
    Objects(#[from] objects::Error),
    /// Comparing failed.
    #[error(transparent)]
    Identity(#[from] schedswap_sched::identity::Error),
    /// The configuration does not fit the kernel.
    #[error(transparent)]
    Config(#[from] schedswap_sched::config::Error),
    /// There is no boundary.
    #[error(transparent)]
    Boundary(#[from] schedswap_sched::boundary::Error),
    /// There is no springboard.
    #[error(transparent)]
    Springboard(#[from] Box<schedswap_sched::springboard::Error>),
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Error {
        let path = path.into();
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::DiskFull { path },
            _ => Error::Io { doing, path, source },
        }
    }
}

/// Result of this phase.
pub type Result<T> = std::result::Result<T, Error>;

fn package_of(program: &str) -> &str {
    match program {
        "xz" => "xz-utils",
        other => other,
    }
}

/// A complete work dir.
#[derive(Clone, Debug)]
pub struct Workdir {
    root: PathBuf,
    config: Config,
    kernel: KernelFacts,
}

impl Workdir {
    /// Opens a work dir that `init` has completed.
    pub fn open(path: &Path) -> Result<Workdir> {
        let root = std::path::absolute(path).map_err(|e| Error::io("find", path, e))?;
        let paths = Paths { root: root.clone() };
        if !paths.config().is_file() {
            return Err(Error::NotAWorkDir { path: root });
        }
        if let Some(step) = steps::first_unfinished(&paths.steps()) {
            return Err(Error::Incomplete { path: root, step });
        }
        let config = store::read_json(&paths.config())?;
        let kernel = store::read_json(&paths.kernel())?;
        Ok(Workdir { root, config, kernel })
    }

    fn paths(&self) -> Paths {
        Paths { root: self.root.clone() }
    }

    /// Absolute path of the work dir, which is the root of the tree to edit.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What it was made for.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What was read of the kernel.
    pub fn kernel(&self) -> &KernelFacts {
        &self.kernel
    }

    /// To be shown at every step when the gate was left open.
    pub fn warning(&self) -> Option<String> {
        let gate = self.gate().ok()?;
        let different = gate.different_and_replaced(&self.boundary().ok()?).len();
        (self.config.allow_different && different > 0).then(|| {
            format!(
                "{different} functions that are replaced were compiled to other code than vmlinux's \
                 (--allow-different): nothing proves that the rest of this kernel was understood"
            )
        })
    }

    /// A directory for `make -C` that makes modules for the kernel.
    pub fn kbuild(&self) -> Result<PathBuf> {
        Ok(self.commands()?.cwd)
    }

    /// How the kernel is compiled.
    pub fn commands(&self) -> Result<Commands> {
        store::read_json(&self.paths().commands())
    }

    /// The gate's result.
    pub fn gate(&self) -> Result<Gate> {
        store::read_json(&self.paths().gate())
    }

    /// The boundary.
    pub fn boundary(&self) -> Result<Boundary> {
        store::read_json(&self.paths().boundary())
    }

    /// The contract of `__schedule`'s frame.
    pub fn springboard(&self) -> Result<Contract> {
        store::read_json(&self.paths().springboard())
    }

    /// Where the scheduler's symbols are.
    pub fn addresses(&self) -> Result<Addresses> {
        store::read_json(&self.paths().addresses())
    }

    /// Reads the vmlinux again, and makes sure that it is still the one that the work dir was made for.
    pub fn image(&self) -> Result<Image> {
        let image = vmlinux::open_with_sidecars(&self.config.vmlinux, &self.config.boundary.sidecars())?;
        if config::build_id(&image) != self.kernel.build_id {
            return Err(Error::WrongRelease {
                vmlinux: self.config.vmlinux.clone(),
                found: format!("{} with build-id {}", image.release, config::build_id(&image)),
                wanted: format!("{} with build-id {}", self.kernel.release, self.kernel.build_id),
            });
        }
        Ok(image)
    }

    /// The pristine objects of that kind: unit and object.
    pub fn pristine(&self, kind: Build) -> Result<Vec<(String, Object)>> {
        let dir = self.paths().pristine(kind);
        self.kernel.units.iter().map(|unit| read_object(unit, &compile::object_path(&dir, unit))).collect()
    }

    /// The commit that the edited tree is at; `None` while it has uncommitted changes.
    pub fn commit(&self) -> Option<String> {
        git::clean_commit(&self.root)
    }

    /// Where `build` puts the module.
    pub fn module(&self) -> PathBuf {
        self.root.join("scheduler.ko")
    }

    /// The directory for what `build` makes.
    pub fn build_dir(&self) -> PathBuf {
        self.paths().build()
    }

    /// The pristine source, beside the tree that is edited.
    pub fn pristine_tree(&self) -> PathBuf {
        self.paths().tree()
    }

    /// Compiles the edited scheduler as it goes into a module: units that are not pristine only, with the debug
    /// information that [`Workdir::declarations`] will want.
    ///
    /// # Errors
    /// [`compile::Error::Rejected`] has the compiler's own message.
    pub fn compile(&self, progress: &dyn Progress) -> Result<Vec<Compiled>> {
        self.compile_units(None, progress)
    }

    /// The same, with the runtime beside it: all that can be compiled before anything is known of the module.
    ///
    /// # Errors
    /// [`compile::Error::Rejected`] has the compiler's own message.
    pub fn compile_with_runtime(&self, progress: &dyn Progress) -> Result<Vec<Compiled>> {
        let dir = runtime::directory(&self.build_dir());
        self.compile_units(Some(&dir), progress)
    }

    /// `runtime`: where it is, if it is to be compiled too.
    fn compile_units(&self, runtime: Option<&Path>, progress: &dyn Progress) -> Result<Vec<Compiled>> {
        author::write(&self.root).map_err(|e| Error::io("write", self.root.join(author::INCLUDE), e))?;
        let commands = self.commands()?;
        let touched = self.touched();
        let pristine = self.paths().pristine(Build::Module);
        let jobs = compile::scheduler_jobs(&commands, Build::Module, &self.root, &pristine);
        let edited = self.edited_objects();
        let declaring = compile::scheduler_jobs(&commands, Build::Declarations, &self.root, &edited);
        let is_touched = |job: &compile::Job| touched.contains(&job.label);
        let mut jobs: Vec<_> = jobs
            .into_iter()
            .zip(declaring)
            .map(|(job, edited)| if is_touched(&job) { edited } else { job })
            .collect();
        let units = jobs.len();
        if let Some(dir) = runtime {
            let machine = self.kernel.machine();
            let runtime = Runtime { commands: &commands, machine, tree: &self.root, dir };
            runtime.write()?;
            jobs.extend(runtime.jobs());
        }
        let mut compiled = compile::compile(&commands, &jobs, progress)?;
        compiled.truncate(units);
        Ok(compiled)
    }

    /// The units that would not be made from the pristine sources and headers.
    pub fn touched(&self) -> BTreeSet<String> {
        let pristine = self.paths().pristine(Build::Module);
        let is_touched =
            |unit: &&String| !compile::is_made_from(&compile::object_path(&pristine, unit), &self.root);
        self.kernel.units.iter().filter(is_touched).cloned().collect()
    }

    /// Compiles some of the edited units with debug information, and reads them.
    pub fn declarations(
        &self,
        units: &BTreeSet<String>,
        progress: &dyn Progress,
    ) -> Result<Vec<(String, Object)>> {
        self.declarations_in(&self.root, &self.edited_objects(), units, progress)
    }

    fn edited_objects(&self) -> PathBuf {
        self.build_dir().join("sched")
    }

    /// The same of the units as released.
    pub fn pristine_declarations(
        &self,
        units: &BTreeSet<String>,
        progress: &dyn Progress,
    ) -> Result<Vec<(String, Object)>> {
        let out = self.paths().pristine(Build::Declarations);
        self.declarations_in(&self.pristine_tree(), &out, units, progress)
    }

    fn declarations_in(
        &self,
        tree: &Path,
        out: &Path,
        units: &BTreeSet<String>,
        progress: &dyn Progress,
    ) -> Result<Vec<(String, Object)>> {
        if units.is_empty() {
            return Ok(Vec::new());
        }
        let commands = self.commands()?;
        let mut jobs = compile::scheduler_jobs(&commands, Build::Declarations, tree, out);
        jobs.retain(|job| units.contains(&job.label));
        self.objects(&compile::compile(&commands, &jobs, progress)?)
    }

    /// Reads the objects that [`Workdir::compile`] made.
    pub fn objects(&self, compiled: &[Compiled]) -> Result<Vec<(String, Object)>> {
        compiled.iter().map(|c| read_object(&c.label, &c.object)).collect()
    }
}

fn read_object(unit: &str, path: &Path) -> Result<(String, Object)> {
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    Ok((unit.to_owned(), objects::read(&path.to_string_lossy(), &bytes)?))
}

/// Where things are below a work dir's root.
#[derive(Clone)]
struct Paths {
    root: PathBuf,
}

impl Paths {
    fn generated(&self) -> PathBuf {
        self.root.join(".schedswap")
    }
    fn config(&self) -> PathBuf {
        self.generated().join("config.json")
    }
    fn kernel(&self) -> PathBuf {
        self.generated().join("kernel.json")
    }
    fn commands(&self) -> PathBuf {
        self.generated().join("commands.json")
    }
    fn gate(&self) -> PathBuf {
        self.generated().join("gate.json")
    }
    fn boundary(&self) -> PathBuf {
        self.generated().join("boundary.json")
    }
    fn boundary_text(&self) -> PathBuf {
        self.root.join("boundary.txt")
    }
    fn boundary_config(&self) -> PathBuf {
        self.generated().join("boundary_config.json")
    }
    fn boundary_doc(&self) -> PathBuf {
        self.generated().join("boundary_doc.json")
    }
    fn springboard(&self) -> PathBuf {
        self.generated().join("springboard.json")
    }
    fn addresses(&self) -> PathBuf {
        self.generated().join("addresses.json")
    }
    fn kbuild(&self) -> PathBuf {
        self.generated().join("kbuild")
    }
    fn unpacked(&self) -> PathBuf {
        self.generated().join("unpacked")
    }
    fn tree(&self) -> PathBuf {
        self.generated().join("tree")
    }
    fn pristine(&self, kind: Build) -> PathBuf {
        self.generated().join("pristine").join(match kind {
            Build::Gate => "gate",
            Build::Module => "module",
            Build::Declarations => "declarations",
        })
    }
    fn build(&self) -> PathBuf {
        self.generated().join("build")
    }
    fn steps(&self) -> PathBuf {
        self.generated().join("steps")
    }
}

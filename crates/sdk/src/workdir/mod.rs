//! The work dir: the tree that the developer edits, and everything that was read of the kernel.
//!
//! ```text
//! kernel/sched/            pristine copy of the scheduler, to be edited
//! kernel/sched/mod -> .    so that kernel/sched/mod/core.c and upstream's a/kernel/sched/core.c are one file
//! kernel/*.h, io_uring/*.h the private headers it includes; sidecars' files, each where it is in the kernel
//! boundary.txt             what is replaced and what stays, to be read
//! boundary.yaml            the effective configuration
//! boundary_extract.yaml    every function and variable: class, fate, reason
//! boundary_doc.yaml        every structure of the scheduler: its members, and which code outside uses them
//! .git                     first commit: the pristine state
//! .schedswap/              generated
//!   config.json            release, paths, choices
//!   kernel.json            what was read of the kernel
//!   commands.json          how Kbuild compiles it
//!   kbuild/                headers for `make -C`, if the packaged ones cannot be used as they are
//!   tree/                  the pristine source again: the pristine objects are compiled from it
//!   pristine/gate, module  its objects
//!   gate.json, springboard.json, addresses.json
//!   boundary.json, boundary_config.json, boundary_doc.json: the same as the YAML files
//!   build/                 what `build` makes
//!   steps/NN-name          completion stamps
//! ```

mod boundary_files;
mod boundary_text;
mod config;
mod error;
mod init;
mod kernel_source;
mod objects;
mod paths;
mod report;
mod steps;
mod store;

pub use config::{Config, KernelFacts};
pub use error::{Error, Result};
pub use init::{InitOptions, init};
pub use kernel_source::version as source_version;
pub use report::{Origins, Refusal, Summary, UnitRow};
pub use steps::Step;

use crate::git;
use paths::Paths;
use schedswap_kernel::vmlinux::{self, Image};
use schedswap_sched::boundary::Boundary;
use schedswap_sched::compile::Commands;
use schedswap_sched::identity::{Addresses, Gate};
use schedswap_sched::replaced::Set;
use schedswap_sched::springboard::Contract;
use schedswap_source::Cache;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How the frame of a thread that sleeps in `__schedule` is rebuilt.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Springboard {
    /// What the kernel's code expects of it.
    Derived(Contract),
    /// It cannot be: an edit of `__schedule` cannot be built for this kernel.
    Missing {
        /// What in the code is in the way.
        why: String,
    },
}

impl Springboard {
    /// What `init` says if it cannot be.
    fn note(&self) -> Option<String> {
        match self {
            Springboard::Derived(_) => None,
            Springboard::Missing { why } => {
                Some(format!("__schedule stays vmlinux's on this kernel, all else can be replaced: {why}"))
            }
        }
    }
}

/// A complete work dir.
#[derive(Clone, Debug)]
pub struct Workdir {
    root: PathBuf,
    config: Config,
    kernel: KernelFacts,
    shared: Option<PathBuf>,
}

impl Workdir {
    /// Opens a work dir that `init` has completed.
    ///
    /// # Errors
    /// The directory is not a work dir, a step of `init` is missing, or a generated file is damaged.
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
        Ok(Workdir { root, config, kernel, shared: None })
    }

    /// The same, which takes objects of the runtime from the cache if another work dir has compiled them, and puts its own
    /// there.
    #[must_use]
    pub fn sharing_objects(self, cache: &Cache) -> Workdir {
        Workdir { shared: Some(cache.objects()), ..self }
    }

    /// Where work dirs share objects of the runtime.
    pub fn shared_objects(&self) -> Option<&Path> {
        self.shared.as_deref()
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

    /// What to show with every command if `--allow-different` let `init` through.
    pub fn warning(&self) -> Option<String> {
        let gate = self.gate().ok()?;
        let different = gate.different_and_replaced(&self.boundary().ok()?).len();
        (self.config.allow_different && different > 0).then(|| {
            format!(
                "{different} functions that are replaced do not compile to vmlinux's code, and were allowed to \
                 (--allow-different): nothing proves that schedswap understands the rest of this kernel"
            )
        })
    }

    /// A directory for `make -C` that makes modules for the kernel.
    ///
    /// # Errors
    /// The generated file cannot be read.
    pub fn kbuild(&self) -> Result<PathBuf> {
        Ok(self.commands()?.cwd)
    }

    /// How the kernel is compiled.
    ///
    /// # Errors
    /// The generated file cannot be read.
    pub fn commands(&self) -> Result<Commands> {
        store::read_json(&self.paths().commands())
    }

    /// The gate's result.
    ///
    /// # Errors
    /// The generated file cannot be read.
    pub fn gate(&self) -> Result<Gate> {
        store::read_json(&self.paths().gate())
    }

    /// The boundary.
    ///
    /// # Errors
    /// The generated file cannot be read.
    pub fn boundary(&self) -> Result<Boundary> {
        store::read_json(&self.paths().boundary())
    }

    /// Which functions the module of the last build replaces; `None` before the first one.
    ///
    /// # Errors
    /// The generated file cannot be read.
    pub fn set(&self) -> Result<Option<Set>> {
        let path = self.paths().set();
        path.exists().then(|| store::read_json(&path)).transpose()
    }

    pub(crate) fn write_set(&self, set: &Set) -> Result<()> {
        store::write_json(&self.paths().set(), set)
    }

    /// The contract of `__schedule`'s frame.
    ///
    /// # Errors
    /// The generated file cannot be read.
    pub fn springboard(&self) -> Result<Springboard> {
        store::read_json(&self.paths().springboard())
    }

    /// Where the scheduler's symbols are.
    ///
    /// # Errors
    /// The generated file cannot be read.
    pub fn addresses(&self) -> Result<Addresses> {
        store::read_json(&self.paths().addresses())
    }

    /// Reads the vmlinux again, and makes sure that it is still the one that the work dir was made for.
    ///
    /// # Errors
    /// vmlinux cannot be read, or has another build-id.
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
}

//! The objects of a work dir: compiled from the pristine tree and from the edited one.

use super::store::read_object;
use super::{Error, Result, Workdir};
use schedswap_host::progress::Progress;
use schedswap_kernel::objects::Object;
use schedswap_sched::author;
use schedswap_sched::compile::{self, Build, Compiled};
use schedswap_sched::module::runtime::{self, Runtime};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

impl Workdir {
    /// The pristine objects of that kind: unit and object.
    ///
    /// # Errors
    /// An object is missing or damaged.
    pub fn pristine(&self, kind: Build) -> Result<Vec<(String, Object)>> {
        let dir = self.paths().pristine(kind);
        self.kernel.units.iter().map(|unit| read_object(unit, &compile::object_path(&dir, unit))).collect()
    }

    /// Compiles the edited scheduler as it goes into a module. Only units that an edit touches are compiled again, and
    /// with the debug information that [`Workdir::declarations`] will want.
    ///
    /// # Errors
    /// A unit does not compile ([`compile::Error::Rejected`] has the compiler's message), or a file cannot be written.
    pub fn compile(&self, progress: &dyn Progress) -> Result<Vec<Compiled>> {
        self.compile_units(None, progress)
    }

    /// The same, with the runtime beside it: everything that can be compiled before anything is known of the module.
    ///
    /// # Errors
    /// As for [`Workdir::compile`].
    pub fn compile_with_runtime(&self, progress: &dyn Progress) -> Result<Vec<Compiled>> {
        let dir = runtime::directory(&self.build_dir());
        self.compile_units(Some(&dir), progress)
    }

    /// The runtime, as [`Workdir::compile_with_runtime`] has compiled it.
    pub(crate) fn runtime_object(&self) -> Result<Object> {
        let path = runtime::unit_object(&runtime::directory(&self.build_dir()));
        Ok(read_object("runtime", &path)?.1)
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
            let shared = self.shared.as_deref();
            let runtime = Runtime { commands: &commands, machine, tree: &self.root, dir, shared };
            runtime.write()?;
            jobs.extend(runtime.jobs());
        }
        let mut compiled = compile::compile(&commands, &jobs, progress)?;
        compiled.truncate(units);
        Ok(compiled)
    }

    /// The units whose sources or headers are not the pristine ones.
    pub fn touched(&self) -> BTreeSet<String> {
        let pristine = self.paths().pristine(Build::Module);
        let is_touched =
            |unit: &&String| !compile::is_made_from(&compile::object_path(&pristine, unit), &self.root);
        self.kernel.units.iter().filter(is_touched).cloned().collect()
    }

    /// Compiles some of the edited units with debug information, and reads them.
    ///
    /// # Errors
    /// As for [`Workdir::compile`].
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

    /// Compiles the same units as released, with debug information, and reads them.
    ///
    /// # Errors
    /// As for [`Workdir::compile`].
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
    ///
    /// # Errors
    /// An object is missing or damaged.
    pub fn objects(&self, compiled: &[Compiled]) -> Result<Vec<(String, Object)>> {
        compiled.iter().map(|c| read_object(&c.label, &c.object)).collect()
    }
}

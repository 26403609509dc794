//! The steps that find out how the kernel is compiled, and compile the pristine source the same way.

use super::Run;
use crate::workdir::store::{read_json, read_object, remove_dir, write_json};
use crate::workdir::{KernelFacts, Result};
use schedswap_host::progress::Progress;
use schedswap_kernel::objects::Object;
use schedswap_sched::compile::{self, Build, Commands};
use schedswap_source::shadow_headers;
use std::path::PathBuf;

impl Run<'_> {
    pub(super) fn prepare_headers(&self) -> Result<String> {
        let dest = self.paths.kbuild();
        remove_dir(&dest)?;
        let kbuild = shadow_headers(&self.options.kernel, self.options.toolchain.as_ref(), &dest)?;
        write_json(&self.kbuild_path(), &kbuild)?;
        Ok(String::new())
    }

    pub(super) fn kbuild_path(&self) -> PathBuf {
        self.paths.generated().join("kbuild.json")
    }

    pub(super) fn ask_kbuild(&self, kernel: &KernelFacts) -> Result<String> {
        let kbuild: PathBuf = read_json(&self.kbuild_path())?;
        let programs = self.config.programs.as_deref();
        let commands =
            compile::commands(&kbuild, &self.paths.tree(), &kernel.units, kernel.machine(), programs)?;
        write_json(&self.paths.commands(), &commands)?;
        Ok(commands.compiler.version)
    }

    pub(super) fn compile(
        &self,
        commands: &Commands,
        kind: Build,
        progress: &dyn Progress,
    ) -> Result<String> {
        let tree = self.paths.tree();
        let out = self.paths.pristine(kind);
        let jobs = compile::scheduler_jobs(commands, kind, &tree, &out);
        let compiled = compile::compile(commands, &jobs, progress)?;
        let cached = compiled.iter().filter(|c| c.cached).count();
        Ok(format!("{} compiled, {cached} up to date", compiled.len() - cached))
    }

    pub(super) fn gate_objects(&self, commands: &Commands) -> Result<Vec<(String, Object)>> {
        let dir = self.paths.pristine(Build::Gate);
        commands.units.keys().map(|unit| read_object(unit, &compile::object_path(&dir, unit))).collect()
    }
}

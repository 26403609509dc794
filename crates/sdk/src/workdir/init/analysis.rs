//! The steps that read vmlinux and compute what follows from it: the boundary and the springboard.

use super::Run;
use crate::workdir::kernel_source::Found;
use crate::workdir::store::write_json;
use crate::workdir::{KernelFacts, Result, Springboard, boundary_files};
use schedswap_sched::boundary::{self, Fate};
use schedswap_sched::springboard;

impl Run<'_> {
    pub(super) fn read_kernel(&self) -> Result<String> {
        let facts = KernelFacts::of(self.image()?);
        write_json(&self.paths.kernel(), &facts)?;
        Ok(format!("{} units, build-id {}", facts.units.len(), facts.build_id))
    }

    pub(super) fn draw_boundary(&self, found: &Found) -> Result<String> {
        let boundary = boundary::compute(self.image()?, &self.config.boundary)?;
        boundary_files::write(self.paths, &boundary, &self.config.boundary)?;
        let source = match found {
            Found::Dir(dir) => Some(dir.as_path()),
            Found::Tarball(_) => None,
        };
        boundary_files::write_doc(self.paths, self.image()?, source)?;
        let stay = boundary.functions.iter().filter(|f| matches!(f.fate, Fate::Stay(_))).count();
        Ok(format!("{} replaced, {stay} stay", boundary.functions.len() - stay))
    }

    pub(super) fn derive_springboard(&self) -> Result<String> {
        let (springboard, said) = match springboard::derive(self.image()?) {
            Ok(contract) => (Springboard::Derived(contract), String::new()),
            Err(error) if error.is_about_the_code() => {
                (Springboard::Missing { why: error.to_string() }, "__schedule cannot be replaced".to_owned())
            }
            Err(error) => return Err(Box::new(error).into()),
        };
        write_json(&self.paths.springboard(), &springboard)?;
        Ok(said)
    }
}

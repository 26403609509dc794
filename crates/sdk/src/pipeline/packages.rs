//! The packages that `build` makes of a module.

use super::Result;
use crate::git;
use crate::workdir::Workdir;
use schedswap_host::progress::Progress;
use schedswap_kernel::vmlinux::Machine;
use schedswap_package::{Changelog, Date, Format, Package, Payload, find_loader};
use std::path::PathBuf;

/// Which packages to make, and all that they need except the payload. Empty if none is to be made.
pub(super) struct Packaging {
    formats: Vec<Format>,
    loader: Option<Vec<u8>>,
    changelog: Option<Changelog>,
    dir: PathBuf,
}

impl Packaging {
    /// Gathers it, so that what is missing is reported before anything takes long.
    pub(super) fn new(
        formats: &[Format],
        source_date_epoch: Option<&str>,
        work: &Workdir,
    ) -> Result<Packaging> {
        let (formats, dir) = (formats.to_vec(), work.root().to_owned());
        if formats.is_empty() {
            return Ok(Packaging { formats, loader: None, changelog: None, dir });
        }
        let commits = git::history(work.root())?;
        let date = Date::of_sources(source_date_epoch, commits.first().map(|commit| commit.seconds))?;
        let unrecorded = work.commit().is_none().then_some("Changes that are in no commit.");
        let changelog = Some(Changelog::new(&commits, unrecorded, date));
        let machine = Machine::named(&work.kernel().machine).or(Machine::host());
        let loader = find_loader(machine.unwrap_or(Machine::X86_64))?;
        Ok(Packaging { formats, loader: Some(loader), changelog, dir })
    }

    /// The loader to go into the payload.
    pub(super) fn loader(&self) -> Option<Vec<u8>> {
        self.loader.clone()
    }

    /// Writes the packages and returns their paths.
    pub(super) fn write(&self, payload: &Payload, progress: &dyn Progress) -> Result<Vec<PathBuf>> {
        let Some(changelog) = &self.changelog else { return Ok(Vec::new()) };
        progress.begin("making packages", None);
        let recipe = payload.recipe(changelog.clone());
        let write = |format: &Format| Ok(Package::build(&recipe, *format)?.write(&self.dir)?);
        let written = self.formats.iter().map(write).collect();
        progress.end("");
        written
    }
}

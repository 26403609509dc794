//! The work dir of a command: `init` and `dev-init` make one for a kernel, the others open one.

use crate::outcome::Outcome;
use crate::progress::Shown;
use anyhow::Context;
use clap::Args;
use schedswap_sched::config::{self, Config};
use schedswap_sdk::{InitOptions, Workdir, init};
use schedswap_source::{Cache, Kernel};
use std::path::{Path, PathBuf};

/// How a work dir is made.
#[derive(Args)]
pub struct WorkDirArgs {
    /// Continue although functions that would be replaced are not identical; the work dir remembers this
    #[arg(long)]
    allow_different: bool,
    /// Override the computed boundary as FILE says, and not as kernels/ says for the release
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override nothing, even if kernels/ has a file for the release
    #[arg(long, conflicts_with = "config")]
    no_config: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl WorkDirArgs {
    /// What overrides the computed boundary: the file that is named, or else the one that kernels/ has for the release.
    pub fn configuration(&self, release: &str) -> Result<Config, config::Error> {
        let file = match &self.config {
            Some(file) => Some(file.clone()),
            None if self.no_config => None,
            None => config::find(release, &config::directories()),
        };
        file.map_or(Ok(Config::default()), |file| config::read(&file))
    }

    /// Makes the work dir and prints the gate's table.
    pub fn make(
        &self,
        kernel: Kernel,
        source: PathBuf,
        work: PathBuf,
        boundary: Config,
    ) -> anyhow::Result<Outcome> {
        let mut options = InitOptions::new(kernel, source, work);
        options.allow_different = self.allow_different;
        options.boundary = boundary;
        if let Some(missing) = options.find_toolchain(Cache::from_environment().ok().as_ref())? {
            eprintln!(
                "warning: the kernel was built by {}, which is not installed here; `schedswap toolchain {}` gets it",
                missing.text(),
                options.kernel.release
            );
        }
        let (work, summary) = init(&options, &Shown::on_stderr())?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&summary).context("cannot write JSON")?);
        } else {
            println!("{summary}");
            let root = work.root().display();
            println!("{root} is ready: edit kernel/sched/ there, then run `schedswap build {root}`");
        }
        Ok(Outcome::Done)
    }
}

/// Opens a work dir for a command, with the warning that belongs to it.
pub fn open(path: &Path) -> anyhow::Result<Workdir> {
    let mut work = Workdir::open(path)?;
    if let Ok(cache) = Cache::from_environment() {
        work = work.sharing_objects(&cache);
    }
    if let Some(warning) = work.warning() {
        eprintln!("warning: {warning}");
    }
    Ok(work)
}

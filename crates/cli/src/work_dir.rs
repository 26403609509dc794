//! What `init` and `dev-init` have in common: making a work dir for a kernel, however that was found.

use crate::outcome::{Outcome, Refusal};
use crate::progress::Shown;
use anyhow::Context;
use clap::Args;
use schedswap_sched::config::{self, Config};
use schedswap_sdk::workdir;
use schedswap_source::{Cache, Kernel, Toolchain, WantedCompiler};
use std::path::PathBuf;

/// How a work dir is made.
#[derive(Args)]
pub struct WorkDirArgs {
    /// Go on although functions that would be replaced are not identical; remembered in the work dir
    #[arg(long)]
    allow_different: bool,
    /// Override the computed boundary as FILE says, instead of what kernels/ has for the release
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override nothing, whatever kernels/ has
    #[arg(long, conflicts_with = "config")]
    no_config: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl WorkDirArgs {
    /// What overrides the computed boundary: the file that is named, else what there is for the kernel.
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
        let options = workdir::Options {
            toolchain: toolchain_of(&kernel, Cache::from_environment().ok().as_ref())?,
            kernel,
            source,
            work,
            allow_different: self.allow_different,
            boundary,
        };
        let (work, summary) = match workdir::init(&options, &Shown::on_stderr()) {
            Ok(made) => made,
            Err(workdir::Error::Different(refusal)) => return Err(Refusal(refusal.to_string()).into()),
            Err(other) => return Err(other.into()),
        };
        if self.json {
            println!("{}", serde_json::to_string_pretty(&summary).context("cannot write JSON")?);
        } else {
            println!("{summary}");
            println!(
                "{} is ready: edit kernel/sched/ there, then run `schedswap build {}`",
                work.root().display(),
                work.root().display()
            );
        }
        Ok(Outcome::Done)
    }
}

/// The compiler from the cache, if the machine's own is not the one that built the kernel.
fn toolchain_of(kernel: &Kernel, cache: Option<&Cache>) -> anyhow::Result<Option<Toolchain>> {
    let Some(wanted) = WantedCompiler::of(kernel)?.filter(|wanted| !wanted.is_at_hand(None)) else {
        return Ok(None);
    };
    let found = cache.and_then(|cache| Toolchain::cached(&wanted, cache));
    if found.is_none() {
        eprintln!(
            "warning: the kernel was built by {}, which this machine has not; `schedswap toolchain {}` gets it",
            wanted.text(),
            kernel.release
        );
    }
    Ok(found)
}

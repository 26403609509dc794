//! `schedswap man`: manual pages, from the command's own definition.

use crate::outcome::Outcome;
use anyhow::Context;
use clap::{Args, Command};
use std::path::PathBuf;

/// Write the manual pages, one for each command, into a directory
#[derive(Args)]
pub struct ManArgs {
    /// Where to write them
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Writes the pages.
pub fn run(args: ManArgs, command: Command) -> anyhow::Result<Outcome> {
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot create {}", args.dir.display()))?;
    clap_mangen::generate_to(command, &args.dir)
        .with_context(|| format!("cannot write the manual pages to {}", args.dir.display()))?;
    Ok(Outcome::Done)
}

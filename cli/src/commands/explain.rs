//! `schedswap explain`: what a symbol is to the boundary, and why.

use crate::outcome::Outcome;
use anyhow::{Context, bail};
use clap::Args;
use schedswap::boundary;
use schedswap::workdir::Workdir;
use std::path::PathBuf;

/// Say what a symbol of the scheduler is, why, who calls it from outside and what may be changed
///
/// Function names may be given without a clone's suffix: finish_task_switch finds finish_task_switch.isra.0.
#[derive(Args)]
pub struct ExplainArgs {
    /// The work dir
    work_dir: PathBuf,
    /// A function or variable of the scheduler
    symbol: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the explanations.
pub fn run(args: ExplainArgs) -> anyhow::Result<Outcome> {
    let work = Workdir::open(&args.work_dir)?;
    let boundary = work.boundary()?;
    let found = boundary::explain(&boundary, &args.symbol);
    if found.is_empty() {
        bail!(
            "the scheduler of {} has no function or variable {}; boundary.txt in {} lists them all",
            boundary.release,
            args.symbol,
            args.work_dir.display()
        );
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&found).context("cannot write JSON")?);
    } else {
        for explanation in found {
            println!("{explanation}");
        }
    }
    Ok(Outcome::Done)
}

//! `schedswap check`: whether an edit can work.

use crate::outcome::Outcome;
use crate::progress::Shown;
use crate::work_dir::open;
use anyhow::Context;
use clap::Args;
use schedswap_sched::check::Allowance;
use schedswap_sdk::{Checked, check};
use std::path::PathBuf;

/// Say whether the edit can work: refuse changes to what stays in vmlinux, each by name
///
/// `build` runs the same check. `schedswap explain CODE` explains a finding. The exit status is 3 if the edit is
/// refused.
#[derive(Args)]
pub struct CheckArgs {
    /// The work dir
    work_dir: PathBuf,
    #[command(flatten)]
    allowing: Allowing,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Warnings that the author has looked at.
#[derive(Args)]
pub struct Allowing {
    /// Allow this warning; may be given more than once. Packages say which warnings their author allowed
    #[arg(long = "allow", value_name = "CODE:SYMBOL")]
    pub allowed: Vec<Allowance>,
}

impl Allowing {
    /// Says which of them no finding needed.
    pub fn warn_of_unused(&self, checked: &Checked) {
        for unused in &checked.unused {
            eprintln!("warning: --allow {unused} allows nothing: there is no such finding");
        }
    }
}

/// Compiles what is edited and prints the findings.
pub fn run(args: CheckArgs) -> anyhow::Result<Outcome> {
    let work = open(&args.work_dir)?;
    let checked = check(&work, &args.allowing.allowed, &Shown::on_stderr())?;
    args.allowing.warn_of_unused(&checked);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&checked.findings).context("cannot write JSON")?);
    } else {
        for finding in &checked.findings {
            println!("{finding}");
        }
        if checked.findings.is_empty() {
            println!("no findings");
        }
    }
    Ok(if checked.is_refused() { Outcome::Refused } else { Outcome::Done })
}

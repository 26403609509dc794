//! `schedswap check`: whether an edit can work.

use crate::outcome::Outcome;
use crate::progress::Shown;
use anyhow::Context;
use clap::Args;
use schedswap::boundary::Boundary;
use schedswap::check::{self, CheckInput, Finding, Severity, SourceTree};
use schedswap::compile::Build;
use schedswap::objects::Object;
use schedswap::progress::Progress;
use schedswap::vmlinux::Image;
use schedswap::workdir::Workdir;
use std::path::PathBuf;

/// Where the scheduler's source is in a tree.

/// Say whether the edit can work: refuse changes to what stays in vmlinux, each by name
///
/// `build` runs the same check. Exit status 3 when anything is refused.
#[derive(Args)]
pub struct CheckArgs {
    /// The work dir
    work_dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Compiles what is edited and prints the findings.
pub fn run(args: CheckArgs) -> anyhow::Result<Outcome> {
    let progress = Shown::on_stderr();
    let work = Workdir::open(&args.work_dir)?;
    if let Some(warning) = work.warning() {
        eprintln!("warning: {warning}");
    }
    let compiled = work.compile(&progress)?;
    let edited = work.objects(&compiled)?;
    progress.begin("reading vmlinux", None);
    let image = work.image()?;
    progress.end("");
    let findings = findings(&work, &image, &work.boundary()?, &edited)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&findings).context("cannot write JSON")?);
    } else {
        for finding in &findings {
            println!("{finding}");
        }
        if findings.is_empty() {
            println!("nothing to object to");
        }
    }
    Ok(outcome(&findings))
}

/// The same for `build`: shows the findings on standard error. Those that allow the edit; `None` if one refuses it.
pub fn allowed(
    work: &Workdir,
    image: &Image,
    boundary: &Boundary,
    edited: &[(String, Object)],
) -> anyhow::Result<Option<Vec<Finding>>> {
    let findings = findings(work, image, boundary, edited)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    Ok((outcome(&findings) != Outcome::Refused).then_some(findings))
}

fn findings(
    work: &Workdir,
    image: &Image,
    boundary: &Boundary,
    edited: &[(String, Object)],
) -> anyhow::Result<Vec<Finding>> {
    let pristine = work.pristine(Build::Module)?;
    Ok(check::run(&CheckInput {
        image,
        boundary,
        pristine: &pristine,
        edited,
        pristine_source: &SourceTree::from_root(&work.pristine_tree())?,
        edited_source: &SourceTree::from_root(work.root())?,
    })?)
}

fn outcome(findings: &[Finding]) -> Outcome {
    if findings.iter().any(|f| f.severity == Severity::Refused) { Outcome::Refused } else { Outcome::Done }
}

//! `schedswap check`: whether an edit can work.

use crate::outcome::Outcome;
use crate::progress::Shown;
use anyhow::Context;
use clap::Args;
use schedswap_host::progress::Progress;
use schedswap_kernel::objects::Object;
use schedswap_kernel::vmlinux::Image;
use schedswap_sched::boundary::Boundary;
use schedswap_sched::check::{self, Allowance, CheckInput, Finding, Severity, SourceTree};
use schedswap_sched::compile::Build;
use schedswap_sdk::workdir::Workdir;
use std::path::PathBuf;

/// Say whether the edit can work: refuse changes to what stays in vmlinux, each by name
///
/// `build` runs the same check. `schedswap explain CODE` has more on a finding. Exit status 3 when anything is refused.
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
    allowed: Vec<Allowance>,
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
    let edit = Edit { work: &work, image: &image, boundary: &work.boundary()?, edited: &edited };
    let findings = edit.findings(&args.allowing, &progress)?;
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

/// What is checked.
pub struct Edit<'a> {
    /// Where it is.
    pub work: &'a Workdir,
    /// The kernel.
    pub image: &'a Image,
    /// Its boundary.
    pub boundary: &'a Boundary,
    /// What was compiled of it.
    pub edited: &'a [(String, Object)],
}

impl Edit<'_> {
    /// For `build`: shows the findings on standard error. Those that allow the edit; `None` if one refuses it.
    pub fn allowed(
        &self,
        allowing: &Allowing,
        progress: &dyn Progress,
    ) -> anyhow::Result<Option<Vec<Finding>>> {
        let findings = self.findings(allowing, progress)?;
        for finding in &findings {
            eprintln!("{finding}");
        }
        Ok((outcome(&findings) != Outcome::Refused).then_some(findings))
    }

    fn findings(&self, allowing: &Allowing, progress: &dyn Progress) -> anyhow::Result<Vec<Finding>> {
        let work = self.work;
        let mut findings = check::run(&CheckInput {
            image: self.image,
            boundary: self.boundary,
            pristine: &work.pristine(Build::Module)?,
            edited: self.edited,
            declarations: &work.declarations(&work.touched(), progress)?,
            pristine_source: &SourceTree::from_root(&work.pristine_tree())?,
            edited_source: &SourceTree::from_root(work.root())?,
        })?;
        for unused in check::allow(&mut findings, &allowing.allowed) {
            eprintln!("warning: --allow {unused} allows nothing: there is no such finding");
        }
        Ok(findings)
    }
}

/// Code and symbol of the findings that were allowed, or of those that were not, as a manifest has them.
pub fn recorded(findings: &[Finding], allowed: bool) -> Vec<String> {
    let wanted = findings.iter().filter(|finding| finding.allowed == allowed);
    wanted.map(|finding| format!("{} {}", finding.code, finding.symbol).trim_end().to_owned()).collect()
}

fn outcome(findings: &[Finding]) -> Outcome {
    if findings.iter().any(|f| f.severity == Severity::Refused) { Outcome::Refused } else { Outcome::Done }
}

//! `schedswap explain`: what a symbol is to the boundary, and why; or what a finding of `check` means.

use crate::outcome::Outcome;
use crate::set;
use anyhow::{Context, bail};
use clap::Args;
use clap::error::ErrorKind;
use schedswap_sched::boundary;
use schedswap_sched::check::{Code, Severity};
use schedswap_sdk::Workdir;
use std::path::{Path, PathBuf};

/// Say what a symbol of the scheduler is and why, or what a finding of `check` means and what to do about it
///
/// A function may be named without the suffix of a clone: finish_task_switch finds finish_task_switch.isra.0. For a
/// finding, give its code alone: `schedswap explain SS104`.
#[derive(Args)]
#[command(
    override_usage = "schedswap explain [OPTIONS] <WORK_DIR> <SYMBOL>\n       schedswap explain [OPTIONS] <CODE>"
)]
pub struct ExplainArgs {
    /// The work dir; or a finding's code, such as SS104
    #[arg(value_name = "WORK_DIR|CODE")]
    subject: PathBuf,
    /// A function or variable of the scheduler
    symbol: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints of a finding.
#[derive(serde::Serialize)]
struct Page {
    code: Code,
    severity: Severity,
    page: &'static str,
}

/// Prints the explanations.
pub fn run(args: ExplainArgs) -> anyhow::Result<Outcome> {
    match &args.symbol {
        Some(symbol) => explain_symbol(&args.subject, symbol, args.json),
        None => explain_code(&args.subject.to_string_lossy(), args.json),
    }
}

fn explain_code(text: &str, json: bool) -> anyhow::Result<Outcome> {
    let code: Code = match text.parse() {
        Ok(code) => code,
        Err(error) => usage(&format!(
            "{error}; give a finding's code alone, or a work dir and a symbol of the scheduler"
        )),
    };
    if json {
        let page = Page { code, severity: code.severity(), page: code.page() };
        println!("{}", serde_json::to_string_pretty(&page).context("cannot write JSON")?);
    } else {
        print!("{}", code.page());
    }
    Ok(Outcome::Done)
}

/// Ends as clap does where it can tell by itself.
fn usage(what: &str) -> ! {
    let mut command = ExplainArgs::augment_args(clap::Command::new("schedswap explain"));
    command.error(ErrorKind::ValueValidation, what).exit()
}

fn explain_symbol(work_dir: &Path, symbol: &str, json: bool) -> anyhow::Result<Outcome> {
    let work = Workdir::open(work_dir)?;
    let boundary = work.boundary()?;
    let mut found = boundary::explain(&boundary, symbol);
    if let Some(set) = work.set()? {
        for explanation in &mut found {
            let function = boundary.functions.iter().find(|f| f.symbol() == explanation.symbol);
            let of_build = function.map(|f| set::of_function(&set, &f.unit, &f.name));
            explanation.last_build = of_build;
        }
    }
    if found.is_empty() {
        bail!(
            "there is no function or variable {symbol} in the scheduler of {}; boundary.txt in {} lists them all",
            boundary.release,
            work_dir.display()
        );
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&found).context("cannot write JSON")?);
    } else {
        for explanation in found {
            println!("{explanation}");
        }
    }
    Ok(Outcome::Done)
}

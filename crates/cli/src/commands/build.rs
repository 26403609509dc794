//! `schedswap build`: the edited scheduler as a module, and as packages.

use super::check::Allowing;
use crate::outcome::Outcome;
use crate::packages::{PackageArgs, SigningArgs};
use crate::progress::Shown;
use crate::set;
use crate::work_dir::open;
use anyhow::Context;
use clap::Args;
use schedswap_payload::manifest;
use schedswap_sched::config::Divert;
use schedswap_sched::replaced::Set;
use schedswap_sdk::{BuildOptions, Built, Order, Workdir, pipeline};
use std::path::PathBuf;

/// Compile the edited scheduler, check it, link it into scheduler.ko, and package it
///
/// Only units that an edit touches are compiled again. The result is WORK_DIR/scheduler.ko, with manifest.json and
/// the packages beside it. A package holds the module, the manifest, the loader and the licences; installing it swaps
/// the scheduler in, and removing it restores the kernel's own.
///
/// The same sources make the same packages, byte for byte: their date is SOURCE_DATE_EPOCH, or that of the work dir's
/// last commit, and their changelog is the work dir's git log.
///
/// The exit status is 3 if `check` refuses the edit.
#[derive(Args)]
pub struct BuildArgs {
    /// The work dir
    work_dir: PathBuf,
    /// Name of this scheduler: its packages are called scheduler-NAME-…
    #[arg(long, default_value = "custom")]
    name: String,
    /// Its release; several of one name can be installed if they differ in this
    #[arg(long, default_value = "1")]
    release: String,
    /// One line on what it is for, shown by package managers
    #[arg(long, value_name = "TEXT")]
    summary: Option<String>,
    /// Which functions to replace: those that the edit changes and those that cannot do without them, or all that can be
    /// [default: what the configuration says, else changed]
    #[arg(long, value_name = "WHICH")]
    divert: Option<Which>,
    #[command(flatten)]
    packages: PackageArgs,
    #[command(flatten)]
    signing: SigningArgs,
    #[command(flatten)]
    allowing: Allowing,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which functions to replace.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Which {
    Changed,
    All,
}

impl BuildArgs {
    fn options(&self) -> anyhow::Result<BuildOptions> {
        Ok(BuildOptions {
            name: self.name.clone(),
            release: self.release.clone(),
            summary: self.summary.clone(),
            key: self.signing.key(),
            formats: self.packages.formats()?,
            divert: self.divert.map(|which| match which {
                Which::Changed => Divert::Changed,
                Which::All => Divert::All,
            }),
            allowed: self.allowing.allowed.clone(),
            source_date_epoch: std::env::var("SOURCE_DATE_EPOCH").ok(),
        })
    }
}

/// What `--json` prints.
#[derive(serde::Serialize)]
struct Printed<'a> {
    module: &'a PathBuf,
    signed: bool,
    packages: &'a [PathBuf],
    kernel_release: &'a str,
    set: &'a Set,
    diverted: usize,
    new_functions: &'a [String],
    private_data: &'a [String],
    handed_over: &'a [String],
    carried: &'a [String],
    warnings: &'a [String],
    unproved: &'a [String],
}

/// Builds the module.
pub fn run(args: BuildArgs) -> anyhow::Result<Outcome> {
    let progress = Shown::on_stderr();
    let work = open(&args.work_dir)?;
    // What is missing is reported before anything takes long, and what is found before the module is linked.
    let order = Order::new(&work, &args.options()?)?;
    let checked = order.check(&args.allowing.allowed, &progress)?;
    for finding in &checked.findings {
        eprintln!("{finding}");
    }
    args.allowing.warn_of_unused(&checked);
    if checked.is_refused() {
        return Ok(Outcome::Refused);
    }
    match order.build(checked, &progress) {
        Err(nothing @ pipeline::Error::NothingChanged) => {
            remove_last(&work)?;
            eprintln!("{nothing}");
        }
        built => print(&work, &built?, args.json)?,
    }
    Ok(Outcome::Done)
}

/// What the last build made is of another edit.
fn remove_last(work: &Workdir) -> anyhow::Result<()> {
    let module = work.module();
    for path in [module.with_file_name(manifest::FILE_NAME), module] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What becomes of the module's memory when it goes out of use.
fn memory(unproved: &[String]) -> String {
    match unproved {
        [] => "no address of its memory gets out: `uninstall --free` can free it".to_owned(),
        [only] => format!("its memory stays until the next boot once it has run: {only}"),
        [first, ..] => format!("its memory stays until the next boot once it has run: {first}, among others"),
    }
}

fn print(work: &Workdir, built: &Built, json: bool) -> anyhow::Result<()> {
    let printed = Printed {
        module: &built.module,
        set: &built.set,
        signed: built.signed,
        packages: &built.packages,
        kernel_release: &built.manifest.kernel_release,
        diverted: built.functions.len(),
        new_functions: &built.new_functions,
        private_data: &built.private_data,
        handed_over: &built.handed_over,
        carried: &built.carried,
        warnings: &built.warnings,
        unproved: &built.manifest.unproved,
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&printed).context("cannot write JSON")?);
        return Ok(());
    }
    for warning in printed.warnings {
        eprintln!("warning: {warning}");
    }
    for line in set::lines(&built.set, work.root()) {
        println!("{line}");
    }
    println!(
        "{}: {} of {} diverted, {}, {}",
        printed.module.display(),
        set::functions(printed.diverted),
        printed.kernel_release,
        set::counted(printed.new_functions.len(), "new function"),
        set::counted(printed.private_data.len(), "private variable")
    );
    println!("{}", memory(printed.unproved));
    for package in printed.packages {
        println!("{}", package.display());
    }
    Ok(())
}

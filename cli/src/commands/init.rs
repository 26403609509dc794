//! `schedswap init`: reads the kernel, computes the boundary, lays out the work dir and proves identity.

use crate::outcome::{Outcome, Refusal};
use crate::progress::Shown;
use anyhow::Context;
use clap::Args;
use schedswap::config::{self, Config};
use schedswap::source::{Cache, Kernel, Overrides, Search, Toolchain, WantedCompiler, locate};
use schedswap::workdir;
use std::path::PathBuf;

/// Make a work dir: read the kernel, compute the boundary, prove that its scheduler compiles to the same code
///
/// Steps that are complete are not done again, so an interrupted init goes on where it stopped. The kernel's
/// files are found where its packages put them, here or in what `fetch` has cached.
#[derive(Args)]
pub struct InitArgs {
    /// The kernel, as `uname -r` prints it there
    release: String,
    /// Its source: a directory or a tarball
    #[arg(value_name = "KERNEL_SRC")]
    kernel_src: PathBuf,
    /// The directory to make
    work_dir: PathBuf,
    /// Look for the kernel's files below DIR, where its packages are unpacked, and nowhere else
    #[arg(long, value_name = "DIR")]
    sysroot: Option<PathBuf>,
    /// The debug vmlinux
    #[arg(long, value_name = "FILE")]
    vmlinux: Option<PathBuf>,
    /// The headers package's directory, what /lib/modules/RELEASE/build points to
    #[arg(long, value_name = "DIR")]
    headers: Option<PathBuf>,
    /// The kernel's .config
    #[arg(long, value_name = "FILE")]
    kernel_config: Option<PathBuf>,
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

/// What overrides the computed boundary: the file that is named, else what there is for the kernel.
fn configuration(args: &InitArgs) -> Result<Config, config::Error> {
    let file = match &args.config {
        Some(file) => Some(file.clone()),
        None if args.no_config => None,
        None => config::find(&args.release, &config::directories()),
    };
    file.map_or(Ok(Config::default()), |file| config::read(&file))
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

/// Makes the work dir and prints the gate's table.
pub fn run(args: InitArgs) -> anyhow::Result<Outcome> {
    let boundary = configuration(&args)?;
    let search = Search {
        overrides: Overrides {
            vmlinux: args.vmlinux,
            config: args.kernel_config,
            headers: args.headers,
            ..Overrides::default()
        },
        sysroot: args.sysroot,
        cache: Cache::from_environment().ok(),
    };
    let kernel = locate(&args.release, &search)?;
    let options = workdir::Options {
        toolchain: toolchain_of(&kernel, search.cache.as_ref())?,
        kernel,
        source: args.kernel_src,
        work: args.work_dir,
        allow_different: args.allow_different,
        boundary,
    };
    let (work, summary) = match workdir::init(&options, &Shown::on_stderr()) {
        Ok(made) => made,
        Err(workdir::Error::Different(refusal)) => return Err(Refusal(refusal.to_string()).into()),
        Err(other) => return Err(other.into()),
    };
    if args.json {
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

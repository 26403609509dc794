//! `schedswap fetch`: a kernel of the Debian archive into the cache.
//!
//! ```text
//! $ schedswap fetch bookworm/cloud-amd64
//! reading the archive's package lists: bookworm, bookworm-updates, bookworm-security (2.1 s)
//! downloading 7 packages (9.9 s)
//! unpacking (3.1 s)
//! 6.1.0-56-cloud-amd64 (6.1.192-2)
//!   sysroot   ~/.cache/schedswap/kernels/6.1.0-56-cloud-amd64/root
//!   source    ~/.cache/schedswap/kernels/6.1.0-56-cloud-amd64/src
//!   compiler  gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0
//! ```

use std::io::IsTerminal;
use std::path::PathBuf;

use indicatif::HumanBytes;
use schedswap_host::progress::{Progress, Silent};
use schedswap_source::{Cache, Fetched, Plan, Request, SourceError};

use crate::outcome::Outcome;
use crate::progress::Shown;

/// Get a kernel of the Debian archive into the cache: image, debug symbols, headers and source
///
/// Uses the package sources and keys that this machine's apt is set up with, in a private directory: nothing is
/// installed, apt's own files stay as they are, and no privilege is needed. An interrupted fetch continues where it
/// stopped.
#[derive(clap::Args)]
pub struct FetchArgs {
    /// SUITE/FLAVOUR for the newest kernel there (bookworm/cloud-amd64), or a release (6.1.0-13-cloud-amd64), or
    /// SUITE/RELEASE. A name that ends with another architecture (bookworm/arm64) means a kernel for that architecture
    kernel: String,

    /// Where fetched kernels are kept [default: $SCHEDSWAP_CACHE, $XDG_CACHE_HOME/schedswap or
    /// ~/.cache/schedswap]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,

    /// Say what would be fetched, and stop
    #[arg(long)]
    dry_run: bool,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: FetchArgs) -> anyhow::Result<Outcome> {
    let wanted: Request = args.kernel.parse()?;
    let cache = match &args.cache {
        Some(root) => Cache::at(root),
        None => Cache::from_environment()?,
    };
    let shown = Shown::on_stderr();
    // A script that reads JSON wants no lines beside it; a person who tries it out wants the bar.
    let is_script = args.json && !std::io::stderr().is_terminal();
    let progress: &dyn Progress = if is_script { &Silent } else { &shown };
    let Some(fetched) = newest_complete(&wanted, &args, &cache, progress)? else {
        return Ok(Outcome::Done);
    };
    print_fetched(&fetched, args.json)?;
    Ok(Outcome::Done)
}

/// If the newest kernel was asked for and the archive has dropped files of it, this gets the newest one that is complete,
/// with a warning; for a release that was named there is no substitute. `None` after a dry run.
fn newest_complete(
    wanted: &Request,
    args: &FetchArgs,
    cache: &Cache,
    progress: &dyn Progress,
) -> anyhow::Result<Option<Fetched>> {
    let (suite, gone, others) = match (wanted, get(wanted, args, cache, progress)) {
        (_, Ok(fetched)) => return Ok(fetched),
        (Request::Newest { suite, .. }, Err(SourceError::Gone { package, version, others })) => {
            let releases = others.clone();
            (suite, SourceError::Gone { package, version, others }, releases)
        }
        (_, Err(error)) => return Err(error.into()),
    };
    eprintln!("warning: {gone}");
    for release in others {
        eprintln!("trying {release}");
        let older = Request::Release { suite: Some(suite.clone()), release };
        match get(&older, args, cache, progress) {
            Err(SourceError::Gone { .. } | SourceError::NoPackage { .. }) => {}
            other => return Ok(other?),
        }
    }
    Err(gone.into())
}

fn get(
    request: &Request,
    args: &FetchArgs,
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<Option<Fetched>, SourceError> {
    let plan = schedswap_source::plan(request, cache, progress)?;
    for suite in &plan.unread {
        eprintln!(
            "warning: the package list of {suite} could not be read, so its kernels are not considered"
        );
    }
    if args.dry_run {
        print_plan(&plan, args.json);
        return Ok(None);
    }
    schedswap_source::fetch(&plan, cache, progress).map(Some)
}

fn print_plan(plan: &Plan, json: bool) {
    if json {
        println!("{}", serde_json::to_string_pretty(plan).expect("a plan is JSON"));
        return;
    }
    println!("{} ({})", plan.release, plan.version);
    if plan.cached {
        println!("  is in the cache");
    }
    for package in &plan.packages {
        println!("  {:>10}  {} {}", HumanBytes(package.bytes).to_string(), package.name, package.version);
    }
    if !plan.packages.is_empty() {
        println!("  {:>10}  in all", HumanBytes(plan.bytes()).to_string());
    }
}

fn print_fetched(fetched: &Fetched, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(fetched)?);
        return Ok(());
    }
    println!("{} ({})", fetched.release, fetched.version);
    println!("  sysroot   {}", fetched.sysroot.display());
    println!("  source    {}", fetched.source.display());
    if let Some(compiler) = &fetched.compiler {
        println!("  compiler  {compiler}");
    }
    Ok(())
}

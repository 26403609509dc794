//! `schedswap toolchain`: the compiler that a kernel was built by, into the cache.
//!
//! ```text
//! $ schedswap toolchain 5.10.0-32-cloud-amd64
//! reading the archive's package lists: bullseye, bullseye-updates, bullseye-security (2.4 s)
//! downloading 35 packages (4.1 s)
//! unpacking (2.0 s)
//! preparing its programs (0.1 s)
//! gcc-10 (Debian 10.2.1-6) 10.2.1 20210110
//!   programs  ~/.cache/schedswap/toolchains/gcc-10_10.2.1-6/bin
//! ```

use std::path::PathBuf;

use anyhow::bail;
use schedswap_source::{Cache, Search, WantedCompiler, locate, toolchain};

use crate::outcome::Outcome;
use crate::progress::Shown;

/// Get the compiler that built a kernel into the cache, if this machine has another one
///
/// Only the same revision of the compiler makes the same code. It comes from the archives that this machine's apt is set
/// up with, together with the assembler and linker of its suite and the libraries that these and the kernel's build
/// tools need, and runs from the cache: nothing is installed, and no privilege is needed. `init` and `build` use it from
/// then on.
#[derive(clap::Args)]
pub struct ToolchainArgs {
    /// The kernel, as `uname -r` prints it there
    release: String,

    /// The suite that has the compiler [default: the one that the kernel was fetched from, or else this machine's]
    #[arg(long, value_name = "SUITE")]
    suite: Option<String>,

    /// Look for the kernel's files below DIR, where its packages are unpacked, and nowhere else
    #[arg(long, value_name = "DIR")]
    sysroot: Option<PathBuf>,

    /// Where compilers and fetched kernels are kept [default: $SCHEDSWAP_CACHE, $XDG_CACHE_HOME/schedswap or
    /// ~/.cache/schedswap]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(serde::Serialize)]
struct Printed {
    compiler: String,
    /// Where its programs are; absent if it is this machine's own.
    programs: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: ToolchainArgs) -> anyhow::Result<Outcome> {
    let cache = match &args.cache {
        Some(root) => Cache::at(root),
        None => Cache::from_environment()?,
    };
    let search = Search { sysroot: args.sysroot, cache: Some(cache.clone()), ..Search::default() };
    let kernel = locate(&args.release, &search)?;
    let Some(wanted) = WantedCompiler::of(&kernel)? else {
        bail!(
            "{} does not say which compiler built the kernel: CONFIG_CC_VERSION_TEXT is missing; give the .config that \
             the kernel was built with",
            kernel.config.display()
        );
    };
    if !args.json {
        println!("{}", wanted.text());
    }
    let programs = if wanted.is_at_hand(None) {
        None
    } else {
        let progress = Shown::on_stderr();
        Some(toolchain::get(&wanted, &kernel, args.suite.as_deref(), &cache, &progress)?.programs())
    };
    if args.json {
        let printed = Printed { compiler: wanted.text().to_owned(), programs };
        println!("{}", serde_json::to_string_pretty(&printed)?);
        return Ok(Outcome::Done);
    }
    match programs {
        None => println!("  is this machine's own"),
        Some(programs) => println!("  programs  {}", programs.display()),
    }
    Ok(Outcome::Done)
}

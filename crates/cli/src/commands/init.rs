//! `schedswap init`: reads the kernel, computes the boundary, lays out the work dir and proves identity.

use crate::outcome::Outcome;
use crate::work_dir::WorkDirArgs;
use clap::Args;
use schedswap_source::{Cache, Overrides, Search, locate};
use std::path::PathBuf;

/// Make a work dir: read the kernel, compute the boundary, prove that its scheduler compiles to the same code
///
/// Steps that are complete are not done again, so an interrupted init continues where it stopped. The kernel's files
/// are found where its packages put them, on this machine or in what `fetch` has cached.
///
/// The exit status is 3 if the source or the compiler is not the one that the kernel was built from.
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
    #[command(flatten)]
    making: WorkDirArgs,
}

/// Runs the command.
pub fn run(args: InitArgs) -> anyhow::Result<Outcome> {
    let boundary = args.making.configuration(&args.release)?;
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
    args.making.make(kernel, args.kernel_src, args.work_dir, boundary)
}

//! `schedswap dev-init`: `init` for a kernel in the tree that it was built in.
//!
//! ```text
//! $ make defconfig && make -j8
//! $ schedswap dev-init . ../work
//! ```

use crate::outcome::Outcome;
use crate::work_dir::WorkDirArgs;
use anyhow::Context;
use clap::Args;
use schedswap_source::built;
use std::path::PathBuf;

/// Make a work dir for a kernel of your own, in the tree that it was just built in
///
/// The tree has what `init` looks for in packages: vmlinux, .config, Module.symvers, the boot image and the source. The
/// vmlinux needs debug information (CONFIG_DEBUG_INFO_DWARF4, DWARF5 or DWARF_TOOLCHAIN_DEFAULT). The work dir is the
/// same as the one that `init` makes, and so is the proof that the scheduler compiles to the code in vmlinux: a tree
/// that was changed and not built again is refused, with exit status 3.
#[derive(Args)]
pub struct DevInitArgs {
    /// The tree: where `make` was run, or the directory given to it as O=
    #[arg(value_name = "KERNEL_TREE")]
    kernel_tree: PathBuf,
    /// The directory to make
    work_dir: PathBuf,
    #[command(flatten)]
    making: WorkDirArgs,
}

/// Runs the command.
pub fn run(args: DevInitArgs) -> anyhow::Result<Outcome> {
    let kernel = built(&args.kernel_tree)?;
    let boundary = args.making.configuration(&kernel.release)?;
    let source = kernel.source.clone().context("a tree that was built has its source")?;
    args.making.make(kernel, source, args.work_dir, boundary)
}

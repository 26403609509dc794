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
/// What `init` looks for in packages is in the tree: vmlinux, .config, Module.symvers, the boot image, the source. The
/// vmlinux has to have debug information (CONFIG_DEBUG_INFO_DWARF4, DWARF5 or DWARF_TOOLCHAIN_DEFAULT). The work dir is
/// the same as `init` makes, and so is the proof: the scheduler compiles to the code that is in vmlinux, so a tree that
/// was changed and not built again is refused.
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

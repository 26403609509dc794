//! `schedswap extract-src`: a kernel's source, as its distribution's package prepares it.
//!
//! ```text
//! $ schedswap extract-src kernel-5.14.0-503.11.1.el9_5.src.rpm linux
//! preparing by rpmbuild kernel-5.14.0-503.11.1.el9_5.src.rpm (48.2 s)
//! linux is the source of Linux 5.14.0
//! ```

use crate::outcome::Outcome;
use crate::progress::Shown;
use clap::Args;
use schedswap_sdk::workdir;
use std::path::{Path, PathBuf};

/// Prepare a kernel's source: unpack what its distribution publishes, with the distribution's patches applied
///
/// rpmbuild prepares a source rpm, as the package's own %prep says, and dpkg-source a Debian source package; a tar file
/// is unpacked. Nothing is built or installed. The directory appears only once it is complete.
#[derive(Args)]
pub struct ExtractSrcArgs {
    /// A source rpm, a .dsc with the files that it names beside it, or a tar file
    #[arg(value_name = "PACKAGE")]
    package: PathBuf,
    /// The directory to make; what `init` takes as KERNEL_SRC
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(serde::Serialize)]
struct Extracted<'a> {
    source: &'a Path,
    version: &'a str,
}

/// Runs the command.
pub fn run(args: ExtractSrcArgs) -> anyhow::Result<Outcome> {
    schedswap_source::extract(&args.package, &args.dir, &Shown::on_stderr())?;
    let version = workdir::source_version(&args.dir)?;
    if args.json {
        let extracted = Extracted { source: &args.dir, version: &version };
        println!("{}", serde_json::to_string_pretty(&extracted)?);
    } else {
        println!("{} is the source of Linux {version}", args.dir.display());
    }
    Ok(Outcome::Done)
}

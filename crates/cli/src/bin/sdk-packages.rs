//! `make packages`: schedswap itself as `.deb` and `.rpm`, made by the code that makes the packages of schedulers. It is
//! not installed.

use anyhow::Context;
use clap::Parser;
use schedswap_package::{Changelog, Date, Format, Package, sdk};
use schedswap_sdk::git;
use std::env;
use std::path::PathBuf;

/// Make packages of what `make install` has put below a directory
#[derive(Parser)]
struct Args {
    /// What DESTDIR was, with PREFIX=/usr
    tree: PathBuf,
    /// The repository that it was built from: the changelog, and the date unless SOURCE_DATE_EPOCH has it
    repository: PathBuf,
    /// Where to write the packages
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let commits = git::history(&args.repository)?;
    let last = commits.first().map(|commit| commit.seconds);
    let date = Date::of_sources(env::var("SOURCE_DATE_EPOCH").ok().as_deref(), last)?;
    let recipe = sdk::recipe(&args.tree, Changelog::new(&commits, None, date))?;
    for format in [Format::Deb, Format::Rpm] {
        let path = Package::build(&recipe, format)?.write(&args.out);
        println!("{}", path.context("writing a package")?.display());
    }
    Ok(())
}

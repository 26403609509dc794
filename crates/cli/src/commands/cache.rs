//! `schedswap cache`: what the cache holds, and removing things from it.
//!
//! ```text
//! $ schedswap cache
//!   818.32 MiB  guests/bookworm-90d6e79e2da048c8.ext4
//!   544.91 MiB  kernels/6.12.95+deb12-cloud-amd64
//!   227.06 MiB  toolchains/gcc-10_10.2.1-6
//!    89.77 MiB  apt                                  (prune removes it)
//!     1.68 GiB  in all, in ~/.cache/schedswap
//! ```

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use schedswap_source::{Cache, CacheEntry, over, remove, usage};

use crate::outcome::Outcome;
use crate::progress::Shown;

/// Show what the cache takes on the disk, or remove things from it
#[derive(Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    command: Option<CacheCommand>,

    /// Where the cache is [default: $SCHEDSWAP_CACHE, $XDG_CACHE_HOME/schedswap or ~/.cache/schedswap]
    #[arg(long, value_name = "DIR", global = true)]
    cache: Option<PathBuf>,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum CacheCommand {
    /// Remove what interrupted fetches left, the archive's package lists, and what is named
    ///
    /// Work dirs refer to the kernel and the compiler that they were made with: if you remove those, fetch them again
    /// before the next build.
    Prune {
        /// As `schedswap cache` shows it (kernels/6.1.0-56-cloud-amd64), or the last part of it
        names: Vec<String>,
        /// Everything
        #[arg(long, conflicts_with = "names")]
        all: bool,
        /// Remove more, the oldest first, until the cache is no larger than this (20G, 800M, or bytes)
        #[arg(long, value_name = "SIZE", conflicts_with_all = ["names", "all"], value_parser = size)]
        to: Option<u64>,
    },
}

/// Runs the command.
pub fn run(args: CacheArgs) -> anyhow::Result<Outcome> {
    let cache = match &args.cache {
        Some(root) => Cache::at(root),
        None => Cache::from_environment()?,
    };
    let entries = match args.command {
        None => usage(&cache)?,
        Some(CacheCommand::Prune { names, all, to }) => {
            let there = usage(&cache)?;
            if let Some(name) = names.iter().find(|name| !there.iter().any(|entry| is_named(entry, name))) {
                bail!("there is no {name} in the cache; `schedswap cache` shows what is there");
            }
            let over = to.map_or(Vec::new(), |bytes| over(bytes, there));
            let goes = |entry: &CacheEntry| {
                all || entry.is_leftover
                    || over.contains(&entry.name)
                    || names.iter().any(|name| is_named(entry, name))
            };
            remove(&cache, &goes, &Shown::on_stderr())?
        }
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&entries)?);
    } else {
        print(&entries, &cache);
    }
    Ok(Outcome::Done)
}

/// `20G`, `800M`, or plain bytes.
fn size(text: &str) -> Result<u64, String> {
    let units = [("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30)];
    let with_unit = units.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, bytes) = with_unit.unwrap_or((text, 1));
    let number = number.parse::<u64>().ok().and_then(|number| number.checked_mul(bytes));
    number.ok_or_else(|| "expected a whole number with K, M or G, such as 20G, or of bytes".to_owned())
}

fn is_named(entry: &CacheEntry, name: &str) -> bool {
    entry.name == name || entry.name.rsplit('/').next() == Some(name)
}

fn print(entries: &[CacheEntry], cache: &Cache) {
    let line = |bytes: u64, text: &str| println!("{:>12}  {text}", HumanBytes(bytes).to_string());
    for entry in entries {
        let note = if entry.is_leftover { "  (prune removes it)" } else { "" };
        line(entry.bytes, &format!("{}{note}", entry.name));
    }
    let all = entries.iter().map(|entry| entry.bytes).sum();
    line(all, &format!("in all, in {}", cache.root().display()));
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("20G", 20 << 30), ("800M", 800 << 20), ("1K", 1024), ("7", 7), ("0", 0)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "-1", "1.5G", "2T", "99999999999999999999", "99999999999G"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}

//! The command line.

use crate::switch::Patience;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Puts a scheduler into the running kernel, and takes it out again.
///
/// Exit codes: 0 done; 1 failed; 2 wrong usage; 3 refused by a safety check (threads in the way, a module
/// for another kernel, patched text, a scheduler loaded already). After 1 or 3 of `install` nothing is loaded.
#[derive(Parser, Debug)]
#[command(version, name = "schedswap-loader")]
pub struct CommandLine {
    /// Print one JSON object on one line instead of text
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Check, load and switch to a scheduler
    Install {
        /// A .ko file, or a directory with manifest.json and the module [default: the loader's own directory]
        path: Option<PathBuf>,
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// Switch back to the kernel's own scheduler and unload the module
    Uninstall {
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// Say which kernel runs, and which scheduler
    Status,
}

#[derive(Args, Debug)]
pub struct PatienceArgs {
    /// Attempts after the first while threads are in the way
    #[arg(long, value_name = "N", default_value_t = 5)]
    retries: u32,
    /// Longest pause between two attempts; the first is an eighth of it, each next one twice as long
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    wait: Duration,
}

impl From<&PatienceArgs> for Patience {
    fn from(args: &PatienceArgs) -> Patience {
        Patience { retries: args.retries, wait: args.wait }
    }
}

/// `2s`, `500ms`, `1m`, or plain seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        _ => 0,
    };
    match number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms)) {
        Some(ms) if unit_ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err("expected a whole number with ms, s or m, such as 500ms or 2s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }

    #[test]
    fn durations() {
        for (text, ms) in [("2s", 2000), ("500ms", 500), ("3", 3000), ("1m", 60_000), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "2h", "-1s", "1.5s", "99999999999999999999", "18446744073709551615m"] {
            assert!(duration(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn json_is_taken_on_either_side_of_the_command() {
        for line in [["l", "--json", "status"], ["l", "status", "--json"]] {
            assert!(CommandLine::try_parse_from(line).unwrap().json);
        }
    }
}

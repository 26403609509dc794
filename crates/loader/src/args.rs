//! The command line.

use crate::switch::Patience;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Puts a scheduler into the running kernel, takes it out again, and loads it at boot.
///
/// A scheduler is a payload below /var/lib/schedswap/<kernel release>/, as its package lays it out: that is registered
/// and loaded at every boot. Or it is a loose .ko file, or a directory with manifest.json and the module: that only
/// runs, until it is taken out or the machine is booted.
#[derive(Parser, Debug)]
#[command(version, name = "schedswap-loader", max_term_width = 100, after_help = AFTER_HELP)]
pub struct CommandLine {
    /// Print one JSON object on one line instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Work on the machine whose files lie below DIR, without a kernel: payloads are registered, nothing is loaded
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// How long to wait for another loader that is at work
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub lock_wait: Duration,
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Exit status: 0 done, or nothing to do; 1 failed; 2 wrong usage; 3 refused by a safety check, with nothing changed
(threads in the way, somebody else at the same functions, another kernel, a payload that is not root's or is damaged,
a scheduler loaded already); 4 not root; 5 another loader is at work.

Kernel command line: schedswap.enable=0 loads nothing at boot.";

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Check a scheduler, switch to it, and have it loaded at boot
    ///
    /// From the kernel's own scheduler, or in one stop from another payload's. It is registered only after it runs; if
    /// it is refused, what ran before runs on and stays registered. A payload of another kernel is registered for that
    /// one, and nothing is loaded. An earlier boot that went wrong is forgotten.
    Install {
        /// A payload, a .ko file, or a directory with manifest.json and the module [default: the loader's directory]
        path: Option<PathBuf>,
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// Switch back to the kernel's own scheduler, unload the module, and load none at boot
    Uninstall {
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// Switch from what runs to another scheduler that is there, in one stop
    Switch {
        /// A payload's name, such as demo-2, or what `install` takes; a loose module may take over too
        path: PathBuf,
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// Say which scheduler runs and since when, which are installed, and what is in the way of them
    Status,
    /// Find everything that would stop an install, without changing anything
    Check {
        /// What `install` takes, or a payload's name [default: the loader's directory, else what is registered]
        path: Option<PathBuf>,
    },
    /// Find out what an install would meet now: threads in the way, and how long the machine would stand still
    ///
    /// The module is loaded, checks all stacks and its windows without stopping the machine, and is unloaded.
    Plan {
        /// What `install` takes, or a payload's name [default: the loader's directory, else what is registered]
        path: Option<PathBuf>,
    },
    /// For packages, before a payload is removed: back to the kernel's own scheduler if it runs
    Remove {
        /// The payload
        dir: PathBuf,
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// For packages, before a payload is removed while others of its name stay: after an upgrade, what runs goes on
    Forget {
        /// The payload
        dir: PathBuf,
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// For the boot: load what is registered for this kernel
    Start {
        /// Also after a boot that went wrong with it, and with schedswap.enable=0
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// For the boot: back to the kernel's own scheduler; what is registered stays so
    Stop {
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// For the boot: note that the machine came up well
    Healthy,
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// Where to write them
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

impl Command {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Install { .. } => "install",
            Command::Uninstall { .. } => "uninstall",
            Command::Switch { .. } => "switch",
            Command::Status => "status",
            Command::Check { .. } => "check",
            Command::Plan { .. } => "plan",
            Command::Remove { .. } => "remove",
            Command::Forget { .. } => "forget",
            Command::Start { .. } => "start",
            Command::Stop { .. } => "stop",
            Command::Healthy => "healthy",
            Command::Man { .. } => "man",
        }
    }
}

#[derive(Args, Debug)]
pub struct PatienceArgs {
    /// Attempts after the first while threads are in the way
    #[arg(long, value_name = "N", default_value_t = 12)]
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
    fn every_exit_status_is_in_the_help() {
        use clap::CommandFactory;
        let help = CommandLine::command().render_long_help().to_string();
        for status in ["0 done", "1 failed", "2 wrong usage", "3 refused", "4 not root", "5 another loader"] {
            assert!(help.contains(status), "{status} is not in {help}");
        }
    }

    #[test]
    fn names_are_the_commands_own() {
        for line in
            [&["l", "install"][..], &["l", "start", "--force"], &["l", "forget", "/x"], &["l", "healthy"]]
        {
            assert_eq!(CommandLine::try_parse_from(line).unwrap().command.name(), line[1]);
        }
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

//! The command line.

use crate::switch::Patience;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Loads a scheduler into the running kernel, removes it again, and loads it at boot.
///
/// A scheduler is a payload below /var/lib/schedswap/KERNEL_RELEASE/, as its package installs it: a payload is
/// registered and loaded at every boot. Or it is a separate .ko file, or a directory with manifest.json and the
/// module: these only run until they are uninstalled or the machine reboots.
#[derive(Parser, Debug)]
#[command(version, name = "schedswap-loader", max_term_width = 100, after_help = AFTER_HELP)]
pub struct CommandLine {
    /// Print one JSON object on one line instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Work on the machine whose files are below DIR, without a kernel: payloads are registered, nothing is loaded
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// How long to wait while another loader is at work
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub lock_wait: Duration,
    /// How many MiB the schedulers may keep that ran since the boot, the next one included, each counted as at least 1
    /// MiB; more is refused
    #[arg(long, global = true, value_name = "MIB", default_value_t = crate::retired::MIB_MAX)]
    pub retired_max: u64,
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Exit status: 0 done, or nothing to do; 1 failed; 2 wrong usage; 3 refused by a safety check, with
nothing changed (threads in the way, another patcher at the same functions, another kernel, a
payload that is damaged or does not belong to root, a scheduler that is loaded already, too much
memory kept by schedulers that have retired); 4 not root; 5 another loader is at work;
6 refused to free a module's memory, because something may have an address of it.

Kernel command line: schedswap.enable=0 loads nothing at boot.";

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Check a scheduler, switch to it, and have it loaded at every boot
    ///
    /// Switches from the kernel's own scheduler, or in one stop from that of another payload. The scheduler is
    /// registered only once it runs; if it is refused, what ran before goes on running and stays registered. A
    /// payload for another kernel is registered for that kernel, and nothing is loaded. The record of an earlier boot
    /// that went wrong is deleted.
    Install {
        /// A payload, a .ko file, or a directory with manifest.json and the module [default: the loader's directory]
        path: Option<PathBuf>,
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// Switch back to the kernel's own scheduler, and load none at boot
    ///
    /// The module retires: its memory stays until the next boot, because the kernel may still have an address of it.
    /// `status` shows the modules that have retired.
    Uninstall {
        /// Free the memory of this and of all retired modules, where the build has shown that no address gets out
        #[arg(long)]
        free: bool,
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// Switch from the running scheduler to another installed one, in one stop
    Switch {
        /// The name of a payload, such as demo-2, or what `install` takes; a separate module may take over too
        path: PathBuf,
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// Show which scheduler runs and since when, which are installed, and what is in their way
    Status,
    /// Find everything that would prevent an install, without changing anything
    Check {
        /// What `install` takes, or the name of a payload [default: the loader's directory, else the registered
        /// payload]
        path: Option<PathBuf>,
    },
    /// Find out what an install would meet now: which threads are in the way, and how long the machine would stand
    /// still
    ///
    /// The module is loaded, checks all stacks and its windows without stopping the machine, and is unloaded again.
    Plan {
        /// What `install` takes, or the name of a payload [default: the loader's directory, else the registered
        /// payload]
        path: Option<PathBuf>,
    },
    /// For packages, before a payload is removed: switch back to the kernel's own scheduler if the payload runs
    Remove {
        /// The payload
        dir: PathBuf,
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// For packages, before a payload is removed while others of its name stay: after an upgrade, what runs goes on
    /// running
    Forget {
        /// The payload
        dir: PathBuf,
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// For the boot: load the scheduler that is registered for this kernel
    Start {
        /// Even after a boot with it that went wrong, and with schedswap.enable=0
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// For the boot: switch back to the kernel's own scheduler; what is registered stays registered
    Stop {
        #[command(flatten)]
        patience: PatienceArgs,
    },
    /// For the boot: record that the machine came up healthy
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
    /// The name of the command.
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
    /// Further attempts while threads are in the way
    #[arg(long, value_name = "N", default_value_t = 12)]
    retries: u32,
    /// Longest pause between two attempts; the first pause is an eighth of it, each next one twice as long
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
        for status in [
            "0 done",
            "1 failed",
            "2 wrong usage",
            "3 refused",
            "4 not root",
            "5 another loader",
            "6 refused to free",
        ] {
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

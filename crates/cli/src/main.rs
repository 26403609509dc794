//! The `schedswap` command: one file a command in `commands/`; help, completions and man pages come from the
//! definitions there.

mod commands;
mod outcome;
mod packages;
mod progress;
mod set;
mod work_dir;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;

/// Swap the scheduler of a running, unmodified Linux kernel.
#[derive(Parser)]
#[command(name = "schedswap", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// A paragraph is one line here: clap wraps it to the terminal's width.
const AFTER_HELP: &str = "\
The usual order:
  schedswap fetch bookworm/cloud-amd64
  schedswap init <release> <kernel-src> <work-dir>
  $EDITOR <work-dir>/kernel/sched/mod/core.c
  schedswap build <work-dir>
  schedswap try <work-dir>

For a kernel that you have built yourself, `schedswap dev-init <kernel-tree> <work-dir>` replaces the first two. \
`schedswap extract-src <kernel.src.rpm or .dsc> <kernel-src>` prepares the source that a distribution publishes.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused by a safety check: the source or the compiler is not the one \
that the kernel was built with, `check` refuses an edit, a module does not pass its proofs, or the loader refuses it \
in a guest.";

#[derive(Subcommand)]
enum Command {
    Fetch(commands::fetch::FetchArgs),
    Toolchain(commands::toolchain::ToolchainArgs),
    // plugsched's users know these two by an underscore.
    #[command(visible_alias = "extract_src")]
    ExtractSrc(commands::extract_src::ExtractSrcArgs),
    Init(commands::init::InitArgs),
    #[command(visible_alias = "dev_init")]
    DevInit(commands::dev_init::DevInitArgs),
    Build(commands::build::BuildArgs),
    Check(commands::check::CheckArgs),
    Explain(commands::explain::ExplainArgs),
    Holes(commands::holes::HolesArgs),
    Try(commands::r#try::TryArgs),
    Cache(commands::cache::CacheArgs),
    Completions(commands::completions::CompletionsArgs),
    Man(commands::man::ManArgs),
}

fn main() -> ExitCode {
    let cli = match Cli::from_arg_matches(&Cli::command().get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let result = match cli.command {
        Command::Fetch(args) => commands::fetch::run(args),
        Command::Toolchain(args) => commands::toolchain::run(args),
        Command::ExtractSrc(args) => commands::extract_src::run(args),
        Command::DevInit(args) => commands::dev_init::run(args),
        Command::Init(args) => commands::init::run(args),
        Command::Build(args) => commands::build::run(args),
        Command::Check(args) => commands::check::run(args),
        Command::Explain(args) => commands::explain::run(args),
        Command::Holes(args) => commands::holes::run(args),
        Command::Try(args) => commands::r#try::run(args),
        Command::Cache(args) => commands::cache::run(args),
        Command::Completions(args) => commands::completions::run(args, Cli::command()),
        Command::Man(args) => commands::man::run(args, Cli::command()),
    };
    outcome::report(result)
}

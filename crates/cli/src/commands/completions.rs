//! `schedswap completions`: shell completions, from the command's own definition.

use crate::outcome::Outcome;
use clap::{Args, Command};
use clap_complete::Shell;

/// Print a completion script for a shell
///
/// For bash: schedswap completions bash > /etc/bash_completion.d/schedswap
#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell to complete for
    shell: Shell,
}

/// Prints the script.
pub fn run(args: CompletionsArgs, mut command: Command) -> anyhow::Result<Outcome> {
    clap_complete::generate(args.shell, &mut command, "schedswap", &mut std::io::stdout());
    Ok(Outcome::Done)
}

//! schedswap-loader: puts a scheduler module into the running kernel, takes it out again, and loads it at boot.
//!
//! A static program that needs nothing of the host but sysfs: no modprobe, no shell, no library; systemd is told
//! where it runs.
//!
//! - What is on the disk: [`paths`] and [`disk`]; [`module_file`] and [`payload_dir`] read what is to be loaded and
//!   whether root may trust it, [`registry`] keeps what shall run, [`services`] what makes it so at boot.
//! - What is in the kernel: [`running`] reads it, [`conflicts`] names who else is there; [`host`] is the way to change
//!   it, [`switch`] and [`swap`] do; [`kernel_log`] brings back what the kernel said.
//! - The commands: [`install`], [`remove`], [`boot`], [`check`], [`mod@plan`], [`mod@status`]; [`command`] runs them
//!   and [`text`] says what came of it.

mod args;
mod boot;
mod check;
mod command;
mod conflicts;
mod disk;
mod error;
#[cfg(test)]
mod fake;
mod host;
mod install;
mod kernel_log;
#[cfg(test)]
mod life_cycle_tests;
mod lock;
mod module_file;
mod paths;
mod payload_dir;
mod plan;
#[cfg(test)]
mod power_cut_tests;
mod predict;
mod record;
mod refusal;
mod registry;
mod remove;
mod running;
mod services;
mod status;
mod swap;
mod switch;
mod target;
mod text;
mod urgency;

use args::CommandLine;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    command::run(CommandLine::parse())
}

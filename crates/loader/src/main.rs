//! schedswap-loader: loads a scheduler module into the running kernel, removes it again, and loads it at boot.
//!
//! A static program that needs only sysfs from the host: no modprobe, no shell, no library. Where systemd runs, it is
//! kept informed.
//!
//! - On the disk: [`paths`] and [`disk`]; [`module_file`] and [`payload_dir`] read what is to be loaded and decide
//!   whether root may trust it; [`registry`] keeps what is to run, [`services`] makes it run at boot.
//! - In the kernel: [`running`] reads its state, [`conflicts`] names other patchers and tracers; changes go through
//!   [`host`], made by [`switch`] and [`swap`]; [`retired`] keeps or frees a module's memory; [`kernel_log`] returns what the kernel logged.
//! - The commands: [`install`], [`remove`], [`boot`], [`check`], [`mod@plan`], [`mod@status`]; [`command`] runs them
//!   and [`text`] prints their results.

mod args;
mod boot;
mod candidate;
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
mod priority;
mod record;
mod refusal;
mod registry;
mod remove;
mod retired;
mod running;
mod services;
mod status;
mod swap;
mod switch;
mod text;

use args::CommandLine;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    command::run(CommandLine::parse())
}

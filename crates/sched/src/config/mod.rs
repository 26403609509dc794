//! The configuration: what a person wants to differ from the computed boundary.
//!
//! A supported kernel needs none. One is looked up by the kernel's release ([`find()`]) or named; [`parse()`]
//! reads it, and [`Config::check_files`] and [`Config::check_symbols`] hold it against the kernel. Everything that
//! is wrong with it is said at once, each with line and column. What its words mean is in `docs/configuration.md`.

mod check;
mod error;
mod find;
mod model;
mod nearest;
mod parse;
#[cfg(test)]
mod tests;

pub use error::{Error, Fault};
pub use find::{FILE_NAME, directories, find, read};
pub use model::{At, Config, DataRule, Divert, ListedName, Private, Rebuilding, Sidecar};
pub(crate) use nearest::hint;
pub use parse::parse;

/// Where the scheduler's source is, in the kernel's.
pub const SCHEDULER: &str = "kernel/sched/";

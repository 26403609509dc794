//! From an edited work dir to a module and its packages.
//!
//! ```text
//! work dir -> check -> Checked (findings) -> bind, link, sign -> scheduler.ko, manifest.json -> packages -> Built
//! ```
//!
//! [`build`] does all of it. A caller that wants to show the findings before the slow part takes the same steps one by
//! one: [`Order::new`], [`check`], [`Order::build`].

mod build;
mod check;
mod error;
mod module;
mod packages;
mod set;
mod springboard;

pub use build::{BuildOptions, Built, Key, Order, build};
pub use check::{Checked, check};
pub use error::{Error, Result};

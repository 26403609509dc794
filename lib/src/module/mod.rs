//! The module: runtime, tables, stub and the bound scheduler, linked into one `scheduler.ko`.

mod build;
pub mod link;
pub mod runtime;
pub mod sign;
pub mod tables;

pub use build::{Error, Input, Module, build};

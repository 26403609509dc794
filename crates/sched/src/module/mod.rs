//! The module: runtime, tables, stub and the bound scheduler, linked into one `scheduler.ko`.

mod build;
pub mod extension;
pub mod link;
pub mod runtime;
pub mod sign;
mod state;
pub mod tables;

pub use build::{Bound, Error, Input, Module, bind, build};
pub use state::{Declarations, Error as StateError, States, states, units_with_state};

//! Relocatable objects as plain values: read and written.

mod error;
mod model;
mod read;
mod write;

pub use error::Error;
pub use model::*;
pub use read::read;
pub use write::write;

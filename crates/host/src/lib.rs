//! What every phase needs to know about its own process.

pub mod libexec;
pub mod progress;

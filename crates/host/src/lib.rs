//! What every phase knows of the process that it runs in.

pub mod libexec;
pub mod progress;

//! The work dir in which a developer edits, and the pipeline from there to a module.

pub mod workdir;

//! Relocatable objects: read, bound to vmlinux, verified, written.

mod model;

pub use model::*;

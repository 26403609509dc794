//! The boundary: which functions of the scheduler are replaced and which stay in vmlinux, and why; which
//! data is shared with vmlinux and which gets a copy of its own in the module.

mod model;

pub use model::*;

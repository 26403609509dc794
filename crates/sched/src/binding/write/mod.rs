//! The object that the module carries, and the runtime's objects beside it.

pub mod emit;
pub mod rewrite;
pub mod runtime;

//! What depends on the machine's instruction set. One folder an architecture.

pub mod x86_64;

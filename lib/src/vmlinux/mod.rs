//! Reading the kernel: the distribution's debug vmlinux, in, one immutable [`Image`], out.
//!
//! Everything later phases know of the running kernel comes from here: symbols with their FILE groups, the
//! scheduler's translation units (DWARF), who calls or stores the address of which function, and the places
//! in the text that the kernel rewrites by itself.

mod image;

pub use image::*;

//! Reads a Linux kernel: bytes in, values out, no process spawned.
//!
//! | module | value |
//! |---|---|
//! | [`address`] | [`address::Addr`], an address in the kernel |
//! | [`elf`] | [`elf::Elf`], the sections and symbols of a file |
//! | [`arch`] | what depends on the instruction set, behind one interface |
//! | [`objects`] | relocatable objects as values |
//! | [`types`] | [`types::Types`]: structures and signatures, as debug information declares them |
//! | [`vmlinux`] | [`vmlinux::Image`]: functions, calls, addresses that are stored |
//!
//! Each module uses only those above it.

pub mod address;
pub mod arch;
pub mod elf;
pub mod objects;
pub mod types;
pub mod vmlinux;

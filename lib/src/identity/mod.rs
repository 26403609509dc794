//! The identity gate: the unmodified scheduler, compiled here with the kernel's exact flags, is byte for byte
//! the code in vmlinux once relocated fields are masked; and, laying our relocations over vmlinux's bytes,
//! the address of every symbol the scheduler refers to.

mod addresses;

pub use addresses::*;

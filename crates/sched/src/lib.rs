//! The scheduler of one kernel: who is replaced, how it is compiled, the proof that its source is the kernel's, and
//! the module.
//!
//! | module | input | value |
//! |---|---|---|
//! | [`config`] | YAML | what a person wants otherwise than the computed boundary |
//! | [`boundary`] | vmlinux, `Config` | who is replaced, who stays, and why |
//! | [`springboard`] | vmlinux | the frame contract of `__schedule` |
//! | [`compile`] | sources, Kbuild's own commands | objects, compiled as the distribution did |
//! | [`identity`] | vmlinux, objects | the proof that both are the same code, and every symbol's address |
//! | [`binding`] | objects, addresses | objects bound to vmlinux, verified |
//! | [`check`] | pristine and edited objects | findings |
//! | [`module`] | bound objects | `scheduler.ko` |
//!
//! Each module uses only those above it.

pub mod author;
pub mod binding;
pub mod boundary;
pub mod check;
pub mod compile;
pub mod config;
pub mod identity;
pub mod module;
pub mod springboard;

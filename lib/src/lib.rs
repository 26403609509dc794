//! schedswap replaces the whole scheduler of a running, unmodified Linux kernel.
//!
//! Each module below is one phase: a function from immutable inputs to one value. A phase never imports a
//! later one (a test over the sources holds that). In order:
//!
//! | phase | input | value |
//! |---|---|---|
//! | [`source`] | a release or a suite | where its packages' files are |
//! | [`objects`] | bytes | relocatable objects as values |
//! | [`vmlinux`], [`arch`] | the debug vmlinux | [`vmlinux::Image`] |
//! | [`layout`] | `Image`, objects with debug information | [`layout::Types`] |
//! | [`springboard`] | `Image` | the frame contract of `__schedule` |
//! | [`config`] | YAML | what a person says otherwise than the boundary |
//! | [`boundary`] | `Image`, `Config` | who is replaced, who stays, and why |
//! | [`compile`] | sources, Kbuild's own commands | objects, compiled as the distribution did |
//! | [`identity`] | `Image`, objects | the proof that both are the same code, and every symbol's address |
//! | [`binding`] | objects, addresses | objects bound to vmlinux, verified |
//! | [`check`] | pristine and edited objects | findings |
//! | [`workdir`] | all of the above | where the developer edits |
//! | [`module`] | bound objects | `scheduler.ko` |
//! | [`package`] | module, loader | `.deb` and `.rpm` |
//! | [`guest`] | module | a QEMU guest in which it is swapped |

pub mod address;
pub mod arch;
pub mod author;
pub mod binding;
pub mod boundary;
pub mod check;
pub mod compile;
pub mod config;
pub mod guest;
pub mod identity;
pub mod layout;
pub mod libexec;
pub mod module;
pub mod objects;
pub mod package;
pub mod progress;
pub mod source;
pub mod springboard;
pub mod vmlinux;
pub mod workdir;

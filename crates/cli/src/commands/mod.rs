//! One file a command.

pub mod build;
pub mod cache;
pub mod check;
pub mod completions;
pub mod dev_init;
pub mod explain;
pub mod extract_src;
pub mod fetch;
pub mod holes;
pub mod init;
pub mod man;
pub mod toolchain;
pub mod r#try;

//! What the tests share: edits, modules made from the stock kernel, and guests to load them in.
//!
//! ```ignore
//! let module = build("what-it-tests", |tree| tree.at_entry("fair.c", "task_tick_fair", "…"))?;
//! let guest = guest(&module, |_| ())?;
//! guest.sh("loader install $SCHEDSWAP_MODULE")?;
//! guest.shutdown()?;
//! ```

pub mod binutils;
pub mod container;
pub mod counting;
pub mod edit;
pub mod firmware;
mod guests;
mod kept;
mod kernel;
pub mod keys;
mod machines;
mod modules;
pub mod packages;
pub mod sources;

pub use guests::{MODULE, guest, memory, stock_guest};
pub use kept::own;
pub use kernel::{Kernel, arm64_vmlinux, image, kernel};
pub use machines::{SUITE, kernel_under_test, machine, other_kernel};
pub use modules::{
    Built, Packages, build, build_changed, build_configured, build_in, configured_work_dir, kernel_module,
    package, pristine, schedswap, signed, work_dir,
};

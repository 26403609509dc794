//! The boundary: which functions of the scheduler are replaced and which stay in vmlinux, and why; which
//! data is shared with vmlinux and which gets a copy of its own in the module.
//!
//! Everything is computed from the binary and its DWARF; a [configuration](crate::config) may override it. The two
//! lists of names that nothing in the binary can tell are in `exceptions.rs`, with the reason beside each entry.

mod callers;
mod compute;
mod data;
mod doc;
mod effective;
mod exceptions;
mod explain;
mod model;
mod nmi;
mod patch_site;
mod privacy;
mod sidecar;
mod sleepers;

pub use compute::{Error, compute};
pub use doc::{Doc, DocField, DocStructure, document};
pub use effective::{
    Effective, EffectiveFunctions, EffectivePrivate, EffectiveVariables, Extract, effective,
};
pub use exceptions::features;
pub use explain::{Explanation, explain};
pub use model::*;

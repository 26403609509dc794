//! The identity gate: the unmodified scheduler, compiled here with the kernel's exact flags, is byte for byte
//! the code in vmlinux once relocated fields are masked; and, laying our relocations over vmlinux's bytes,
//! the address of every symbol the scheduler refers to.

mod addresses;
mod gate;
mod matching;
mod overlay;
mod solve;
mod strings;

pub use addresses::*;
pub use gate::{Gate, State, UnitGate, Why, gate};
pub use solve::addresses;
pub(crate) use strings::{is_there, literal};

use schedswap_kernel::address::Addr;

/// Why identity could not be judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A unit of vmlinux was not compiled.
    #[error("vmlinux has the unit {unit}, but no object of it was compiled; run `schedswap init` again")]
    NoObject {
        /// Unit.
        unit: String,
    },
    /// A relocation of a kind that is not known.
    #[error(
        "{object}: the relocation at {section}+{offset:#x} is of unknown kind {kind}; please report it with the kernel's release and its compiler"
    )]
    UnknownRelocation {
        /// Object.
        object: String,
        /// Section.
        section: String,
        /// Offset of the field.
        offset: u64,
        /// R_* number.
        kind: u32,
    },
    /// A symbol that reaches beyond its section.
    #[error("{object}: {symbol} reaches beyond its section; the object is damaged, delete it and run again")]
    BadSymbol {
        /// Object.
        object: String,
        /// Symbol.
        symbol: String,
    },
    /// Two references to one thing say that it is at two places.
    #[error(
        "{unit}: {what} is at {one} by {one_by}, but at {other} by {other_by}; vmlinux and the compiled objects are not from the same source: start again with the source of this very kernel"
    )]
    Disagreement {
        /// Unit.
        unit: String,
        /// Section or symbol.
        what: String,
        /// First address.
        one: Addr,
        /// What says so.
        one_by: String,
        /// Second address.
        other: Addr,
        /// What says so.
        other_by: String,
    },
}

/// Result of this phase.
pub type Result<T> = std::result::Result<T, Error>;

//! The two versions of the scheduler side by side: as the compiler made them, as the source has them, as the debug
//! information declares them.
//!
//! | file | what |
//! |---|---|
//! | `canonical` | compiled code, in the form in which only its meaning counts |
//! | `builds` | the two builds of a unit |
//! | `lexer`, `source` | source text as tokens and definitions, and what differs |
//! | `declared` | types, prototypes and variables of the debug information |

mod builds;
mod canonical;
mod declared;
mod lexer;
mod source;

pub use builds::{UnitBuilds, private_variables};
pub use canonical::{Functions, displacement, relocations_in};
pub use declared::{Declared, Unreadable, is_shared, variable};
pub use lexer::{Item, Token};
pub use source::{Change, Place, SourceTree, Sources};

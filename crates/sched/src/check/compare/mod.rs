//! The two versions of the scheduler side by side: as the compiler made them, as the source has them, as the debug
//! information declares them.
//!
//! | file | what |
//! |---|---|
//! | `canonical` | compiled code, in the form in which only its meaning counts |
//! | `features` | which feature a key belongs to |
//! | `references` | what functions refer to, and what data there is |
//! | `builds` | the two builds of a unit |
//! | `lexer`, `source` | source text as tokens and definitions, and what differs |
//! | `declared` | types, prototypes and variables of the debug information |

mod builds;
mod canonical;
mod declared;
mod features;
mod lexer;
mod references;
mod source;

pub use builds::{UnitBuilds, private_variables};
pub use canonical::{Functions, base_name, displacement, relocations_in};
pub use declared::{Declared, Unreadable, is_shared, variable};
pub use features::FeatureKeys;
pub use lexer::{Item, Token};
pub use references::{Data, Referred};
pub use source::{Change, Place, SourceTree, Sources};

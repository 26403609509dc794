//! Whether an edit of the scheduler can work: refuses, by name, changes that a module cannot bring into force.
//!
//! Compares the module build of the pristine source with that of the edited one, function by function
//! ([`code`]), and the two sources, definition by definition ([`source`]); what stays in vmlinux ([`frozen`])
//! must be the same in both. [`rules`] holds the rules, [`Finding`] what they say.

mod code;
mod explain;
mod finding;
mod frozen;
mod lexer;
mod rules;
mod source;
#[cfg(test)]
mod tests;

pub use finding::{Code, Finding, Severity};
pub use source::SourceTree;

use crate::boundary::Boundary;
use crate::objects::Object;
use crate::vmlinux::Image;
use std::path::PathBuf;

/// All that is compared.
pub struct CheckInput<'a> {
    /// The kernel.
    pub image: &'a Image,
    /// What becomes of each of its functions.
    pub boundary: &'a Boundary,
    /// Unit (`kernel/sched/core.c`) and its module build from the pristine source.
    pub pristine: &'a [(String, Object)],
    /// The same units from the edited source.
    pub edited: &'a [(String, Object)],
    /// The pristine source.
    pub pristine_source: &'a SourceTree,
    /// The edited source.
    pub edited_source: &'a SourceTree,
}

/// A check that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A source file or directory.
    #[error("cannot read the scheduler's source in {}: is the work dir whole?", path.display())]
    Source {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The two builds differ in their units.
    #[error(
        "{unit} was compiled from the pristine source but not from the edited one; expected the same units"
    )]
    MissingUnit {
        /// `kernel/sched/core.c`
        unit: String,
    },
}

/// Checks an edit. Findings are sorted: refusals first, then by place.
pub fn run(input: &CheckInput) -> Result<Vec<Finding>, CheckError> {
    let frozen = frozen::Frozen::new(input.image, input.boundary);
    rules::run(&rules::Facts {
        frozen: &frozen,
        entry_sizes: &input.image.entry_sizes,
        boundary: input.boundary,
        pristine: input.pristine,
        edited: input.edited,
        sources: source::Sources { pristine: input.pristine_source, edited: input.edited_source },
    })
}

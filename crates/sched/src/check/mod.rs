//! Whether an edit of the scheduler can work: refuses, by name, changes that a module cannot bring into force.
//!
//! Compares the module build of the pristine source with that of the edited one, function by function, and the two
//! sources, definition by definition; what stays in vmlinux must be the same in both. What both sides of a call, or of
//! some memory, must agree on is compared as the debug information declares it.
//!
//! | folder or file | what |
//! |---|---|
//! | `compare` | the two versions side by side |
//! | `follow` | where an address goes in compiled code |
//! | `rules` | the rules, one file a rule |
//! | `words` | what findings say |
//! | `finding` | the findings and their codes |
//! | `allow` | warnings that the author allows |

mod allow;
mod compare;
mod finding;
mod follow;
mod rules;
mod words;

pub use allow::{Allowance, NotAllowed, allow};
pub(crate) use compare::{Data, FeatureKeys, Functions, Referred, base_name};
pub use compare::{SourceTree, Unreadable};
pub use finding::{Code, Finding, Severity, UnknownCode};
#[cfg(test)]
pub(crate) use rules::fixture;

use crate::binding;
use crate::boundary::Boundary;
use compare::{Declared, Sources, UnitBuilds};
use rules::Facts;
use rules::frozen::Frozen;
use schedswap_kernel::objects::Object;
use schedswap_kernel::vmlinux::{self, Image, ParametersError};
use std::collections::BTreeSet;
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
    /// Those edited units whose sources are not the pristine ones, compiled with debug information.
    pub declarations: &'a [(String, Object)],
    /// The pristine source.
    pub pristine_source: &'a SourceTree,
    /// The edited source.
    pub edited_source: &'a SourceTree,
}

/// The check could not be made, which says nothing about the edit.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A source file or directory.
    #[error("cannot read the scheduler's source in {}; expected a work dir as `schedswap init` writes it", path.display())]
    Source {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The edited build lacks a unit.
    #[error(
        "{unit} was compiled from the pristine source but not from the edited one; expected the same units, so put the file \
         back"
    )]
    MissingUnit {
        /// `kernel/sched/core.c`
        unit: String,
    },
    /// Declarations.
    #[error(transparent)]
    Declarations(#[from] Unreadable),
    /// Debug information of the kernel.
    #[error(transparent)]
    Kernel(#[from] vmlinux::Error),
    /// The compiler's objects.
    #[error(transparent)]
    Objects(#[from] binding::Error),
    /// Debug information about functions' parameters.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
}

/// What there is to say of an edit.
pub struct Checked {
    /// Refusals first, then by place.
    pub findings: Vec<Finding>,
    /// Functions, by unit and name, that the edited source calls in another way than vmlinux does: with other parameters,
    /// or for another result.
    pub called_otherwise: BTreeSet<(String, String)>,
}

/// Checks an edit.
///
/// # Errors
/// See [`CheckError`]: the check cannot be made, which says nothing about the edit.
pub fn run(input: &CheckInput) -> Result<Checked, CheckError> {
    let frozen = Frozen::new(input.image, input.boundary);
    let declared = Declared::read(input.image, input.declarations)?;
    let private = compare::private_variables(input.boundary);
    let builds = UnitBuilds::pairs(input.pristine, input.edited, &input.image.entry_sizes, &private)?;
    let facts = Facts {
        frozen: &frozen,
        boundary: input.boundary,
        builds: &builds,
        edited: input.edited,
        arities: &declared.arities(),
        sources: Sources { pristine: input.pristine_source, edited: input.edited_source },
    };
    let findings = rules::of_declarations(input, &facts, &declared)?;
    let called_otherwise = rules::called_otherwise(input, &facts, &declared)?;
    Ok(Checked { findings: rules::run(&facts, findings), called_otherwise })
}

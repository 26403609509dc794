//! Whether an edit of the scheduler can work: refuses, by name, changes that a module cannot bring into force.
//!
//! Compares the module build of the pristine source with that of the edited one, function by function
//! ([`code`]), and the two sources, definition by definition ([`source`]); what stays in vmlinux ([`frozen`])
//! must be the same in both. What both sides of a call, or of some memory, must agree on is compared as the
//! debug information declares it ([`declared`]).
//!
//! | file | rules |
//! |---|---|
//! | `rules` | functions that stay, frozen copies, functions that are gone |
//! | `layouts` | structures, enumerations, types of variables |
//! | `signatures` | prototypes, system calls |
//! | `variants` | clones that the compiler makes of functions |
//! | `initial` | initial contents of variables that stay |
//! | `moved` | variables that change sides |
//! | `escapes` | addresses of new functions that get out |
//! | `sealed` | addresses of functions that nothing may call by address |

mod allow;
mod code;
mod declared;
mod escapes;
mod explain;
mod finding;
mod follow;
mod follow_steps;
mod frozen;
mod initial;
mod layouts;
mod lexer;
mod moved;
mod pages;
mod rules;
mod sealed;
mod signatures;
mod source;
#[cfg(test)]
mod tests;
mod variants;

pub use allow::{Allowance, NotAllowed, allow};
pub use declared::Unreadable;
pub use finding::{Code, Finding, Severity, UnknownCode};
pub use source::SourceTree;

use crate::binding::{self, Taken};
use crate::boundary::Boundary;
use schedswap_kernel::address::Addr;
use schedswap_kernel::objects::Object;
use schedswap_kernel::vmlinux::{self, Image, ParametersError};
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

/// Checks an edit. Findings are sorted: refusals first, then by place.
pub fn run(input: &CheckInput) -> Result<Vec<Finding>, CheckError> {
    let frozen = frozen::Frozen::new(input.image, input.boundary);
    let declared = declared::Declared::read(input.image, input.declarations)?;
    let (image, boundary) = (input.image, input.boundary);
    let facts = rules::Facts {
        frozen: &frozen,
        entry_sizes: &image.entry_sizes,
        boundary,
        pristine: input.pristine,
        edited: input.edited,
        arities: &declared.arities(),
        sources: source::Sources { pristine: input.pristine_source, edited: input.edited_source },
    };
    let private = rules::private_variables(boundary);
    let builds = rules::builds(&facts, &private)?;
    let sources = &facts.sources;
    let mut findings = layouts::findings(&declared, image, boundary)?;
    findings.extend(signatures::changed_signatures(&declared, boundary, &frozen));
    findings.extend(moved::moved_variables(&builds, &declared, image, boundary, sources));
    findings.extend(variants::changed_conventions(image, boundary, &frozen, input.declarations, sources)?);
    if let Some(addrs) = image.sealed() {
        let is_sealed =
            |unit: &str, taken: &Taken| address(input, unit, taken).is_some_and(|addr| addrs.contains(&addr));
        findings.extend(sealed::newly_taken(input.pristine, input.edited, sources, is_sealed)?);
    }
    Ok(rules::run(&facts, &builds, findings))
}

/// What the address of a function is that vmlinux has too.
fn address(input: &CheckInput, unit: &str, taken: &Taken) -> Option<Addr> {
    let units = || input.boundary.functions.iter().filter(|f| f.name == taken.function);
    let of_scheduler = match taken.is_own {
        true => units().find(|f| f.unit == unit),
        false => units().find(|f| !f.local),
    };
    let elsewhere = || input.image.unique_symbol(&taken.function).filter(|_| !taken.is_own).map(|s| s.addr);
    of_scheduler.map(|f| f.addr).or_else(elsewhere)
}

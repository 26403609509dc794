//! The rules, one file a rule, each with its tests.
//!
//! | file | findings | about |
//! |---|---|---|
//! | `outsider` | SS101, SS102, SS103, SS106, SS201 | functions that stay in vmlinux, boot code, weak functions |
//! | `helper` | SS104, SS102 | inlined copies that stay |
//! | `vanished` | SS105 | functions that are gone |
//! | `layouts` | SS107 | structures, enumerations, types of variables |
//! | `signatures` | SS108 | prototypes |
//! | `variants` | SS109 | clones that the compiler makes of functions |
//! | `initial` | SS110 | initial contents of variables that stay |
//! | `moved` | SS111, SS204 | variables that change sides |
//! | `escapes` | SS112, SS203 | addresses of new functions that get out |
//! | `system_calls` | SS113 | parameters of system calls |
//! | `sealed` | SS114 | addresses of functions that nothing may call by address |
//! | `unchanged` | SS202 | an edit that changes nothing |
//!
//! What stays in vmlinux is worked out once, in `frozen`.

mod escapes;
#[cfg(test)]
pub(crate) mod fixture;
pub mod frozen;
mod helper;
mod initial;
mod layouts;
mod moved;
mod outsider;
mod sealed;
mod signatures;
mod system_calls;
mod unchanged;
mod vanished;
mod variants;

use super::compare::{Declared, Sources, UnitBuilds};
use super::finding::{Code, Finding};
use super::{CheckError, CheckInput};
use crate::binding::Taken;
use crate::boundary::Boundary;
use frozen::Frozen;
use schedswap_kernel::address::Addr;
use schedswap_kernel::objects::Object;
use std::collections::{BTreeSet, HashMap};

/// What the rules look at.
pub struct Facts<'a> {
    pub frozen: &'a Frozen,
    pub boundary: &'a Boundary,
    /// Each unit's two builds.
    pub builds: &'a [UnitBuilds<'a>],
    /// Unit and object of the edited source.
    pub edited: &'a [(String, Object)],
    /// How many parameters functions take, as far as it is known.
    pub arities: &'a HashMap<String, usize>,
    pub sources: Sources<'a>,
}

impl Facts<'_> {
    fn builds_of(&self, unit: &str) -> Option<&UnitBuilds<'_>> {
        self.builds.iter().find(|builds| builds.unit == unit)
    }

    /// Whether a function compiles differently, or no longer does. One that the pristine build lacks too has
    /// not changed.
    fn differs(&self, unit: &str, name: &str) -> bool {
        self.builds_of(unit).is_some_and(|builds| {
            let pristine = builds.pristine.code(name);
            pristine.is_some() && pristine != builds.edited.code(name)
        })
    }
}

/// Applies the rules that need declarations, or the kernel's image.
///
/// # Errors
/// Debug information or an object cannot be read.
pub fn of_declarations(
    input: &CheckInput,
    facts: &Facts,
    declared: &Declared,
) -> Result<Vec<Finding>, CheckError> {
    let (image, boundary) = (input.image, input.boundary);
    let (frozen, sources) = (facts.frozen, &facts.sources);
    let mut findings = layouts::findings(declared, image, boundary)?;
    findings.extend(signatures::changed_signatures(declared, boundary, frozen));
    findings.extend(moved::moved_variables(facts.builds, declared, image, boundary, sources));
    findings.extend(variants::changed_conventions(image, boundary, frozen, input.declarations, sources)?);
    if let Some(addrs) = image.sealed() {
        let is_sealed =
            |unit: &str, taken: &Taken| address(input, unit, taken).is_some_and(|addr| addrs.contains(&addr));
        findings.extend(sealed::newly_taken(input.pristine, input.edited, sources, is_sealed)?);
    }
    Ok(findings)
}

/// Functions that the edited source calls in another way than vmlinux does, by unit and name.
///
/// # Errors
/// Debug information cannot be read.
pub fn called_otherwise(
    input: &CheckInput,
    facts: &Facts,
    declared: &Declared,
) -> Result<BTreeSet<(String, String)>, CheckError> {
    let differs = |unit: &str, name: &str| facts.differs(unit, name);
    let variants = variants::called_otherwise(input.image, input.boundary, input.declarations, differs)?;
    let mut found = signatures::called_otherwise(declared, input.boundary);
    found.extend(variants);
    Ok(found)
}

/// The address of a function that vmlinux has too.
fn address(input: &CheckInput, unit: &str, taken: &Taken) -> Option<Addr> {
    let units = || input.boundary.functions.iter().filter(|f| f.name == taken.function);
    let of_scheduler = match taken.is_own {
        true => units().find(|f| f.unit == unit),
        false => units().find(|f| !f.local),
    };
    let elsewhere = || input.image.unique_symbol(&taken.function).filter(|_| !taken.is_own).map(|s| s.addr);
    of_scheduler.map(|f| f.addr).or_else(elsewhere)
}

/// Applies the rules that need no declarations; `others` is what [`of_declarations`] found. All findings, sorted.
pub fn run(facts: &Facts, others: Vec<Finding>) -> Vec<Finding> {
    let (boundary, sources) = (facts.boundary, &facts.sources);
    let mut findings = others;
    findings.extend(outsider::changed_functions(facts));
    findings.extend(helper::changed_helpers(facts));
    findings.extend(vanished::vanished_functions(facts));
    // A structure that grows makes variables of it grow, which then is said already.
    let is_said = findings.iter().any(|finding| finding.code == Code::ChangedLayout);
    for unit in facts.builds {
        let values = initial::changed_initial_values(unit, boundary, sources);
        findings.extend(values.into_iter().filter(|value| !is_said || value.code != Code::ChangedLayout));
    }
    // With a system call's parameters its tables change.
    let calls = system_calls::changed_system_calls(sources);
    let is_table = |finding: &Finding| {
        finding.code == Code::ChangedInitialValue
            && calls.iter().any(|call| (&call.file, call.line) == (&finding.file, finding.line))
    };
    findings.retain(|finding| !is_table(finding));
    findings.extend(calls);
    findings.extend(variants::new_variants(facts.builds, facts.edited, boundary, sources));
    findings.extend(escapes::escaping_functions(facts));
    if findings.is_empty() {
        findings.extend(unchanged::nothing_changed(facts));
    }
    findings.sort_by(|a, b| {
        (a.severity, &a.file, a.line, a.code, &a.symbol)
            .cmp(&(b.severity, &b.file, b.line, b.code, &b.symbol))
    });
    // A system call is several functions from one definition; a variable's size and type are one change.
    findings.dedup_by(|a, b| a.line != 0 && (a.code, &a.file, a.line) == (b.code, &b.file, b.line));
    findings
}

//! Whether an edit can work.

use super::Result;
use crate::workdir::Workdir;
use schedswap_host::progress::Progress;
use schedswap_kernel::objects::Object;
use schedswap_kernel::vmlinux::Image;
use schedswap_sched::boundary::Boundary;
use schedswap_sched::check::{self, Allowance, CheckInput, Finding, Severity, SourceTree};
use schedswap_sched::compile::{Build, Compiled};
use std::collections::BTreeSet;

/// An edit, compiled and checked; what [`Order::build`](super::Order::build) makes a module of.
pub struct Checked {
    /// What was found: refusals first, then by place. Empty if the edit can work and there is nothing to say of it.
    pub findings: Vec<Finding>,
    /// Allowances that no finding needed: probably the symbol is misspelt, or the warning is gone.
    pub unused: Vec<Allowance>,
    pub(super) edit: Edit,
}

/// What was compiled, and what it was held against.
pub(super) struct Edit {
    pub(super) image: Image,
    pub(super) boundary: Boundary,
    pub(super) objects: Vec<(String, Object)>,
    /// [`check::Checked::called_otherwise`]
    pub(super) called_otherwise: BTreeSet<(String, String)>,
}

impl Checked {
    /// Whether a finding refuses the edit, so that no module is made of it.
    pub fn is_refused(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Refused)
    }
}

/// Compiles what is edited, and checks it. `allowed`: warnings that the author has looked at.
///
/// # Errors
/// A unit does not compile ([`compile::Error::Rejected`](schedswap_sched::compile::Error::Rejected) has the compiler's
/// message), vmlinux is not the one that the work dir was made for, or a file cannot be read. An edit that cannot work
/// is not an error here: see [`Checked::is_refused`].
pub fn check(work: &Workdir, allowed: &[Allowance], progress: &dyn Progress) -> Result<Checked> {
    check_compiled(work, &work.compile(progress)?, allowed, progress)
}

/// Checks what [`Workdir::compile`] has made.
pub(super) fn check_compiled(
    work: &Workdir,
    compiled: &[Compiled],
    allowed: &[Allowance],
    progress: &dyn Progress,
) -> Result<Checked> {
    let objects = work.objects(compiled)?;
    progress.begin("reading vmlinux", None);
    let image = work.image()?;
    progress.end("");
    let boundary = work.boundary()?;
    let declarations = work.declarations(&work.touched(), progress)?;
    progress.begin("checking the edit", None);
    let checked = check::run(&CheckInput {
        image: &image,
        boundary: &boundary,
        pristine: &work.pristine(Build::Module)?,
        edited: &objects,
        declarations: &declarations,
        pristine_source: &SourceTree::from_root(&work.pristine_tree())?,
        edited_source: &SourceTree::from_root(work.root())?,
    })?;
    let check::Checked { mut findings, called_otherwise } = checked;
    let unused = check::allow(&mut findings, allowed);
    progress.end("");
    Ok(Checked { findings, unused, edit: Edit { image, boundary, objects, called_otherwise } })
}

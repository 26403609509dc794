//! What a command has done so far, for its report, even if it fails half-way.

use schedswap_payload::report::Attempt;

/// Filled while the command runs.
#[derive(Default, Debug)]
pub struct Record {
    /// Name and version of the scheduler in question.
    pub version: Option<String>,
    /// Every attempt to switch.
    pub attempts: Vec<Attempt>,
    /// Remarks.
    pub notes: Vec<String>,
    /// What was done, as a sentence, if the command's name does not say it.
    pub done: Option<String>,
}

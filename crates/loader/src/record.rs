//! What a command has done so far, for its report: also when it fails half-way.

use schedswap_payload::report::Attempt;

/// Filled as the command goes on.
#[derive(Default, Debug)]
pub struct Record {
    /// Name and version of the scheduler in question.
    pub version: Option<String>,
    /// Every attempt to switch.
    pub attempts: Vec<Attempt>,
    /// What is worth knowing besides.
    pub notes: Vec<String>,
    /// What was done, in a sentence, where it is not what the command's name says.
    pub done: Option<String>,
}

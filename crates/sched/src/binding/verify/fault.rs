//! What verification finds wrong.

use std::fmt;

/// Something wrong with the written object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Section and offset, or symbol.
    pub place: String,
    /// What was found, and what was expected.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

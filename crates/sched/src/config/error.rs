//! What is wrong with a configuration, and where.

use super::At;
use std::fmt;
use std::path::PathBuf;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It says something that cannot be done. All of it at once.
    #[error("{}", list(.0))]
    Faults(Vec<Fault>),
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Fault {
    /// The file.
    pub file: String,
    /// Where in it.
    pub at: At,
    /// What was found, what was expected, and what to do.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.at, self.what)
    }
}

/// Collects faults; good when there are none.
#[derive(Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub fn add(&mut self, file: &str, at: At, what: String) {
        self.0.push(Fault { file: file.to_owned(), at, what });
    }

    pub fn result(mut self) -> Result<(), Error> {
        self.0.sort_by_key(|fault| fault.at);
        if self.0.is_empty() { Ok(()) } else { Err(Error::Faults(self.0)) }
    }
}

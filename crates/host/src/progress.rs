//! How a phase that may take longer than a second reports its progress. The command line shows it as a bar on a
//! terminal and as plain lines elsewhere; the library never prints.

/// Receives the progress of a phase.
pub trait Progress: Sync {
    /// A piece of work begins; `total` is its size, if known, in the unit that `at` counts.
    fn begin(&self, what: &str, total: Option<u64>);
    /// The current piece of work has reached `position`.
    fn at(&self, position: u64);
    /// The current piece of work is done; `result` is a short remark, or empty.
    fn end(&self, result: &str);
}

/// Reports nothing.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _total: Option<u64>) {}
    fn at(&self, _position: u64) {}
    fn end(&self, _result: &str) {}
}

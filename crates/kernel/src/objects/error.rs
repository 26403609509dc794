//! What can go wrong between bytes and objects.

/// Why an object could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an object that a kernel's compiler writes.
    #[error(
        "{name} is not a relocatable ELF64 little-endian object: {what}; compile it again, and use the compiler that built the kernel"
    )]
    NotAnObject {
        /// File.
        name: String,
        /// What was found.
        what: String,
    },
    /// Well-formed so far, but inconsistent.
    #[error("{name} is damaged: {what}; delete it and compile again")]
    Damaged {
        /// File.
        name: String,
        /// What does not fit.
        what: String,
    },
    /// The writer refused.
    #[error("{name} could not be written as an ELF object: {what}")]
    Write {
        /// File.
        name: String,
        /// What does not fit.
        what: String,
    },
}

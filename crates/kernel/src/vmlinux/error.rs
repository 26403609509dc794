//! Why a file cannot be read as a vmlinux.

use std::path::PathBuf;

/// Why [`open`](super::open) or [`parse`](super::parse) refused a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be opened or mapped.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not an ELF file.
    #[error(
        "{} is not an ELF file ({found}); expected the uncompressed vmlinux with debug information from the \
         kernel's debug package, not a bootable image",
        path.display()
    )]
    NotElf {
        /// The file.
        path: PathBuf,
        /// What it begins with.
        found: String,
    },
    /// An ELF file of a kind that no supported kernel has.
    #[error("{} is {found}; expected {expected}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// The file ends before what its headers announce.
    #[error(
        "{} is truncated: {what} ends at byte {need}, the file has {have}; copy or unpack it again",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The part that is cut off.
        what: String,
        /// Bytes that the headers announce.
        need: u64,
        /// Bytes in the file.
        have: u64,
    },
    /// A structure contradicts itself.
    #[error("{} is damaged: {what}: {detail}; copy or unpack it again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was being read.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// No symbol table.
    #[error(
        "{} has no symbol table: this is a stripped vmlinux; install the kernel's debug package \
         (linux-image-…-dbg, or kernel-debuginfo) and give the vmlinux that it brings",
        path.display()
    )]
    NoSymbols {
        /// The file.
        path: PathBuf,
    },
    /// No DWARF.
    #[error(
        "{} has no debug information (section {section} is missing or empty): this is a stripped vmlinux; \
         install the kernel's debug package (linux-image-…-dbg, or kernel-debuginfo) and give the vmlinux that \
         it brings",
        path.display()
    )]
    NoDwarf {
        /// The file.
        path: PathBuf,
        /// The section that was looked for.
        section: &'static str,
    },
    /// Compressed debug sections.
    #[error(
        "{}: section {section} is compressed; decompress it first: objcopy --decompress-debug-sections {} vmlinux",
        path.display(),
        path.display()
    )]
    CompressedDwarf {
        /// The file.
        path: PathBuf,
        /// The first compressed section met.
        section: String,
    },
    /// An executable, but not a Linux kernel, or one without what identifies it.
    #[error("{} is not a usable Linux kernel: {missing}; expected the vmlinux of the kernel's debug package", path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
        /// What a kernel would have.
        missing: &'static str,
    },
    /// Debug information without the scheduler's units.
    #[error(
        "{} has debug information, but none for kernel/sched/core.c (among {units} units): its debug package \
         may be for another kernel, or split over several files",
        path.display()
    )]
    NoScheduler {
        /// The file.
        path: PathBuf,
        /// Units seen.
        units: usize,
    },
    /// A sidecar's unit is not in the kernel.
    #[error(
        "{} has no translation unit {unit}, which the configuration names as a sidecar: the kernel was built \
         without it{}",
        path.display(),
        match .near.as_slice() {
            [] => String::new(),
            near => format!(", or it is part of another; in its directory are {}", near.join(", ")),
        }
    )]
    NoSidecar {
        /// The file.
        path: PathBuf,
        /// The unit that was asked for.
        unit: String,
        /// Units of its directory.
        near: Vec<String>,
    },
}

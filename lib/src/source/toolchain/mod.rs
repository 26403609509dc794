//! The compiler that a kernel was built by, from the archive, beside the machine's own.
//!
//! Its packages are unpacked below the cache, like a kernel's, and nothing is installed. Their programs run with
//! the C library that they came with, whatever the machine's is: `wrap` has how. So no privilege is needed, no
//! directory is mounted, and every path means the same inside and outside.

mod get;
mod wanted;
mod wrap;

pub use get::get;
pub use wanted::WantedCompiler;
pub(super) use wrap::write_script;

use std::path::{Path, PathBuf};

use super::{Cache, SourceError};

/// A compiler in the cache, with the assembler and linker of its suite.
#[derive(Clone, Debug)]
pub struct Toolchain {
    directory: PathBuf,
}

impl Toolchain {
    /// The one that the cache has for a compiler, if it is complete.
    pub fn cached(wanted: &WantedCompiler, cache: &Cache) -> Option<Toolchain> {
        let (package, version) = wanted.package()?;
        let place = cache.toolchain(package, version).complete()?;
        let toolchain = Toolchain { directory: place.directory().to_owned() };
        toolchain.programs().is_dir().then_some(toolchain)
    }

    /// The directory that goes before all others of `PATH`.
    pub fn programs(&self) -> PathBuf {
        self.directory.join("bin")
    }

    fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// A script that runs `program` of the kernel's build, which was made for the suite that the compiler is of, with that suite's
    /// libraries. `None` for what is no program, or one that needs no libraries.
    pub(super) fn wrapper(&self, program: &Path) -> Result<Option<String>, SourceError> {
        wrap::wrapper(&self.root(), program, wrap::Called::AsTheScript)
    }
}

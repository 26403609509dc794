//! The compiler that a kernel was built by, from the archive, beside the machine's own.
//!
//! Its packages are unpacked below the cache, like a kernel's, and nothing is installed. Their programs run with
//! the C library that they came with, whatever the machine's is: `wrap` has how. So no privilege is needed, no
//! directory is mounted, and every path means the same inside and outside.
//!
//! Of a kernel for another machine it is that machine's compiler: the cross compiler that the archive has for this one
//! is of another revision and makes other code. It runs by user-mode emulation. Its assembler and linker have no
//! such patches, so they are this machine's own build of them, which is ten times as fast; the gate would tell.

mod get;
mod wanted;
mod wrap;

pub use get::get;
pub use wanted::WantedCompiler;
pub(super) use wrap::write_script;

use std::path::{Path, PathBuf};

use super::{Cache, CachedKernel, SourceError};

/// A compiler in the cache, with the assembler and linker of its suite.
#[derive(Clone, Debug)]
pub struct Toolchain {
    directory: PathBuf,
}

impl Toolchain {
    /// The one that the cache has for a compiler, if it is complete.
    pub fn cached(wanted: &WantedCompiler, cache: &Cache) -> Option<Toolchain> {
        let place = place(wanted, cache)?.complete()?;
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

    /// Programs of this machine's, where the compiler is another machine's.
    fn native(&self) -> PathBuf {
        self.directory.join("native")
    }

    /// A script that runs `program` of the kernel's build, which was made for the suite that the compiler is of, with that suite's
    /// libraries. `None` for what is no program, or one that needs no libraries.
    pub(super) fn wrapper(&self, program: &Path) -> Result<Option<String>, SourceError> {
        let native = self.native();
        let root = if native.is_dir() { native } else { self.root() };
        wrap::Root::of(&root).wrapper(program, wrap::Called::AsTheScript)
    }
}

/// Where the cache has a compiler, or would have it. `None` if it is no compiler of Debian's.
fn place(wanted: &WantedCompiler, cache: &Cache) -> Option<CachedKernel> {
    let (package, version) = wanted.package()?;
    let architecture = wanted.foreign().map(|foreign| format!("_{}", foreign.name()));
    Some(cache.toolchain(&format!("{package}_{version}{}", architecture.unwrap_or_default())))
}

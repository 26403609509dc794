//! The compiler that built a kernel, from the archive, beside the machine's own.
//!
//! Its packages are unpacked below the cache, like a kernel's; nothing is installed. Their programs run with the C
//! library that they came with, whatever the machine has (see `wrap`). So this needs no privilege and no mount, and
//! every path means the same inside and outside.
//!
//! A kernel of another machine needs that machine's own compiler: the archive's cross compiler for this machine is
//! another revision and generates other code. It runs under user-mode emulation. Its assembler and linker carry no
//! patches that would matter, so this machine's own builds of them are used, which are ten times as fast; if they
//! differed, the comparison with vmlinux would show it.

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
    /// The toolchain for a compiler, if the cache has it completely.
    pub fn cached(wanted: &WantedCompiler, cache: &Cache) -> Option<Toolchain> {
        let place = place(wanted, cache)?.complete()?;
        let toolchain = Toolchain { directory: place.directory().to_owned() };
        toolchain.programs().is_dir().then_some(toolchain)
    }

    /// The directory to put first in `PATH`.
    pub fn programs(&self) -> PathBuf {
        self.directory.join("bin")
    }

    fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// This machine's own programs, if the compiler is another machine's.
    fn native(&self) -> PathBuf {
        self.directory.join("native")
    }

    /// A script that runs `program` of the kernel's build with the libraries of the suite for which it was built,
    /// which is that of the compiler. `None` if it is not a program, or needs no libraries.
    pub(super) fn wrapper(&self, program: &Path) -> Result<Option<String>, SourceError> {
        let native = self.native();
        let root = if native.is_dir() { native } else { self.root() };
        wrap::Root::of(&root).wrapper(program, wrap::Called::AsTheScript)
    }
}

/// Where the cache has a compiler, or would have it. `None` if it is not one of Debian's.
fn place(wanted: &WantedCompiler, cache: &Cache) -> Option<CachedKernel> {
    let (package, version) = wanted.package()?;
    let architecture = wanted.foreign().map(|foreign| format!("_{}", foreign.name()));
    Some(cache.toolchain(&format!("{package}_{version}{}", architecture.unwrap_or_default())))
}

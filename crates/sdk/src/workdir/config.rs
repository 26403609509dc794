//! What a work dir was made for. Kept as `config.json`.

use schedswap_kernel::vmlinux::{Image, Machine};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The choices and places given to `init`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Version of schedswap that made the work dir.
    pub sdk_version: String,
    /// `uname -r` of the kernel.
    pub release: String,
    /// Go on although some functions are not identical.
    pub allow_different: bool,
    /// The debug vmlinux.
    pub vmlinux: PathBuf,
    /// The kernel's headers as packaged; for `make -C` see [`super::Workdir::kbuild`].
    pub headers: PathBuf,
    /// The kernel's configuration.
    pub kernel_config: PathBuf,
    /// The root that absolute paths inside these files count from.
    pub sysroot: PathBuf,
    /// Where the compiler is, if it is not the machine's own.
    #[serde(default)]
    pub programs: Option<PathBuf>,
    /// The kernel's source: a directory or a tarball.
    pub source: PathBuf,
    /// The image that boots, where it is known.
    pub bzimage: Option<PathBuf>,
    /// `/lib/modules/R`, where it is known.
    pub modules: Option<PathBuf>,
    /// What overrides the computed boundary.
    #[serde(default)]
    pub boundary: schedswap_sched::config::Config,
}

/// What was read of the kernel. Kept as `kernel.json`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KernelFacts {
    /// `uname -r`.
    pub release: String,
    /// GNU build-id, lower-case hex.
    pub build_id: String,
    /// `linux_banner`, which names the distribution's version.
    pub banner: String,
    /// `.comment`: the compiler, with its package's revision.
    pub compiler: String,
    /// `x86_64` or `aarch64`.
    pub machine: String,
    /// Translation units below `kernel/sched/`, and those of sidecars.
    pub units: Vec<String>,
}

impl KernelFacts {
    pub(super) fn of(image: &Image) -> KernelFacts {
        KernelFacts {
            release: image.release.clone(),
            build_id: build_id(image),
            banner: banner(image).unwrap_or_default(),
            compiler: image.compiler.clone(),
            machine: image.machine.name().to_owned(),
            units: image.units.iter().map(|unit| unit.name.clone()).collect(),
        }
    }

    /// What the kernel runs on.
    pub fn machine(&self) -> Machine {
        Machine::named(&self.machine).or(Machine::host()).unwrap_or(Machine::X86_64)
    }
}

/// The build-id as it is usually printed.
pub(super) fn build_id(image: &Image) -> String {
    image.build_id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn banner(image: &Image) -> Option<String> {
    let symbol = image.unique_symbol("linux_banner")?;
    let section = &image.sections[symbol.section?];
    let rest = image.bytes(symbol.addr, (section.addr.0 + section.size).checked_sub(symbol.addr.0)?)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&rest[..end]).trim().to_owned())
}

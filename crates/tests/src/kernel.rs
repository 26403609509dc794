//! The stock kernel under test. `make test` fetches it and says where it is.

use anyhow::{Context, Result};
use schedswap_kernel::vmlinux::{self, Image};
use std::env;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Where its files are.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `uname -r`
    pub release: String,
    /// Its packages, unpacked.
    pub sysroot: PathBuf,
    /// Its source.
    pub source: PathBuf,
    /// Its debug vmlinux.
    pub vmlinux: PathBuf,
    /// What boots.
    pub bzimage: PathBuf,
}

/// The kernel under test.
pub fn kernel() -> Result<Kernel> {
    let variable = |name: &str| {
        env::var(name).with_context(|| format!("{name} is not set; run the tests through `make test`"))
    };
    Ok(Kernel {
        release: variable("SCHEDSWAP_TEST_RELEASE")?,
        sysroot: variable("SCHEDSWAP_TEST_SYSROOT")?.into(),
        source: variable("SCHEDSWAP_TEST_SOURCE")?.into(),
        vmlinux: variable("SCHEDSWAP_TEST_VMLINUX")?.into(),
        bzimage: variable("SCHEDSWAP_TEST_KERNEL")?.into(),
    })
}

/// The debug vmlinux of the arm64 kernel that `make soak` fetches.
pub fn arm64_vmlinux() -> Result<PathBuf> {
    let name = "SCHEDSWAP_TEST_ARM64_VMLINUX";
    let path =
        env::var(name).with_context(|| format!("{name} is not set; run the tests through `make soak`"));
    Ok(path?.into())
}

/// The vmlinux of the kernel under test, read once for all tests of a program.
pub fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let kernel = kernel().expect("the kernel under test");
        vmlinux::open(&kernel.vmlinux).expect("its vmlinux")
    })
}

//! Where things are below a work dir's root.

use schedswap_sched::compile::Build;
use std::path::PathBuf;

/// One root, and the place of each file below it.
#[derive(Clone)]
pub(super) struct Paths {
    pub root: PathBuf,
}

impl Paths {
    pub fn generated(&self) -> PathBuf {
        self.root.join(".schedswap")
    }
    pub fn config(&self) -> PathBuf {
        self.generated().join("config.json")
    }
    pub fn kernel(&self) -> PathBuf {
        self.generated().join("kernel.json")
    }
    pub fn commands(&self) -> PathBuf {
        self.generated().join("commands.json")
    }
    pub fn gate(&self) -> PathBuf {
        self.generated().join("gate.json")
    }
    pub fn boundary(&self) -> PathBuf {
        self.generated().join("boundary.json")
    }
    pub fn boundary_text(&self) -> PathBuf {
        self.root.join("boundary.txt")
    }
    pub fn boundary_config(&self) -> PathBuf {
        self.generated().join("boundary_config.json")
    }
    pub fn boundary_doc(&self) -> PathBuf {
        self.generated().join("boundary_doc.json")
    }
    pub fn springboard(&self) -> PathBuf {
        self.generated().join("springboard.json")
    }
    pub fn addresses(&self) -> PathBuf {
        self.generated().join("addresses.json")
    }
    pub fn kbuild(&self) -> PathBuf {
        self.generated().join("kbuild")
    }
    pub fn unpacked(&self) -> PathBuf {
        self.generated().join("unpacked")
    }
    pub fn tree(&self) -> PathBuf {
        self.generated().join("tree")
    }
    pub fn pristine(&self, kind: Build) -> PathBuf {
        self.generated().join("pristine").join(match kind {
            Build::Gate => "gate",
            Build::Module => "module",
            Build::Declarations => "declarations",
        })
    }
    pub fn build(&self) -> PathBuf {
        self.generated().join("build")
    }
    pub fn set(&self) -> PathBuf {
        self.build().join("set.json")
    }
    pub fn steps(&self) -> PathBuf {
        self.generated().join("steps")
    }
}

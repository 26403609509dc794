//! The steps that copy the kernel's source: to the pristine tree, and from there to the one that is edited.

use super::Run;
use crate::git;
use crate::workdir::kernel_source::{self, Found};
use crate::workdir::report::Origins;
use crate::workdir::store::{add_missing, agree, copy_dir, remove_dir, write_atomically, write_json};
use crate::workdir::{Error, KernelFacts, Result};
use schedswap_kernel::vmlinux::Sidecars;
use std::fs;
use std::path::Path;

impl Run<'_> {
    pub(super) fn copy_source(
        &self,
        found: &Found,
        kernel: &KernelFacts,
        sidecars: &Sidecars,
    ) -> Result<String> {
        let unpacked = self.paths.unpacked();
        let source = match found {
            Found::Dir(dir) => dir.clone(),
            Found::Tarball(tarball) => kernel_source::unpack(tarball, &unpacked, sidecars)?,
        };
        self.config.boundary.check_files(&source)?;
        let version = kernel_source::version(&source)?;
        let fresh = self.paths.generated().join("tree-new");
        let headers = kernel_source::copy_scheduler(&source, &fresh, sidecars)?;
        self.replace_pristine_tree(&fresh)?;
        let debian = kernel_source::debian_version(&source);
        let origins = Origins {
            compiler_of_kernel: kernel.compiler.clone(),
            same_version: match debian.as_ref().filter(|_| !self.is_built_here()) {
                Some(debian) => kernel.banner.contains(debian.as_str()),
                None => kernel_source::is_version_of(&version, &kernel.release, &kernel.banner),
            },
            source_version: debian.unwrap_or(version),
            kernel_banner: kernel.banner.clone(),
            ..Origins::default()
        };
        remove_dir(&unpacked)?;
        write_json(&self.origins_path(), &origins)?;
        Ok(format!("version {}, {headers} private headers", origins.source_version))
    }

    /// Whether headers and vmlinux are of the tree that the kernel was built in. Debian's source, built by its user,
    /// is a kernel whose banner does not have Debian's version.
    pub(super) fn is_built_here(&self) -> bool {
        self.config.vmlinux.parent() == Some(&self.config.headers)
    }

    /// The tree that is edited was made from the pristine one and is not touched; so once it is there, the
    /// pristine one must stay the same.
    pub(super) fn replace_pristine_tree(&self, fresh: &Path) -> Result<()> {
        let tree = self.paths.tree();
        // A sidecar may come or go; the files that both have must be the same.
        if self.paths.root.join("kernel").exists() && !agree(&tree, fresh)? {
            remove_dir(fresh)?;
            return Err(Error::SourceChanged {
                path: self.paths.root.clone(),
                source_path: self.config.source.clone(),
            });
        }
        remove_dir(&tree)?;
        fs::rename(fresh, &tree).map_err(|e| Error::io("write", &tree, e))
    }

    /// The tree to edit: a copy of the pristine one, under git. One that is there is left alone.
    pub(super) fn set_up_tree(&self, origins: &Origins) -> Result<String> {
        let (root, tree) = (&self.paths.root, self.paths.tree());
        if !root.join("kernel").exists() {
            // `kernel/` comes last: once it is there the tree is taken to be the developer's.
            let entries = fs::read_dir(&tree).map_err(|e| Error::io("read", &tree, e))?;
            let mut names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
            names.sort_by_key(|name| name == "kernel");
            for name in names {
                let unfinished = self.paths.generated().join("tree-copy");
                remove_dir(&unfinished)?;
                copy_dir(&tree.join(&name), &unfinished)?;
                let target = root.join(&name);
                remove_dir(&target)?;
                fs::rename(&unfinished, &target).map_err(|e| Error::io("write", &target, e))?;
            }
        }
        // A file that is gone from the scheduler's own was removed on purpose.
        let added = add_missing(&tree, root, Path::new("kernel/sched"))?;
        let ignored =
            "/.schedswap/\n/boundary.txt\n/boundary*.yaml\n/scheduler.ko\n/manifest.json\n/*.deb\n/*.rpm\n";
        write_atomically(&root.join(".gitignore"), ignored.as_bytes())?;
        let message = format!(
            "kernel/sched of {}, as released\n\nSource version: {}\nKernel: {}\n",
            self.config.release, origins.source_version, origins.kernel_banner
        );
        git::commit_pristine(root, &message)?;
        let message = format!("sidecars of {}, as released\n", self.config.release);
        git::commit_added(root, &added, &message)?;
        Ok(root.join("kernel/sched/mod").display().to_string())
    }
}

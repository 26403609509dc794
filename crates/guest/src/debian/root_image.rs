//! The root file system: a small Debian with systemd, dpkg and rpm, made once and kept in the cache. Machines use
//! overlays of it.

use super::cached::CachedFile;
use crate::{Error, Result, host};
use schedswap_host::progress::Progress;
use schedswap_source::{Cache, suite_sources};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Run with the new root directory as its argument.
const CUSTOMIZE: &str = include_str!("customize.sh");
const OPTIONS: &[&str] = &[
    "--quiet",
    "--variant=apt",
    "--format=tar",
    "--aptopt=Acquire::Languages \"none\"",
    // This hook would empty /etc/machine-id again.
    "--skip=cleanup/reproducible",
];
/// Installed in addition to the essential packages and apt.
const PACKAGES: &[&str] = &["systemd", "systemd-sysv", "udev", "dbus", "rpm", "kmod", "procps"];
/// Left out, which halves the number of files: nobody reads documentation in the guest.
const LEFT_OUT: &[&str] = &[
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/info/*",
    // If the machine dies meanwhile, the whole image is thrown away, so nothing has to be flushed.
    "force-unsafe-io",
];
/// The size of the disk; unused space takes no room.
const SIZE: &str = "4G";
/// Makes the image `$3` from the archive `$1`, unpacked to the directory `$2`. mke2fs writes all tables now;
/// otherwise the guest's kernel would do so in the background.
const MAKE_IMAGE: &str = "tar --extract --file \"$1\" --directory \"$2\" --same-permissions --numeric-owner && \
     /sbin/mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 -d \"$2\" \"$3\" \"$4\"";

/// The image of a root file system.
#[derive(Clone, Debug)]
pub struct RootImage {
    pub(super) file: PathBuf,
}

impl RootImage {
    /// The image of a suite, from the cache or made now, which takes minutes.
    ///
    /// # Errors
    /// If the machine's archives do not have this suite, or if a program is missing or fails.
    pub fn of_suite(suite: &str, cache: &Cache, progress: &dyn Progress) -> Result<RootImage> {
        let place = CachedFile::lock(cache, &format!("{suite}-{:016x}.ext4", recipe()))?;
        let file = place.get_or_make(|tree, image| make(suite, tree, image, progress))?;
        Ok(RootImage { file })
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

/// Changes with everything from which the image is made. If it differs between two builds of this library, an image
/// is made again.
fn recipe() -> u64 {
    let mut hasher = DefaultHasher::new();
    (CUSTOMIZE, OPTIONS, PACKAGES, LEFT_OUT, SIZE, MAKE_IMAGE).hash(&mut hasher);
    hasher.finish()
}

fn make(suite: &str, tree: &Path, image: &Path, progress: &dyn Progress) -> Result<()> {
    let beside = |name: &str| image.with_file_name(name);
    let write = |path: &Path, text: &str, mode: u32| {
        fs::write(path, text)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
            .map_err(Error::io(format!("cannot write {}", path.display())))
    };
    let (sources, hook, archive) = (beside("archive.sources"), beside("customize.sh"), beside("root.tar"));
    write(&sources, &suite_sources(suite)?, 0o644)?;
    write(&hook, CUSTOMIZE, 0o755)?;

    progress.begin(&format!("installing {suite} for guests"), None);
    let mut debstrap = Command::new("mmdebstrap");
    debstrap.args(OPTIONS);
    debstrap.arg(format!("--include={}", PACKAGES.join(",")));
    debstrap.args(LEFT_OUT.iter().map(|option| format!("--dpkgopt={option}")));
    debstrap.arg(format!("--customize-hook={}", hook.display()));
    debstrap.arg(suite).arg(&archive).arg(&sources);
    host::run(&mut debstrap, "mmdebstrap", "installing a root file system for guests")?;
    progress.end("");

    progress.begin("making its disk", None);
    // Its files belong to root, whichever user makes it.
    let root = rustix::process::geteuid().is_root();
    let mut shell = Command::new(if root { "sh" } else { "fakeroot" });
    if !root {
        shell.arg("sh");
    }
    shell.args(["-c", MAKE_IMAGE, "make-image"]).arg(&archive).arg(tree).arg(image).arg(SIZE);
    host::run(&mut shell, "fakeroot, tar and e2fsprogs", "making the disk of a root file system")?;
    progress.end("");
    Ok(())
}

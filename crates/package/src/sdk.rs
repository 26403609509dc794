//! Packages of schedswap itself, from the files that `make install` puts below a directory.

use super::changelog::Changelog;
use super::deb::gzip;
use super::payload::read_static_program;
use super::recipe::{Architecture, DebName, PackageEntry, Recipe, Role, RpmName};
use super::scripts::Scripts;
use super::{Error, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const NAME: &str = "schedswap";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How to make packages of the tree `root`, as `make install DESTDIR=root PREFIX=/usr` leaves it.
///
/// # Errors
/// [`Error::NotStatic`] if a program in it needs shared libraries: the package has to work on every distribution that
/// uses its format. Other errors name the file that could not be read.
pub fn recipe(root: &Path, changelog: Changelog) -> Result<Recipe> {
    let mut entries = Vec::new();
    collect(root, "", &mut entries)?;
    let architecture = Architecture::X86_64;
    Ok(Recipe {
        deb: DebName {
            package: NAME.to_owned(),
            version: VERSION.to_owned(),
            file_name: format!("{NAME}_{VERSION}_{}.deb", architecture.deb()),
        },
        rpm: RpmName { name: NAME.to_owned(), version: VERSION.to_owned(), release: "1".to_owned() },
        architecture,
        summary: "replace the scheduler of a running, unmodified Linux kernel".to_owned(),
        description: vec![
            "Lets you edit the scheduler of a distribution's unmodified kernel, and builds a module that \
             replaces it on a running machine, without a reboot, and can put the old one back. Makes \
             packages of such modules."
                .to_owned(),
            "It needs the kernel's debug symbols, headers and source, and the compiler that built the \
             kernel."
                .to_owned(),
        ],
        licence: "(MIT OR Apache-2.0) AND (GPL-2.0-or-later OR BSD-3-Clause)",
        copyright: COPYRIGHT.to_owned(),
        section: "devel",
        rpm_group: "Development/Tools",
        deb_requires: vec!["gcc", "git", "libc6-dev", "libelf1 | libelf1t64", "make", "patch", "xz-utils"],
        rpm_requires: vec!["elfutils-libelf", "gcc", "git-core", "glibc-devel", "make", "patch", "tar", "xz"],
        entries,
        scripts: Scripts::default(),
        changelog,
    })
}

/// As `debian/copyright` (format 1.0).
const COPYRIGHT: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: schedswap

Files: *
Copyright: © 2026 and later, the schedswap authors
License: MIT or Apache-2.0
 Both licences are in /usr/share/licenses/schedswap. On Debian systems, that of Apache is in
 /usr/share/common-licenses/Apache-2.0 as well.
 .
 What is compiled into kernel modules is under version 2 or later of the GNU
 General Public License (/usr/share/common-licenses/GPL-2 on Debian systems) or
 under the 3-clause BSD licence.
";

/// The directories that belong to the package; all others belong to the system.
fn is_own_directory(path: &str) -> bool {
    path.split('/').any(|part| part == NAME)
}

/// All files below `root/path`, sorted by name.
fn collect(root: &Path, path: &str, entries: &mut Vec<PackageEntry>) -> Result<()> {
    let dir = root.join(path.trim_start_matches('/'));
    let unreadable = |source| Error::Io { doing: "read", path: dir.clone(), source };
    let listed = fs::read_dir(&dir).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let mut names: Vec<String> = listed
        .map_err(unreadable)?
        .iter()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    for name in names {
        let path = format!("{path}/{name}");
        let file = dir.join(&name);
        let unreadable = |source| Error::Io { doing: "read", path: file.clone(), source };
        let status = file.symlink_metadata().map_err(unreadable)?;
        if status.is_dir() {
            if is_own_directory(&path) {
                entries.push(PackageEntry::dir(&path));
            }
            collect(root, &path, entries)?;
            continue;
        }
        // A link would be packed as the file to which it leads; `make install` makes no links.
        let executable = status.permissions().mode() & 0o111 != 0;
        let bytes =
            if executable { read_static_program(&file)? } else { fs::read(&file).map_err(unreadable)? };
        // Both families of distributions compress manual pages.
        let (path, bytes) = match path.contains("/share/man/") {
            true => (format!("{path}.gz"), gzip(&bytes).map_err(unreadable)?),
            false => (path, bytes),
        };
        entries.push(PackageEntry::file(&path, bytes, executable, role(&path)));
    }
    Ok(())
}

fn role(path: &str) -> Role {
    let name = path.rsplit('/').next().unwrap_or_default();
    if name.starts_with("LICENSE") {
        Role::Licence
    } else if path.contains("/share/doc/") || path.contains("/share/man/") {
        Role::Documentation
    } else {
        Role::Plain
    }
}

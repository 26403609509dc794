//! Headers for `make -C`. Debian's headers package refers to its other half by absolute path (`include
//! /usr/src/linux-headers-6.1.0-13-common/Makefile`), which is right only if both are installed.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::sysroot;
use super::toolchain::{Toolchain, write_script};
use super::{Kernel, SourceError};

/// The top-level files of a headers directory that may contain absolute paths; all small.
const MENDED_FILES: [&str; 2] = ["Makefile", ".kernelvariables"];
/// The directories that hold programs of the kernel build (objtool, modpost).
const PROGRAMS: [&str; 2] = ["scripts", "tools"];

/// A directory for `make -C` that means the same as `kernel.headers` would if its packages were installed.
///
/// On the host that is `kernel.headers` itself. For unpacked packages `dest` is filled with links to every entry, and
/// with copies of the makefiles whose absolute paths then lead below the sysroot. If the compiler is not the
/// machine's own, the kernel build's programs may want another C library than the machine's, so they run with that of
/// the compiler. It is safe to call this again.
///
/// # Errors
/// If a link or path of the headers leads nowhere below the sysroot, the error names the missing file. A directory
/// name that make cannot handle is refused.
pub fn shadow_headers(
    kernel: &Kernel,
    toolchain: Option<&Toolchain>,
    dest: &Path,
) -> Result<PathBuf, SourceError> {
    if kernel.sysroot == Path::new("/") {
        return Ok(kernel.headers.clone());
    }
    let dest = std::path::absolute(dest).map_err(SourceError::io(dest))?;
    for path in [&dest, &kernel.headers] {
        refuse_what_make_cannot_take(path)?;
    }
    fs::create_dir_all(&dest).map_err(SourceError::io(&dest))?;
    for entry in fs::read_dir(&kernel.headers).map_err(SourceError::io(&kernel.headers))? {
        let entry = entry.map_err(SourceError::io(&kernel.headers))?;
        let shadow = dest.join(entry.file_name());
        let inside = inside(kernel, &entry.path());
        let target =
            sysroot::resolve(&kernel.sysroot, &inside).ok_or_else(|| dangling(kernel, &entry.path()))?;
        remove_if_there(&shadow).map_err(SourceError::io(&shadow))?;
        if MENDED_FILES.iter().any(|name| entry.file_name() == *name) {
            let text = fs::read_to_string(&target).map_err(SourceError::io(&target))?;
            let mended = mend_paths(&text, kernel, &dest)?;
            fs::write(&shadow, mended).map_err(SourceError::io(&shadow))?;
        } else if let Some(toolchain) =
            toolchain.filter(|_| PROGRAMS.iter().any(|name| entry.file_name() == *name))
        {
            shadow_programs(toolchain, &target, &shadow)?;
        } else {
            symlink(&target, &shadow).map_err(SourceError::io(&shadow))?;
        }
    }
    Ok(dest)
}

/// Links to every file, and scripts in place of programs.
fn shadow_programs(toolchain: &Toolchain, source: &Path, dest: &Path) -> Result<(), SourceError> {
    fs::create_dir_all(dest).map_err(SourceError::io(dest))?;
    for entry in fs::read_dir(source).map_err(SourceError::io(source))? {
        let path = entry.map_err(SourceError::io(source))?.path();
        let shadow = dest.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            shadow_programs(toolchain, &path, &shadow)?;
        } else if let Some(script) = toolchain.wrapper(&path)? {
            write_script(&shadow, &script)?;
        } else {
            symlink(&path, &shadow).map_err(SourceError::io(&shadow))?;
        }
    }
    Ok(())
}

/// `path` as it is called if the sysroot is the root.
fn inside(kernel: &Kernel, path: &Path) -> PathBuf {
    path.strip_prefix(&kernel.sysroot).unwrap_or(path).to_path_buf()
}

fn dangling(kernel: &Kernel, path: &Path) -> SourceError {
    SourceError::DanglingLink {
        path: path.to_path_buf(),
        target: path.read_link().unwrap_or_default(),
        sysroot: kernel.sysroot.clone(),
    }
}

/// Makes every absolute path below `/usr` or `/lib` in the text lead below the sysroot, and the path of the headers'
/// own directory to its shadow.
fn mend_paths(text: &str, kernel: &Kernel, dest: &Path) -> Result<String, SourceError> {
    let mut mended = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        let (before, from) = rest.split_at(at);
        mended.push_str(before);
        let end = from.find(|c| !is_path_character(c)).unwrap_or(from.len());
        let (path, after) = from.split_at(end);
        let begins_a_path = !before.ends_with(is_path_character) && !before.ends_with([')', '}']);
        if begins_a_path && (path.starts_with("/usr/") || path.starts_with("/lib/")) {
            let target = sysroot::resolve(&kernel.sysroot, Path::new(path)).ok_or_else(|| {
                SourceError::DanglingLink {
                    path: kernel.headers.clone(),
                    target: path.into(),
                    sysroot: kernel.sysroot.clone(),
                }
            })?;
            let led = match target.strip_prefix(&kernel.headers) {
                Ok(own) if own.as_os_str().is_empty() => dest.to_path_buf(),
                Ok(own) => dest.join(own),
                Err(_) => target,
            };
            mended.push_str(&led.to_string_lossy());
        } else {
            mended.push_str(path);
        }
        rest = after;
    }
    mended.push_str(rest);
    Ok(mended)
}

fn is_path_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/._+~-".contains(c)
}

/// make splits at spaces, and expands `$` and `#` wherever a path passes through a variable.
pub(super) fn refuse_what_make_cannot_take(path: &Path) -> Result<(), SourceError> {
    let text = path.to_string_lossy();
    match text.chars().find(|c| c.is_whitespace() || "#$:%'\"\\".contains(*c)) {
        Some(character) => Err(SourceError::PathUnfitForMake { path: path.to_path_buf(), character }),
        None => Ok(()),
    }
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return fs::remove_dir_all(path);
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(root: &Path) -> Kernel {
        let headers = root.join("usr/src/linux-headers-1-x");
        fs::create_dir_all(headers.join("include")).unwrap();
        fs::create_dir_all(root.join("usr/src/linux-headers-1-common")).unwrap();
        fs::create_dir_all(root.join("usr/lib/linux-kbuild-1/scripts")).unwrap();
        fs::write(root.join("usr/src/linux-headers-1-common/Makefile"), "all:\n").unwrap();
        fs::write(
            headers.join("Makefile"),
            "KBUILD_OUTPUT=/usr/src/linux-headers-1-x\ninclude /usr/src/linux-headers-1-common/Makefile\n",
        )
        .unwrap();
        symlink("/usr/lib/linux-kbuild-1/scripts", headers.join("scripts")).unwrap();
        Kernel {
            release: "1-x".into(),
            sysroot: root.into(),
            vmlinux: PathBuf::new(),
            config: PathBuf::new(),
            headers,
            bzimage: None,
            modules: None,
            source: None,
        }
    }

    #[test]
    fn includes_and_links_are_led_below_the_sysroot() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let kernel = unpacked(root);
        let dest = root.join("shadow");
        for _again in 0..2 {
            assert_eq!(shadow_headers(&kernel, None, &dest).unwrap(), dest);
        }
        let makefile = fs::read_to_string(dest.join("Makefile")).unwrap();
        assert_eq!(
            makefile,
            format!(
                "KBUILD_OUTPUT={}\ninclude {}/usr/src/linux-headers-1-common/Makefile\n",
                dest.display(),
                root.display()
            )
        );
        assert_eq!(dest.join("scripts").read_link().unwrap(), root.join("usr/lib/linux-kbuild-1/scripts"));
        assert_eq!(dest.join("include").read_link().unwrap(), kernel.headers.join("include"));
    }

    #[test]
    fn headers_of_the_host_are_used_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = Kernel { sysroot: "/".into(), ..unpacked(dir.path()) };
        let dest = dir.path().join("shadow");
        assert_eq!(shadow_headers(&kernel, None, &dest).unwrap(), kernel.headers);
        assert!(!dest.exists());
    }

    #[test]
    fn a_package_that_was_not_unpacked_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = unpacked(dir.path());
        fs::remove_dir_all(dir.path().join("usr/lib/linux-kbuild-1")).unwrap();
        let error = shadow_headers(&kernel, None, &dir.path().join("shadow")).unwrap_err().to_string();
        assert!(error.contains("linux-kbuild-1"), "{error}");
    }

    #[test]
    fn a_directory_with_a_space_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = unpacked(dir.path());
        let error = shadow_headers(&kernel, None, &dir.path().join("my work")).unwrap_err();
        assert!(matches!(error, SourceError::PathUnfitForMake { character: ' ', .. }), "{error}");
    }

    #[test]
    fn paths_behind_a_variable_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = unpacked(dir.path());
        let text = "X = $(srctree)/usr/include and a/usr/b\n";
        assert_eq!(mend_paths(text, &kernel, Path::new("/d")).unwrap(), text);
    }
}

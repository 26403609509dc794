//! A kernel in the tree in which its user has just built it: there is no package, and one directory holds headers,
//! vmlinux and image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use super::headers::refuse_what_make_cannot_take;
use super::{Kernel, SourceError};

/// What a build leaves in its directory, and which command makes it.
const MADE: [(&str, &str); 5] = [
    (".config", "make a configuration there (`make defconfig`, say) and run `make`"),
    ("include/config/kernel.release", "run `make` there"),
    ("include/config/auto.conf", "run `make` there"),
    ("vmlinux", "run `make` there"),
    (
        "Module.symvers",
        "run `make modules` there, even if the kernel has no modules: linking a module needs this file",
    ),
];

/// The kernel that was built in `tree`: the source directory, or the output directory of a build outside it (`make
/// O=`).
///
/// # Errors
/// [`SourceError::NotBuilt`] names what is missing and which command makes it.
pub fn built(tree: &Path) -> Result<Kernel, SourceError> {
    let tree = fs::canonicalize(tree).map_err(SourceError::io(tree))?;
    refuse_what_make_cannot_take(&tree)?;
    for (file, todo) in MADE {
        let path = tree.join(file);
        if !path.is_file() {
            return Err(SourceError::NotBuilt { tree, path, todo });
        }
    }
    let config = tree.join(".config");
    if modified(&config)? > modified(&tree.join("include/config/auto.conf"))? {
        return Err(SourceError::ConfiguredAnew { tree, config });
    }
    let release = tree.join("include/config/kernel.release");
    Ok(Kernel {
        release: fs::read_to_string(&release).map_err(SourceError::io(&release))?.trim().to_owned(),
        sysroot: "/".into(),
        vmlinux: tree.join("vmlinux"),
        bzimage: image(&tree, &config)?,
        config,
        source: Some(source(&tree)?),
        // Nothing was installed.
        modules: None,
        headers: tree,
    })
}

/// Where a build outside the source keeps a link to it.
fn source(tree: &Path) -> Result<PathBuf, SourceError> {
    let link = tree.join("source");
    match fs::canonicalize(&link) {
        Ok(source) if link.is_symlink() => Ok(source),
        _ if tree.join("kernel/sched").join("Makefile").is_file() => Ok(tree.to_owned()),
        _ => Err(SourceError::NotBuilt {
            path: link,
            tree: tree.to_owned(),
            todo: "give the source directory, or the directory that was given to make as O=, which has a \
                link to it",
        }),
    }
}

/// The boot image, under the name that the kernel's build gives it; `None` if only vmlinux was made.
fn image(tree: &Path, config: &Path) -> Result<Option<PathBuf>, SourceError> {
    let text = fs::read_to_string(config).map_err(SourceError::io(config))?;
    let mut make = Command::new("make");
    make.args(["--silent", "--no-print-directory", "-C"]).arg(tree).arg("image_name");
    if let Some(arch) = architecture(&text) {
        make.arg(format!("ARCH={arch}"));
    }
    // If this runs below another make, that make must not pass its own flags down.
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "KBUILD_VERBOSE", "V"] {
        make.env_remove(variable);
    }
    let output = make.env("LC_ALL", "C").stdin(Stdio::null()).output();
    let output = output.map_err(|error| super::apt::spawn_error("make", "make", error))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let image = said.lines().last().map(|name| tree.join(name.trim())).filter(|path| path.is_file());
    Ok(image.filter(|_| output.status.success()))
}

/// The architecture, as the first lines of a configuration call it: `# Linux/x86 6.1.192 Kernel Configuration`.
fn architecture(config: &str) -> Option<&str> {
    let title =
        config.lines().take_while(|line| line.starts_with('#')).find(|line| line.contains("Linux/"))?;
    title.split_once("Linux/")?.1.split_whitespace().next()
}

fn modified(path: &Path) -> Result<SystemTime, SourceError> {
    path.metadata().and_then(|metadata| metadata.modified()).map_err(SourceError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::Duration;

    /// A tree that looks built.
    fn tree(dir: &Path) -> PathBuf {
        for (file, _) in MADE {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::write(dir.join("include/config/kernel.release"), "6.1.0-mine\n").unwrap();
        fs::create_dir_all(dir.join("kernel/sched")).unwrap();
        fs::write(dir.join("kernel/sched/Makefile"), "").unwrap();
        fs::write(dir.join("Makefile"), "image_name:\n\t@echo arch/$(ARCH)/boot/Image\n").unwrap();
        fs::write(dir.join(".config"), "#\n# Linux/x86 6.1.0 Kernel Configuration\n#\n").unwrap();
        let later = SystemTime::now() + Duration::from_secs(2);
        File::open(dir.join("include/config/auto.conf")).unwrap().set_modified(later).unwrap();
        fs::canonicalize(dir).unwrap()
    }

    #[test]
    fn a_tree_is_all_that_a_kernel_is_made_of() {
        let dir = tempfile::tempdir().unwrap();
        let tree = tree(dir.path());
        let kernel = built(dir.path()).unwrap();
        assert_eq!((kernel.release.as_str(), &kernel.headers), ("6.1.0-mine", &tree));
        assert_eq!(kernel.source.as_ref(), Some(&tree));
        assert_eq!(kernel.bzimage, None, "there is none yet");
        fs::create_dir_all(tree.join("arch/x86/boot")).unwrap();
        fs::write(tree.join("arch/x86/boot/Image"), "").unwrap();
        assert_eq!(built(dir.path()).unwrap().bzimage, Some(tree.join("arch/x86/boot/Image")));
    }

    #[test]
    fn a_build_apart_from_the_source_links_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let (out, source) = (dir.path().join("out"), dir.path().join("linux"));
        fs::create_dir_all(&source).unwrap();
        let out = tree(&out);
        fs::remove_dir_all(out.join("kernel")).unwrap();
        let error = built(&out).unwrap_err().to_string();
        assert!(error.contains("O="), "{error}");
        std::os::unix::fs::symlink(&source, out.join("source")).unwrap();
        assert_eq!(built(&out).unwrap().source, Some(fs::canonicalize(source).unwrap()));
    }

    #[test]
    fn what_is_missing_or_out_of_date_is_named() {
        for (file, todo) in MADE {
            let dir = tempfile::tempdir().unwrap();
            let path = tree(dir.path()).join(file);
            fs::remove_file(&path).unwrap();
            let error = built(dir.path()).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()) && error.contains(todo), "{error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let config = tree(dir.path()).join(".config");
        File::open(config).unwrap().set_modified(SystemTime::now() + Duration::from_secs(4)).unwrap();
        let error = built(dir.path()).unwrap_err();
        assert!(matches!(error, SourceError::ConfiguredAnew { .. }), "{error}");
    }
}

//! Small packages made by the real tools, to try a machine's dpkg and rpm with.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A package of one file, `/usr/share/<name>/greeting`, whose scripts write to `/var/log/<name>`.
pub struct Small<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
}

impl Small<'_> {
    /// Makes it, in `dir`, by `dpkg-deb`.
    pub fn deb(&self, dir: &Path) -> Result<PathBuf> {
        let Small { name, version } = self;
        let tree = dir.join(format!("{name}-{version}"));
        write(&tree.join(format!("usr/share/{name}/greeting")), &format!("hello from {version}\n"), 0o644)?;
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: test <test@localhost>\n\
             Description: a test's package\n"
        );
        write(&tree.join("DEBIAN/control"), &control, 0o644)?;
        for script in ["postinst", "prerm"] {
            let text = format!("#!/bin/sh\nset -e\necho \"{script} $1\" >>/var/log/{name}\n");
            write(&tree.join("DEBIAN").join(script), &text, 0o755)?;
        }
        let deb = dir.join(format!("{name}_{version}_all.deb"));
        run(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(&deb))?;
        Ok(deb)
    }

    /// Makes it, in `dir`, by `rpmbuild`.
    pub fn rpm(&self, dir: &Path) -> Result<PathBuf> {
        let Small { name, version } = self;
        let spec = format!(
            "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: a test's package\nLicense: none\n\
             BuildArch: noarch\n%description\nA test's package.\n%install\nmkdir -p %{{buildroot}}/usr/share/{name}\n\
             echo hello from {version} >%{{buildroot}}/usr/share/{name}/greeting\n%files\n/usr/share/{name}\n\
             %post\necho \"post $1\" >>/var/log/{name}\n%preun\necho \"preun $1\" >>/var/log/{name}\n"
        );
        let file = dir.join(format!("{name}.spec"));
        write(&file, &spec, 0o644)?;
        let top = format!("_topdir {}", dir.join("rpm").display());
        run(Command::new("rpmbuild").args(["-bb", "--quiet", "--define", &top]).arg(&file))?;
        Ok(dir.join(format!("rpm/RPMS/noarch/{name}-{version}-1.noarch.rpm")))
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(path.parent().context("a path with a directory")?)?;
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}:\n{said}", output.status);
    Ok(())
}

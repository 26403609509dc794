//! A kernel as rpm distributions (RHEL, Anolis, openEuler) package it. The files are those of the kernel under test;
//! rpmbuild makes its packages here, laid out like `kernel-core`, `kernel-devel` and `kernel-debuginfo`, and its
//! source is prepared from a source rpm.

use anyhow::{Context, Result, ensure};
use schedswap_tests::sources::{Published, sh};
use schedswap_tests::{kernel, schedswap};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// One rpm: its name, and the shell commands that lay out its files. `$K` holds Debian's files, `$R` is the release.
type Rpm = (&'static str, &'static str);

const CORE: Rpm = (
    "kernel-core",
    "mkdir -p boot lib/modules/$R
     cp $K/boot/vmlinuz-$R lib/modules/$R/vmlinuz
     cp $K/boot/config-$R lib/modules/$R/config
     cp $K/boot/System.map-$R lib/modules/$R/System.map || : >lib/modules/$R/System.map
     gzip -1 -c $K/usr/src/linux-headers-$R/Module.symvers >lib/modules/$R/symvers.gz
     cp lib/modules/$R/vmlinuz boot/vmlinuz-$R
     cp lib/modules/$R/config boot/config-$R
     ln -s /usr/src/kernels/$R lib/modules/$R/build
     ln -s build lib/modules/$R/source",
);

/// One directory with the makefiles, all headers, and the build's own programs, where Debian has three.
const DEVEL: Rpm = (
    "kernel-devel",
    "mkdir -p usr/src/kernels/$R
     cp -aL --no-preserve=ownership $(dirname $(readlink -f $K/usr/src/linux-headers-$R/scripts))/scripts usr/src/kernels/$R/
     cp -aL --no-preserve=ownership $(dirname $(readlink -f $K/usr/src/linux-headers-$R/scripts))/tools usr/src/kernels/$R/
     common=$K$(sed -n 's/^include \\(.*\\)\\/Makefile$/\\1/p' $K/usr/src/linux-headers-$R/Makefile)
     for from in $common $K/usr/src/linux-headers-$R; do
         (cd $from; tar --create --exclude=./scripts --exclude=./tools .) | tar --extract --directory usr/src/kernels/$R
     done
     cp $common/Makefile usr/src/kernels/$R/Makefile",
);

const DEBUGINFO: Rpm = (
    "kernel-debuginfo",
    "mkdir -p usr/lib/debug/lib/modules/$R
     ln $K/usr/lib/debug/boot/vmlinux-$R usr/lib/debug/lib/modules/$R/vmlinux ||
         cp $K/usr/lib/debug/boot/vmlinux-$R usr/lib/debug/lib/modules/$R/vmlinux",
);

/// Makes the rpm and unpacks it below `root`.
fn install(dir: &Path, root: &Path, (name, layout): Rpm, version: &str) -> Result<()> {
    let kernel = kernel()?;
    // The steps that are disabled would change the vmlinux (stripping, debugedit), or take minutes (compressing).
    let spec = format!(
        "%define __os_install_post %{{nil}}\n%define debug_package %{{nil}}\n%define _build_id_links none\n\
         %define _binary_payload w.ufdio\n\
         Name: {name}\nVersion: {version}\nRelease: 1\nSummary: The Linux kernel\nLicense: GPL-2.0\nAutoReqProv: no\n\
         %description\nFor a test.\n\
         %install\nset -e; K='{}'; R='{}'; mkdir -p %{{buildroot}}; cd %{{buildroot}}\n{layout}\n\
         %files\n/*\n",
        kernel.sysroot.display(),
        kernel.release
    );
    let spec_file = dir.join(format!("{name}.spec"));
    fs::write(&spec_file, spec)?;
    let define = format!("_topdir {}", dir.join("rpmbuild").display());
    sh(dir, "rpmbuild -bb --define \"$0\" \"$1\"", &[Path::new(&define), &spec_file])?;
    let rpm = dir.join(format!("rpmbuild/RPMS/x86_64/{name}-{version}-1.x86_64.rpm"));
    fs::create_dir_all(root)?;
    sh(root, "rpm2cpio \"$0\" | cpio --extract --make-directories --quiet", &[&rpm])?;
    fs::remove_file(&rpm)?;
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

#[test]
fn a_kernel_packaged_as_rpms_passes_the_gate_and_is_built_for() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let release = kernel()?.release;
    let published = Published::new(dir)?;
    let (root, source, work) = (dir.join("root"), dir.join("linux"), dir.join("work"));
    let said = |arguments: &[&str]| -> Result<(Option<i32>, String, String)> {
        let output = schedswap(arguments)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
    };
    let source_rpm = published.source_rpm()?;
    let (status, _, errors) = said(&["extract_src", text(&source_rpm)?, text(&source)?])?;
    ensure!(status == Some(0), "{errors}");

    let init = ["init", &release, text(&source)?, text(&work)?, "--sysroot", text(&root)?, "--json"];
    install(dir, &root, CORE, &published.version)?;
    let (status, _, errors) = said(&init)?;
    ensure!(status == Some(1) && errors.contains(&format!("kernel-debuginfo-{release}")), "{errors}");
    install(dir, &root, DEBUGINFO, &published.version)?;
    let (status, _, errors) = said(&init)?;
    ensure!(status == Some(1) && errors.contains(&format!("kernel-devel-{release}")), "{errors}");
    install(dir, &root, DEVEL, &published.version)?;

    let (status, summary, errors) = said(&init)?;
    ensure!(status == Some(0), "{errors}");
    let summary: Value = serde_json::from_str(&summary)?;
    let count = |name: &str| -> Result<u64> {
        let units = summary["units"].as_array().context("units")?;
        Ok(units.iter().filter_map(|unit| unit[name].as_u64()).sum())
    };
    ensure!(count("identical")? > 500 && count("identical")? == count("in_vmlinux")?, "{summary}");

    let config: Value = serde_json::from_slice(&fs::read(work.join(".schedswap/config.json"))?)?;
    let place = |name: &str| Some(PathBuf::from(config[name].as_str()?));
    for (name, expected) in [
        ("vmlinux", format!("usr/lib/debug/lib/modules/{release}/vmlinux")),
        ("headers", format!("usr/src/kernels/{release}")),
        ("bzimage", format!("boot/vmlinuz-{release}")),
        ("kernel_config", format!("boot/config-{release}")),
    ] {
        ensure!(place(name) == Some(root.join(&expected)), "{name}: {} instead of {expected}", config[name]);
    }
    let (status, _, errors) = said(&["build", text(&work)?, "--divert", "all", "--format", "none"])?;
    ensure!(status == Some(0) && work.join("scheduler.ko").is_file(), "{errors}");
    Ok(())
}

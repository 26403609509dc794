//! A kernel's source from each form in which distributions publish it, made by their own programs.

use anyhow::{Context, Result, ensure};
use schedswap_tests::schedswap;
use schedswap_tests::sources::{Published, sh};
use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// Extracts it, and compares the result with what it should be.
fn extracts_to(spelling: &str, package: &Path, dest: &Path, expected: &Path) -> Result<()> {
    let output = schedswap(&[spelling, text(package)?, text(dest)?])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", package.display());
    let same = "diff -r --exclude=debian --exclude=.pc \"$0\" \"$1\"";
    sh(Path::new("."), same, &[dest, expected])?;
    leaves_nothing_beside(dest)
}

fn leaves_nothing_beside(dest: &Path) -> Result<()> {
    let name = dest.file_name().context("it has one")?.to_string_lossy().into_owned();
    for entry in fs::read_dir(dest.parent().context("it has one")?)? {
        let found = entry?.file_name().to_string_lossy().into_owned();
        ensure!(!found.starts_with(&name) || found == name, "{found} was left");
    }
    Ok(())
}

/// Refuses with those words, and leaves no directory that could be taken for a source.
fn refuses(output: Output, dest: &Path, words: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "ended with {}: {said}", output.status);
    for word in words {
        ensure!(said.contains(word), "{word:?} is not said in:\n{said}");
    }
    ensure!(!dest.exists(), "{} is there", dest.display());
    leaves_nothing_beside(dest)
}

#[test]
fn a_source_rpm_is_prepared_as_its_spec_says() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let published = Published::new(dir.path())?;
    let package = published.source_rpm()?;
    extracts_to("extract_src", &package, &dir.path().join("from-rpm"), &published.patched)?;

    let package = published.source_rpm_with("no-such-program --of=the-distribution")?;
    let dest = dir.path().join("failed");
    let output = schedswap(&["extract_src", text(&package)?, text(&dest)?])?;
    refuses(output, &dest, &["rpmbuild", "no-such-program: command not found", "%prep"])?;

    let (nowhere, dest) = (dir.path().join("empty"), dir.path().join("no-rpmbuild"));
    fs::create_dir(&nowhere)?;
    let output = Command::new(env::var_os("SCHEDSWAP").context("SCHEDSWAP is not set")?)
        .args(["extract-src", text(&package)?, text(&dest)?])
        .env("PATH", nowhere)
        .output()?;
    refuses(output, &dest, &["rpmbuild is not installed", "rpm-build"])
}

#[test]
fn debians_source_package_is_unpacked_with_its_patches() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let published = Published::new(dir.path())?;
    let package = published.dsc()?;
    let dest = dir.path().join("from-dsc");
    extracts_to("extract-src", &package, &dest, &published.patched)?;
    ensure!(dest.join("debian/changelog").is_file(), "that is where init reads Debian's version");

    // A file that the .dsc names was not downloaded, or not completely.
    let orig = dir.path().join(format!("linux_{}.orig.tar.xz", published.version));
    let bytes = fs::read(&orig)?;
    fs::write(&orig, &bytes[..bytes.len() / 2])?;
    let dest = dir.path().join("half");
    let output = schedswap(&["extract-src", text(&package)?, text(&dest)?])?;
    refuses(output, &dest, &["dpkg-source", "orig.tar.xz"])?;
    fs::remove_file(&orig)?;
    let output = schedswap(&["extract-src", text(&package)?, text(&dest)?])?;
    refuses(output, &dest, &["dpkg-source", "orig.tar.xz"])
}

#[test]
fn a_tarball_is_unpacked_without_its_top_directory() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let published = Published::new(dir.path())?;
    let upstream = dir.path().join(format!("linux-{}", published.version));
    for ending in ["tar", "tar.gz", "tar.bz2", "tar.xz"] {
        let tarball = published.tarball(&format!("upstream.{ending}"))?;
        extracts_to("extract-src", &tarball, &dir.path().join(ending.replace('.', "-")), &upstream)?;
    }

    let whole = fs::read(dir.path().join("upstream.tar.xz"))?;
    let (half, dest) = (dir.path().join("half.tar.xz"), dir.path().join("dest"));
    fs::write(&half, &whole[..whole.len() / 2])?;
    refuses(schedswap(&["extract-src", text(&half)?, text(&dest)?])?, &dest, &["tar", "half.tar.xz"])?;

    let other = dir.path().join("other.tar.gz");
    sh(&upstream, "tar --create --gzip --file \"$0\" Makefile", &[&other])?;
    refuses(schedswap(&["extract-src", text(&other)?, text(&dest)?])?, &dest, &["no source of a kernel"])?;

    // What exists already is not touched.
    fs::create_dir(&dest)?;
    fs::write(dest.join("mine"), "")?;
    let tarball = dir.path().join("upstream.tar");
    let output = schedswap(&["extract-src", text(&tarball)?, text(&dest)?])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && said.contains("is not empty"), "{said}");
    ensure!(fs::read_dir(&dest)?.count() == 1, "{} was changed", dest.display());
    Ok(())
}

//! The content of the packages, and that it is the same each time.

use super::made::{DATE, build, build_at, copy, dir, fresh, made, payload_dir, unpack_deb, unpack_rpm};
use anyhow::{Context, Result, ensure};
use schedswap_payload::{Manifest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Every file below a directory: name, mode and digest.
fn files(dir: &Path) -> Result<BTreeMap<String, (u32, Sha256)>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
        ensure!(path.is_file(), "{name} is not a file");
        let mode = path.metadata()?.permissions().mode() & 0o7777;
        found.insert(name, (mode, Sha256::of(&fs::read(&path)?)));
    }
    Ok(found)
}

#[test]
fn both_formats_hold_what_the_manifest_vouches_for_and_nothing_else() -> Result<()> {
    let (made, root) = (made(), fresh("contents")?);
    let (deb, rpm) = (root.join("deb"), root.join("rpm"));
    fs::create_dir_all(&rpm)?;
    unpack_deb(&made.first.deb, &deb)?;
    unpack_rpm(&made.first.rpm, &rpm)?;
    let payload = payload_dir("demo-1")?;
    let mut found = files(&deb.join(&payload))?;
    assert_eq!(found, files(&rpm.join(&payload))?);

    let manifest = Manifest::parse(&fs::read(deb.join(&payload).join("manifest.json"))?)?;
    ensure!(found.remove("manifest.json").is_some_and(|(mode, _)| mode == 0o644));
    let digests: BTreeMap<String, Sha256> =
        found.iter().map(|(name, (_, digest))| (name.clone(), *digest)).collect();
    assert_eq!(digests, manifest.digests);
    for (name, (mode, _)) in &found {
        assert_eq!(*mode, if name == "schedswap-loader" { 0o755 } else { 0o644 }, "{name}");
    }
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let licences = ["LICENSE-APACHE", "LICENSE-BSD-3-Clause", "LICENSE-GPL-2.0", "LICENSE-MIT"];
    assert_eq!(names, [&licences[..], &["schedswap-loader", "scheduler.ko"]].concat());
    assert_eq!(fs::metadata(rpm.join(&payload).join("scheduler.ko"))?.mtime(), i64::from(DATE));

    // Nothing outside except Debian's documents.
    for (tree, others) in [(&deb, &["usr", "var"][..]), (&rpm, &["var"])] {
        let mut tops: Vec<_> = fs::read_dir(tree)?
            .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        tops.sort();
        assert_eq!(tops, others);
    }
    Ok(())
}

#[test]
fn the_manifest_says_what_was_built() -> Result<()> {
    let made = made();
    let manifest = Manifest::parse(&fs::read(made.work.join("manifest.json"))?)?;
    assert_eq!((manifest.name.as_str(), manifest.release.as_str()), ("demo", "1"));
    assert_eq!(
        (manifest.version.as_str(), manifest.summary.as_str()),
        ("demo-1", "shows which scheduler runs")
    );
    ensure!(manifest.knows("scheduler.ko", &fs::read(made.work.join("scheduler.ko"))?));
    ensure!(manifest.functions.iter().any(|function| function.name == "__schedule"));
    ensure!(manifest.source_commit.is_some_and(|commit| commit.len() == 40));
    ensure!(!manifest.module_name.is_empty());
    Ok(())
}

#[test]
fn the_same_sources_make_the_same_packages_at_another_place() -> Result<()> {
    let made = made();
    let elsewhere = fresh("elsewhere")?.join("a-work-dir-with-a-longer-name");
    copy(&made.work, &elsewhere)?;
    let summary = ["--summary", "shows which scheduler runs"];
    let again = build(&elsewhere, "demo", "1", &summary)?;
    for (one, other) in [(&made.first.deb, &again.deb), (&made.first.rpm, &again.rpm)] {
        ensure!(fs::read(one)? == fs::read(other)?, "{} differs from {}", one.display(), other.display());
    }
    let modules = [&made.work, &elsewhere].map(|work| fs::read(work.join("scheduler.ko")));
    let [Ok(one), Ok(other)] = modules else { anyhow::bail!("a module is missing") };
    ensure!(one == other, "the modules differ");
    let place = dir()?.display().to_string();
    ensure!(!String::from_utf8_lossy(&one).contains(&place), "the module tells where it was built");

    // The environment's date takes precedence over the commit's, and makes other packages.
    let stated = build_at(&elsewhere, "demo", "1", &summary, Some(DATE))?;
    ensure!(fs::read(&stated.deb)? == fs::read(&made.first.deb)?);
    build_at(&elsewhere, "demo", "1", &summary, Some(DATE + 1))?;
    ensure!(fs::read(&stated.deb)? != fs::read(&made.first.deb)?, "the deb ignores SOURCE_DATE_EPOCH");
    ensure!(fs::read(&stated.rpm)? != fs::read(&made.first.rpm)?, "the rpm ignores SOURCE_DATE_EPOCH");

    // The package says that it contains uncommitted changes.
    let file = elsewhere.join("kernel/sched/idle.c");
    fs::write(&file, fs::read_to_string(&file)? + "\n/* mine */\n")?;
    build(&elsewhere, "demo", "1", &["--format", "deb,rpm"])?;
    let manifest = Manifest::parse(&fs::read(elsewhere.join("manifest.json"))?)?;
    assert_eq!(manifest.source_commit, None);
    Ok(())
}

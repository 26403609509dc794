//! rpm's format, version 4.
//!
//! Compressed with gzip and with SHA-256 digests: rpm 4.14 (the oldest of a supported distribution) reads it, and the
//! bytes depend only on our own Cargo.lock.

use super::changelog::wrapped;
use super::recipe::{Content, Recipe, Role};
use super::{Error, Package, Result};
use rpm::{BuildConfig, CompressionType, Dependency, FileOptions, PackageBuilder, Scriptlet};

pub(super) fn build(recipe: &Recipe) -> Result<Package> {
    let name = &recipe.rpm;
    let architecture = recipe.architecture.rpm();
    let file_name = format!("{}-{}-{}.{architecture}.rpm", name.name, name.version, name.release);
    let failed = |source| Error::Rpm { file: file_name.clone(), source: Box::new(source) };
    let bytes = bytes(recipe, architecture).map_err(failed)?;
    Ok(Package { file_name, bytes })
}

fn bytes(recipe: &Recipe, architecture: &str) -> std::result::Result<Vec<u8>, rpm::Error> {
    let (name, changelog) = (&recipe.rpm, &recipe.changelog);
    let config = BuildConfig::v4()
        .compression(CompressionType::Gzip)
        .source_date(changelog.date.seconds())
        // Space for signatures that are added later in place; `rpmsign` rewrites the file anyway.
        .reserved_space(None);
    let paragraphs: Vec<String> = recipe.description.iter().map(|words| wrapped("", "", words)).collect();
    let mut builder =
        PackageBuilder::new(&name.name, &name.version, recipe.licence, architecture, &recipe.summary);
    builder
        .using_config(config)
        .release(&*name.release)
        .description(paragraphs.join("\n").trim_end())
        .group(recipe.rpm_group)
        .packager(&*changelog.maintainer)
        // This machine's host name would make it a different package.
        .build_host("localhost");
    for package in &recipe.rpm_requires {
        builder.requires(Dependency::any(*package));
    }
    for entry in &recipe.entries {
        match &entry.content {
            Content::Dir => {
                builder.with_dir_entry(FileOptions::dir(&*entry.path).permissions(entry.mode()))?;
            }
            Content::File { bytes, role, .. } => {
                let options = FileOptions::new(&*entry.path).permissions(entry.mode());
                let options = match role {
                    Role::Plain => options,
                    Role::Licence => options.license(),
                    Role::Documentation => options.doc(),
                };
                builder.with_file_contents(bytes.clone(), options)?;
            }
        }
    }
    if let Some(script) = &recipe.scripts.post {
        builder.post_install_script(shell(script));
    }
    if let Some(script) = &recipe.scripts.preun {
        builder.pre_uninstall_script(shell(script));
    }
    for change in &changelog.changes {
        let version = format!("{} - {}-{}", change.author, name.version, name.release);
        builder.add_changelog_entry(version, format!("- {}", change.text), change.seconds);
    }
    let mut bytes = Vec::new();
    builder.build()?.write(&mut bytes)?;
    Ok(bytes)
}

fn shell(script: &str) -> Scriptlet {
    Scriptlet::new(script).prog(vec!["/bin/sh"])
}

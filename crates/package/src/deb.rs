//! Debian's format: an `ar` archive of a version, a metadata archive and a file archive (deb(5)).
//!
//! Compressed with gzip: every dpkg reads it, and the bytes depend only on our own Cargo.lock.

use super::changelog::wrapped;
use super::recipe::{Content, PackageEntry, Recipe, Role};
use super::{Error, Package, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use md5::{Digest, Md5};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

pub(super) fn build(recipe: &Recipe) -> Result<Package> {
    let name = &recipe.deb.file_name;
    let failed = |source| Error::Archive { what: name.clone(), source };
    let mut entries = recipe.entries.clone();
    entries.extend(documents(recipe).map_err(failed)?);
    let date = recipe.changelog.date.seconds();
    let control = control_files(recipe, &entries);
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", archive(&control, date).and_then(|tar| gzip(&tar)).map_err(failed)?),
        (
            "data.tar.gz",
            archive(&with_directories(&entries), date).and_then(|tar| gzip(&tar)).map_err(failed)?,
        ),
    ];
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in members {
        // ar(5): name, date, owner, group, mode, size; padded to an even length.
        let _ = writeln!(bytes, "{name:<16}{date:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 100644, content.len());
        bytes.extend(&content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    Ok(Package { file_name: name.clone(), bytes })
}

/// What Debian's policy requires of every package: copyright (12.5) and changelog (12.7).
fn documents(recipe: &Recipe) -> io::Result<[PackageEntry; 2]> {
    let dir = format!("/usr/share/doc/{}", recipe.deb.package);
    let changelog = recipe.changelog.deb(&recipe.deb.package, &recipe.deb.version);
    let document =
        |name, bytes| PackageEntry::file(format!("{dir}/{name}"), bytes, false, Role::Documentation);
    Ok([
        document("changelog.gz", gzip(changelog.as_bytes())?),
        document("copyright", recipe.copyright.clone().into_bytes()),
    ])
}

fn control_files(recipe: &Recipe, entries: &[PackageEntry]) -> BTreeMap<String, PackageEntry> {
    let mut files = vec![
        PackageEntry::file("control", control(recipe, entries).into_bytes(), false, Role::Plain),
        PackageEntry::file("md5sums", md5sums(entries).into_bytes(), false, Role::Plain),
    ];
    let scripts = [("postinst", &recipe.scripts.postinst), ("prerm", &recipe.scripts.prerm)];
    for (name, script) in scripts {
        files.extend(
            script.as_ref().map(|text| PackageEntry::file(name, text.clone().into(), true, Role::Plain)),
        );
    }
    let root = [(".".to_owned(), PackageEntry::dir("."))];
    root.into_iter().chain(files.into_iter().map(|entry| (format!("./{}", entry.path), entry))).collect()
}

/// The control file (policy 5.3).
fn control(recipe: &Recipe, entries: &[PackageEntry]) -> String {
    let (deb, architecture) = (&recipe.deb, recipe.architecture.deb());
    let mut text = format!(
        "Package: {}\nVersion: {}\nArchitecture: {architecture}\nMaintainer: {}\nInstalled-Size: {}\n",
        deb.package,
        deb.version,
        recipe.changelog.maintainer,
        installed_kib(entries)
    );
    if !recipe.deb_requires.is_empty() {
        let _ = writeln!(text, "Depends: {}", recipe.deb_requires.join(", "));
    }
    let _ =
        writeln!(text, "Section: {}\nPriority: optional\nDescription: {}", recipe.section, recipe.summary);
    let paragraphs: Vec<String> = recipe.description.iter().map(|words| wrapped(" ", " ", words)).collect();
    text + &paragraphs.join(" .\n")
}

/// Counted like dpkg-gencontrol: files in full KiB, 1 KiB for anything else.
fn installed_kib(entries: &[PackageEntry]) -> usize {
    with_directories(entries).values().map(|entry| entry.bytes().len().div_ceil(1024).max(1)).sum()
}

fn md5sums(entries: &[PackageEntry]) -> String {
    let mut files: Vec<&PackageEntry> =
        entries.iter().filter(|entry| entry.content != Content::Dir).collect();
    files.sort_by_key(|entry| &entry.path);
    let mut text = String::new();
    for file in files {
        let digest = Md5::digest(file.bytes());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "{hex}  {}", file.path.trim_start_matches('/'));
    }
    text
}

/// The entries by their names in the archive, with every directory above them.
fn with_directories(entries: &[PackageEntry]) -> BTreeMap<String, PackageEntry> {
    let mut all = BTreeMap::new();
    for entry in entries {
        let mut above = entry.path.as_str();
        while let Some((parent, _)) = above.rsplit_once('/') {
            all.entry(format!(".{parent}")).or_insert_with(|| PackageEntry::dir(parent));
            above = parent;
        }
        all.insert(format!(".{}", entry.path), entry.clone());
    }
    all
}

/// A tar of the entries under these names.
fn archive(entries: &BTreeMap<String, PackageEntry>, date: u32) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, entry) in entries {
        let (kind, name) = match entry.content {
            Content::Dir => (tar::EntryType::Directory, format!("{name}/")),
            Content::File { .. } => (tar::EntryType::Regular, name.clone()),
        };
        if name.len() > NAME_BYTES {
            // GNU's way, which dpkg reads: an entry that contains the name goes before the file's own.
            let long = [name.as_bytes(), b"\0"].concat();
            tar.append(&header("././@LongLink", tar::EntryType::GNULongName, 0o644, long.len(), 0)?, &*long)?;
        }
        let bytes = entry.bytes();
        tar.append(&header(&name, kind, entry.mode().into(), bytes.len(), date)?, bytes)?;
    }
    tar.into_inner()
}

/// Space for a name in a header.
const NAME_BYTES: usize = 100;

/// The tar crate would remove `./` from a name; dpkg's own archives have it.
fn header(name: &str, kind: tar::EntryType, mode: u32, size: usize, date: u32) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    let length = name.len().min(NAME_BYTES);
    header.as_old_mut().name[..length].copy_from_slice(&name.as_bytes()[..length]);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(date.into());
    header.set_uid(0);
    header.set_gid(0);
    header.set_username("root")?;
    header.set_groupname("root")?;
    header.set_cksum();
    Ok(header)
}

/// Without a name and a date in its header.
pub(super) fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

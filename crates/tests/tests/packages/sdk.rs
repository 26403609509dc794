//! schedswap itself: `make install`, and its own packages.

use super::assert_has;
use super::made::{fresh, run, unpack_deb, unpack_rpm};
use anyhow::{Context, Result, bail, ensure};
use schedswap_package::{Changelog, Date, Format, Package, sdk};
use schedswap_sdk::git;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `make install` below a directory, of what is already built. The loader takes the place of the command where a
/// static program is needed: `make packages` builds one, which takes long.
fn install(destdir: &Path, program: &Path) -> Result<()> {
    let mut make = Command::new("make");
    make.args(["--silent", "--old-file=all", "install", "PREFIX=/usr"]);
    make.arg(format!("DESTDIR={}", destdir.display())).arg(format!("program={}", program.display()));
    // Those of the make that runs this test.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("MFLAGS");
    run(make.current_dir(repository())).map(drop)
}

fn program() -> Result<PathBuf> {
    Ok(env::var_os("SCHEDSWAP").context("SCHEDSWAP is not set; run the tests through `make test`")?.into())
}

fn loader() -> Result<PathBuf> {
    let libexec = env::var_os("SCHEDSWAP_LIBEXEC").context("SCHEDSWAP_LIBEXEC is not set")?;
    Ok(Path::new(&libexec).join("schedswap-loader"))
}

/// Every file below a directory, with its mode.
fn files(root: &Path) -> Result<BTreeMap<String, u32>> {
    let found = run(Command::new("find").current_dir(root).args([".", "-type", "f", "-printf", "%P\n"]))?;
    let mode =
        |name: &str| Ok((name.to_owned(), fs::metadata(root.join(name))?.permissions().mode() & 0o7777));
    found.lines().map(mode).collect()
}

#[test]
fn make_install_puts_everything_where_it_belongs() -> Result<()> {
    let destdir = fresh("destdir")?;
    install(&destdir, &program()?)?;
    let found = files(&destdir)?;
    for (name, mode) in [
        ("usr/bin/schedswap", 0o755),
        ("usr/libexec/schedswap/schedswap-loader", 0o755),
        ("usr/libexec/schedswap/guest-load", 0o755),
        ("usr/libexec/schedswap/kernels/README.md", 0o644),
        ("usr/share/doc/schedswap/configuration.md", 0o644),
        ("usr/share/man/man1/schedswap.1", 0o644),
        ("usr/share/man/man1/schedswap-build.1", 0o644),
        ("usr/share/man/man1/schedswap-loader.1", 0o644),
        ("usr/share/bash-completion/completions/schedswap", 0o644),
        ("usr/share/zsh/site-functions/_schedswap", 0o644),
        ("usr/share/fish/vendor_completions.d/schedswap.fish", 0o644),
        ("usr/share/licenses/schedswap/LICENSE-MIT", 0o644),
    ] {
        assert_eq!(found.get(name), Some(&mode), "{name} in {found:?}");
    }
    // The installed command runs, and its completions are valid for the shell.
    let version = run(Command::new(destdir.join("usr/bin/schedswap")).arg("--version"))?;
    assert_has(&version, &["schedswap "]);
    run(Command::new("bash").arg("-n").arg(destdir.join("usr/share/bash-completion/completions/schedswap")))?;
    let page = fs::read_to_string(destdir.join("usr/share/man/man1/schedswap-build.1"))?;
    assert_has(&page, &["SOURCE_DATE_EPOCH", "sign\\-key"]);
    Ok(())
}

/// What rpmlint and lintian report, and why that is as intended.
const KNOWN: &[(&str, &str)] = &[
    ("no-signature", "who distributes it signs it"),
    ("statically-linked-binary", "it serves every distribution"),
    ("no-url-tag", "it has no home"),
    ("invalid-license", "the list of rpmlint's configuration is not SPDX's"),
    ("summary-not-capitalized", "Debian wants it otherwise"),
    ("shared-library-lacks-prerequisites", "a static program at no fixed address is taken for a library"),
    ("manpage-not-compressed", "rpmlint's configuration may want another program than gzip"),
    ("no-manual-page-for-binary", "for the same reason it does not find them"),
    ("devel-dependency", "it compiles"),
    ("explicit-lib-dependency", "objtool, of the kernel's packages, is linked with it"),
    ("package-contains-documentation-outside-usr-share-doc", "the licences, where rpm looks for them"),
];

#[test]
fn both_packages_hold_what_make_install_installs() -> Result<()> {
    let root = fresh("sdk")?;
    let tree = root.join("tree");
    install(&tree, &loader()?)?;
    let commits = git::history(&repository())?;
    let date = Date::of_sources(None, Some(commits.first().map_or(1_700_000_000, |commit| commit.seconds)))?;
    let changelog = Changelog::new(&commits, None, date);
    let recipe = sdk::recipe(&tree, changelog)?;
    let mut paths = Vec::new();
    for format in [Format::Deb, Format::Rpm] {
        let package = Package::build(&recipe, format)?;
        ensure!(package == Package::build(&recipe, format)?, "not the same twice");
        paths.push(package.write(&root)?);
    }
    let (deb, rpm) = (&paths[0], &paths[1]);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(deb.file_name().context("a name")?, &*format!("schedswap_{version}_amd64.deb"));
    assert_eq!(rpm.file_name().context("a name")?, &*format!("schedswap-{version}-1.x86_64.rpm"));

    let (from_deb, from_rpm) = (root.join("from-deb"), root.join("from-rpm"));
    fs::create_dir(&from_rpm)?;
    unpack_deb(deb, &from_deb)?;
    unpack_rpm(rpm, &from_rpm)?;
    let mut wanted = BTreeMap::new();
    for (name, mode) in files(&tree)? {
        let is_page = name.contains("/man1/");
        wanted.insert(if is_page { format!("{name}.gz") } else { name }, mode);
    }
    let mut in_rpm = files(&from_rpm)?;
    in_rpm.retain(|name, _| !name.starts_with("var/lib/rpm/"));
    assert_eq!(in_rpm, wanted);
    let mut in_deb = files(&from_deb)?;
    for document in ["changelog.gz", "copyright"] {
        ensure!(in_deb.remove(&format!("usr/share/doc/schedswap/{document}")) == Some(0o644), "{document}");
    }
    assert_eq!(in_deb, wanted);
    for name in wanted.keys().filter(|name| !name.ends_with(".gz")) {
        let content = fs::read(tree.join(name))?;
        ensure!(
            fs::read(from_deb.join(name))? == content && fs::read(from_rpm.join(name))? == content,
            "{name}"
        );
    }
    let page = "usr/share/man/man1/schedswap.1";
    let unpacked = run(Command::new("gzip").arg("-dc").arg(from_rpm.join(format!("{page}.gz"))))?;
    assert_eq!(unpacked, fs::read_to_string(tree.join(page))?);
    assert_has(&run(Command::new("dpkg-deb").arg("--field").arg(deb).arg("Depends"))?, &["make", "xz-utils"]);
    assert_has(&run(Command::new("rpm").args(["-qp", "--requires"]).arg(rpm))?, &["make\n", "xz\n"]);
    // The package does not own system directories.
    let listed = run(Command::new("rpm").args(["-qp", "--qf", "[%{FILENAMES}\n]"]).arg(rpm))?;
    ensure!(!listed.lines().any(|path| path == "/usr/bin" || path == "/usr/share"), "{listed}");
    assert_has(&listed, &["/usr/libexec/schedswap\n"]);
    complaints(deb, rpm)
}

fn complaints(deb: &Path, rpm: &Path) -> Result<()> {
    let said = |command: &mut Command| -> Result<String> {
        Ok(String::from_utf8_lossy(&command.output()?.stdout).into_owned())
    };
    let text = said(Command::new("rpmlint").arg(rpm))?
        + &said(Command::new("lintian").args(["--allow-root", "--no-cfg"]).arg(deb))?;
    let is_complaint = |line: &&str| line.contains("E: ") || line.contains("W: ");
    for line in text.lines().filter(is_complaint) {
        let tag = line.split_whitespace().nth(2).unwrap_or_default();
        ensure!(KNOWN.iter().any(|(name, _)| *name == tag), "{line}");
    }
    Ok(())
}

#[test]
fn a_program_that_needs_shared_libraries_is_not_packed() -> Result<()> {
    let tree = fresh("sdk-dynamic")?;
    let bin = tree.join("usr/bin");
    fs::create_dir_all(&bin)?;
    // Not this program, which may be static.
    fs::copy("/bin/true", bin.join("schedswap"))?;
    let date = Date::of_sources(None, Some(0))?;
    let Err(error) = sdk::recipe(&tree, Changelog::new(&[], None, date)) else { bail!("it was packed") };
    assert_has(&error.to_string(), &["usr/bin/schedswap", "statically"]);
    Ok(())
}

//! Names, fields, owners and changelogs, as dpkg-deb and rpm read them; and the complaints of rpmlint and lintian.

use super::assert_has;
use super::made::{CHANGE, DATE, DATE_TEXT, fresh, made, run, unpack_deb};
use anyhow::{Context, Result, ensure};
use schedswap_tests::{kernel, schedswap};
use std::path::Path;
use std::process::Command;

#[test]
fn files_are_named_for_scheduler_kernel_and_release() -> Result<()> {
    let (made, release) = (made(), kernel()?.release);
    let (version, rest) = release.split_once('-').context("a release with a rest")?;
    let rest = rest.replace('-', ".");
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    assert_eq!(name(&made.first.deb), Some(format!("scheduler-demo-{release}.1.amd64.deb")));
    assert_eq!(name(&made.second.rpm), Some(format!("scheduler-demo-{version}-{rest}.2.x86_64.rpm")));
    Ok(())
}

#[test]
fn a_deb_as_dpkg_reads_it() -> Result<()> {
    let (deb, release) = (&made().first.deb, kernel()?.release);
    let field = |name: &str| run(Command::new("dpkg-deb").arg("--field").arg(deb).arg(name));
    assert_eq!(field("Package")?.trim(), format!("scheduler-demo-{release}"));
    assert_eq!((field("Version")?.trim(), field("Architecture")?.trim()), ("1", "amd64"));
    assert_eq!(field("Maintainer")?.trim(), "Ann Author <ann@example.org>");
    assert_has(&field("Description")?, &["shows which scheduler runs\n", &release]);

    let listed = run(Command::new("dpkg-deb").arg("--contents").arg(deb).env("TZ", "UTC"))?;
    ensure!(listed.lines().count() > 10, "{listed}");
    for line in listed.lines() {
        let mode = match line.split_whitespace().last() {
            Some(name) if name.ends_with('/') => "drwxr-xr-x",
            Some(name) if name.ends_with("/schedswap-loader") => "-rwxr-xr-x",
            _ => "-rw-r--r--",
        };
        ensure!(line.starts_with(&format!("{mode} root/root ")) && line.contains(" ./"), "{line}");
        ensure!(line.contains(DATE_TEXT), "{line}");
    }
    let control = run(Command::new("sh").args(["-c", "dpkg-deb --ctrl-tarfile \"$0\" | tar -tv"]).arg(deb))?;
    for line in control.lines() {
        let is_script = line.ends_with("/postinst") || line.ends_with("/prerm");
        ensure!(
            line.starts_with(if is_script || line.ends_with('/') { "" } else { "-rw-r--r-- root/root" }),
            "{line}"
        );
        ensure!(!is_script || line.starts_with("-rwxr-xr-x root/root"), "{line}");
    }
    assert_has(&control, &["./control", "./md5sums", "./postinst", "./prerm"]);

    let root = fresh("deb-fields")?;
    unpack_deb(deb, &root)?;
    run(Command::new("dpkg-deb").arg("--control").arg(deb).arg(root.join("DEBIAN")))?;
    run(Command::new("md5sum").args(["--check", "--strict", "DEBIAN/md5sums"]).current_dir(&root))?;
    let documents = root.join(format!("usr/share/doc/scheduler-demo-{release}"));
    let changelog = run(Command::new("gzip").arg("-dc").arg(documents.join("changelog.gz")))?;
    let signed_off = " -- Ann Author <ann@example.org>  Tue, 14 Nov 2023 22:13:20 +0000";
    assert_has(
        &changelog,
        &[&format!("scheduler-demo-{release} (1) "), &format!("  * {CHANGE}\n"), signed_off],
    );
    Ok(())
}

#[test]
fn an_rpm_as_rpm_reads_it() -> Result<()> {
    let rpm = &made().first.rpm;
    let query = |arguments: &[&str]| run(Command::new("rpm").arg("-qp").args(arguments).arg(rpm));
    let tags = "%{NAME} %{ARCH} %{BUILDTIME} %{BUILDHOST} %{PAYLOADCOMPRESSOR} %{PAYLOADFORMAT}|%{SUMMARY}|%{PACKAGER}";
    assert_eq!(
        query(&["--qf", tags])?,
        format!(
            "scheduler-demo x86_64 {DATE} localhost gzip cpio|shows which scheduler runs|Ann Author <ann@example.org>"
        )
    );
    let files = query(&[
        "--qf",
        "[%{FILENAMES} %{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEMTIMES}\\n]",
    ])?;
    ensure!(files.lines().count() == 10, "{files}");
    for line in files.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let name = fields[0].rsplit('/').next().unwrap_or_default();
        let mode = match name {
            "schedswap-loader" => "100755",
            "manifest.json" | "scheduler.ko" => "100644",
            licence if licence.starts_with("LICENSE-") => "100644",
            _ => "40755",
        };
        assert_eq!(fields[1].trim_start_matches('0'), mode, "{line}");
        assert_eq!(fields[2..], ["root:root", &DATE.to_string()], "{line}");
    }
    let own =
        ["/var/lib/schedswap ", &format!("/var/lib/schedswap/{} ", kernel()?.release)].map(str::to_owned);
    assert_has(&files, &[&own[0], &own[1]]);
    assert_has(&query(&["--licensefiles"])?, &["/LICENSE-GPL-2.0", "/LICENSE-MIT"]);
    assert_has(
        &query(&["--changelog"])?,
        &["Nov 14 2023 Ann Author <ann@example.org> - ", &format!("- {CHANGE}")],
    );
    // What a scriptlet needs; nothing else except rpm itself.
    let needs = query(&["--requires"])?;
    ensure!(needs.lines().all(|need| need == "/bin/sh" || need.starts_with("rpmlib(")), "{needs}");
    ensure!(!needs.contains("PayloadIsZstd") && !needs.contains("PayloadIsXz"), "{needs}");
    assert_has(
        &run(Command::new("rpm").args(["-Kv", "--nosignature"]).arg(rpm))?,
        &["Payload SHA256 digest: OK"],
    );
    Ok(())
}

/// What rpmlint reports, and why that is as intended.
const RPMLINT: &[(&str, &str)] = &[
    ("no-signature", "who distributes it signs it"),
    ("statically-linked-binary", "the loader runs before anything else; a module is not a program"),
    ("missing-PT_GNU_STACK-section", "of a kernel module"),
    ("unstripped-binary-or-object", "a module needs its symbols"),
    ("no-url-tag", "it has no home"),
    ("no-documentation", "it has a licence"),
    ("invalid-license", "the list of rpmlint's configuration is not SPDX's"),
    ("summary-not-capitalized", "Debian wants it otherwise, and it is the user's"),
];

/// The same for lintian.
const LINTIAN: &[(&str, &str)] =
    &[("shared-library-lacks-prerequisites", "a static program at no fixed address is taken for a library")];

#[test]
fn rpmlint_and_lintian_find_nothing_that_is_not_known() -> Result<()> {
    let said = |command: &mut Command| -> Result<String> {
        let output = command.output().with_context(|| format!("running {command:?}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let rpmlint = said(Command::new("rpmlint").arg(&made().first.rpm))?;
    assert_has(&rpmlint, &["1 packages and 0 specfiles checked"]);
    let lintian = said(
        Command::new("lintian").args(["--allow-root", "--no-cfg", "--show-overrides"]).arg(&made().first.deb),
    )?;
    // `scheduler-demo.x86_64: W: tag …`, `W: scheduler-demo-6.1: tag …`
    let rpmlint = rpmlint.lines().filter(|line| line.contains(": E: ") || line.contains(": W: "));
    let lintian = lintian.lines().filter(|line| line.starts_with("E: ") || line.starts_with("W: "));
    let found = rpmlint.map(|line| (line, RPMLINT)).chain(lintian.map(|line| (line, LINTIAN)));
    for (line, known) in found {
        let tag = line.split_whitespace().nth(2).unwrap_or_default();
        ensure!(known.iter().any(|(name, _)| *name == tag), "{line}");
    }
    Ok(())
}

#[test]
fn what_no_package_can_be_called_is_refused_before_anything_is_built() -> Result<()> {
    let work = made().work.display().to_string();
    for (arguments, words) in [
        (["--name", "Demo"], &["the name \"Demo\"", "lower-case letters, digits, + - and ."][..]),
        (["--name", "../demo"], &["the name \"../demo\""]),
        (["--release", "1-2"], &["the release \"1-2\"", "letters, digits, + . and ~"]),
        (["--release", "rc1"], &["the release \"rc1\"", "begin with a digit"]),
        (["--summary", "two\nlines"], &["one line"]),
        (["--format", "none,deb"], &["--format none"]),
    ] {
        let output = schedswap(&[&["build", &work][..], &arguments].concat())?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert_has(&said, words);
        ensure!(!said.contains("compiling"), "{arguments:?}: {said}");
    }
    Ok(())
}

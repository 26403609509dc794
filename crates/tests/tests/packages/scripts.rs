//! The packages' scripts, run as the package managers run them, with a loader that records how it is called.

use super::made::{fresh, made, payload_dir, run};
use anyhow::{Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A payload directory whose loader records its arguments and exits with a status.
struct Recorder {
    dir: PathBuf,
}

impl Recorder {
    fn new(name: &str) -> Result<Recorder> {
        let dir = fresh(name)?;
        let loader = dir.join("schedswap-loader");
        fs::write(
            &loader,
            format!("#!/bin/sh\necho \"$@\" >>{0}/calls\nexit $(cat {0}/status)\n", dir.display()),
        )?;
        fs::set_permissions(&loader, fs::Permissions::from_mode(0o755))?;
        fs::write(dir.join("status"), "0")?;
        Ok(Recorder { dir })
    }

    /// Runs a script of `demo-1` with the payload here; its status, and the loader's calls.
    fn run(&self, script: &str, arguments: &[&str]) -> Result<(Option<i32>, String)> {
        let installed = format!("/{}", payload_dir("demo-1")?);
        ensure!(script.contains(&format!("payload={installed}\n")), "{script}");
        let file = self.dir.join("script");
        fs::write(&file, script.replace(&installed, &self.dir.display().to_string()))?;
        let calls = self.dir.join("calls");
        fs::write(&calls, "")?;
        // As rpm runs its scripts; dpkg executes them, which leads to the same shell.
        let output = Command::new("sh").arg(&file).args(arguments).output()?;
        Ok((output.status.code(), fs::read_to_string(&calls)?))
    }

    fn call(&self, command: &str) -> String {
        format!("{command} {}\n", self.dir.display())
    }
}

#[test]
fn dpkg_installs_removes_and_takes_back() -> Result<()> {
    let (recorder, control) = (Recorder::new("deb-scripts")?, fresh("deb-control")?);
    run(Command::new("dpkg-deb").arg("--control").arg(&made().first.deb).arg(&control))?;
    let script = |name: &str| fs::read_to_string(control.join(name));
    let (postinst, prerm) = (script("postinst")?, script("prerm")?);
    // Debian policy 6.5: the ways in which scripts are called.
    let install = recorder.call("install");
    for arguments in [
        &["configure", "1"][..],
        &["configure", ""],
        &["abort-upgrade", "2"],
        &["abort-remove"],
        &["abort-deconfigure", "in-favour", "x", "1"],
    ] {
        assert_eq!(recorder.run(&postinst, arguments)?, (Some(0), install.clone()), "{arguments:?}");
    }
    let remove = recorder.call("remove");
    for (arguments, calls) in [
        (&["remove"][..], remove.as_str()),
        (&["deconfigure", "in-favour", "x", "1"], &remove),
        (&["upgrade", "2"], ""),
        (&["failed-upgrade", "1"], ""),
    ] {
        assert_eq!(recorder.run(&prerm, arguments)?, (Some(0), calls.to_owned()), "{arguments:?}");
    }
    // dpkg has to learn about a refusal of the loader.
    fs::write(recorder.dir.join("status"), "3")?;
    assert_eq!(recorder.run(&postinst, &["configure", ""])?.0, Some(3));
    assert_eq!(recorder.run(&prerm, &["remove"])?.0, Some(3));
    Ok(())
}

fn scriptlet(rpm: &Path, tag: &str) -> Result<String> {
    let text =
        run(Command::new("rpm").args(["-qp", "--qf", &format!("%{{{tag}PROG}}\n%{{{tag}}}")]).arg(rpm))?;
    let Some(script) = text.strip_prefix("/bin/sh\n") else { anyhow::bail!("{tag}: {text}") };
    Ok(script.to_owned())
}

#[test]
fn rpm_installs_and_removes_whatever_the_count() -> Result<()> {
    let (recorder, rpm) = (Recorder::new("rpm-scripts")?, &made().first.rpm);
    let (post, preun) = (scriptlet(rpm, "POSTIN")?, scriptlet(rpm, "PREUN")?);
    // How many packages of that name there are afterwards: 1 or 2 with --upgrade, any number with --install.
    for count in ["1", "2", "3"] {
        assert_eq!(recorder.run(&post, &[count])?, (Some(0), recorder.call("install")), "{count}");
    }
    assert_eq!(recorder.run(&preun, &["0"])?, (Some(0), recorder.call("remove")));
    for count in ["1", "2"] {
        assert_eq!(recorder.run(&preun, &[count])?, (Some(0), recorder.call("forget")), "{count}");
    }
    fs::write(recorder.dir.join("status"), "3")?;
    assert_eq!(
        recorder.run(&preun, &["0"])?.0,
        Some(3),
        "a scheduler that cannot go has to keep its package"
    );
    for tag in ["PREIN", "POSTUN", "PRETRANS", "POSTTRANS", "VERIFYSCRIPT"] {
        let script = run(Command::new("rpm").args(["-qp", "--qf", &format!("%{{{tag}}}")]).arg(rpm))?;
        assert_eq!(script, "(none)", "{tag}");
    }
    Ok(())
}

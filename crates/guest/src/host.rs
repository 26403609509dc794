//! The programs of this machine that make a guest's disks.

use super::{Error, Result};
use std::io::ErrorKind;
use std::process::{Command, Stdio};

/// Runs a program that must succeed; returns its standard output as text.
pub(super) fn run(command: &mut Command, package: &'static str, doing: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(&run_bytes(command, package, doing)?).into_owned())
}

/// Runs a program that must succeed; returns its standard output. `package` is the Debian package to name if the
/// program is missing.
pub(super) fn run_bytes(command: &mut Command, package: &'static str, doing: &str) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.env("LC_ALL", "C").stdin(Stdio::null()).output().map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::HostProgramMissing { program: program.clone(), package },
            _ => Error::io(format!("cannot run {program}"))(error),
        })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        return Err(Error::HostProgramFailed {
            doing: doing.to_string(),
            program,
            status: output.status.to_string(),
            said: format!("{}{}", text(&output.stdout), text(&output.stderr)).trim_end().to_string(),
        });
    }
    Ok(output.stdout)
}

//! Which compiler it is, down to the package's revision: a distribution's patches to the compiler change the
//! code it makes without changing its version.

use super::spawn_error;
use super::{Error, Result};
use object::{Object, ObjectSection};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A compiler's identity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Compiler {
    /// How Kbuild calls it (`gcc-12`; more words with a wrapper such as ccache).
    pub command: Vec<String>,
    /// First line of `--version`.
    pub version: String,
    /// What it writes into `.comment`, e.g. `GCC: (Debian 12.2.0-14+deb12u1) 12.2.0`.
    pub comment: String,
    /// Where it and its assembler and linker are, if they are not the machine's own.
    #[serde(default)]
    pub programs: Option<PathBuf>,
}

/// Has `command` look for programs in that directory first.
pub(crate) fn look_first_in(programs: Option<&Path>, command: &mut Command) {
    let Some(programs) = programs else { return };
    let mut path = programs.as_os_str().to_owned();
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    command.env("PATH", path);
}

impl Compiler {
    /// The compiler of a command line, and the `.comment` of an object it made.
    pub(super) fn of(
        compile: &[String],
        cwd: &Path,
        programs: Option<&Path>,
        object: &Path,
    ) -> Result<Compiler> {
        let command: Vec<String> =
            compile.iter().take_while(|word| !word.starts_with('-')).cloned().collect();
        let version = version_line(&command, cwd, programs)?;
        let bytes = fs::read(object).map_err(|e| Error::io("read", object, e))?;
        let programs = programs.map(Path::to_owned);
        Ok(Compiler { command, version, comment: comment(&bytes).unwrap_or_default(), programs })
    }

    /// Whether it is the compiler whose `.comment` a vmlinux carries.
    pub fn built(&self, vmlinux_comment: &str) -> bool {
        !self.comment.is_empty() && vmlinux_comment.contains(&self.comment)
    }

    /// Whether the command still runs this compiler. After an upgrade it does not.
    pub fn is_as_recorded(&self, cwd: &Path) -> bool {
        self.version_today(cwd).is_ok_and(|version| version == self.version)
    }

    /// The first line of `--version` of what the command runs today.
    pub(super) fn version_today(&self, cwd: &Path) -> Result<String> {
        version_line(&self.command, cwd, self.programs.as_deref())
    }
}

fn version_line(command: &[String], cwd: &Path, programs: Option<&Path>) -> Result<String> {
    let program = command.first().map(String::as_str).unwrap_or("cc");
    let mut asked = Command::new(program);
    asked.args(&command[1..]).arg("--version").current_dir(cwd);
    look_first_in(programs, &mut asked);
    let output = asked.output().map_err(|e| spawn_error(program, e))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

/// The first string of `.comment`.
fn comment(elf: &[u8]) -> Option<String> {
    let file = object::File::parse(elf).ok()?;
    let section = file.section_by_name(".comment")?;
    let data = section.data().ok()?;
    let text = data.split(|b| *b == 0).find(|text| !text.is_empty())?;
    Some(String::from_utf8_lossy(text).into_owned())
}

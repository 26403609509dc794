//! Which compiler built a kernel, and whether it is at hand.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::super::architecture::Architecture;
use super::super::fetch::compiler_of;
use super::super::{Kernel, SourceError};

/// A compiler as a kernel's configuration names it, which is the first line that the compiler prints about itself:
/// `gcc-10 (Debian 10.2.1-6) 10.2.1 20210110`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedCompiler {
    text: String,
    /// What it runs on and compiles for, if that is not this machine.
    foreign: Option<Architecture>,
}

impl WantedCompiler {
    /// What `CONFIG_CC_VERSION_TEXT` says. `None` if the kernel's configuration does not say it.
    ///
    /// # Errors
    /// [`SourceError::Io`] if the configuration cannot be read.
    pub fn of(kernel: &Kernel) -> Result<Option<WantedCompiler>, SourceError> {
        let config = fs::read_to_string(&kernel.config).map_err(SourceError::io(&kernel.config))?;
        let architecture = Architecture::of_config(&config);
        let foreign = architecture.filter(|_| architecture != Architecture::of_machine());
        Ok(compiler_of(&config).map(|text| WantedCompiler { text, foreign }))
    }

    /// The whole line.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it runs on and compiles for, if that is not this machine.
    pub(super) fn foreign(&self) -> Option<Architecture> {
        self.foreign
    }

    /// The command by which the kernel's build calls it on this machine.
    fn command(&self) -> Option<String> {
        let command = self.text.split_whitespace().next()?;
        match self.foreign {
            None => Some(command.to_owned()),
            Some(foreign) => {
                let own = command.find("gcc").map_or(command, |at| &command[at..]);
                Some(format!("{}-{own}", foreign.triplet()))
            }
        }
    }

    /// Whether the program of that name says that it is this compiler: the program in `programs`, else the machine's.
    pub fn is_at_hand(&self, programs: Option<&Path>) -> bool {
        let Some(command) = self.command() else { return false };
        let program =
            programs.map_or_else(|| Path::new(&command).to_owned(), |programs| programs.join(&command));
        let output = Command::new(program).arg("--version").env("LC_ALL", "C").output();
        output.is_ok_and(|output| {
            let said = String::from_utf8_lossy(&output.stdout);
            let line = said.lines().next().unwrap_or_default();
            // The line begins with the command, which is longer if it compiles for another machine.
            let is_same =
                |(_, revision)| self.text.split_once(' ').is_some_and(|(_, wanted)| wanted == revision);
            line == self.text || self.foreign.is_some() && line.split_once(' ').is_some_and(is_same)
        })
    }

    /// Debian's package of it and that package's version: `gcc-10` and `10.2.1-6`.
    pub fn package(&self) -> Option<(&str, &str)> {
        let command = self.text.split_whitespace().next()?;
        // The command of a cross compiler begins with the machine for which it compiles.
        let package = &command[command.find("gcc-")?..];
        let (_, rest) = self.text.split_once("(Debian ")?;
        Some((package, rest.split_once(')')?.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_and_version_are_in_the_compilers_own_words() {
        let package = |text: &str| {
            let wanted = WantedCompiler { text: text.to_owned(), foreign: None };
            wanted.package().map(|(package, version)| format!("{package}={version}"))
        };
        assert_eq!(package("gcc-10 (Debian 10.2.1-6) 10.2.1 20210110").as_deref(), Some("gcc-10=10.2.1-6"));
        assert_eq!(
            package("x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0").as_deref(),
            Some("gcc-12=12.2.0-14+deb12u1")
        );
        assert_eq!(package("gcc (GCC) 11.5.0 20240719 (Red Hat 11.5.0-2)"), None);
    }

    #[test]
    fn a_compiler_that_says_something_else_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("gcc-10");
        let text = "gcc-10 (Debian 10.2.1-6) 10.2.1 20210110".to_owned();
        let wanted = WantedCompiler { text, foreign: None };
        assert!(!wanted.is_at_hand(Some(dir.path())));
        for (says, is_it) in [(wanted.text(), true), ("gcc-10 (Debian 10.2.1-5) 10.2.1 20210108", false)] {
            says_of_itself(&program, says);
            assert_eq!(wanted.is_at_hand(Some(dir.path())), is_it, "{says}");
        }
    }

    #[test]
    fn a_foreign_compiler_is_called_otherwise_and_has_the_same_revision() {
        let dir = tempfile::tempdir().unwrap();
        let text = "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0".to_owned();
        let wanted = WantedCompiler { text, foreign: Some(Architecture::Arm64) };
        // This machine's own compiler, which generates other code.
        says_of_itself(&dir.path().join("gcc-12"), wanted.text());
        assert!(!wanted.is_at_hand(Some(dir.path())));
        for (revision, is_it) in [("12.2.0-14+deb12u1", true), ("12.2.0-14", false)] {
            let says = format!("aarch64-linux-gnu-gcc-12 (Debian {revision}) 12.2.0");
            says_of_itself(&dir.path().join("aarch64-linux-gnu-gcc-12"), &says);
            assert_eq!(wanted.is_at_hand(Some(dir.path())), is_it, "{says}");
        }
    }

    /// Another process writes the program: a file that this one has open for writing is open, for a moment, in whatever
    /// another test starts meanwhile, and the kernel does not run it (ETXTBSY).
    fn says_of_itself(program: &Path, says: &str) {
        let text = program.with_extension("text");
        fs::write(&text, format!("#!/bin/sh\necho '{says}'\necho more\n")).unwrap();
        let installed = Command::new("install").args(["--mode=755", "--"]).arg(text).arg(program).status();
        assert!(installed.unwrap().success());
    }
}

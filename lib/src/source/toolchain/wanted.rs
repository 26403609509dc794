//! Which compiler a kernel was built by, and whether it is at hand.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::super::fetch::compiler_of;
use super::super::{Kernel, SourceError};

/// A compiler in the words of a kernel's configuration, which are the first line that it prints of itself:
/// `gcc-10 (Debian 10.2.1-6) 10.2.1 20210110`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedCompiler(String);

impl WantedCompiler {
    /// What `CONFIG_CC_VERSION_TEXT` says. `None` for a kernel whose configuration does not say it.
    ///
    /// # Errors
    /// When the configuration cannot be read.
    pub fn of(kernel: &Kernel) -> Result<Option<WantedCompiler>, SourceError> {
        let config = fs::read_to_string(&kernel.config).map_err(SourceError::io(&kernel.config))?;
        Ok(compiler_of(&config).map(WantedCompiler))
    }

    /// The whole line.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether the program of that name says that it is this compiler: the one in `programs`, else the machine's.
    pub fn is_at_hand(&self, programs: Option<&Path>) -> bool {
        let Some(command) = self.0.split_whitespace().next() else { return false };
        let program = programs.map_or_else(|| command.into(), |programs| programs.join(command));
        let output = Command::new(program).arg("--version").env("LC_ALL", "C").output();
        output.is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout).lines().next().is_some_and(|line| line == self.0)
        })
    }

    /// Debian's package of it and that package's version: `gcc-10` and `10.2.1-6`.
    pub fn package(&self) -> Option<(&str, &str)> {
        let command = self.0.split_whitespace().next()?;
        // A cross compiler's command begins with the machine that it compiles for.
        let package = &command[command.find("gcc-")?..];
        let (_, rest) = self.0.split_once("(Debian ")?;
        Some((package, rest.split_once(')')?.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_and_version_are_in_the_compilers_own_words() {
        let package = |text: &str| {
            let wanted = WantedCompiler(text.to_owned());
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
        let wanted = WantedCompiler("gcc-10 (Debian 10.2.1-6) 10.2.1 20210110".to_owned());
        assert!(!wanted.is_at_hand(Some(dir.path())));
        for (says, is_it) in [(wanted.text(), true), ("gcc-10 (Debian 10.2.1-5) 10.2.1 20210108", false)] {
            fs::write(&program, format!("#!/bin/sh\necho '{says}'\necho more\n")).unwrap();
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            assert_eq!(wanted.is_at_hand(Some(dir.path())), is_it, "{says}");
        }
    }
}

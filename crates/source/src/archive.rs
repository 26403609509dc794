//! Which Debian archives this machine is set up to use. Another suite is fetched from the same archives, with the
//! same keys: mirrors, proxies and trust stay those of the machine, and this code contains no address.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::SourceError;
use super::apt::machine_sources;

/// The component that holds kernels.
const COMPONENT: &str = "main";

/// Names that move from release to release, and so never appear in an os-release file.
const MOVING_SUITES: [&str; 7] =
    ["stable", "oldstable", "oldoldstable", "testing", "unstable", "sid", "experimental"];

/// Suites without companions for updates or security.
const LONE_SUITES: [&str; 4] = ["sid", "unstable", "experimental", "rc-buggy"];

/// What is appended to a suite's name for its companions.
const COMPANIONS: [&str; 6] =
    ["-security", "/updates", "-updates", "-proposed-updates", "-backports", "-backports-sloppy"];

/// One archive as the machine's sources describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Archive {
    /// Every field but `Types`, `Suites` and `Components`, in order: address, key, options.
    fields: Vec<(String, String)>,
    suites: Vec<String>,
    components: Vec<String>,
}

impl Archive {
    fn is_of_debian(&self, codename: &str) -> bool {
        self.components.iter().any(|component| component == COMPONENT)
            && self.suites.iter().any(|suite| {
                let stem = stem(suite);
                stem == codename || MOVING_SUITES.contains(&stem)
            })
    }

    fn is_security(&self) -> bool {
        self.suites.iter().all(|suite| is_security(suite))
    }

    fn same_place(&self, other: &Archive) -> bool {
        self.fields == other.fields && self.is_security() == other.is_security()
    }
}

fn is_security(suite: &str) -> bool {
    suite.ends_with("-security") || suite.ends_with("/updates")
}

fn stem(suite: &str) -> &str {
    COMPANIONS.iter().find_map(|companion| suite.strip_suffix(companion)).unwrap_or(suite)
}

/// The Debian archives of a machine.
#[derive(Clone, Debug)]
pub(super) struct Archives {
    archives: Vec<Archive>,
    /// Every suite in use.
    suites: Vec<String>,
    codename: String,
}

/// A sources file for the private apt, and the suites it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Derived {
    /// In deb822 form.
    pub sources: String,
    /// The suites that are wanted; companions may be absent.
    pub suites: Vec<String>,
    /// The suite whose packages are preferred to newer and older ones of the others.
    pub preferred: Option<String>,
}

impl Archives {
    /// Reads `sources_list` and every file of `sources_parts`.
    pub fn of_machine(sources_list: &Path, sources_parts: &Path) -> Result<Archives, SourceError> {
        let mut files = Vec::new();
        if sources_list.is_file() {
            files.push(sources_list.to_path_buf());
        }
        files.extend(source_files(sources_parts));
        let codename = codename(&fs::read_to_string("/etc/os-release").unwrap_or_default());
        let mut found = Vec::new();
        for file in &files {
            let text = fs::read_to_string(file).map_err(SourceError::io(file))?;
            found.extend(match file.extension() {
                Some(extension) if extension == "sources" => parse_deb822(&text),
                _ => parse_one_line(&text),
            });
        }
        Archives::of(found, &codename).ok_or_else(|| SourceError::NoArchive {
            files: vec![sources_list.to_path_buf(), sources_parts.to_path_buf()],
        })
    }

    fn of(found: Vec<Archive>, codename: &str) -> Option<Archives> {
        let mut archives: Vec<Archive> = Vec::new();
        let mut suites: Vec<String> = Vec::new();
        for archive in found.into_iter().filter(|archive| archive.is_of_debian(codename)) {
            for suite in &archive.suites {
                if !suites.contains(suite) {
                    suites.push(suite.clone());
                }
            }
            if !archives.iter().any(|known| known.same_place(&archive)) {
                archives.push(archive);
            }
        }
        (!archives.is_empty()).then(|| Archives { archives, suites, codename: codename.to_owned() })
    }

    /// Sources for `suite` and its companions: for a plain suite its updates and its security archive; for one of
    /// backports the plain suite too, because backports hold no tools.
    pub fn for_suite(&self, suite: &str) -> Derived {
        let stem = stem(suite);
        if stem == suite && !LONE_SUITES.contains(&suite) {
            let main = [suite.to_owned(), format!("{suite}-updates")];
            return self.derive(&main, &[format!("{suite}-security")], None);
        }
        let mut names = vec![stem.to_owned(), suite.to_owned()];
        names.dedup();
        let (security, main): (Vec<String>, Vec<String>) =
            names.into_iter().partition(|name| is_security(name));
        self.derive(&main, &security, Some(suite.to_owned()))
    }

    /// Sources for a suite as it was released, without its updates and its security archive.
    pub fn for_release(&self, suite: &str) -> Derived {
        self.derive(&[stem(suite).to_owned()], &[], None)
    }

    /// Sources for every suite that the machine uses, and its backports: the release of an installed kernel may have
    /// come from any of them.
    pub fn for_machine(&self) -> Derived {
        let (security, mut main): (Vec<String>, Vec<String>) =
            self.suites.iter().cloned().partition(|suite| is_security(suite));
        let backports = format!("{}-backports", self.codename);
        if !self.codename.is_empty() && !main.contains(&backports) {
            main.push(backports);
        }
        self.derive(&main, &security, None)
    }

    fn derive(&self, main: &[String], security: &[String], preferred: Option<String>) -> Derived {
        let mut sources = String::new();
        let mut hoped_for = Vec::new();
        for archive in &self.archives {
            let suites = if archive.is_security() { security } else { main };
            if suites.is_empty() {
                continue;
            }
            for suite in suites {
                if !hoped_for.contains(suite) {
                    hoped_for.push(suite.clone());
                }
            }
            // Only the lists of packages: descriptions, icons and file lists are ten times as large.
            let _ = writeln!(sources, "Types: deb\nTargets: Packages\nSuites: {}", suites.join(" "));
            let _ = writeln!(sources, "Components: {COMPONENT}");
            for (name, value) in &archive.fields {
                let _ = writeln!(sources, "{name}: {value}");
            }
            sources.push('\n');
        }
        Derived { sources, suites: hoped_for, preferred }
    }
}

/// Sources in deb822 form, for an apt that is to fetch packages of `suite`: from the archives that this machine is
/// set up to use, with the same keys.
///
/// # Errors
/// [`SourceError::NoArchive`] if the machine has no Debian archive.
pub fn suite_sources(suite: &str) -> Result<String, SourceError> {
    let (list, parts) = machine_sources()?;
    Ok(Archives::of_machine(&list, &parts)?.for_suite(suite).sources)
}

/// The files that apt itself would read there.
fn source_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
        })
        .collect();
    files.sort();
    files
}

fn codename(os_release: &str) -> String {
    let line = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    line.unwrap_or_default().trim_matches('"').to_owned()
}

/// `sources.list(5)`, the deb822 format: stanzas of fields; a value continues in lines that begin with a blank.
fn parse_deb822(text: &str) -> Vec<Archive> {
    let mut archives = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            archives.extend(archive_of_fields(std::mem::take(&mut fields)));
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    archives
}

fn archive_of_fields(mut fields: Vec<(String, String)>) -> Option<Archive> {
    let mut take = |name: &str| {
        let at = fields.iter().position(|(field, _)| field.eq_ignore_ascii_case(name))?;
        Some(fields.remove(at).1)
    };
    let words = |value: Option<String>| -> Vec<String> {
        value.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    if take("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no")) {
        return None;
    }
    // `Targets` would leave out the lists of packages if the machine's own sources leave them out.
    take("Targets");
    let types = words(take("Types"));
    let archive = Archive { suites: words(take("Suites")), components: words(take("Components")), fields };
    types.iter().any(|kind| kind == "deb").then_some(archive)
}

/// `sources.list(5)`, the one-line format: `deb [ option=value … ] uri suite [component …]`.
fn parse_one_line(text: &str) -> Vec<Archive> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Archive> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    if !rest.starts_with(char::is_whitespace) {
        return None;
    }
    let rest = rest.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inside) => inside.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let uri = words.next()?;
    let suite = words.next()?;
    let mut fields = vec![("URIs".to_owned(), uri)];
    fields.extend(options.split_whitespace().filter_map(|option| {
        let (name, value) = option.split_once('=')?;
        Some((deb822_name(name)?, value.replace(',', " ")))
    }));
    Some(Archive { fields, suites: vec![suite], components: words.collect() })
}

/// Most options have the same name in both formats, apart from case.
fn deb822_name(option: &str) -> Option<String> {
    let (option, suffix) = match (option.strip_suffix('+'), option.strip_suffix('-')) {
        (Some(option), _) => (option, "-Add"),
        (_, Some(option)) => (option, "-Remove"),
        _ => (option, ""),
    };
    let name = match option {
        "arch" => "Architectures",
        "lang" => "Languages",
        "target" => return None,
        other => other,
    };
    Some(format!("{name}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
# the main archive
Types: deb deb-src
URIs: https://mirror.test/debian
Suites: bookworm bookworm-updates
# a comment amid the fields
Components: main contrib
Signed-By: /keys/archive.gpg

Types: deb
URIs: https://mirror.test/security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
URIs: https://other.test/node
Suites: nodistro
Components: main

Types: deb
Enabled: no
URIs: https://off.test/debian
Suites: bookworm
Components: main
";

    fn archives(found: Vec<Archive>) -> Archives {
        Archives::of(found, "bookworm").expect("Debian archives")
    }

    #[test]
    fn deb822_another_suite_keeps_address_and_key() {
        let derived = archives(parse_deb822(DEB822)).for_suite("trixie");
        assert_eq!(
            derived.sources,
            "Types: deb\nTargets: Packages\nSuites: trixie trixie-updates\nComponents: main\n\
             URIs: https://mirror.test/debian\nSigned-By: /keys/archive.gpg\n\n\
             Types: deb\nTargets: Packages\nSuites: trixie-security\nComponents: main\n\
             URIs: https://mirror.test/security\n\
             Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n\n"
        );
        assert_eq!(derived.suites, ["trixie", "trixie-updates", "trixie-security"]);
    }

    #[test]
    fn one_line_becomes_deb822() {
        let text = "deb-src https://mirror.test/debian bookworm main\n\
                    deb [arch=amd64,arm64 signed-by=/keys/a.gpg] https://mirror.test/debian bookworm main # x\n\
                    deb [signed-by=/keys/a.gpg arch=amd64,arm64] https://mirror.test/sec bookworm-security main\n\
                    deb https://apt.test/tools tools-bookworm main\n\
                    # deb https://off.test/debian bookworm main\n";
        let derived = archives(parse_one_line(text)).for_suite("bookworm-backports");
        assert_eq!(
            derived.sources,
            "Types: deb\nTargets: Packages\nSuites: bookworm bookworm-backports\nComponents: main\n\
             URIs: https://mirror.test/debian\nArchitectures: amd64 arm64\nsigned-by: /keys/a.gpg\n\n"
        );
    }

    #[test]
    fn suites_without_companions_ask_for_none() {
        let archives = archives(parse_deb822(DEB822));
        assert_eq!(archives.for_suite("sid").suites, ["sid"]);
        assert_eq!(archives.for_suite("trixie-security").suites, ["trixie", "trixie-security"]);
    }

    #[test]
    fn the_machines_own_suites_and_backports() {
        let suites = archives(parse_deb822(DEB822)).for_machine().suites;
        assert_eq!(suites, ["bookworm", "bookworm-updates", "bookworm-backports", "bookworm-security"]);
    }

    #[test]
    fn one_archive_in_two_stanzas_is_asked_once() {
        let text = "deb https://mirror.test/debian bookworm main\n\
                    deb https://mirror.test/debian bookworm-updates main\n";
        let derived = archives(parse_one_line(text)).for_suite("sid");
        assert_eq!(derived.sources.matches("URIs:").count(), 1);
    }

    #[test]
    fn a_machine_without_debian_has_none() {
        assert!(Archives::of(parse_one_line("deb https://u.test/ubuntu jammy main"), "bookworm").is_none());
    }

    #[test]
    fn codename_of_the_machine() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=\"trixie\"\n"), "trixie");
        assert_eq!(codename("ID=debian\n"), "");
    }
}

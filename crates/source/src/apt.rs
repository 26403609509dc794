//! apt with its own state: it neither changes nor needs the machine's lists, packages and settings, and needs no
//! privilege. What apt checks (signed lists, hashes of packages) is checked here too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::SourceError;
use super::architecture::Architecture;
use super::archive::Derived;

const CONFIGURATION: &str = "apt.conf";

/// A private apt for one set of sources.
#[derive(Debug)]
pub(super) struct Apt {
    directory: PathBuf,
    configuration: PathBuf,
}

/// The result of `apt-get update`.
#[derive(Debug)]
pub(super) struct Updated {
    /// The suites whose lists are there.
    pub suites: Vec<String>,
    /// apt's errors and warnings.
    pub said: String,
}

/// One package in one version, as the lists describe it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub name: String,
    pub version: String,
    /// Set if it is not the architecture of this apt.
    pub architecture: Option<&'static str>,
    pub depends: Vec<Dependency>,
}

impl Listed {
    /// As apt-get takes it.
    pub fn spec(&self) -> String {
        match self.architecture {
            Some(architecture) => format!("{}:{architecture}={}", self.name, self.version),
            None => format!("{}={}", self.name, self.version),
        }
    }
}

/// The first alternative of a dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dependency {
    pub name: String,
    /// Only with the relation `=`.
    pub exact_version: Option<String>,
}

/// A package's file, not yet downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Download {
    /// As `apt-get download` calls it.
    pub file: String,
    pub bytes: u64,
}

impl Apt {
    /// Lays out the private directory. `foreign` is the architecture whose packages are wanted, if it is not that of
    /// this machine; this apt then knows both.
    pub fn prepare(
        directory: &Path,
        derived: &Derived,
        foreign: Option<Architecture>,
    ) -> Result<Apt, SourceError> {
        for sub in ["state/lists/partial", "cache/archives/partial"] {
            let path = directory.join(sub);
            fs::create_dir_all(&path).map_err(SourceError::io(&path))?;
        }
        let write = |name: &str, text: &str| -> Result<PathBuf, SourceError> {
            let path = directory.join(name);
            fs::write(&path, text).map_err(SourceError::io(&path))?;
            Ok(path)
        };
        // Nothing counts as installed, so apt does not prefer a version of a package that this machine has.
        let status = write("status", "")?;
        let sources = write("archive.sources", &sources_for(&derived.sources, foreign))?;
        let configuration = write(
            CONFIGURATION,
            &format!(
                "Dir::State \"{directory}/state\";\n\
                 Dir::State::status \"{status}\";\n\
                 Dir::Cache \"{directory}/cache\";\n\
                 # Container images turn these off; every query would then parse the lists again.\n\
                 Dir::Cache::pkgcache \"pkgcache.bin\";\n\
                 Dir::Cache::srcpkgcache \"srcpkgcache.bin\";\n\
                 Dir::Etc::sourcelist \"{sources}\";\n\
                 Dir::Etc::sourceparts \"/dev/null\";\n\
                 Dir::Etc::preferences \"/dev/null\";\n\
                 Dir::Etc::preferencesparts \"/dev/null\";\n\
                 APT::Default-Release \"{preferred}\";\n\
                 Acquire::Languages \"none\";\n\
                 Acquire::Retries \"3\";\n\
                 # The cache is often below a home that the sandbox user cannot enter.\n\
                 APT::Sandbox::User \"{user}\";\n\
                 # The machine's hooks concern the machine's own state.\n\
                 #clear APT::Update::Pre-Invoke;\n\
                 #clear APT::Update::Post-Invoke;\n\
                 #clear APT::Update::Post-Invoke-Success;\n\
                 {architectures}",
                directory = directory.display(),
                status = status.display(),
                sources = sources.display(),
                preferred = derived.preferred.as_deref().unwrap_or_default(),
                architectures = foreign.map(architectures).unwrap_or_default(),
                user = if rustix::process::geteuid().is_root() { "root" } else { "" },
            ),
        )?;
        Ok(Apt { directory: directory.to_path_buf(), configuration })
    }

    /// One that was prepared before, with its lists as they are.
    pub fn open(directory: &Path) -> Apt {
        Apt { directory: directory.to_path_buf(), configuration: directory.join(CONFIGURATION) }
    }

    /// Brings the lists up to date. A suite that fails does not fail the others.
    pub fn update(&self) -> Result<Updated, SourceError> {
        let output = self.output("apt-get", &["--quiet=2", "update"])?;
        let said: Vec<String> = String::from_utf8_lossy(&output.stderr)
            .lines()
            .filter(|line| line.starts_with("E:") || line.starts_with("W:") || line.starts_with("N:"))
            .map(str::to_owned)
            .collect();
        let targets =
            self.output("apt-get", &["indextargets", "--format", "$(RELEASE)", "Created-By: Packages"])?;
        let mut suites: Vec<String> =
            String::from_utf8_lossy(&targets.stdout).lines().map(str::to_owned).collect();
        suites.sort();
        suites.dedup();
        Ok(Updated { suites, said: said.join("\n") })
    }

    /// Every version of each package; packages that do not exist are left out.
    pub fn show(&self, names: &[&str]) -> Result<Vec<Listed>, SourceError> {
        self.show_with(&["show"], names)
    }

    /// The version of the package that apt would install.
    pub fn candidate(&self, name: &str) -> Result<Option<Listed>, SourceError> {
        Ok(self.show_with(&["show", "--no-all-versions"], &[name])?.into_iter().next())
    }

    fn show_with(&self, verb: &[&str], names: &[&str]) -> Result<Vec<Listed>, SourceError> {
        // It ends with status 100 if one name does not exist, and still shows the others.
        let arguments: Vec<&str> = verb.iter().chain(names).copied().collect();
        let output = self.output("apt-cache", &arguments)?;
        Ok(parse_shown(&String::from_utf8_lossy(&output.stdout)))
    }

    /// The packages and all that they need, as apt would install them on an empty machine.
    pub fn with_dependencies(&self, specs: &[String]) -> Result<Vec<Listed>, SourceError> {
        self.simulated(&[], specs, None)
    }

    /// The same for a machine of that architecture, which is not that of this apt.
    pub fn with_dependencies_on(
        &self,
        architecture: Architecture,
        specs: &[String],
    ) -> Result<Vec<Listed>, SourceError> {
        let option = format!("APT::Architecture={}", architecture.name());
        self.simulated(&["-o", &option], specs, Some(architecture))
    }

    fn simulated(
        &self,
        options: &[&str],
        specs: &[String],
        architecture: Option<Architecture>,
    ) -> Result<Vec<Listed>, SourceError> {
        let install = ["install", "--simulate", "--no-install-recommends"];
        let specs = specs.iter().map(String::as_str);
        let arguments: Vec<&str> = options.iter().copied().chain(install).chain(specs).collect();
        let output = self.output("apt-get", &arguments)?;
        match output.status.success() {
            true => Ok(parse_simulated(&String::from_utf8_lossy(&output.stdout), architecture)),
            false => Err(failed("asking what belongs together", "apt-get", &output)),
        }
    }

    /// Names of those packages that every Debian machine has.
    pub fn essential(&self, packages: &[Listed]) -> Result<Vec<String>, SourceError> {
        let specs: Vec<String> = packages.iter().map(Listed::spec).collect();
        let arguments: Vec<&str> = std::iter::once("show").chain(specs.iter().map(String::as_str)).collect();
        let output = self.output("apt-cache", &arguments)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let stanzas = text.split("\n\n").filter(|stanza| stanza.lines().any(|line| line == "Essential: yes"));
        Ok(stanzas.flat_map(parse_shown).map(|listed| listed.name).collect())
    }

    /// Names of all packages that begin with `prefix`.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>, SourceError> {
        let output = self.output("apt-cache", &["pkgnames", prefix])?;
        let mut names: Vec<String> =
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// File and size of each package, in the same order.
    pub fn downloads(&self, packages: &[Listed]) -> Result<Vec<Download>, SourceError> {
        let specs: Vec<String> = packages.iter().map(Listed::spec).collect();
        let arguments: Vec<&str> =
            ["download", "--print-uris"].into_iter().chain(specs.iter().map(String::as_str)).collect();
        let output = self.output("apt-get", &arguments)?;
        let found = parse_uris(&String::from_utf8_lossy(&output.stdout));
        packages
            .iter()
            .map(|package| {
                let start = format!("{}_", package.name);
                let download = found.iter().find(|download| download.file.starts_with(&start));
                download.cloned().ok_or_else(|| failed("asking where packages are", "apt-get", &output))
            })
            .collect()
    }

    /// Starts the download of one `name=version` into `directory`. A partial file is continued.
    pub fn start_download(&self, package: &str, directory: &Path) -> Result<Child, SourceError> {
        self.command("apt-get")
            .args(["--quiet=2", "download", package])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| spawn_error("apt-get", "apt", error))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Its messages are parsed.
        command.env("LC_ALL", "C").arg("-c").arg(&self.configuration).current_dir(&self.directory);
        command
    }

    fn output(&self, program: &str, arguments: &[&str]) -> Result<Output, SourceError> {
        self.command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| spawn_error(program, "apt", error))
    }
}

/// Makes apt take the foreign architecture as its own.
fn architectures(foreign: Architecture) -> String {
    let machine = Architecture::of_machine().map(|own| format!("\"{}\"; ", own.name())).unwrap_or_default();
    let foreign = foreign.name();
    format!(
        "APT::Architecture \"{foreign}\";\n#clear APT::Architectures;\n\
         APT::Architectures {{ \"{foreign}\"; {machine}}};\n"
    )
}

/// If the machine restricts its sources to its own architecture, drops that restriction: the sources hold the
/// packages of the others as well.
fn sources_for(sources: &str, foreign: Option<Architecture>) -> String {
    let restricts =
        |line: &str| line.split_once(':').is_some_and(|(n, _)| n.eq_ignore_ascii_case("Architectures"));
    sources
        .lines()
        .filter(|line| foreign.is_none() || !restricts(line))
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// The machine's sources: the file and the directory of files.
pub(super) fn machine_sources() -> Result<(PathBuf, PathBuf), SourceError> {
    let asked = ["shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"];
    let output = Command::new("apt-config")
        .args(asked)
        .output()
        .map_err(|error| spawn_error("apt-config", "apt", error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| PathBuf::from(value.trim_matches('\'')))
    };
    Ok((
        value("LIST").unwrap_or_else(|| "/etc/apt/sources.list".into()),
        value("PARTS").unwrap_or_else(|| "/etc/apt/sources.list.d".into()),
    ))
}

/// For a program that could not be started, usually because it is not installed.
pub(super) fn spawn_error(program: &str, package: &'static str, error: std::io::Error) -> SourceError {
    match error.kind() {
        std::io::ErrorKind::NotFound => SourceError::NoProgram { program: program.into(), package },
        _ => SourceError::io(Path::new(program))(error),
    }
}

/// For a program that ended with an error.
pub(super) fn failed(doing: &str, program: &str, output: &Output) -> SourceError {
    SourceError::ProgramFailed {
        doing: doing.into(),
        program: program.into(),
        status: output.status.to_string(),
        said: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
    }
}

fn parse_shown(text: &str) -> Vec<Listed> {
    text.split("\n\n")
        .filter_map(|stanza| {
            let field = |name: &str| {
                let line = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
                Some(line.trim().to_owned())
            };
            Some(Listed {
                name: field("Package")?,
                version: field("Version")?,
                architecture: None,
                depends: field("Depends").map(|depends| parse_depends(&depends)).unwrap_or_default(),
            })
        })
        .collect()
}

/// Lines of `Inst name (version suite [architecture])`; `architecture` is that of the packages, if it is not apt's
/// own.
fn parse_simulated(text: &str, architecture: Option<Architecture>) -> Vec<Listed> {
    let installed = text.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
        let version = rest.split_whitespace().next()?.to_owned();
        // apt lists packages for all architectures under its own.
        let architecture = architecture.filter(|_| !rest.contains("[all]")).map(Architecture::name);
        Some(Listed { name: name.to_owned(), version, architecture, ..Listed::default() })
    });
    installed.collect()
}

fn parse_depends(text: &str) -> Vec<Dependency> {
    text.split(',')
        .filter_map(|alternatives| alternatives.split('|').next())
        .filter_map(|dependency| {
            let (name, relation) = match dependency.split_once('(') {
                Some((name, relation)) => (name, relation.trim_end().trim_end_matches(')')),
                None => (dependency, ""),
            };
            let name = name.trim().split(':').next()?.to_owned();
            let exact_version =
                relation.trim_start().strip_prefix('=').map(|version| version.trim().to_owned());
            (!name.is_empty()).then_some(Dependency { name, exact_version })
        })
        .collect()
}

/// Lines of `'uri' file size hash`.
fn parse_uris(text: &str) -> Vec<Download> {
    text.lines()
        .filter(|line| line.starts_with('\''))
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            Some(Download { file: words.next()?.to_owned(), bytes: words.next()?.parse().ok()? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_packages_and_their_dependencies() {
        let text = "Package: linux-headers-6.12.9-x\nVersion: 6.12.9-1\n\
            Depends: linux-base (>= 4.12~), linux-headers-6.12.9-common (= 6.12.9-1), \
            linux-image-6.12.9-x (= 6.12.9-1) | linux-image-6.12.9-x-unsigned (= 6.12.9-1), \
            linux-kbuild-6.12.9, gcc-14:any\nSize: 12\n\n\
            Package: other\nVersion: 1\n\n";
        let shown = parse_shown(text);
        assert_eq!(shown.len(), 2);
        let dependency = |name: &str, version: Option<&str>| Dependency {
            name: name.into(),
            exact_version: version.map(str::to_owned),
        };
        assert_eq!(
            shown[0].depends,
            [
                dependency("linux-base", None),
                dependency("linux-headers-6.12.9-common", Some("6.12.9-1")),
                dependency("linux-image-6.12.9-x", Some("6.12.9-1")),
                dependency("linux-kbuild-6.12.9", None),
                dependency("gcc-14", None),
            ]
        );
        assert_eq!(shown[1], Listed { name: "other".into(), version: "1".into(), ..Listed::default() });
    }

    #[test]
    fn sources_for_another_architecture_are_not_restricted() {
        let sources = "Types: deb\nURIs: x\nArchitectures: amd64\n\n";
        assert_eq!(sources_for(sources, None), sources);
        let foreign = Some(Architecture::Arm64);
        assert_eq!(sources_for(sources, foreign), "Types: deb\nURIs: x\n\n");
        assert!(architectures(Architecture::Arm64).starts_with("APT::Architecture \"arm64\";\n"));
    }

    #[test]
    fn what_would_be_installed() {
        let text = "Reading package lists...\n\
            Inst gcc-10 (10.2.1-6 Debian:11.11/oldoldstable [amd64]) []\n\
            Conf gcc-10 (10.2.1-6 Debian:11.11/oldoldstable [amd64])\n";
        let listed = Listed { name: "gcc-10".into(), version: "10.2.1-6".into(), ..Listed::default() };
        assert_eq!(parse_simulated(text, None), [listed]);
        let text = "Inst a (1 Debian:12 [amd64])\nInst b (2 Debian:12 [all]) []\n";
        let specs: Vec<String> =
            parse_simulated(text, Some(Architecture::Amd64)).iter().map(Listed::spec).collect();
        assert_eq!(specs, ["a:amd64=1", "b=2"]);
    }

    #[test]
    fn file_and_size_of_a_download() {
        let line = "'https://mirror.test/pool/b_1%253a2_amd64.deb' b_1%3a2_amd64.deb 928188 SHA256:e7d0\n";
        assert_eq!(parse_uris(line), [Download { file: "b_1%3a2_amd64.deb".into(), bytes: 928_188 }]);
        assert_eq!(parse_uris("E: nothing\n"), []);
    }
}

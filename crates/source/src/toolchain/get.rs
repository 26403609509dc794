//! Getting a compiler's packages: all that apt would install for it, except what every Debian has.

use super::super::apt::{Apt, Listed, machine_sources};
use super::super::architecture::{Architecture, runs_here};
use super::super::archive::Archives;
use super::super::fetch::fill;
use super::super::plan::{Content, Extent, Plan, PlannedPackage};
use super::super::release::{Suites, read_lists};
use super::super::unpack::emulator_names;
use super::super::{Cache, Kernel, SourceError};
use super::{Toolchain, WantedCompiler, wrap};
use schedswap_host::progress::Progress;
use std::fs;

/// Gets the compiler into the cache, unless it is there. It is looked for in `suite`, else in the suite from which
/// the kernel was fetched, else in the suites that this machine uses.
///
/// # Errors
/// [`SourceError::UnknownCompiler`] if it is not one of Debian's compilers, [`SourceError::NoCompiler`] if the suite
/// has another revision of it; and when apt or another program fails.
pub fn get(
    wanted: &WantedCompiler,
    kernel: &Kernel,
    suite: Option<&str>,
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<Toolchain, SourceError> {
    if let Some(toolchain) = Toolchain::cached(wanted, cache) {
        return Ok(toolchain);
    }
    let not_debians = || SourceError::UnknownCompiler { text: wanted.text().to_owned() };
    let place = super::place(wanted, cache).ok_or_else(not_debians)?;
    if place.record().is_none() {
        let (package, version) = wanted.package().ok_or_else(not_debians)?;
        let compiler = Listed { name: package.to_owned(), version: version.to_owned(), ..Listed::default() };
        let get =
            |which| fill(&plan(wanted, &compiler, kernel, (suite, which), cache, progress)?, cache, progress);
        match get(Companions::Too) {
            // A security archive that is being taken down. The compiler needs none of its packages.
            Err(SourceError::Gone { package, version, .. }) => {
                progress.begin("without the suite's updates", None);
                progress.end(&format!("{package} {version} is gone from the archive"));
                get(Companions::LeftOut)?
            }
            other => other?,
        };
    }
    let toolchain = Toolchain { directory: place.directory().to_owned() };
    if let Some(foreign) = wanted.foreign() {
        get_emulator(foreign, &toolchain, cache, progress)?;
    }
    progress.begin("preparing its programs", None);
    let lock = cache.lock(progress)?;
    let (root, programs) = (toolchain.root(), toolchain.programs());
    match wanted.foreign() {
        None => wrap::wrap_all(&root, &programs)?,
        Some(foreign) => {
            let of_it = (foreign.machine(), foreign.triplet());
            wrap::wrap_foreign(&root, &toolchain.native(), (of_it.0, &of_it.1), &programs)?;
        }
    }
    drop(lock);
    progress.end("");
    match wanted.is_at_hand(Some(&programs)) {
        true => Ok(toolchain),
        false => Err(SourceError::OtherCompiler { wanted: wanted.text().to_owned(), directory: programs }),
    }
}

/// Whether to look into the updates that a suite got after its release.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Companions {
    Too,
    LeftOut,
}

fn plan(
    wanted: &WantedCompiler,
    compiler: &Listed,
    kernel: &Kernel,
    (suite, companions): (Option<&str>, Companions),
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<Plan, SourceError> {
    let record = cache.kernel(&kernel.release).record();
    let suite = suite.map(str::to_owned).or_else(|| record.as_ref()?.suite.clone());
    let (sources_list, sources_parts) = machine_sources()?;
    let archives = Archives::of_machine(&sources_list, &sources_parts)?;
    let (name, derived) = match &suite {
        Some(suite) if companions == Companions::LeftOut => (suite.as_str(), archives.for_release(suite)),
        Some(suite) => (suite.as_str(), archives.for_suite(suite)),
        None => (MACHINE, archives.for_machine()),
    };
    let foreign = wanted.foreign();
    let mut directory = name.replace('/', "_");
    if companions == Companions::LeftOut {
        directory.push_str("-released");
    }
    if let Some(foreign) = foreign {
        directory = format!("{directory}-{}", foreign.name());
    }
    let lock = cache.lock(progress)?;
    let lists = cache.apt().join(directory);
    let apt = Apt::prepare(&lists, &derived, foreign)?;
    let suites = read_lists(&apt, name, &derived, progress)?;
    // The kernel's own tools (objtool, modpost) are from the same suite, and need its libraries.
    let tools: Vec<String> = record
        .iter()
        .flat_map(|record| &record.packages)
        .filter(|package| runs_here(package))
        .cloned()
        .collect();
    let packages = ToolchainPackages { apt: &apt, suites: &suites, wanted, tools: &tools }.all(compiler)?;
    drop(lock);
    Ok(Plan {
        release: super::place(wanted, cache).map_or(String::new(), |place| place.name()),
        version: compiler.version.clone(),
        suites: suites.read,
        unread: suites.unread,
        packages,
        cached: false,
        suite,
        lists: Some(lists),
        extent: Extent::Toolchain,
    })
}

/// Finds the packages of a toolchain in lists that have been read.
struct ToolchainPackages<'a> {
    apt: &'a Apt,
    suites: &'a Suites,
    wanted: &'a WantedCompiler,
    /// The packages of the kernel's own tools, which the kernel's sysroot has already.
    tools: &'a [String],
}

impl ToolchainPackages<'_> {
    /// The compiler with its assembler and linker; for another machine, these are built for this machine.
    fn all(&self, compiler: &Listed) -> Result<Vec<PlannedPackage>, SourceError> {
        let with_tools = |specs: Vec<String>| -> Vec<String> {
            specs.into_iter().chain(self.tools.iter().cloned()).collect()
        };
        match (self.wanted.foreign(), Architecture::of_machine()) {
            (Some(foreign), Some(native)) => {
                let mut packages = self.with_dependencies(&[compiler.spec()], None)?;
                let binutils = format!("binutils-{}", foreign.triplet().replace('_', "-"));
                packages.extend(self.with_dependencies(&with_tools(vec![binutils]), Some(native))?);
                Ok(packages)
            }
            _ => self.with_dependencies(&with_tools(vec![compiler.spec()]), None),
        }
    }

    /// The packages and what they need, except the kernel's own tools and what every Debian has. `native` is set for
    /// programs that run on this machine if the toolchain is another machine's.
    fn with_dependencies(
        &self,
        specs: &[String],
        native: Option<Architecture>,
    ) -> Result<Vec<PlannedPackage>, SourceError> {
        let closure = match native {
            None => self.apt.with_dependencies(specs),
            Some(native) => self.apt.with_dependencies_on(native, specs),
        };
        let closure = closure.map_err(|error| SourceError::NoCompiler {
            wanted: self.wanted.text().to_owned(),
            package: specs.join(" "),
            suites: self.suites.read.join(", "),
            said: error.to_string(),
        })?;
        let essential = self.apt.essential(&closure)?;
        let is_needed =
            |package: &Listed| !self.tools.contains(&package.name) && !essential.contains(&package.name);
        planned(self.apt, closure.into_iter().filter(is_needed).collect(), self.wanted.foreign())
    }
}

/// The directory name for the lists of the suites that this machine uses.
const MACHINE: &str = "machine";

/// The package of user-mode emulators, statically linked.
const EMULATORS: &str = "qemu-user-static";

/// Puts the emulator that runs a foreign toolchain's programs beside them. It comes from this machine's suite: an
/// emulator of the kernel's suite may not run on a kernel as new as this machine's (5.2, of bullseye, does not).
fn get_emulator(
    foreign: Architecture,
    toolchain: &Toolchain,
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<(), SourceError> {
    let Some(native) = Architecture::of_machine() else { return Ok(()) };
    let place = cache.toolchain(&format!("{EMULATORS}_{}", foreign.name()));
    if place.record().is_none() {
        let (sources_list, sources_parts) = machine_sources()?;
        let derived = Archives::of_machine(&sources_list, &sources_parts)?.for_machine();
        let lists = cache.apt().join(MACHINE);
        let lock = cache.lock(progress)?;
        let apt = Apt::prepare(&lists, &derived, None)?;
        let suites = read_lists(&apt, MACHINE, &derived, progress)?;
        let mut listed = apt.with_dependencies_on(native, &[EMULATORS.to_owned()])?;
        // Its other dependencies are for binaries that are not static; in some suites the dependency is the package
        // that has them.
        listed.retain(|package| EMULATORS.starts_with(&package.name));
        let version = listed.first().map_or(String::new(), |package| package.version.clone());
        let packages = planned(&apt, listed, Some(foreign))?;
        drop(lock);
        let plan = Plan {
            release: place.name(),
            version,
            suites: suites.read,
            unread: suites.unread,
            packages,
            cached: false,
            suite: None,
            lists: Some(lists),
            extent: Extent::Toolchain,
        };
        fill(&plan, cache, progress)?;
    }
    let from = Toolchain { directory: place.directory().to_owned() }.native().join("usr/bin");
    let to = toolchain.native().join("usr/bin");
    fs::create_dir_all(&to).map_err(SourceError::io(&to))?;
    for name in emulator_names(foreign.machine()) {
        let program = from.join(&name);
        if program.is_file() {
            fs::copy(&program, to.join(&name)).map_err(SourceError::io(&program))?;
        }
    }
    Ok(())
}

fn planned(
    apt: &Apt,
    listed: Vec<Listed>,
    foreign: Option<Architecture>,
) -> Result<Vec<PlannedPackage>, SourceError> {
    let downloads = apt.downloads(&listed)?;
    let planned = listed.into_iter().zip(downloads).map(|(listed, download)| PlannedPackage {
        content: match (listed.architecture, foreign) {
            (Some(_), Some(foreign)) if EMULATORS.starts_with(&listed.name) => {
                Content::Emulator(foreign.machine())
            }
            (Some(_), _) => Content::Native,
            (None, _) => Content::Whole,
        },
        spec: listed.spec(),
        name: listed.name,
        version: listed.version,
        bytes: download.bytes,
        file: download.file,
    });
    Ok(planned.collect())
}

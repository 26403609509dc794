//! Getting a compiler's packages: those that apt would install for it, but for what every Debian has.

use super::super::apt::{Apt, Listed, machine_sources};
use super::super::archive::Archives;
use super::super::fetch::fill;
use super::super::plan::{Content, Extent, Plan, PlannedPackage, read_lists};
use super::super::{Cache, Kernel, SourceError};
use super::{Toolchain, WantedCompiler, wrap};
use crate::progress::Progress;

/// Gets the compiler into the cache, unless it is there. It is looked for in `suite`, else in the suite that the
/// kernel was fetched from, else in those that this machine uses.
///
/// # Errors
/// When it is no compiler of Debian's, or the suite has another revision of it, and as its programs fail.
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
    let (package, version) = wanted.package().ok_or_else(not_debians)?;
    let place = cache.toolchain(package, version);
    if place.record().is_none() {
        let plan = plan(wanted, (package, version), kernel, suite, cache, progress)?;
        fill(&plan, cache, progress)?;
    }
    let toolchain = Toolchain { directory: place.directory().to_owned() };
    progress.begin("preparing its programs", None);
    let lock = cache.lock(progress)?;
    wrap::wrap_all(&toolchain.root(), &toolchain.programs())?;
    drop(lock);
    progress.end("");
    match wanted.is_at_hand(Some(&toolchain.programs())) {
        true => Ok(toolchain),
        false => Err(SourceError::OtherCompiler {
            wanted: wanted.text().to_owned(),
            directory: toolchain.programs(),
        }),
    }
}

fn plan(
    wanted: &WantedCompiler,
    (package, version): (&str, &str),
    kernel: &Kernel,
    suite: Option<&str>,
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<Plan, SourceError> {
    let record = cache.kernel(&kernel.release).record();
    let suite = suite.map(str::to_owned).or_else(|| record.as_ref()?.suite.clone());
    let (sources_list, sources_parts) = machine_sources()?;
    let archives = Archives::of_machine(&sources_list, &sources_parts)?;
    let (name, derived) = match &suite {
        Some(suite) => (suite.as_str(), archives.for_suite(suite)),
        None => ("machine", archives.for_machine()),
    };
    let lock = cache.lock(progress)?;
    let lists = cache.apt().join(name.replace('/', "_"));
    let apt = Apt::prepare(&lists, &derived, None)?;
    let suites = read_lists(&apt, name, &derived, progress)?;
    // The kernel's own tools (objtool, modpost) are of the same suite, and need its libraries.
    let tools: Vec<String> = record
        .iter()
        .flat_map(|record| &record.packages)
        .filter(|package| package.starts_with("linux-kbuild-"))
        .cloned()
        .collect();
    let compiler = Listed { name: package.to_owned(), version: version.to_owned(), ..Listed::default() };
    let specs: Vec<String> = std::iter::once(compiler.spec()).chain(tools.iter().cloned()).collect();
    let closure = apt.with_dependencies(&specs).map_err(|error| SourceError::NoCompiler {
        wanted: wanted.text().to_owned(),
        package: compiler.spec(),
        suites: suites.read.join(", "),
        said: error.to_string(),
    })?;
    let essential = apt.essential(&closure)?;
    let listed: Vec<Listed> =
        closure.into_iter().filter(|p| !tools.contains(&p.name) && !essential.contains(&p.name)).collect();
    let downloads = apt.downloads(&listed)?;
    drop(lock);
    let packages = listed.into_iter().zip(downloads).map(|(listed, download)| PlannedPackage {
        spec: listed.spec(),
        name: listed.name,
        version: listed.version,
        bytes: download.bytes,
        file: download.file,
        content: Content::Whole,
    });
    Ok(Plan {
        release: cache.toolchain(package, version).name(),
        version: version.to_owned(),
        suites: suites.read,
        unread: suites.unread,
        packages: packages.collect(),
        cached: false,
        suite,
        lists: Some(lists),
        extent: Extent::Toolchain,
    })
}

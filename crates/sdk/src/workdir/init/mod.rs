//! Making a work dir, step by step. Each file here has the steps of one purpose; this one puts them in order.

mod analysis;
mod builds;
mod proofs;
mod source;
mod stamps;

use super::Springboard;
use super::kernel_source::{self, Found};
use super::paths::Paths;
use super::report::{Origins, Refusal, Summary, unit_rows};
use super::steps::{Step, Steps};
use super::store::{read_json, write_json};
use super::{Config, Error, KernelFacts, Result, Workdir};
use proofs::missed;
use schedswap_host::progress::Progress;
use schedswap_kernel::vmlinux::{self, Image};
use schedswap_sched::boundary::{Boundary, Fate};
use schedswap_sched::compile::{Build, Commands};
use schedswap_sched::identity::{Addresses, Gate, KnownBy};
use schedswap_source::{Cache, Kernel, SourceError, Toolchain, WantedCompiler};
use stamps::{compiler_has_changed, file_stamp, source_stamp};
use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

/// What `init` is given.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Where the kernel's files are.
    pub kernel: Kernel,
    /// The compiler that built it, if the machine's own is another one.
    pub toolchain: Option<Toolchain>,
    /// The kernel's source: a directory, a tarball, or a directory with one of them in it.
    pub source: PathBuf,
    /// The directory to make.
    pub work: PathBuf,
    /// Go on although some functions are not identical. Remembered in the work dir.
    pub allow_different: bool,
    /// What overrides the computed boundary.
    pub boundary: schedswap_sched::config::Config,
}

impl InitOptions {
    /// A work dir with the computed boundary, made with the machine's own compiler.
    pub fn new(kernel: Kernel, source: impl Into<PathBuf>, work: impl Into<PathBuf>) -> InitOptions {
        InitOptions {
            kernel,
            toolchain: None,
            source: source.into(),
            work: work.into(),
            allow_different: false,
            boundary: schedswap_sched::config::Config::default(),
        }
    }

    /// Takes the compiler from the cache if the machine's own is not the one that built the kernel. Returns the wanted
    /// compiler if the cache does not have it either; `init` then tries with the machine's own.
    ///
    /// # Errors
    /// The kernel's configuration, which names the compiler, cannot be read.
    pub fn find_toolchain(
        &mut self,
        cache: Option<&Cache>,
    ) -> std::result::Result<Option<WantedCompiler>, SourceError> {
        let Some(wanted) = WantedCompiler::of(&self.kernel)?.filter(|wanted| !wanted.is_at_hand(None)) else {
            return Ok(None);
        };
        self.toolchain = cache.and_then(|cache| Toolchain::cached(&wanted, cache));
        Ok(self.toolchain.is_none().then_some(wanted))
    }
}

/// Makes a work dir, or completes one whose making was interrupted. Steps that are complete and whose inputs
/// have not changed are not done again; an edited tree is never touched.
///
/// # Errors
/// A file of the kernel is missing, or is not what it should be; the directory holds something else; a program fails.
/// [`Error::is_refusal`] tells the refusal to work with a source or compiler that is not the kernel's from a failure.
pub fn init(options: &InitOptions, progress: &dyn Progress) -> Result<(Workdir, Summary)> {
    let root = std::path::absolute(&options.work).map_err(|e| Error::io("find", &options.work, e))?;
    let paths = Paths { root };
    let config = claim(options, &paths)?;
    let run = Run { config: &config, paths: &paths, options, image: OnceCell::new() };
    let summary = run.all(progress)?;
    Ok((Workdir::open(&paths.root)?, summary))
}

/// Makes the directory ours, or makes sure that it is.
fn claim(options: &InitOptions, paths: &Paths) -> Result<Config> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(|e| Error::io("find", path, e));
    let kernel = &options.kernel;
    let mut config = Config {
        sdk_version: env!("CARGO_PKG_VERSION").to_owned(),
        release: kernel.release.clone(),
        allow_different: options.allow_different,
        boundary: options.boundary.clone(),
        vmlinux: absolute(&kernel.vmlinux)?,
        headers: absolute(&kernel.headers)?,
        kernel_config: absolute(&kernel.config)?,
        sysroot: absolute(&kernel.sysroot)?,
        programs: options.toolchain.as_ref().map(Toolchain::programs),
        source: absolute(&options.source)?,
        bzimage: kernel.bzimage.as_deref().map(absolute).transpose()?,
        modules: kernel.modules.as_deref().map(absolute).transpose()?,
    };
    if paths.config().is_file() {
        let before: Config = read_json(&paths.config())?;
        if before.release != config.release {
            return Err(Error::OtherRelease {
                path: paths.root.clone(),
                found: before.release,
                wanted: config.release,
            });
        }
        config.allow_different |= before.allow_different;
    } else if fs::read_dir(&paths.root).is_ok_and(|mut entries| entries.any(|e| !is_leftover(e))) {
        return Err(Error::NotEmpty { path: paths.root.clone() });
    }
    let generated = paths.generated();
    fs::create_dir_all(&generated).map_err(|e| Error::io("create", &generated, e))?;
    write_json(&paths.config(), &config)?;
    Ok(config)
}

/// Our own directory, made by a run that ended before it could write `config.json`.
fn is_leftover(entry: std::io::Result<fs::DirEntry>) -> bool {
    entry.is_ok_and(|entry| {
        entry.file_name() == ".schedswap"
            && fs::read_dir(entry.path()).is_ok_and(|mut inside| {
                inside.all(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().starts_with("config.json")))
            })
    })
}

/// One run of `init`.
struct Run<'a> {
    config: &'a Config,
    paths: &'a Paths,
    options: &'a InitOptions,
    image: OnceCell<Image>,
}

impl Run<'_> {
    /// All steps, in order.
    fn all(&self, progress: &dyn Progress) -> Result<Summary> {
        let (paths, config) = (self.paths, self.config);
        let found = kernel_source::find(&config.source)?;
        if let Found::Dir(dir) = &found {
            config.boundary.check_files(dir)?;
        }
        let sidecars = config.boundary.sidecars();
        let source_stamp = (source_stamp(&found, &sidecars)?, &sidecars);
        let mut steps = Steps::new(&paths.steps(), progress)?;
        let kernel = (file_stamp(&config.vmlinux)?, &sidecars);
        steps.run(Step::Kernel, kernel, None, |_| self.read_kernel())?;
        let kernel: KernelFacts = read_json(&paths.kernel())?;

        steps.run(Step::Source, &source_stamp, None, |_| self.copy_source(&found, &kernel, &sidecars))?;
        let mut origins: Origins = read_json(&self.origins_path())?;
        if !origins.same_version && !config.allow_different {
            return Err(Error::WrongSource { found: origins.source_version, banner: origins.kernel_banner });
        }
        let makefile = file_stamp(&config.headers.join("Makefile"))?;
        let headers = (&config.headers, &config.sysroot, makefile, &config.programs);
        steps.run(Step::Headers, headers, None, |_| self.prepare_headers())?;
        if compiler_has_changed(&paths.commands()) {
            steps.forget_from(Step::Commands)?;
        }
        steps.run(Step::Commands, (), None, |_| self.ask_kbuild(&kernel))?;
        let commands: Commands = read_json(&paths.commands())?;
        origins.compiler_found = commands.compiler.comment.clone();
        origins.same_compiler = commands.compiler.built(&kernel.compiler);

        let units = Some(kernel.units.len() as u64);
        steps.run(Step::GateBuild, (), units, |p| self.compile(&commands, Build::Gate, p))?;
        steps.run(Step::Identity, (), None, |_| self.compare(&commands))?;
        let gate: Gate = read_json(&paths.gate())?;
        steps.run(Step::Boundary, &config.boundary, None, |_| self.draw_boundary(&found))?;
        let boundary: Boundary = read_json(&paths.boundary())?;
        let different = gate.different_and_replaced(&boundary);
        let allowed_different = different.len();
        if allowed_different > 0 && !config.allow_different {
            return Err(Error::Different(Box::new(Refusal { functions: different, origins })));
        }
        steps.run(Step::Springboard, (), None, |_| self.derive_springboard())?;
        steps.run(Step::Addresses, (), None, |_| self.find_addresses(&gate))?;
        steps.run(Step::ModuleBuild, (), units, |p| self.compile(&commands, Build::Module, p))?;
        steps.run(Step::Binding, (), None, |_| self.prove_binding(&commands, &boundary))?;
        steps.run(Step::Tree, (), None, |_| self.set_up_tree(&origins))?;

        let done = steps.done;
        let addresses: Addresses = read_json(&paths.addresses())?;
        let springboard: Springboard = read_json(&paths.springboard())?;
        let configuration = config.boundary.file.clone();
        let rest = Summary { allowed_different, configuration, done, origins, ..Summary::default() };
        let mut summary = summary(kernel, &gate, boundary, &addresses, rest);
        summary.notes.extend(springboard.note());
        Ok(summary)
    }

    fn origins_path(&self) -> PathBuf {
        self.paths.generated().join("origins.json")
    }

    /// The vmlinux, read when the first step needs it.
    fn image(&self) -> Result<&Image> {
        if let Some(image) = self.image.get() {
            return Ok(image);
        }
        let image = vmlinux::open_with_sidecars(&self.config.vmlinux, &self.config.boundary.sidecars())?;
        if image.release != self.config.release {
            return Err(Error::WrongRelease {
                vmlinux: self.config.vmlinux.clone(),
                found: image.release,
                wanted: self.config.release.clone(),
            });
        }
        Ok(self.image.get_or_init(|| image))
    }
}

/// What was found; `rest` has what was done.
fn summary(
    kernel: KernelFacts,
    gate: &Gate,
    boundary: Boundary,
    addresses: &Addresses,
    rest: Summary,
) -> Summary {
    let stay = boundary.functions.iter().filter(|f| matches!(f.fate, Fate::Stay(_))).count();
    Summary {
        release: kernel.release,
        build_id: kernel.build_id,
        units: unit_rows(gate),
        replaced: boundary.functions.len() - stay,
        stay,
        placed: (addresses.known_by(KnownBy::Relocation), addresses.known_by(KnownBy::SymbolTable)),
        unplaced: missed(addresses).map(|u| (u.unit.clone(), u.name.clone())).collect(),
        notes: boundary.notes,
        ..rest
    }
}

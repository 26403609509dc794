//! Making a work dir, step by step.

use super::report::{Origins, Refusal, Summary, unit_rows};
use super::steps::{Step, Steps};
use super::store::{
    add_missing, agree, copy_dir, read_json, remove_dir, write_atomically, write_compact_json, write_json,
};
use super::{
    Config, Error, KernelFacts, Paths, Result, Workdir, boundary_files, git, kernel_source, read_object,
};
use kernel_source::Found;
use schedswap_host::progress::Progress;
use schedswap_kernel::objects::{self, Object};
use schedswap_kernel::vmlinux::{self, Image, Sidecars};
use schedswap_sched::binding::{self, Binding, UnitObject};
use schedswap_sched::boundary::{self, Boundary, Fate};
use schedswap_sched::compile::{self, Build, Commands};
use schedswap_sched::identity::{self, Addresses, Gate, KnownBy, Unplaced};
use schedswap_sched::springboard;
use schedswap_source::{Kernel, Toolchain, shadow_headers};
use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// What `init` is given.
#[derive(Clone, Debug)]
pub struct Options {
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

/// Makes a work dir, or completes one whose making was interrupted. Steps that are complete and whose inputs
/// have not changed are not done again; an edited tree is never touched.
pub fn init(options: &Options, progress: &dyn Progress) -> Result<(Workdir, Summary)> {
    let root = std::path::absolute(&options.work).map_err(|e| Error::io("find", &options.work, e))?;
    let paths = Paths { root };
    let config = claim(options, &paths)?;
    let run = Run { config: &config, paths: &paths, options, image: OnceCell::new() };
    let summary = run.all(progress)?;
    Ok((Workdir::open(&paths.root)?, summary))
}

/// Makes the directory ours, or makes sure that it is.
fn claim(options: &Options, paths: &Paths) -> Result<Config> {
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

struct Run<'a> {
    config: &'a Config,
    paths: &'a Paths,
    options: &'a Options,
    image: OnceCell<Image>,
}

impl Run<'_> {
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

        let addresses: Addresses = read_json(&paths.addresses())?;
        let stays = |f: &&boundary::BoundaryFunction| matches!(f.fate, Fate::Stay(_));
        let stay = boundary.functions.iter().filter(stays).count();
        Ok(Summary {
            release: kernel.release,
            build_id: kernel.build_id,
            units: unit_rows(&gate),
            origins,
            replaced: boundary.functions.len() - stay,
            stay,
            placed: (addresses.known_by(KnownBy::Relocation), addresses.known_by(KnownBy::SymbolTable)),
            unplaced: missed(&addresses).map(|u| (u.unit.clone(), u.name.clone())).collect(),
            allowed_different,
            configuration: config.boundary.file.clone(),
            notes: boundary.notes,
            done: steps.done,
        })
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

    fn read_kernel(&self) -> Result<String> {
        let facts = KernelFacts::of(self.image()?);
        write_json(&self.paths.kernel(), &facts)?;
        Ok(format!("{} units, build-id {}", facts.units.len(), facts.build_id))
    }

    fn copy_source(&self, found: &Found, kernel: &KernelFacts, sidecars: &Sidecars) -> Result<String> {
        let unpacked = self.paths.unpacked();
        let source = match found {
            Found::Dir(dir) => dir.clone(),
            Found::Tarball(tarball) => kernel_source::unpack(tarball, &unpacked, sidecars)?,
        };
        self.config.boundary.check_files(&source)?;
        let version = kernel_source::version(&source)?;
        let fresh = self.paths.generated().join("tree-new");
        let headers = kernel_source::copy_scheduler(&source, &fresh, sidecars)?;
        self.replace_pristine_tree(&fresh)?;
        let debian = kernel_source::debian_version(&source);
        let origins = Origins {
            compiler_of_kernel: kernel.compiler.clone(),
            same_version: match debian.as_ref().filter(|_| !self.is_built_here()) {
                Some(debian) => kernel.banner.contains(debian.as_str()),
                None => kernel_source::is_version_of(&version, &kernel.release, &kernel.banner),
            },
            source_version: debian.unwrap_or(version),
            kernel_banner: kernel.banner.clone(),
            ..Origins::default()
        };
        remove_dir(&unpacked)?;
        write_json(&self.origins_path(), &origins)?;
        Ok(format!("version {}, {headers} private headers", origins.source_version))
    }

    /// Whether headers and vmlinux are of the tree that the kernel was built in. Debian's source, built by its user,
    /// is a kernel whose banner does not have Debian's version.
    fn is_built_here(&self) -> bool {
        self.config.vmlinux.parent() == Some(&self.config.headers)
    }

    /// The tree that is edited was made from the pristine one and is not touched; so once it is there, the
    /// pristine one must stay the same.
    fn replace_pristine_tree(&self, fresh: &Path) -> Result<()> {
        let tree = self.paths.tree();
        // A sidecar may come or go; the files that both have must be the same.
        if self.paths.root.join("kernel").exists() && !agree(&tree, fresh)? {
            remove_dir(fresh)?;
            return Err(Error::SourceChanged {
                path: self.paths.root.clone(),
                source_path: self.config.source.clone(),
            });
        }
        remove_dir(&tree)?;
        fs::rename(fresh, &tree).map_err(|e| Error::io("write", &tree, e))
    }

    fn prepare_headers(&self) -> Result<String> {
        let dest = self.paths.kbuild();
        remove_dir(&dest)?;
        let kbuild = shadow_headers(&self.options.kernel, self.options.toolchain.as_ref(), &dest)?;
        write_json(&self.kbuild_path(), &kbuild)?;
        Ok(String::new())
    }

    fn kbuild_path(&self) -> PathBuf {
        self.paths.generated().join("kbuild.json")
    }

    fn ask_kbuild(&self, kernel: &KernelFacts) -> Result<String> {
        let kbuild: PathBuf = read_json(&self.kbuild_path())?;
        let programs = self.config.programs.as_deref();
        let commands =
            compile::commands(&kbuild, &self.paths.tree(), &kernel.units, kernel.machine(), programs)?;
        write_json(&self.paths.commands(), &commands)?;
        Ok(commands.compiler.version)
    }

    fn compile(&self, commands: &Commands, kind: Build, progress: &dyn Progress) -> Result<String> {
        let tree = self.paths.tree();
        let out = self.paths.pristine(kind);
        let jobs = compile::scheduler_jobs(commands, kind, &tree, &out);
        let compiled = compile::compile(commands, &jobs, progress)?;
        let cached = compiled.iter().filter(|c| c.cached).count();
        Ok(format!("{} compiled, {cached} up to date", compiled.len() - cached))
    }

    fn gate_objects(&self, commands: &Commands) -> Result<Vec<(String, Object)>> {
        let dir = self.paths.pristine(Build::Gate);
        commands.units.keys().map(|unit| read_object(unit, &compile::object_path(&dir, unit))).collect()
    }

    fn compare(&self, commands: &Commands) -> Result<String> {
        let gate = identity::gate(self.image()?, &self.gate_objects(commands)?)?;
        write_json(&self.paths.gate(), &gate)?;
        let identical: usize = gate.units.iter().map(|unit| unit.identical()).sum();
        let compared: usize =
            gate.units.iter().map(|unit| unit.functions.len() - unit.overridden().len()).sum();
        Ok(format!("{identical} of {compared} functions identical"))
    }

    fn draw_boundary(&self, found: &Found) -> Result<String> {
        let boundary = boundary::compute(self.image()?, &self.config.boundary)?;
        boundary_files::write(self.paths, &boundary, &self.config.boundary)?;
        let source = match found {
            Found::Dir(dir) => Some(dir.as_path()),
            Found::Tarball(_) => None,
        };
        boundary_files::write_doc(self.paths, self.image()?, source)?;
        let stay = boundary.functions.iter().filter(|f| matches!(f.fate, Fate::Stay(_))).count();
        Ok(format!("{} replaced, {stay} stay", boundary.functions.len() - stay))
    }

    fn derive_springboard(&self) -> Result<String> {
        let contract = springboard::derive(self.image()?).map_err(Box::new)?;
        write_json(&self.paths.springboard(), &contract)?;
        Ok(String::new())
    }

    fn find_addresses(&self, gate: &Gate) -> Result<String> {
        let commands: Commands = read_json(&self.paths.commands())?;
        let objects = self.gate_objects(&commands)?;
        let addresses = identity::addresses(self.image()?, &objects, gate)?;
        write_compact_json(&self.paths.addresses(), &addresses)?;
        Ok(format!(
            "{} symbols by {} relocations, {} by the symbol table, {} unknown",
            addresses.known_by(KnownBy::Relocation),
            addresses.relocations,
            addresses.known_by(KnownBy::SymbolTable),
            missed(&addresses).count()
        ))
    }

    /// Rewrites the pristine module build and lays it over vmlinux: every byte must be vmlinux's again. Where the module's
    /// code is other code, that is done with the gate build, and of the module build each reference is held against
    /// the compiler's.
    fn prove_binding(&self, commands: &Commands, boundary: &Boundary) -> Result<String> {
        let units = |kind: Build| -> Result<Vec<UnitObject>> {
            let dir = self.paths.pristine(kind);
            let units = commands.units.keys().map(|unit| {
                let (unit, object) = read_object(unit, &compile::object_path(&dir, unit))?;
                Ok(UnitObject::new(unit, object))
            });
            units.collect()
        };
        let keeps_code = Build::module_keeps_code(&commands.srcarch);
        let proved = units(if keeps_code { Build::Module } else { Build::Gate })?;
        let image = self.image()?;
        let addresses: Addresses = read_json(&self.paths.addresses())?;
        let binding = Binding { image, boundary, addresses: &addresses, anchor: binding::anchor(image)? };
        let proof = binding::prove_identity(&binding::rewrite(&proved, &binding)?, &binding)?;
        let mut faults: Vec<String> =
            proof.different.iter().map(|d| format!("{}: {}", d.symbol, d.what)).collect();
        if !keeps_code {
            faults.extend(verified(&units(Build::Module)?, &binding)?);
        }
        if !faults.is_empty() && !self.config.allow_different {
            return Err(Error::WrongBinding(faults));
        }
        Ok(format!("{} functions and {} objects are vmlinux's again", proof.functions, proof.objects))
    }

    /// The tree to edit: a copy of the pristine one, under git. One that is there is left alone.
    fn set_up_tree(&self, origins: &Origins) -> Result<String> {
        let (root, tree) = (&self.paths.root, self.paths.tree());
        if !root.join("kernel").exists() {
            // `kernel/` comes last: once it is there the tree is taken to be the developer's.
            let entries = fs::read_dir(&tree).map_err(|e| Error::io("read", &tree, e))?;
            let mut names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
            names.sort_by_key(|name| name == "kernel");
            for name in names {
                let unfinished = self.paths.generated().join("tree-copy");
                remove_dir(&unfinished)?;
                copy_dir(&tree.join(&name), &unfinished)?;
                let target = root.join(&name);
                remove_dir(&target)?;
                fs::rename(&unfinished, &target).map_err(|e| Error::io("write", &target, e))?;
            }
        }
        // A file that is gone from the scheduler's own was removed on purpose.
        let added = add_missing(&tree, root, Path::new("kernel/sched"))?;
        let ignored =
            "/.schedswap/\n/boundary.txt\n/boundary*.yaml\n/scheduler.ko\n/manifest.json\n/*.deb\n/*.rpm\n";
        write_atomically(&root.join(".gitignore"), ignored.as_bytes())?;
        let message = format!(
            "kernel/sched of {}, as released\n\nSource version: {}\nKernel: {}\n",
            self.config.release, origins.source_version, origins.kernel_banner
        );
        git::commit_pristine(root, &message)?;
        let message = format!("sidecars of {}, as released\n", self.config.release);
        git::commit_added(root, &added, &message)?;
        Ok(root.join("kernel/sched/mod").display().to_string())
    }
}

/// What of the written module is not as the compiler's objects, with the addresses of vmlinux, say.
fn verified(units: &[UnitObject], binding: &Binding) -> Result<Vec<String>> {
    let rewritten = binding::rewrite(units, binding)?;
    let bytes = objects::write(&rewritten.object)?;
    let faults = binding::verify(&bytes, units, binding, &rewritten).err().unwrap_or_default();
    Ok(faults.iter().map(ToString::to_string).collect())
}

/// What tells whether a file is another one than before, without reading all of it.
fn file_stamp(path: &Path) -> Result<(PathBuf, u64, u128)> {
    let meta = fs::metadata(path).map_err(|e| Error::io("read", path, e))?;
    let modified = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    Ok((path.to_owned(), meta.len(), modified.map_or(0, |t| t.as_nanos())))
}

/// For a directory that is the files which matter most: its version and the scheduler's own.
fn source_stamp(found: &Found, sidecars: &Sidecars) -> Result<Vec<(PathBuf, u64, u128)>> {
    let dir = match found {
        Found::Tarball(tarball) => return Ok(vec![file_stamp(tarball)?]),
        Found::Dir(dir) => dir,
    };
    let sched = dir.join("kernel/sched");
    // A build in that tree changes none of them.
    let mut files = kernel_source::sources_in(&sched)?;
    files.retain(|path| path.is_file());
    files.push(dir.join("Makefile"));
    // One that is missing is reported when it is copied.
    files.extend(sidecars.keys().map(|unit| dir.join(unit)).filter(|path| path.is_file()));
    files.iter().map(|path| file_stamp(path)).collect()
}

/// Whether the recorded commands would run another compiler than when they were asked for.
fn compiler_has_changed(commands: &Path) -> bool {
    read_json::<Commands>(commands).is_ok_and(|recorded| !recorded.compiler.is_as_recorded(&recorded.cwd))
}

/// Symbols that a module may refer to, and of which nothing tells the place. What only the kernel's own build reads
/// (`__tracepoint_check`) is in no vmlinux.
fn missed(addresses: &Addresses) -> impl Iterator<Item = &Unplaced> {
    addresses.unplaced.iter().filter(|symbol| binding::is_carried(&symbol.section))
}

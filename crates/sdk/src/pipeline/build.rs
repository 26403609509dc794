//! The module and its packages.

use super::check::{Checked, check_compiled};
use super::module::{Linked, link};
use super::packages::Packaging;
use super::{Error, Result};
use crate::workdir::{self, Workdir};
use schedswap_host::progress::Progress;
use schedswap_package::{Format, Name, Payload};
use schedswap_payload::manifest::DivertedFunction;
use schedswap_payload::{BuildId, Manifest, manifest};
use schedswap_sched::binding::Carried;
use schedswap_sched::check::{Allowance, Finding};
use schedswap_sched::config::Divert;
use schedswap_sched::module;
use schedswap_sched::module::sign::{Signer, hash_of_config};
use schedswap_sched::replaced::Set;
use std::fs;
use std::path::{Path, PathBuf};

/// What `build` shall make.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// Name of the scheduler: packages are called `scheduler-NAME-…`.
    pub name: String,
    /// Its release; several of one name can be installed if they differ in this.
    pub release: String,
    /// One line on what it is for, shown by package managers; a standard one if there is none.
    pub summary: Option<String>,
    /// Signs the module, as the kernel's scripts/sign-file does.
    pub key: Option<Key>,
    /// Which packages to make; without one, only `scheduler.ko` and `manifest.json` are written.
    pub formats: Vec<Format>,
    /// Which functions are replaced; if not given, what the configuration says.
    pub divert: Option<Divert>,
    /// Warnings that the author has looked at; the manifest names them.
    pub allowed: Vec<Allowance>,
    /// `SOURCE_DATE_EPOCH` of the caller: the date in the packages, if it is not to be that of the last commit.
    pub source_date_epoch: Option<String>,
}

impl BuildOptions {
    /// The module of a scheduler of that name and release, unsigned, without packages.
    pub fn named(name: impl Into<String>, release: impl Into<String>) -> BuildOptions {
        BuildOptions {
            name: name.into(),
            release: release.into(),
            summary: None,
            key: None,
            formats: Vec::new(),
            divert: None,
            allowed: Vec::new(),
            source_date_epoch: None,
        }
    }
}

/// A private key with its certificate.
#[derive(Clone, Debug)]
pub struct Key {
    /// PEM.
    pub file: PathBuf,
    /// PEM or DER; the machine's kernel has to trust it.
    pub certificate: PathBuf,
}

/// A module, and what became of the edit.
#[derive(Clone, Debug)]
pub struct Built {
    /// `scheduler.ko`.
    pub module: PathBuf,
    /// Whether it is signed.
    pub signed: bool,
    /// `manifest.json`, which is written beside it.
    pub manifest: Manifest,
    /// The packages, in the order of [`BuildOptions::formats`].
    pub packages: Vec<PathBuf>,
    /// Which functions are replaced, and why.
    pub set: Set,
    /// The functions of vmlinux that are diverted to the module.
    pub functions: Vec<DivertedFunction>,
    /// Functions that vmlinux does not have.
    pub new_functions: Vec<String>,
    /// Variables that the module has for itself.
    pub private_data: Vec<String>,
    /// New variables whose values the next version takes over if it declares the same.
    pub handed_over: Vec<String>,
    /// Variables whose values come from vmlinux at load and go back at unload.
    pub carried: Vec<String>,
    /// What the author should know.
    pub warnings: Vec<String>,
    /// What `check` found; none of it refuses.
    pub findings: Vec<Finding>,
}

/// Checks an edit and makes a module, and packages, of it.
///
/// # Errors
/// [`Error::Refused`] if `check` refuses the edit. Otherwise what is wrong with the options, the work dir, the edit or
/// this machine; [`Error::is_refusal`] tells a safety check's refusal from a failure.
pub fn build(work: &Workdir, options: &BuildOptions, progress: &dyn Progress) -> Result<Built> {
    let order = Order::new(work, options)?;
    let checked = order.check(&options.allowed, progress)?;
    order.build(checked, progress)
}

/// A build for which all is there: its names are valid, and the key and the loader were found.
pub struct Order<'a> {
    work: &'a Workdir,
    name: Name,
    summary: Option<String>,
    signer: Option<Signer>,
    packaging: Packaging,
    divert: Option<Divert>,
}

impl<'a> Order<'a> {
    /// Looks at the options before anything takes long.
    ///
    /// # Errors
    /// A name or the summary does not suit the package formats, or the loader, the kernel's configuration or the work
    /// dir's history is missing.
    pub fn new(work: &'a Workdir, options: &BuildOptions) -> Result<Order<'a>> {
        let packaging = Packaging::new(&options.formats, options.source_date_epoch.as_deref(), work)?;
        let signer = options.key.as_ref().map(|key| signer(key, work)).transpose()?;
        let name = Name::new(&options.name, &options.release, &work.kernel().release)?;
        if let Some(summary) = &options.summary {
            schedswap_package::check_summary(summary)?;
        }
        Ok(Order { work, name, summary: options.summary.clone(), signer, packaging, divert: options.divert })
    }

    /// The same as [`check`](super::check()), but what is edited is compiled with the runtime beside it.
    ///
    /// # Errors
    /// As for [`check`](super::check()).
    pub fn check(&self, allowed: &[Allowance], progress: &dyn Progress) -> Result<Checked> {
        check_compiled(self.work, &self.work.compile_with_runtime(progress)?, allowed, progress)
    }

    /// Binds, links, signs and packages what [`Order::check`] has let through.
    ///
    /// # Errors
    /// As for [`build`].
    pub fn build(&self, checked: Checked, progress: &dyn Progress) -> Result<Built> {
        if checked.is_refused() {
            return Err(Error::Refused(checked.findings));
        }
        let Checked { findings, edit, .. } = checked;
        let linked = link(self.work, edit, self.divert, &self.name.version(), progress)?;
        self.work.write_set(&linked.set)?;
        let module = self.work.module();
        let bytes = self.signed(&linked.module.path)?;
        write(&module, &bytes)?;
        let payload = self.payload(bytes, &linked, &findings)?;
        write(&self.work.root().join(manifest::FILE_NAME), payload.manifest.to_json().as_bytes())?;
        let packages = self.packaging.write(&payload, progress)?;
        let Linked { module: made, rewritten, states, set, .. } = linked;
        Ok(Built {
            module,
            signed: self.signer.is_some(),
            manifest: payload.manifest,
            packages,
            set,
            functions: made.functions,
            new_functions: names(&rewritten.new_functions),
            private_data: names(&rewritten.private_data),
            handed_over: states_of(&states, |state| state.vmlinux.is_none()),
            carried: states_of(&states, |state| state.vmlinux.is_some()),
            warnings: warnings(rewritten.warnings, &states.left),
            findings,
        })
    }

    /// The module's bytes, signed if that is wanted.
    fn signed(&self, path: &Path) -> Result<Vec<u8>> {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        match &self.signer {
            Some(signer) => Ok(module::sign::sign(&bytes, signer)?),
            None => Ok(bytes),
        }
    }

    fn payload(&self, module: Vec<u8>, linked: &Linked, findings: &[Finding]) -> Result<Payload> {
        let no_build_id = || Error::NoBuildId { vmlinux: self.work.config().vmlinux.clone() };
        Ok(Payload::new(schedswap_package::Input {
            name: self.name.clone(),
            summary: self.summary.clone(),
            module,
            functions: linked.module.functions.clone(),
            loader: self.packaging.loader(),
            build_id: BuildId::from_bytes(&linked.image.build_id).ok_or_else(no_build_id)?,
            boundary: &linked.boundary,
            findings_allowed: recorded(findings, true),
            warnings: recorded(findings, false),
            unproved: linked.module.unproved.clone(),
            source_commit: self.work.commit(),
        })?)
    }
}

/// The signer, with the hash that the kernel is configured for.
fn signer(key: &Key, work: &Workdir) -> Result<Signer> {
    let path = &work.config().kernel_config;
    let config = fs::read_to_string(path).map_err(Error::io("read the kernel's configuration", path))?;
    Ok(Signer { key: key.file.clone(), certificate: key.certificate.clone(), hash: hash_of_config(&config) })
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|source| workdir::Error::io("write", path, source).into())
}

/// Code and symbol of the findings that were allowed, or of those that were not, as a manifest has them.
fn recorded(findings: &[Finding], allowed: bool) -> Vec<String> {
    let wanted = findings.iter().filter(|finding| finding.allowed == allowed);
    wanted.map(|finding| format!("{} {}", finding.code, finding.symbol).trim_end().to_owned()).collect()
}

fn names(carried: &[Carried]) -> Vec<String> {
    carried.iter().map(|carried| carried.name.clone()).collect()
}

fn states_of(states: &module::States, wanted: impl Fn(&module::tables::State) -> bool) -> Vec<String> {
    states.carried.iter().filter(|state| wanted(state)).map(|state| state.name.clone()).collect()
}

fn warnings(mut warnings: Vec<String>, left: &[String]) -> Vec<String> {
    warnings.extend(left.iter().map(|left| format!("a next version cannot take over {left}")));
    warnings
}

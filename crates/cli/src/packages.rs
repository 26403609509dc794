//! What `build` makes of a module: its signature and its packages.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use schedswap_host::progress::Progress;
use schedswap_kernel::vmlinux::Machine;
use schedswap_package::{Changelog, Date, Format, Package, Payload, find_loader};
use schedswap_sched::module::sign::{Signer, hash_of_config};
use schedswap_sdk::workdir::{self, Workdir};
use std::env;
use std::fs;
use std::path::PathBuf;

/// A package format, as given by the user.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum FormatChoice {
    /// Debian, Ubuntu
    Deb,
    /// Fedora, RHEL, SUSE, openEuler
    Rpm,
    /// No package
    None,
}

/// Who signs the module.
#[derive(Args)]
pub struct SigningArgs {
    /// Sign the module with this private key (PEM), as the kernel's scripts/sign-file does
    #[arg(long, value_name = "FILE", requires = "sign_cert")]
    sign_key: Option<PathBuf>,
    /// The key's certificate (PEM or DER), which the machine's kernel has to trust
    #[arg(long, value_name = "FILE", requires = "sign_key")]
    sign_cert: Option<PathBuf>,
}

impl SigningArgs {
    /// The signer, if there is one, with the hash that the kernel is configured for.
    pub fn signer(&self, work: &Workdir) -> anyhow::Result<Option<Signer>> {
        let (Some(key), Some(certificate)) = (self.sign_key.clone(), self.sign_cert.clone()) else {
            return Ok(None);
        };
        let path = &work.config().kernel_config;
        let config = fs::read_to_string(path)
            .with_context(|| format!("cannot read the kernel's configuration {}", path.display()))?;
        Ok(Some(Signer { key, certificate, hash: hash_of_config(&config) }))
    }
}

/// Which packages to make, and all that they need but the payload. Nothing where none is to be made.
pub struct Packaging {
    formats: Vec<Format>,
    loader: Option<Vec<u8>>,
    changelog: Option<Changelog>,
    dir: PathBuf,
}

impl Packaging {
    /// Gathers it, so that what is missing is said before anything takes long.
    pub fn new(choices: &[FormatChoice], work: &Workdir) -> anyhow::Result<Packaging> {
        if choices.contains(&FormatChoice::None) && choices.len() > 1 {
            bail!("--format none cannot go with another format");
        }
        let mut formats = Vec::new();
        for (choice, format) in [(FormatChoice::Deb, Format::Deb), (FormatChoice::Rpm, Format::Rpm)] {
            if choices.contains(&choice) {
                formats.push(format);
            }
        }
        let dir = work.root().to_owned();
        if formats.is_empty() {
            return Ok(Packaging { formats, loader: None, changelog: None, dir });
        }
        let commits = workdir::history(work.root())?;
        let date = Date::of_sources(
            env::var("SOURCE_DATE_EPOCH").ok().as_deref(),
            commits.first().map(|commit| commit.seconds),
        )?;
        let unrecorded = work.commit().is_none().then_some("Changes that are in no commit.");
        let changelog = Some(Changelog::new(&commits, unrecorded, date));
        let machine = Machine::named(&work.kernel().machine).or(Machine::host());
        let loader = find_loader(machine.unwrap_or(Machine::X86_64))?;
        Ok(Packaging { formats, loader: Some(loader), changelog, dir })
    }

    /// The loader to go into the payload.
    pub fn loader(&self) -> Option<Vec<u8>> {
        self.loader.clone()
    }

    /// Writes the packages and returns their paths.
    pub fn write(&self, payload: &Payload, progress: &dyn Progress) -> anyhow::Result<Vec<PathBuf>> {
        let Some(changelog) = &self.changelog else { return Ok(Vec::new()) };
        progress.begin("making packages", None);
        let recipe = payload.recipe(changelog.clone());
        let write = |format: &Format| Ok(Package::build(&recipe, *format)?.write(&self.dir)?);
        let written = self.formats.iter().map(write).collect();
        progress.end("");
        written
    }
}

//! What `build` is told about signature and packages.

use anyhow::bail;
use clap::{Args, ValueEnum};
use schedswap_package::Format;
use schedswap_sdk::Key;
use std::path::PathBuf;

/// A package format, as given by the user.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum FormatChoice {
    /// Debian, Ubuntu
    Deb,
    /// Fedora, RHEL, SUSE, openEuler
    Rpm,
    /// No package
    None,
}

/// Which packages to make.
#[derive(Args)]
pub struct PackageArgs {
    /// Which packages to make
    #[arg(long, value_name = "FORMAT", value_enum, value_delimiter = ',', default_value = "deb,rpm")]
    format: Vec<FormatChoice>,
}

impl PackageArgs {
    /// The formats, each once.
    pub fn formats(&self) -> anyhow::Result<Vec<Format>> {
        if self.format.contains(&FormatChoice::None) && self.format.len() > 1 {
            bail!("--format none cannot be combined with another format");
        }
        let all = [(FormatChoice::Deb, Format::Deb), (FormatChoice::Rpm, Format::Rpm)];
        let chosen = all.into_iter().filter(|(choice, _)| self.format.contains(choice));
        Ok(chosen.map(|(_, format)| format).collect())
    }
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
    /// The key, if one was given.
    pub fn key(&self) -> Option<Key> {
        Some(Key { file: self.sign_key.clone()?, certificate: self.sign_cert.clone()? })
    }
}

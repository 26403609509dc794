//! The kernel's module signature, as `scripts/sign-file` appends it.
//!
//! ```text
//! module | CMS SignedData, DER | struct module_signature | "~Module signature appended~\n"
//! ```
//!
//! The CMS is made by the `openssl` command, which is the library that `sign-file` itself uses: detached, without
//! certificates and signed attributes, the signer named by issuer and serial number. Any key that OpenSSL reads will do.
//! OpenSSL asks for the passphrase of an encrypted one, or takes it from `KBUILD_SIGN_PIN` as in the kernel's own build.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use thiserror::Error;

/// Ends a signed module (`MODULE_SIG_STRING` in `include/linux/module_signature.h`).
pub const MARK: &[u8] = b"~Module signature appended~\n";
/// `PKEY_ID_PKCS7`.
const PKEY_ID_PKCS7: u8 = 2;
/// What kernels hash modules with when their configuration does not say.
const USUAL_HASH: &str = "sha256";

/// Why a module was not signed.
#[derive(Debug, Error)]
pub enum Error {
    /// No openssl.
    #[error("cannot run openssl: {0}; install the package openssl")]
    NoOpenssl(std::io::Error),
    /// A file could not be read or written.
    #[error("cannot {doing} {path}")]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// openssl refused.
    #[error(
        "openssl does not sign with the key {key} and the certificate {certificate}: expected a private key in PEM \
         (a passphrase is taken from KBUILD_SIGN_PIN) and its X.509 certificate in PEM or DER; it said:\n{said}"
    )]
    Refused {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
        /// openssl's messages.
        said: String,
    },
    /// It has a signature already.
    #[error("the module is signed already; build it again without signing it, and sign that")]
    Signed,
}

/// Who signs, and how.
#[derive(Clone, Debug)]
pub struct Signer {
    /// The private key.
    pub key: PathBuf,
    /// Its certificate.
    pub certificate: PathBuf,
    /// Name of the hash, as openssl and `CONFIG_MODULE_SIG_HASH` know it.
    pub hash: String,
}

/// The hash that a kernel of that configuration (`.config`) uses for modules.
pub fn hash_of_config(config: &str) -> String {
    let configured = config.lines().find_map(|line| line.strip_prefix("CONFIG_MODULE_SIG_HASH="));
    match configured.map(|value| value.trim().trim_matches('"')) {
        Some(hash) if !hash.is_empty() => hash.to_owned(),
        _ => USUAL_HASH.to_owned(),
    }
}

/// The module with a signature appended. With an RSA key the same module gets the same signature each time.
///
/// # Errors
/// The module is signed already, openssl refuses or cannot be run, or a file cannot be read or written.
pub fn sign(module: &[u8], signer: &Signer) -> Result<Vec<u8>, Error> {
    if module.ends_with(MARK) {
        return Err(Error::Signed);
    }
    let signature = cms(module, signer)?;
    let mut signed = module.to_vec();
    signed.extend(&signature);
    // struct module_signature: algo, hash, id_type, signer_len, key_id_len, three bytes of padding, sig_len. With
    // PKCS#7 all but type and length are in the message.
    signed.extend([0, 0, PKEY_ID_PKCS7, 0, 0, 0, 0, 0]);
    signed.extend((signature.len() as u32).to_be_bytes());
    signed.extend(MARK);
    Ok(signed)
}

fn cms(module: &[u8], signer: &Signer) -> Result<Vec<u8>, Error> {
    let dir = tempfile::tempdir().map_err(|source| Error::Io {
        doing: "write",
        path: std::env::temp_dir(),
        source,
    })?;
    let certificate = in_pem(signer, dir.path())?;
    let content = dir.path().join("module");
    fs::File::create(&content).and_then(|mut file| file.write_all(module)).map_err(|source| Error::Io {
        doing: "write",
        path: content.clone(),
        source,
    })?;
    let mut openssl = Command::new("openssl");
    openssl
        .args(["cms", "-sign", "-binary", "-outform", "DER", "-nocerts", "-noattr", "-nosmimecap", "-md"])
        .arg(&signer.hash)
        .arg("-signer")
        .arg(&certificate)
        .arg("-inkey")
        .arg(&signer.key)
        .arg("-in")
        .arg(&content);
    if std::env::var_os("KBUILD_SIGN_PIN").is_some() {
        openssl.args(["-passin", "env:KBUILD_SIGN_PIN"]);
    }
    run(openssl, signer)
}

/// The certificate as PEM: what `openssl cms` of every version reads.
fn in_pem(signer: &Signer, dir: &Path) -> Result<PathBuf, Error> {
    let path = &signer.certificate;
    let bytes = fs::read(path).map_err(|source| Error::Io { doing: "read", path: path.clone(), source })?;
    // A DER certificate is a SEQUENCE.
    if bytes.first() != Some(&0x30) {
        return Ok(path.clone());
    }
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-inform", "DER", "-in"]).arg(path);
    let pem = dir.join("certificate.pem");
    let converted = run(openssl, signer)?;
    fs::write(&pem, converted).map_err(|source| Error::Io { doing: "write", path: pem.clone(), source })?;
    Ok(pem)
}

/// What it prints on its standard output.
fn run(mut openssl: Command, signer: &Signer) -> Result<Vec<u8>, Error> {
    let Output { status, stdout, stderr } =
        openssl.stdin(Stdio::null()).output().map_err(Error::NoOpenssl)?;
    if status.success() && !stdout.is_empty() {
        return Ok(stdout);
    }
    Err(Error::Refused {
        key: signer.key.clone(),
        certificate: signer.certificate.clone(),
        said: String::from_utf8_lossy(&stderr).trim().to_owned(),
    })
}

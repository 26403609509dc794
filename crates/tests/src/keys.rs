//! Keys to sign modules with.

use anyhow::{Context, Result, ensure};
use schedswap_sched::module::sign::Signer;
use std::path::Path;
use std::process::Command;

/// A key with its certificate; `algorithm` as `openssl req -newkey` takes it.
pub fn signer(dir: &Path, name: &str, algorithm: &[&str]) -> Result<Signer> {
    let (key, certificate) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.crt")));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-new", "-x509", "-batch", "-nodes", "-utf8", "-sha256", "-days", "36500"]);
    openssl.args(["-subj", &format!("/CN={}", common_name(name)), "-newkey"]).args(algorithm);
    run(openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate))?;
    Ok(Signer { key, certificate, hash: "sha256".to_owned() })
}

/// Whom the certificate of that name is for, as kernel and modinfo say it.
pub fn common_name(name: &str) -> String {
    format!("schedswap test {name}")
}

/// The certificate as firmware and kernel read it.
pub fn der(signer: &Signer) -> Result<Vec<u8>> {
    run(Command::new("openssl").args(["x509", "-outform", "DER", "-in"]).arg(&signer.certificate))
}

fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}:\n{said}", output.status);
    Ok(output.stdout)
}

//! Module signatures, made by us and read by OpenSSL, modinfo and the kernel's own tools.

use super::assert_has;
use super::made::{copy, fresh, made, payload_dir, run, unpack_rpm};
use anyhow::{Context, Result, ensure};
use schedswap_payload::Manifest;
use schedswap_sched::module::sign::{self, MARK, Signer};
use schedswap_tests::keys::{self, signer};
use schedswap_tests::{kernel, schedswap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `struct module_signature`.
const TRAILER_BYTES: usize = 12;

/// Takes a signed module apart: module and CMS.
fn parts(signed: &[u8]) -> Result<(&[u8], &[u8])> {
    let rest = signed.strip_suffix(MARK).context("no mark")?;
    let (rest, trailer) = rest.split_at(rest.len() - TRAILER_BYTES);
    ensure!(trailer[..8] == [0, 0, 2, 0, 0, 0, 0, 0], "{trailer:?}");
    let length = u32::from_be_bytes(trailer[8..].try_into()?) as usize;
    Ok(rest.split_at(rest.len() - length))
}

/// What OpenSSL says about a signature.
fn is_verified(dir: &Path, module: &[u8], cms: &[u8], signer: &Signer) -> Result<bool> {
    let (content, message) = (dir.join("content"), dir.join("message"));
    fs::write(&content, module)?;
    fs::write(&message, cms)?;
    let mut openssl = Command::new("openssl");
    openssl
        .args(["cms", "-verify", "-binary", "-inform", "DER", "-noverify", "-nointern", "-in"])
        .arg(&message);
    openssl.arg("-content").arg(&content).arg("-certfile").arg(&signer.certificate);
    let output = openssl.args(["-out", "/dev/null"]).output().context("openssl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() || said.contains("erification failure"), "{said}");
    Ok(output.status.success())
}

#[test]
fn a_signature_verifies_and_no_altered_module_does() -> Result<()> {
    let dir = fresh("signing")?;
    let module = fs::read(made().work.join("scheduler.ko"))?;
    let keys = [
        ("rsa", &["rsa:2048"][..], "sha256"),
        ("rsa-512", &["rsa:3072"], "sha512"),
        ("ecdsa", &["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], "sha256"),
    ];
    for (name, algorithm, hash) in keys {
        let signer = Signer { hash: hash.to_owned(), ..signer(&dir, name, algorithm)? };
        let signed = sign::sign(&module, &signer)?;
        let (content, cms) = parts(&signed)?;
        ensure!(content == module, "{name}: the module was changed");
        ensure!(is_verified(&dir, content, cms, &signer)?, "{name}");
        for at in [0, content.len() / 2, content.len() - 1] {
            let mut altered = content.to_vec();
            altered[at] ^= 1;
            ensure!(!is_verified(&dir, &altered, cms, &signer)?, "{name}: byte {at} may be altered");
        }
        ensure!(!is_verified(&dir, &content[..content.len() - 1], cms, &signer)?, "{name}: may be cut");
        // What the kernel finds: who signed, by which hash.
        let file = dir.join(format!("{name}.ko"));
        fs::write(&file, &signed)?;
        let modinfo = |field: &str| run(modinfo_program().args(["-F", field]).arg(&file));
        assert_eq!(modinfo("signer")?.trim(), keys::common_name(name));
        assert_eq!(modinfo("sig_hashalgo")?.trim(), hash);
        assert!(matches!(sign::sign(&signed, &signer), Err(sign::Error::Signed)));
    }
    Ok(())
}

/// A user's path may not contain /sbin.
fn modinfo_program() -> Command {
    let found = ["/sbin/modinfo", "/usr/sbin/modinfo"].into_iter().find(|path| Path::new(path).exists());
    Command::new(found.unwrap_or("modinfo"))
}

/// A file of the kernel's packages or source, if this kernel ships it.
fn kernel_file(root: &Path, ending: &str) -> Result<Option<PathBuf>> {
    let found = run(Command::new("find").arg(root).args(["-path", &format!("*/{ending}")]))?;
    Ok(found.lines().next().map(PathBuf::from))
}

#[test]
fn the_kernel_s_own_tools_make_and_read_the_same() -> Result<()> {
    let (dir, kernel) = (fresh("sign-file")?, kernel()?);
    let module = made().work.join("scheduler.ko");
    let signer = signer(&dir, "rsa", &["rsa:2048"])?;
    let ours = sign::sign(&fs::read(&module)?, &signer)?;
    let signed = dir.join("ours.ko");
    fs::write(&signed, &ours)?;
    // Not every distribution ships them.
    match kernel_file(&kernel.sysroot, "scripts/sign-file")? {
        Some(sign_file) => {
            let theirs = dir.join("theirs.ko");
            let mut command = Command::new(sign_file);
            command.arg("sha256").arg(&signer.key).arg(&signer.certificate).arg(&module).arg(&theirs);
            run(&mut command)?;
            ensure!(fs::read(theirs)? == ours, "sign-file makes another signature");
        }
        None => eprintln!("SKIPPED: this kernel's packages have no scripts/sign-file"),
    }
    match kernel_file(&kernel.source, "scripts/extract-module-sig.pl")? {
        Some(extract) => {
            let extracted = |part: &str| -> Result<Vec<u8>> {
                let output = Command::new("perl").arg(&extract).arg(part).arg(&signed).output()?;
                ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                Ok(output.stdout)
            };
            let (content, cms) = parts(&ours)?;
            ensure!(extracted("-0")? == content && extracted("-s")? == cms);
        }
        None => eprintln!("SKIPPED: this kernel's source has no scripts/extract-module-sig.pl"),
    }
    Ok(())
}

#[test]
fn a_certificate_may_be_der_and_a_key_may_have_a_passphrase() -> Result<()> {
    let dir = fresh("key-forms")?;
    let plain = signer(&dir, "plain", &["rsa:2048"])?;
    let module = b"a module";
    let wanted = sign::sign(module, &plain)?;
    let der = dir.join("plain.der");
    fs::write(&der, keys::der(&plain)?)?;
    ensure!(sign::sign(module, &Signer { certificate: der, ..plain.clone() })? == wanted);
    // Through the command, because the passphrase is in the environment.
    let locked = dir.join("locked.pem");
    let mut openssl = Command::new("openssl");
    openssl
        .args(["pkey", "-aes256", "-passout", "pass:sesame", "-in"])
        .arg(&plain.key)
        .arg("-out")
        .arg(&locked);
    run(&mut openssl)?;
    ensure!(fs::read_to_string(&locked)?.contains("ENCRYPTED"));
    let work = dir.join("work");
    copy(&made().work, &work)?;
    let program = std::env::var("SCHEDSWAP")?;
    let mut build = Command::new(program);
    build.arg("build").arg(&work).args([
        "--name",
        "signed",
        "--format",
        "rpm",
        "--divert",
        "all",
        "--json",
        "--sign-key",
    ]);
    build.arg(&locked).arg("--sign-cert").arg(&plain.certificate).env("KBUILD_SIGN_PIN", "sesame");
    let said: serde_json::Value = serde_json::from_str(&run(&mut build)?)?;
    ensure!(said["signed"] == true, "{said}");
    // The signed module is the one that is packed and listed with its digest.
    let (root, rpm) = (dir.join("root"), said["packages"][0].as_str().context("a package")?);
    fs::create_dir(&root)?;
    unpack_rpm(Path::new(rpm), &root)?;
    let payload = root.join(payload_dir("signed-1")?);
    let packed = fs::read(payload.join("scheduler.ko"))?;
    let (content, cms) = parts(&packed)?;
    ensure!(is_verified(&dir, content, cms, &plain)?);
    ensure!(Manifest::parse(&fs::read(payload.join("manifest.json"))?)?.knows("scheduler.ko", &packed));
    Ok(())
}

#[test]
fn a_key_that_does_not_serve_is_refused_by_name() -> Result<()> {
    let dir = fresh("wrong-keys")?;
    let (one, other) = (signer(&dir, "one", &["rsa:2048"])?, signer(&dir, "other", &["rsa:2048"])?);
    let text = dir.join("text");
    fs::write(&text, "no key")?;
    let cases = [
        ("of another certificate", Signer { certificate: other.certificate.clone(), ..one.clone() }),
        ("no key", Signer { key: text.clone(), ..one.clone() }),
        ("no certificate", Signer { certificate: text, ..one.clone() }),
        ("no such hash", Signer { hash: "sha0".to_owned(), ..one.clone() }),
    ];
    for (what, signer) in cases {
        let error = sign::sign(b"a module", &signer).expect_err(what).to_string();
        assert_has(
            &error,
            &[&signer.key.display().to_string(), &signer.certificate.display().to_string(), "it said"],
        );
    }
    let missing = Signer { certificate: dir.join("none"), ..one };
    assert!(matches!(sign::sign(b"a module", &missing), Err(sign::Error::Io { .. })));
    // Giving only one of them is wrong usage.
    let work = made().work.display().to_string();
    let output = schedswap(&["build", &work, "--sign-key", "key.pem"])?;
    assert_eq!(output.status.code(), Some(2));
    assert_has(&String::from_utf8_lossy(&output.stderr), &["--sign-cert"]);
    Ok(())
}

#[test]
fn the_hash_is_the_kernel_s() {
    let config =
        "CONFIG_MODULE_SIG=y\n# CONFIG_MODULE_SIG_SHA1 is not set\nCONFIG_MODULE_SIG_HASH=\"sha512\"\n";
    assert_eq!(sign::hash_of_config(config), "sha512");
    assert_eq!(sign::hash_of_config("# CONFIG_MODULE_SIG is not set\n"), "sha256");
}

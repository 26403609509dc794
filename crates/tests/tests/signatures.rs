//! A stock kernel that accepts only signed modules (`module.sig_enforce=1`), on firmware that vouches for our
//! certificate: what `schedswap build --sign-key --sign-cert` made loads and swaps; what is unsigned, signed with
//! another key, or altered is refused by the kernel, and the loader says what to do.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Guest;
use schedswap_payload::report::{Outcome, Report};
use schedswap_sched::module::sign::{self, MARK};
use schedswap_tests::{MODULE, firmware, guest, kernel, keys, memory, pristine, signed};
use std::fs;

/// `EKEYREJECTED`: what the kernel returns for everything that it does not trust.
const REJECTED: &str = "os error 129";
/// Modules that are to be refused: where they are in the guest, and what the loader and the kernel say.
const UNSIGNED: Case = Case {
    path: "/refused/unsigned.ko",
    words: &["this one is not signed: build it with --sign-key", "Loading of unsigned module is rejected"],
};
const STRANGERS: Case = Case {
    path: "/refused/stranger.ko",
    words: &[
        "does not trust the key",
        "mokutil --import",
        "Loading of module with unavailable key is rejected",
    ],
};
const ALTERED: Case =
    Case { path: "/refused/altered.ko", words: &["the module was altered after it was signed"] };

struct Case {
    path: &'static str,
    words: &'static [&'static str],
}

#[test]
fn only_what_the_kernel_trusts_is_loaded() -> Result<()> {
    if !trusts_firmware()? {
        eprintln!("SKIPPED: this kernel does not ask the platform keyring about modules");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let rsa = ["rsa:2048"];
    let (ours, strangers) =
        (keys::signer(dir.path(), "ours", &rsa)?, keys::signer(dir.path(), "strangers", &rsa)?);
    let built = signed("signed", &ours)?;
    let module = fs::read(built.module())?;
    ensure!(module.ends_with(MARK), "the build did not sign");
    let unsigned = fs::read(pristine()?.module())?;
    let mut altered = module.clone();
    // The smallest possible alteration; its place does not matter, except that the loader must not read it.
    let middle = altered.len() / 2;
    altered[middle] ^= 1;

    let firmware = firmware::trusting(&keys::der(&ours)?, dir.path())?;
    let guest = guest(&built, |config| {
        config.firmware = Some(firmware);
        config.cpus = 2;
        config.append.push("module.sig_enforce=1".into());
        // Nothing unsigned may get in: that would set the taint flag E.
        config.allowed_taints = "O".into();
        for (case, bytes) in [
            (UNSIGNED, &unsigned),
            (STRANGERS, &sign::sign(&unsigned, &strangers).expect("a key that signs")),
            (ALTERED, &altered),
        ] {
            config.initramfs.bytes(case.path, bytes, 0o644);
        }
    })?;
    let known = format!("Loaded X.509 cert '{}", keys::common_name("ours"));
    ensure!(guest.console()?.contains(&known), "the kernel did not take the certificate from the firmware");
    guest.sh("[ $(cat /sys/module/module/parameters/sig_enforce) = Y ]")?;

    memory().save(&guest, "before")?;
    for case in [UNSIGNED, STRANGERS, ALTERED] {
        refused(&guest, &case).context(case.path)?;
    }
    // Asked before, it says the same.
    let check = guest.run(&format!("loader check {}", UNSIGNED.path))?;
    ensure!(check.status == 3 && check.stdout.contains(UNSIGNED.words[0]), "{check:?}");

    guest.sh(&format!("loader install --retries 30 --wait 1s {MODULE}"))?;
    guest.sh("[ $(cat /sys/kernel/schedswap/state) = enabled ] && [ $(cat /sys/kernel/schedswap/version) = signed-1 ]")?;
    guest.sh("loader uninstall --retries 30 --wait 1s")?;
    memory().save(&guest, "after")?;
    memory().compare(&guest, "before", "after")?;
    guest.shutdown()?;
    Ok(())
}

/// Whether the kernel uses the keyring that firmware fills: not all distributions configure that.
fn trusts_firmware() -> Result<bool> {
    let source = kernel()?.source.join("kernel");
    let places = ["module/signing.c", "module_signing.c"].map(|file| source.join(file));
    let file =
        places.iter().find(|path| path.is_file()).context("the kernel's check of module signatures")?;
    Ok(fs::read_to_string(file)?.contains("VERIFY_USE_PLATFORM_KEYRING"))
}

/// The kernel refuses it, whichever program loads it; the loader says why, and nothing is loaded.
fn refused(guest: &Guest, case: &Case) -> Result<()> {
    let Case { path, words } = case;
    let output = guest.run(&format!("loader --json install {path}"))?;
    let report: Report = serde_json::from_str(output.stdout.trim()).with_context(|| format!("{output:?}"))?;
    ensure!(report.outcome == Outcome::Failed && output.status == 1, "{output:?}");
    let said = [report.errors, report.kernel_log].concat().join("\n");
    for word in words.iter().chain([&REJECTED]) {
        ensure!(said.contains(word), "{word:?} is not said in:\n{said}");
    }
    ensure!(guest.run(&format!("insmod {path}"))?.status != 0, "insmod loads it");
    guest.sh("! ls -d /sys/module/scheduler_* && ! ls -d /sys/kernel/schedswap*")?;
    Ok(())
}

//! The demo's scenario: a patch adds a feature to the scheduler and a line that its `__schedule` prints once the
//! feature is on.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Guest;
use schedswap_guest::memory::Memory;
use schedswap_tests::{Built, MODULE, build, build_changed, guest, image};

const LINE: &str = "I am the new scheduler: __schedule";

fn features(guest: &Guest) -> Result<Vec<String>> {
    let text = guest.sh("cat /sys/kernel/debug/sched/features || cat /sys/kernel/debug/sched_features")?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// `features` without the demo's own, whether that is on or off.
fn others(features: &[String]) -> Vec<String> {
    features.iter().filter(|f| !f.ends_with("SCHEDSWAP_TEST")).cloned().collect()
}

/// Whether vmlinux's own switches, which its code that is not replaced asks, follow what is written.
fn vmlinux_follows(guest: &Guest, file: &str) -> Result<()> {
    let bits = image().unique_symbol("sysctl_sched_features").context("the features' bits")?;
    let memory = Memory::of(image());
    let save = |name: &str| {
        guest.sh(&format!(
            "echo '{:x} {:x} bits' >/tmp/bits; \
             guest-load kcore save --ranges /tmp/bits --anchor {} /tmp/bits-{name}; cat /tmp/bits-{name} | md5sum",
            bits.addr.0, bits.size, memory.anchor
        ))
    };
    let was = save("off")?;
    guest.sh(&format!("echo WAKEUP_PREEMPTION >{file}"))?;
    let on = save("on")?;
    guest.sh(&format!("echo NO_WAKEUP_PREEMPTION >{file}"))?;
    ensure!(was != on, "vmlinux's switches do not follow");
    ensure!(was == save("off-again")?, "vmlinux's switches do not follow back");
    Ok(())
}

#[test]
fn a_new_feature_comes_speaks_and_goes() -> Result<()> {
    speaks(&build("demo", |tree| tree.patch("examples/demo/schedswap_test.patch"))?, |_| Ok(()))
}

/// Only what the edit changes is replaced; the rest goes on asking vmlinux's switches.
#[test]
fn a_new_feature_of_the_changed_functions_alone() -> Result<()> {
    let module = build_changed("demo-changed", |tree| tree.patch("examples/demo/schedswap_test.patch"))?;
    let diverted = module.manifest()?.functions.len();
    ensure!((1..20).contains(&diverted), "{diverted} functions are diverted for one feature");
    speaks(&module, |guest| vmlinux_follows(guest, "/sys/kernel/debug/sched/features"))
}

fn speaks(module: &Built, while_loaded: impl FnOnce(&Guest) -> Result<()>) -> Result<()> {
    let guest = guest(module, |_| ())?;
    let memory = Memory::of(image());
    // What the developer has switched off must stay off.
    guest.sh("echo NO_WAKEUP_PREEMPTION >/sys/kernel/debug/sched/features")?;
    memory.save(&guest, "before")?;
    let before = features(&guest)?;
    assert!(before.contains(&"NO_WAKEUP_PREEMPTION".to_owned()), "{before:?}");
    assert_eq!(others(&before), before, "the kernel has the demo's feature by itself");

    guest.sh(&format!("loader install {MODULE}"))?;
    let loaded = features(&guest)?;
    assert!(loaded.contains(&"NO_SCHEDSWAP_TEST".to_owned()), "{loaded:?}");
    assert_eq!(others(&loaded), before, "other features have changed");
    guest.sh("sleep 1")?;
    assert!(!guest.sh("dmesg")?.contains(LINE), "it speaks before its feature is on");

    // What the developer switches on while it is loaded must stay on.
    guest
        .sh("cd /sys/kernel/debug/sched; echo SCHEDSWAP_TEST >features; echo WAKEUP_PREEMPTION >features")?;
    guest.sh("sleep 1")?;
    assert_eq!(guest.sh("dmesg")?.matches(LINE).count(), 1, "{}", guest.sh("dmesg | tail -20")?);
    guest.sh("echo NO_WAKEUP_PREEMPTION >/sys/kernel/debug/sched/features")?;
    while_loaded(&guest)?;

    guest.sh("loader uninstall")?;
    assert_eq!(features(&guest)?, before, "features are not as they were");
    memory.save(&guest, "after")?;
    let compared = memory.compare(&guest, "before", "after")?;
    assert!(compared > 1 << 20, "only {compared} bytes were compared");
    guest.shutdown()?;
    Ok(())
}

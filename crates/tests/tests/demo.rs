//! The demo's scenario: a patch adds a feature to the scheduler and a line that its `__schedule` prints once the
//! feature is on.

use anyhow::Result;
use schedswap_guest::Guest;
use schedswap_guest::memory::Memory;
use schedswap_tests::{MODULE, build, guest, image};

const LINE: &str = "I am the new scheduler: __schedule";

fn features(guest: &Guest) -> Result<Vec<String>> {
    let text = guest.sh("cat /sys/kernel/debug/sched/features || cat /sys/kernel/debug/sched_features")?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// `features` without the demo's own, whether that is on or off.
fn others(features: &[String]) -> Vec<String> {
    features.iter().filter(|f| !f.ends_with("SCHEDSWAP_TEST")).cloned().collect()
}

#[test]
fn a_new_feature_comes_speaks_and_goes() -> Result<()> {
    let module = build("demo", |tree| tree.patch("examples/demo/schedswap_test.patch"))?;
    let guest = guest(&module, |_| ())?;
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

    guest.sh("loader uninstall")?;
    assert_eq!(features(&guest)?, before, "features are not as they were");
    memory.save(&guest, "after")?;
    let compared = memory.compare(&guest, "before", "after")?;
    assert!(compared > 1 << 20, "only {compared} bytes were compared");
    guest.shutdown()?;
    Ok(())
}

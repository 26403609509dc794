//! The power fails at every step to the disk, and the disk is full at every step: the next boot is clean, and the
//! same command can be run again.

use crate::boot::{self, Decision};
use crate::error::LoaderError;
use crate::fake::{self, Fake, RELEASE};
use crate::host::Machine;
use crate::life_cycle_tests::PATIENCE;
use crate::record::Record;
use crate::registry::Registry;
use crate::{install, payload_dir, remove};
use std::cell::Cell;
use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    /// From that step on, nothing reaches the disk.
    PowerCut,
    /// There is no space at that step only.
    DiskFull,
}

type Command = fn(&Machine, &Path) -> Result<(), LoaderError>;

fn install(machine: &Machine, dir: &Path) -> Result<(), LoaderError> {
    install::install(machine, dir, PATIENCE, &mut Record::default())
}

fn remove(machine: &Machine, dir: &Path) -> Result<(), LoaderError> {
    remove::remove(machine, dir, PATIENCE, &mut Record::default())
}

fn forget(machine: &Machine, dir: &Path) -> Result<(), LoaderError> {
    remove::forget(machine, dir, PATIENCE, &mut Record::default())
}

fn start(machine: &Machine, _: &Path) -> Result<(), LoaderError> {
    boot::start(machine, false, PATIENCE, &mut Record::default())
}

/// The machine with a disk that fails at that step.
fn failing(fake: &Fake, at: usize, fault: Fault) -> Machine {
    let step = Cell::new(0);
    let mut machine = fake.machine();
    machine.disk.gate = Some(Rc::new(move |_: &str| {
        let now = step.replace(step.get() + 1);
        let fails = now == at || fault == Fault::PowerCut && now > at;
        if fails { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
    }));
    machine
}

/// What must be true of the disk at any moment.
fn assert_sound(fake: &Fake, context: &str) {
    let machine = fake.machine();
    let registry = Registry::of(&machine.paths, &machine.disk, RELEASE);
    if let Some(name) = registry.active() {
        let dir = machine.paths.kernel(RELEASE).join(&name);
        assert!(payload_dir::open(&machine, &dir).is_ok(), "{context}: {name} is active but not whole");
    }
    assert!(
        registry.attempt().is_none_or(|attempt| !attempt.payload.is_empty()),
        "{context}: half an attempt"
    );
    for unit in ["schedswap.service", "schedswap-healthy.service"] {
        let text = fs::read_to_string(machine.paths.units().join(unit)).unwrap_or_default();
        assert!(text.is_empty() || text.trim_end().ends_with(".target"), "{context}: half of {unit}");
    }
    let loader = fs::read_to_string(machine.paths.loader()).unwrap_or_default();
    let is_whole = loader.is_empty() || ["demo-1", "demo-2"].map(fake::loader).contains(&loader);
    assert!(is_whole, "{context}: half a loader: {loader}");
}

/// A unit that exists without being enabled counts as the administrator's decision, so none may be left like that.
fn assert_every_unit_is_enabled(fake: &Fake, context: &str) {
    let units = fake.machine().paths.units();
    for (unit, target) in [("schedswap.service", "sysinit"), ("schedswap-healthy.service", "multi-user")] {
        let link = units.join(format!("{target}.target.wants")).join(unit);
        assert_eq!(units.join(unit).exists(), link.is_symlink(), "{context}: {unit}");
    }
}

/// Runs `command` with every fault at every step, after `prepare`; returns how many steps it takes. `allowed` lists
/// what may run after the next boot.
fn at_every_step(prepare: fn(&Fake), payload: &str, command: Command, allowed: &[Option<&str>]) -> usize {
    let mut steps = 0;
    for fault in [Fault::PowerCut, Fault::DiskFull] {
        for at in 0.. {
            let context = format!("{fault:?} at step {at}");
            let fake = Fake::with_systemd();
            prepare(&fake);
            let dir = fake.machine().paths.kernel(RELEASE).join(payload);
            let runs = fake.runs();
            let result = command(&failing(&fake, at, fault), &dir);
            assert_sound(&fake, &context);
            if fault == Fault::DiskFull && result.as_ref().is_err_and(|error| error.exit_code() == 3) {
                assert_eq!(fake.runs(), runs, "{context}: refused, but something has changed");
            }
            let left: Vec<_> = fake.files().into_iter().filter(|file| file.ends_with(".new")).collect();
            assert!(fault == Fault::PowerCut || left.is_empty(), "{context}: {left:?} is left");

            fake.boot(RELEASE);
            let decision = boot::decide(&fake.machine(), false);
            let blocked = matches!(decision, Decision::Blocked(_));
            start(&fake.machine(), &dir)
                .unwrap_or_else(|error| panic!("{context}: the next boot fails: {error}"));
            let runs = fake.runs();
            let fits = blocked && runs.is_none() || allowed.contains(&runs.as_deref());
            assert!(fits, "{context}: {runs:?} runs after the next boot");

            // A user who sees that it went wrong runs the command again.
            if dir.exists() {
                command(&fake.machine(), &dir).unwrap_or_else(|error| panic!("{context}: again: {error}"));
                let left: Vec<_> = fake.files().into_iter().filter(|file| file.ends_with(".new")).collect();
                assert!(left.is_empty(), "{context}: {left:?} is left for ever");
                assert_every_unit_is_enabled(&fake, &context);
            }
            if result.is_ok() && at > steps {
                steps = at;
            }
            if result.is_ok() && fault == Fault::PowerCut || at > 200 {
                break;
            }
            if fault == Fault::DiskFull && at >= steps {
                break;
            }
        }
    }
    steps
}

#[test]
fn a_first_install() {
    let prepare = |fake: &Fake| drop(fake.payload("demo-1"));
    let steps = at_every_step(prepare, "demo-1", install, &[None, Some("demo-1")]);
    assert!(steps > 20, "only {steps} steps: does the disk's gate see them?");
}

#[test]
fn a_full_disk_is_noticed_before_anything_is_changed() {
    for at in 0.. {
        let fake = Fake::with_systemd();
        let dir = fake.payload("demo-1");
        match install(&failing(&fake, at, Fault::DiskFull), &dir) {
            Ok(()) if at > 60 => break,
            // The command works without these: the command's link, the history.
            Ok(()) => {}
            // The very last step, for which space was reserved before.
            Err(LoaderError::Unregistered { .. }) => assert_eq!(fake.runs().as_deref(), Some("demo-1")),
            Err(error) => assert_eq!(fake.runs(), None, "at step {at}: {error}"),
        }
    }
}

#[test]
fn a_machine_that_dies_in_the_swap_comes_up_with_what_ran_before() {
    for (before, expected) in [(None, None), (Some("demo-1"), Some("demo-1"))] {
        let fake = Fake::with_systemd();
        if let Some(name) = before {
            install(&fake.machine(), &fake.payload(name)).unwrap();
        }
        fake.kernel.borrow_mut().dies = true;
        install(&fake.machine(), &fake.payload("demo-2")).unwrap_err();
        fake.boot(RELEASE);
        assert_sound(&fake, "after it died");
        start(&fake.machine(), fake.root()).unwrap();
        assert_eq!(fake.runs().as_deref(), expected);
    }
}

#[test]
fn a_machine_that_dies_at_boot_comes_up_without_it_the_next_time() {
    let fake = Fake::with_systemd();
    install(&fake.machine(), &fake.payload("demo-1")).unwrap();
    fake.boot(RELEASE);
    fake.kernel.borrow_mut().dies = true;
    start(&fake.machine(), fake.root()).unwrap_err();
    fake.boot(RELEASE);
    assert!(matches!(boot::decide(&fake.machine(), false), Decision::Blocked(_)));
}

#[test]
fn an_upgrade() {
    let prepare = |fake: &Fake| {
        install(&fake.machine(), &fake.payload("demo-1")).unwrap();
        fake.payload("demo-2");
    };
    let steps = at_every_step(prepare, "demo-2", install, &[Some("demo-1"), Some("demo-2")]);
    assert!(steps > 5, "only {steps} steps");
}

#[test]
fn a_removal() {
    let prepare = |fake: &Fake| install(&fake.machine(), &fake.payload("demo-1")).unwrap();
    let steps = at_every_step(prepare, "demo-1", remove, &[None, Some("demo-1")]);
    assert!(steps > 10, "only {steps} steps");
}

#[test]
fn forgetting_what_an_upgrade_replaced() {
    let prepare = |fake: &Fake| {
        install(&fake.machine(), &fake.payload("demo-1")).unwrap();
        fake.kernel.borrow_mut().busy = 99;
        install(&fake.machine(), &fake.payload("demo-2")).unwrap_err();
        fake.kernel.borrow_mut().busy = 0;
    };
    at_every_step(prepare, "demo-1", forget, &[Some("demo-1"), Some("demo-2")]);
}

#[test]
fn a_boot() {
    let prepare = |fake: &Fake| {
        install(&fake.machine(), &fake.payload("demo-1")).unwrap();
        fake.boot(RELEASE);
    };
    at_every_step(prepare, "demo-1", start, &[Some("demo-1")]);
}

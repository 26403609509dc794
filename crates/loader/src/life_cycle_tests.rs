//! The commands together, on a machine with a simulated kernel.

use crate::boot::{self, Decision};
use crate::candidate::Candidate;
use crate::error::LoaderError;
use crate::fake::{Fake, RELEASE, module_name};
use crate::record::Record;
use crate::registry::Registry;
use crate::retired::Memory;
use crate::switch::Patience;
use crate::{check, install, plan, remove, status};
use rustix::io::Errno;
use schedswap_payload::report::Outcome;
use std::fs;
use std::path::Path;
use std::time::Duration;

pub const PATIENCE: Patience = Patience { retries: 2, wait: Duration::from_secs(2) };

type Outcomes = Result<Record, LoaderError>;

pub fn install(fake: &Fake, dir: &Path) -> Outcomes {
    let mut record = Record::default();
    install::install(&fake.machine(), dir, PATIENCE, &mut record).map(|()| record)
}

fn switch(fake: &Fake, named: impl AsRef<Path>) -> Outcomes {
    let mut record = Record::default();
    install::switch(&fake.machine(), named.as_ref(), PATIENCE, &mut record).map(|()| record)
}

pub fn remove(fake: &Fake, dir: &Path) -> Outcomes {
    let mut record = Record::default();
    remove::remove(&fake.machine(), dir, PATIENCE, &mut record).map(|()| record)
}

fn forget(fake: &Fake, dir: &Path) -> Outcomes {
    let mut record = Record::default();
    remove::forget(&fake.machine(), dir, PATIENCE, &mut record).map(|()| record)
}

fn uninstall(fake: &Fake) -> Outcomes {
    let mut record = Record::default();
    remove::uninstall(&fake.machine(), Memory::Keep, PATIENCE, &mut record).map(|()| record)
}

fn uninstall_and_free(fake: &Fake) -> Outcomes {
    let mut record = Record::default();
    remove::uninstall(&fake.machine(), Memory::Free, PATIENCE, &mut record).map(|()| record)
}

/// What the kernel calls a payload's module that was the `n`th of its name to retire.
fn retired_name(payload: &str, n: u32) -> String {
    format!("{}_r{n}", module_name(payload))
}

/// The names of modules, as /sys/module lists them.
fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

fn start(fake: &Fake, is_forced: bool) -> Outcomes {
    let mut record = Record::default();
    boot::start(&fake.machine(), is_forced, PATIENCE, &mut record).map(|()| record)
}

fn healthy(fake: &Fake) {
    boot::healthy(&fake.machine(), &mut Record::default()).unwrap();
}

/// What start reports, and what runs afterwards.
fn started(fake: &Fake, is_forced: bool) -> (String, Option<String>) {
    (start(fake, is_forced).unwrap().done.unwrap_or_default(), fake.runs())
}

fn active(fake: &Fake, kernel: &str) -> Option<String> {
    let machine = fake.machine();
    Registry::of(&machine.paths, &machine.disk, kernel).active()
}

#[test]
fn an_installed_scheduler_runs_and_is_loaded_at_the_next_boot() {
    let fake = Fake::with_systemd();
    let record = install(&fake, &fake.payload("demo-1")).unwrap();
    assert_eq!(record.version.as_deref(), Some("demo-1"));
    assert_eq!(fake.runs().as_deref(), Some("demo-1"));
    assert_eq!(active(&fake, RELEASE).as_deref(), Some("demo-1"));
    assert_eq!(fake.systemctl(), ["daemon-reload", "start --no-block schedswap.service"]);

    fake.boot(RELEASE);
    assert_eq!(fake.runs(), None);
    assert_eq!(started(&fake, false), (String::new(), Some("demo-1".into())));
    healthy(&fake);
    fake.boot(RELEASE);
    assert_eq!(started(&fake, false).1.as_deref(), Some("demo-1"));
    assert_eq!(started(&fake, false).0, "demo-1 runs already");
}

#[test]
fn from_version_to_version_in_one_stop_and_back() {
    let fake = Fake::new();
    let (one, two) = (fake.payload("demo-1"), fake.payload("demo-2"));
    install(&fake, &one).unwrap();
    install(&fake, &two).unwrap();
    assert_eq!(fake.modules(), sorted(vec![module_name("demo-2"), retired_name("demo-1", 1)]));
    assert_eq!(active(&fake, RELEASE).as_deref(), Some("demo-2"));
    switch(&fake, "demo-1").unwrap();
    assert_eq!(fake.runs().as_deref(), Some("demo-1"));
    assert_eq!(active(&fake, RELEASE).as_deref(), Some("demo-1"));
    // Never by way of the kernel's own scheduler: nothing was disabled.
    let log = fake.kernel.borrow().log.clone();
    let expected = "load demo-1,enable demo-1,load demo-2,enable demo-2,retire demo-1,load demo-1,enable demo-1,\
                    retire demo-2";
    assert_eq!(log.join(","), expected);
    // Again: it is installed already.
    assert_eq!(install(&fake, &one).unwrap().done.as_deref(), Some("demo-1 runs already"));
    assert_eq!(fake.kernel.borrow().log.len(), log.len());
}

#[test]
fn a_new_one_that_cannot_take_over_leaves_the_old_one() {
    let fake = Fake::new();
    let (one, two) = (fake.payload("demo-1"), fake.payload("demo-2"));
    install(&fake, &one).unwrap();
    type Change = fn(&Fake);
    let cases: [(Change, Change, &str); 5] = [
        (
            |f| f.kernel.borrow_mut().busy = 99,
            |f| f.kernel.borrow_mut().busy = 0,
            "sleeper (thread 7) in do_wait",
        ),
        (
            |f| f.kernel.borrow_mut().swap_fails = Some(Errno::ADDRINUSE),
            |f| f.kernel.borrow_mut().swap_fails = None,
            "another patcher",
        ),
        (
            |f| f.kernel.borrow_mut().swap_fails = Some(Errno::PROTO),
            |f| f.kernel.borrow_mut().swap_fails = None,
            "Run `uninstall`, then install this one",
        ),
        (
            |f| f.kernel.borrow_mut().refuses = Some(Errno::INVAL),
            |f| f.kernel.borrow_mut().refuses = None,
            "refused to load",
        ),
        (
            |f| {
                let dir = f.root().join("sys/kernel/livepatch/fix/vmlinux/schedule_tail,1");
                fs::create_dir_all(dir).unwrap();
            },
            |f| fs::remove_dir_all(f.root().join("sys/kernel/livepatch")).unwrap(),
            "livepatch fix at schedule_tail",
        ),
    ];
    for (before, after, words) in cases {
        before(&fake);
        let error = install(&fake, &two).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.exit_code(), 3, "{error}");
        assert_eq!(fake.runs().as_deref(), Some("demo-1"));
        assert_eq!(fake.modules(), [module_name("demo-1")]);
        assert_eq!(active(&fake, RELEASE).as_deref(), Some("demo-1"));
        assert!(!fake.files().iter().any(|file| file.ends_with(".new")), "{:?}", fake.files());
        after(&fake);
    }
    install(&fake, &two).unwrap();
    assert_eq!(fake.runs().as_deref(), Some("demo-2"));
}

#[test]
fn threads_that_go_away_are_waited_for() {
    let fake = Fake::new();
    fake.kernel.borrow_mut().busy = 2;
    let record = install(&fake, &fake.payload("demo-1")).unwrap();
    assert_eq!(record.attempts.len(), 3);
    fake.kernel.borrow_mut().busy = 2;
    uninstall(&fake).unwrap();
    assert_eq!(fake.runs(), None);
}

#[test]
fn an_old_module_that_cannot_retire_does_so_with_the_next_command() {
    let fake = Fake::new();
    install(&fake, &fake.payload("demo-1")).unwrap();
    fake.kernel.borrow_mut().cannot_retire = true;
    let record = install(&fake, &fake.payload("demo-2")).unwrap();
    assert!(
        record.notes.iter().any(|note| note.contains("demo-1 is out of use but still loaded")),
        "{record:?}"
    );
    assert_eq!(fake.runs().as_deref(), Some("demo-2"));
    assert_eq!(status::status(&fake.machine()).unwrap().beside.len(), 1);
    fake.kernel.borrow_mut().cannot_retire = false;
    uninstall(&fake).unwrap();
    let names = vec![retired_name("demo-1", 1), retired_name("demo-2", 1)];
    assert_eq!(fake.modules(), sorted(names));
}

#[test]
fn what_has_run_retires_and_shows_what_it_keeps() {
    let fake = Fake::new();
    let one = fake.payload("demo-1");
    fake.kernel.borrow_mut().unproved = "update_curr hands out the address of novel_node\n".into();
    for n in 1..=3 {
        install(&fake, &one).unwrap();
        let record = uninstall(&fake).unwrap();
        let done = record.done.unwrap();
        assert!(done.contains("demo-1 has retired, and keeps 1024 KiB until the next boot"), "{done}");
        assert_eq!(fake.runs(), None);
        let retired = status::status(&fake.machine()).unwrap().retired;
        let names: Vec<_> = retired.iter().map(|retired| retired.module.clone()).collect();
        assert_eq!(names, (1..=n).map(|n| retired_name("demo-1", n)).collect::<Vec<_>>());
        assert_eq!((retired[0].version.as_str(), retired[0].bytes), ("demo-1", 1 << 20));
        assert_eq!(retired[0].unproved, ["update_curr hands out the address of novel_node"]);
    }
    assert_eq!(uninstall(&fake).unwrap().version, None);
    fake.boot(RELEASE);
    assert_eq!(status::status(&fake.machine()).unwrap().retired, []);
}

#[test]
fn what_never_ran_is_unloaded() {
    let fake = Fake::new();
    fake.kernel.borrow_mut().busy = 99;
    install(&fake, &fake.payload("demo-1")).unwrap_err();
    assert_eq!(fake.modules(), [""; 0]);
}

#[test]
fn memory_is_freed_where_that_is_shown_to_be_safe() {
    let fake = Fake::new();
    let (one, two) = (fake.payload("demo-1"), fake.payload("demo-2"));
    install(&fake, &one).unwrap();
    install(&fake, &two).unwrap();
    let record = uninstall_and_free(&fake).unwrap();
    assert!(record.done.unwrap().contains("demo-2 is unloaded, and its memory (1024 KiB) is free"));
    assert_eq!(record.notes[1..], ["demo-1 had retired; 1024 KiB are free again"]);
    assert_eq!(fake.modules(), [""; 0]);
}

#[test]
fn memory_that_may_be_pointed_to_is_never_freed() {
    let fake = Fake::new();
    let one = fake.payload("demo-1");
    fake.kernel.borrow_mut().unproved = "update_curr hands out the address of novel_node\n".into();
    install(&fake, &one).unwrap();
    let error = uninstall_and_free(&fake).unwrap_err();
    assert_eq!((error.exit_code(), fake.runs().as_deref()), (6, Some("demo-1")), "nothing was changed");
    assert!(error.to_string().contains("the address of novel_node"), "{error}");
    uninstall(&fake).unwrap();
    assert_eq!(uninstall_and_free(&fake).unwrap_err().exit_code(), 6);
    assert_eq!(fake.modules(), [retired_name("demo-1", 1)]);
    // Beside one that may be freed, it is only noted.
    fake.kernel.borrow_mut().unproved.clear();
    install(&fake, &one).unwrap();
    let record = uninstall_and_free(&fake).unwrap();
    assert!(record.notes.iter().any(|note| note.contains("the address of novel_node")), "{record:?}");
    assert_eq!(fake.modules(), [retired_name("demo-1", 1)]);
}

#[test]
fn memory_is_not_freed_while_a_thread_is_in_the_code() {
    let fake = Fake::new();
    install(&fake, &fake.payload("demo-1")).unwrap();
    fake.kernel.borrow_mut().inside = 3;
    uninstall_and_free(&fake).unwrap();
    assert_eq!(fake.modules(), [""; 0], "they have gone away meanwhile");
    install(&fake, &fake.payload("demo-1")).unwrap();
    fake.kernel.borrow_mut().inside = 1000;
    let error = uninstall_and_free(&fake).unwrap_err();
    assert_eq!((error.exit_code(), fake.runs()), (3, None));
    assert!(error.to_string().contains("sleeper (thread 7) in do_wait"), "{error}");
    // The next command lets it retire.
    uninstall(&fake).unwrap();
    assert_eq!(fake.modules(), [retired_name("demo-1", 1)]);
}

#[test]
fn too_much_is_refused_before_it_is_loaded_and_never_on_the_way_out() {
    let fake = Fake::new();
    let one = fake.payload("demo-1");
    fake.kernel.borrow_mut().module_bytes = 30 << 20;
    fake.kernel.borrow_mut().unproved = "why\n".into();
    for _ in 0..3 {
        install(&fake, &one).unwrap();
        uninstall(&fake).unwrap();
    }
    let error = install(&fake, &one).unwrap_err();
    assert_eq!((error.exit_code(), fake.runs()), (3, None));
    let words = ["demo-1 30720 KiB, demo-1 30720 KiB", "64 MiB", "`uninstall --free`", "reboot"];
    words.iter().for_each(|words| assert!(error.to_string().contains(words), "{error}"));
    let report = check::check(&fake.machine(), &one).unwrap();
    assert!(report.problems[0].contains("30720 KiB"), "{report:?}");
    let mut more = fake.machine();
    more.retired_max_mib = 200;
    install::install(&more, &one, PATIENCE, &mut Record::default()).unwrap();
    uninstall(&fake).unwrap();
    assert_eq!(fake.runs(), None);
}

#[test]
fn too_many_are_refused_whatever_their_size() {
    let fake = Fake::new();
    let one = fake.payload("demo-1");
    fake.kernel.borrow_mut().module_bytes = 1;
    for _ in 0..64 {
        install(&fake, &one).unwrap();
        uninstall(&fake).unwrap();
    }
    assert_eq!(install(&fake, &one).unwrap_err().exit_code(), 3);
    uninstall_and_free(&fake).unwrap();
    install(&fake, &one).unwrap();
}

#[test]
fn what_is_removed_leaves_nothing() {
    let fake = Fake::with_systemd();
    let before = fake.files();
    let (one, two) = (fake.payload("demo-1"), fake.payload_for("6.2.0-1-amd64", "demo-1"));
    install(&fake, &one).unwrap();
    install(&fake, &two).unwrap();
    remove(&fake, &one).unwrap();
    assert_eq!((fake.runs(), fake.modules()), (None, vec![retired_name("demo-1", 1)]));
    assert!(fake.systemctl().contains(&"stop schedswap.service".to_owned()));
    fs::remove_dir_all(&one).unwrap();
    assert!(
        fake.files().contains(&"etc/systemd/system/schedswap.service".to_owned()),
        "the other kernel needs it"
    );
    remove(&fake, &two).unwrap();
    fs::remove_dir_all(&two).unwrap();
    assert_eq!(fake.files(), before);
}

#[test]
fn a_removal_that_is_refused_changes_nothing() {
    let fake = Fake::new();
    let one = fake.payload("demo-1");
    install(&fake, &one).unwrap();
    let before = fake.files();
    fake.kernel.borrow_mut().busy = 99;
    let error = remove(&fake, &one).unwrap_err();
    assert_eq!((error.exit_code(), fake.runs().as_deref()), (3, Some("demo-1")));
    assert_eq!((fake.files(), active(&fake, RELEASE).as_deref()), (before, Some("demo-1")));
}

#[test]
fn removing_what_does_not_run_leaves_what_does() {
    let fake = Fake::new();
    let (one, two) = (fake.payload("demo-1"), fake.payload("other-1"));
    install(&fake, &two).unwrap();
    install(&fake, &one).unwrap();
    remove(&fake, &two).unwrap();
    assert_eq!((fake.runs().as_deref(), active(&fake, RELEASE).as_deref()), (Some("demo-1"), Some("demo-1")));
    // If it is too damaged to be read, it is known by its name.
    fs::write(one.join("manifest.json"), "{").unwrap();
    remove(&fake, &one).unwrap();
    assert_eq!(fake.runs(), None);
}

#[test]
fn one_of_several_side_by_side_is_removed_while_it_runs() {
    let fake = Fake::new();
    let (one, two) = (fake.payload("demo-1"), fake.payload("demo-2"));
    install(&fake, &two).unwrap();
    install(&fake, &one).unwrap();
    // As rpm reports it: another package of the name stays.
    forget(&fake, &one).unwrap();
    assert_eq!((fake.runs(), active(&fake, RELEASE)), (None, None));
}

#[test]
fn an_upgrade_s_old_payload_is_forgotten() {
    let fake = Fake::new();
    let (one, two) = (fake.payload("demo-1"), fake.payload("demo-2"));
    install(&fake, &one).unwrap();
    install(&fake, &two).unwrap();
    forget(&fake, &one).unwrap();
    assert_eq!(active(&fake, RELEASE).as_deref(), Some("demo-2"));
    assert_eq!(fake.runs().as_deref(), Some("demo-2"));
}

#[test]
fn an_upgrade_that_could_not_take_over_does_so_at_the_next_boot() {
    let fake = Fake::new();
    let (one, two) = (fake.payload("demo-1"), fake.payload("demo-2"));
    install(&fake, &one).unwrap();
    fake.payload("other-9");
    fake.kernel.borrow_mut().busy = 99;
    install(&fake, &two).unwrap_err();
    forget(&fake, &one).unwrap();
    fs::remove_dir_all(&one).unwrap();
    assert_eq!(fake.runs().as_deref(), Some("demo-1"));
    assert_eq!(active(&fake, RELEASE).as_deref(), Some("demo-2"));
    // Its files are gone; it still runs, and can be unloaded by name.
    fake.kernel.borrow_mut().busy = 0;
    uninstall(&fake).unwrap();
    assert_eq!((fake.runs(), active(&fake, RELEASE)), (None, None));
}

#[test]
fn an_upgrade_that_found_no_room_leaves_what_runs() {
    let fake = Fake::new();
    let (one, two) = (fake.payload("demo-1"), fake.payload("demo-2"));
    install(&fake, &one).unwrap();
    fs::remove_file(fake.machine().paths.loader()).unwrap();
    let mut full = fake.machine();
    full.disk.gate = Some(std::rc::Rc::new(|_: &str| Err(std::io::ErrorKind::StorageFull.into())));
    install::install(&full, &two, PATIENCE, &mut Record::default()).unwrap_err();
    // rpm does this in any case, whether or not there is space by then.
    let _ = remove::forget(&full, &one, PATIENCE, &mut Record::default());
    assert_eq!((fake.runs().as_deref(), active(&fake, RELEASE).as_deref()), (Some("demo-1"), Some("demo-1")));
    forget(&fake, &one).unwrap();
    assert_eq!((fake.runs().as_deref(), active(&fake, RELEASE).as_deref()), (Some("demo-1"), Some("demo-2")));
    // In another boot it has no effect any more.
    install(&fake, &two).unwrap();
    install::install(&full, &one, PATIENCE, &mut Record::default()).unwrap_err();
    fake.boot(RELEASE);
    start(&fake, false).unwrap();
    forget(&fake, &two).unwrap();
    assert_eq!(fake.runs(), None);
}

#[test]
fn another_kernel_s_payload_waits_for_that_kernel() {
    let fake = Fake::new();
    let later = "6.2.0-1-amd64";
    install(&fake, &fake.payload("demo-1")).unwrap();
    let record = install(&fake, &fake.payload_for(later, "demo-1")).unwrap();
    assert!(record.done.unwrap().contains("loaded when kernel 6.2.0-1-amd64 boots"));
    assert_eq!(fake.runs().as_deref(), Some("demo-1"));
    // What is registered there stays, unless it belongs to the same scheduler.
    let record = install(&fake, &fake.payload_for(later, "other-1")).unwrap();
    assert!(record.done.unwrap().contains("demo-1 stays registered for kernel"));
    assert_eq!(active(&fake, later).as_deref(), Some("demo-1"));
    install(&fake, &fake.payload_for(later, "demo-2")).unwrap();
    assert_eq!(active(&fake, later).as_deref(), Some("demo-2"));

    fake.boot(later);
    assert_eq!(started(&fake, false).1.as_deref(), Some("demo-2"));
    healthy(&fake);
    fake.boot("6.3.0-1-amd64");
    let (said, runs) = started(&fake, false);
    assert!(said.contains("no scheduler is registered for kernel 6.3.0-1-amd64") && runs.is_none(), "{said}");
    fake.boot(RELEASE);
    assert_eq!(started(&fake, false).1.as_deref(), Some("demo-1"));
}

#[test]
fn another_build_of_this_kernel_loads_nothing_and_is_no_failure() {
    let fake = Fake::new();
    install(&fake, &fake.payload("demo-1")).unwrap();
    fake.boot(RELEASE);
    let notes = fake.root().join("sys/kernel/notes");
    let mut bytes = fs::read(&notes).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&notes, bytes).unwrap();
    let (said, runs) = started(&fake, false);
    assert!(said.contains("other build") && runs.is_none(), "{said}");
    healthy(&fake);
    fake.boot(RELEASE);
    assert_eq!(started(&fake, false).1.as_deref(), Some("demo-1"));
}

#[test]
fn a_boot_that_went_wrong_is_not_tried_again() {
    let fake = Fake::new();
    let one = fake.payload("demo-1");
    install(&fake, &one).unwrap();
    fake.boot(RELEASE);
    start(&fake, false).unwrap();
    // The power fails, or the machine hangs, before it is up.
    for _ in 0..2 {
        fake.boot(RELEASE);
        let (said, runs) = started(&fake, false);
        assert!(said.contains("demo-1 is not loaded: the machine did not come up healthy"), "{said}");
        assert!(said.contains("boot-2") && runs.is_none(), "{said}");
        let status = status::status(&fake.machine()).unwrap();
        assert_eq!(status.blocked.unwrap().boot_id, "boot-2");
        // This boot is healthy, but that says nothing about a boot with the scheduler.
        healthy(&fake);
    }
    assert_eq!(started(&fake, true).1.as_deref(), Some("demo-1"));
    fake.boot(RELEASE);
    assert_eq!(started(&fake, false).1.as_deref(), Some("demo-1"), "forced, it ran in a machine that was up");

    // An install deletes the record too.
    fake.boot(RELEASE);
    assert!(started(&fake, false).1.is_none());
    install(&fake, &one).unwrap();
    fake.boot(RELEASE);
    assert_eq!(started(&fake, false).1.as_deref(), Some("demo-1"));
}

#[test]
fn a_load_that_is_refused_at_boot_blocks_no_other() {
    let fake = Fake::new();
    install(&fake, &fake.payload("demo-1")).unwrap();
    fake.boot(RELEASE);
    fake.kernel.borrow_mut().busy = 99;
    assert_eq!(start(&fake, false).unwrap_err().exit_code(), 3);
    fake.boot(RELEASE);
    fake.kernel.borrow_mut().busy = 0;
    assert_eq!(started(&fake, false).1.as_deref(), Some("demo-1"));
}

#[test]
fn another_payload_has_a_chance_of_its_own() {
    let fake = Fake::new();
    let (one, two) = (fake.payload("demo-1"), fake.payload("demo-2"));
    install(&fake, &one).unwrap();
    fake.boot(RELEASE);
    start(&fake, false).unwrap();
    fake.boot(RELEASE);
    assert!(started(&fake, false).1.is_none());
    switch(&fake, &two).unwrap();
    fake.boot(RELEASE);
    assert_eq!(started(&fake, false).1.as_deref(), Some("demo-2"));
}

#[test]
fn what_start_decides() {
    let fake = Fake::new();
    let machine = fake.machine();
    assert_eq!(boot::decide(&machine, false), Decision::NothingRegistered);
    let one = fake.payload("demo-1");
    install(&fake, &one).unwrap();
    assert_eq!(boot::decide(&machine, false), Decision::Load("demo-1".into()));
    fs::write(fake.root().join("proc/cmdline"), "quiet schedswap.enable=0\n").unwrap();
    assert_eq!(boot::decide(&machine, false), Decision::Disabled);
    assert_eq!(boot::decide(&machine, true), Decision::Load("demo-1".into()));
    fs::write(fake.root().join("proc/cmdline"), "quiet\n").unwrap();
    fs::write(fake.root().join("var/lib/schedswap").join(RELEASE).join("attempt"), "half a no").unwrap();
    assert!(
        matches!(boot::decide(&machine, false), Decision::Blocked(blocked) if blocked.payload.is_empty())
    );
    fs::remove_dir_all(&one).unwrap();
    assert_eq!(boot::decide(&machine, false), Decision::Gone("demo-1".into()));
}

#[test]
fn systemctl_restart_goes_out_and_in_again() {
    let fake = Fake::new();
    install(&fake, &fake.payload("demo-1")).unwrap();
    healthy(&fake);
    boot::stop(&fake.machine(), PATIENCE, &mut Record::default()).unwrap();
    assert_eq!((fake.runs(), active(&fake, RELEASE).as_deref()), (None, Some("demo-1")));
    assert_eq!(started(&fake, false).1.as_deref(), Some("demo-1"));
    // The machine had been up for long: no record may stay that would keep the next boot from loading it.
    fake.boot(RELEASE);
    assert_eq!(started(&fake, false).1.as_deref(), Some("demo-1"));
}

#[test]
fn a_loose_module_only_runs() {
    let fake = Fake::new();
    let payload = fake.payload("demo-1");
    let loose = fake.root().join("loose.ko");
    fs::copy(payload.join("scheduler.ko"), &loose).unwrap();
    fs::remove_dir_all(payload).unwrap();
    install(&fake, &loose).unwrap();
    assert_eq!((fake.runs().as_deref(), active(&fake, RELEASE)), (Some("demo-1"), None));
    let error = install(&fake, &loose).unwrap_err().to_string();
    assert!(error.contains("demo-1 is loaded already (enabled): run `uninstall` first"), "{error}");
    // But another may take over when asked to.
    let other = fake.payload("demo-2");
    let second = fake.root().join("second.ko");
    fs::copy(other.join("scheduler.ko"), &second).unwrap();
    switch(&fake, &second).unwrap();
    assert_eq!(fake.runs().as_deref(), Some("demo-2"));
    assert_eq!(uninstall(&fake).unwrap().version.as_deref(), Some("demo-2"));
    assert_eq!(fake.modules(), sorted(vec![retired_name("demo-1", 1), retired_name("demo-2", 1)]));
    assert_eq!(uninstall(&fake).unwrap().version, None);
}

#[test]
fn an_image_is_prepared_without_a_kernel() {
    let fake = Fake::new();
    fs::create_dir_all(fake.root().join("usr/lib/systemd/systemd")).unwrap();
    let mut machine = fake.machine();
    machine.is_live = false;
    let dir = fake.payload("demo-1");
    install::install(&machine, &dir, PATIENCE, &mut Record::default()).unwrap();
    assert_eq!((fake.runs(), active(&fake, RELEASE).as_deref()), (None, Some("demo-1")));
    assert!(fake.root().join("etc/systemd/system/sysinit.target.wants/schedswap.service").is_symlink());
    assert_eq!(fake.systemctl(), [""; 0]);
    remove::remove(&machine, &dir, PATIENCE, &mut Record::default()).unwrap();
    assert_eq!(active(&fake, RELEASE), None);
}

#[test]
fn check_names_everything_and_changes_nothing() {
    let fake = Fake::new();
    let dir = fake.payload("demo-1");
    let files = fake.files();
    let clean = check::check(&fake.machine(), &dir).unwrap();
    assert_eq!((clean.outcome, clean.problems.len()), (Outcome::Ok, 0));

    let kernel = fake.root().join("sys/kernel");
    fs::create_dir_all(kernel.join("kpatch/fix/functions/schedule_tail")).unwrap();
    fs::create_dir_all(kernel.join("debug/kprobes")).unwrap();
    fs::write(kernel.join("debug/kprobes/list"), "ffffffff81000005  k  schedule_tail+0x5    \n").unwrap();
    fs::create_dir_all(kernel.join("sched_ext")).unwrap();
    fs::write(kernel.join("sched_ext/state"), "enabled\n").unwrap();
    fs::write(fake.root().join("proc/sys/kernel/modules_disabled"), "1\n").unwrap();
    fs::create_dir_all(kernel.join("security")).unwrap();
    fs::write(kernel.join("security/lockdown"), "none [integrity] confidentiality\n").unwrap();
    let report = check::check(&fake.machine(), &dir).unwrap();
    assert_eq!(report.outcome, Outcome::Refused);
    let said = report.problems.join("\n");
    for words in [
        "kpatch fix at schedule_tail",
        "kprobe schedule_tail+0x5",
        "sched_ext policy",
        "modules_disabled",
        "signed modules only",
    ] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    assert_eq!(fake.files(), files);
    assert_eq!(fake.kernel.borrow().log, [""; 0]);

    let other = check::check(&fake.machine(), &fake.payload_for("6.2.0-1-amd64", "demo-1")).unwrap();
    assert!(other.problems[0].contains("the module is for kernel 6.2.0-1-amd64"), "{other:?}");
}

#[test]
fn plan_names_who_is_in_the_way() {
    let fake = Fake::new();
    let dir = fake.payload("demo-1");
    let set = |fake: &Fake, busy: u32| fake.kernel.borrow_mut().planned_busy = busy;
    set(&fake, 1);
    let report = plan::plan(&fake.machine(), &dir).unwrap();
    assert_eq!((report.outcome, report.blockers.len()), (Outcome::Refused, 1));
    assert_eq!(report.blockers[0].to_string(), "sleeper (thread 7) in do_wait");
    assert!(report.prediction.is_some());
    assert_eq!(fake.modules(), [""; 0]);
}

#[test]
fn plan_asks_the_module_and_takes_it_out_again() {
    let fake = Fake::new();
    let dir = fake.payload("demo-1");
    let report = plan::plan(&fake.machine(), &dir).unwrap();
    assert_eq!((report.outcome, report.plan.as_ref().unwrap().threads), (Outcome::Ok, 140));
    assert_eq!(report.prediction.unwrap().swaps, 0);
    assert_eq!((fake.runs(), fake.modules()), (None, vec![]));

    // If another scheduler runs: beside it, and with the measured costs of its swap.
    install(&fake, &dir).unwrap();
    let report = plan::plan(&fake.machine(), &fake.payload("demo-2")).unwrap();
    let prediction = report.prediction.unwrap();
    assert_eq!((prediction.swaps, prediction.requeued, prediction.checked), (1, 3, 16));
    assert_eq!((fake.runs().as_deref(), fake.modules().len()), (Some("demo-1"), 1));
    assert!(plan::plan(&fake.machine(), &dir).unwrap().notes[0].contains("runs already"));
}

#[test]
fn what_check_and_plan_look_at() {
    let fake = Fake::new();
    let dir = fake.payload("demo-1");
    let machine = fake.machine();
    assert!(matches!(Candidate::open(&machine, &dir).unwrap(), Candidate::Payload(_)));
    let path_of = |named: Option<&str>| crate::candidate::path_of(&machine, named.map(Path::new));
    assert_eq!(path_of(Some("demo-1")).unwrap(), dir);
    assert_eq!(path_of(Some("/x.ko")).unwrap(), Path::new("/x.ko"));
    assert!(matches!(path_of(None), Err(LoaderError::NothingNamed { .. })));
    install(&fake, &dir).unwrap();
    assert_eq!(path_of(None).unwrap(), dir);
}

#[test]
fn a_status_of_everything() {
    let fake = Fake::new();
    fs::write(fake.root().join("proc/sys/kernel/tainted"), "12288\n").unwrap();
    install(&fake, &fake.payload("demo-1")).unwrap();
    fake.payload_for("6.2.0-1-amd64", "demo-3");
    let status = status::status(&fake.machine()).unwrap();
    let scheduler = status.scheduler.unwrap();
    assert_eq!((scheduler.version.as_str(), scheduler.since), ("demo-1", Some(1_700_000_000)));
    assert_eq!(scheduler.module, module_name("demo-1"));
    assert_eq!(scheduler.timing.unwrap().stop_ns, 310_000);
    let payloads: Vec<_> = status.payloads.iter().map(|p| (p.payload.as_str(), p.active)).collect();
    assert_eq!(payloads, [("demo-1", true), ("demo-3", false)]);
    assert_eq!(status.taint.unwrap().reasons, ["module from outside the kernel", "unsigned module"]);
    assert_eq!(status.blocked, None);
}

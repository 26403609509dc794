//! Every refusal of `check` on a real kernel, whose functions are chosen by what the boundary says of them, so
//! that the test holds for any release. The kernel is found through the environment:
//! `SCHEDSWAP_TEST_SYSROOT` (packages of one release, unpacked), `SCHEDSWAP_TEST_RELEASE` and
//! `SCHEDSWAP_TEST_SOURCE` (its source). Skipped without them.

use schedswap::boundary::{Boundary, BoundaryFunction, Class, Fate, StayReason};
use schedswap::check::{self, CheckInput, Code, Finding, SourceTree};
use schedswap::compile::Build;
use schedswap::progress::Progress;
use schedswap::source::{Search, locate};
use schedswap::vmlinux::Image;
use schedswap::workdir::{Options, Workdir, init};
use schedswap_tests::edit::Tree;
use std::fs;
use std::path::{Path, PathBuf};

struct Quiet;

impl Progress for Quiet {
    fn begin(&self, _what: &str, _total: Option<u64>) {}
    fn at(&self, _position: u64) {}
    fn end(&self, _result: &str) {}
}

fn make_work_dir(work: &Path) -> Option<Workdir> {
    let variable = |name: &str| std::env::var_os(format!("SCHEDSWAP_TEST_{name}")).map(PathBuf::from);
    let (Some(sysroot), Some(release), Some(source)) =
        (variable("SYSROOT"), variable("RELEASE"), variable("SOURCE"))
    else {
        eprintln!("skipped: SCHEDSWAP_TEST_{{SYSROOT,RELEASE,SOURCE}} are not set");
        return None;
    };
    let search = Search { sysroot: Some(sysroot), ..Search::default() };
    let kernel = locate(release.to_str().unwrap(), &search).unwrap();
    let options = Options {
        kernel,
        source,
        work: work.to_owned(),
        allow_different: false,
        boundary: Default::default(),
    };
    Some(init(&options, &Quiet).unwrap().0)
}

fn findings(work: &Workdir, image: &Image) -> Vec<Finding> {
    let compiled = work.compile(&Quiet).unwrap();
    check::run(&CheckInput {
        image,
        boundary: &work.boundary().unwrap(),
        pristine: &work.pristine(Build::Module).unwrap(),
        edited: &work.objects(&compiled).unwrap(),
        pristine_source: &SourceTree::from_root(&work.pristine_tree()).unwrap(),
        edited_source: &SourceTree::from_root(work.root()).unwrap(),
    })
    .unwrap()
}

/// What an edit may put anywhere in a function, and what no compiler drops.
const CODE: &str = "asm volatile(\"nop; lfence\");";

/// Edits the first function that fits at its entry, and returns its name.
fn edit_first(tree: &Tree, boundary: &Boundary, fits: impl Fn(&BoundaryFunction) -> bool) -> String {
    let candidates = boundary.functions.iter().filter(|f| fits(f) && !f.name.contains('.'));
    for function in candidates {
        let file = function.decl_file.trim_start_matches("kernel/sched/");
        if tree.at_entry(file, &function.name, CODE).is_ok() {
            return function.name.clone();
        }
    }
    panic!("no function fits");
}

#[test]
fn what_a_module_cannot_bring_into_force_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let Some(work) = make_work_dir(&dir.path().join("work")) else { return };
    let image = work.image().unwrap();
    let boundary = work.boundary().unwrap();
    let tree = Tree::at(work.root());

    // Nothing edited: that, and nothing else.
    let codes: Vec<Code> = findings(&work, &image).iter().map(|f| f.code).collect();
    assert_eq!(codes, [Code::NothingChanged]);

    // What is replaced may change, and a new feature may come first: no finding.
    tree.before("core.c", "wake_up_process", "static int novel_counter;").unwrap();
    tree.at_entry("core.c", "wake_up_process", "novel_counter++; WARN_ON_ONCE(novel_counter < 0);").unwrap();
    let features = work.root().join("kernel/sched/features.h");
    let text = fs::read_to_string(&features).unwrap();
    fs::write(&features, text.replacen("SCHED_FEAT(", "SCHED_FEAT(NOVEL, false)\nSCHED_FEAT(", 1)).unwrap();
    assert_eq!(findings(&work, &image), []);

    // All the rest at once, on functions that do not depend on each other.
    let stays = |reason: fn(&StayReason) -> bool| move |f: &BoundaryFunction| matches!(&f.fate, Fate::Stay(why) if reason(why));
    let mut expected = vec![
        (
            Code::ChangedOutsider,
            edit_first(&tree, &boundary, stays(|r| matches!(r, StayReason::Sleeps { .. }))),
        ),
        (Code::ChangedOutsider, edit_first(&tree, &boundary, stays(|r| matches!(r, StayReason::Nmi { .. })))),
        (
            Code::ChangedOutsider,
            edit_first(&tree, &boundary, stays(|r| matches!(r, StayReason::NoRoom { .. }))),
        ),
        (Code::ChangedInit, edit_first(&tree, &boundary, stays(|r| matches!(r, StayReason::Init)))),
        (Code::FrozenInline, edit_frozen_helper(&tree, &image, &boundary)),
        (Code::Vanished, rename_callback(work.root(), &boundary)),
    ];
    tree.at_entry("clock.c", "sched_clock", CODE).unwrap();
    expected.push((Code::ChangedWeak, "sched_clock".to_owned()));

    let found = findings(&work, &image);
    for finding in &found {
        eprintln!("{finding}");
        assert!(!finding.reason.is_empty() && !finding.advice.is_empty() && finding.line > 0);
    }
    for wanted in &expected {
        assert!(found.iter().any(|f| (f.code, &f.symbol) == (wanted.0, &wanted.1)), "{wanted:?} is missing");
    }
    assert_eq!(found.len(), expected.len());
}

/// Edits a helper that is inlined into a function that sleeps.
fn edit_frozen_helper(tree: &Tree, image: &Image, boundary: &Boundary) -> String {
    let sleeps = |addr| {
        let mut functions = boundary.functions.iter().filter(|f| f.addr == addr);
        functions.any(|f| matches!(f.fate, Fate::Stay(StayReason::Sleeps { .. })))
    };
    let copies = image.units.iter().flat_map(|unit| &unit.inlined);
    for copy in copies.filter(|copy| copy.decl_file == "kernel/sched/sched.h" && sleeps(copy.into_addr)) {
        if tree.at_entry("sched.h", &copy.name, CODE).is_ok() {
            return copy.name.clone();
        }
    }
    panic!("no helper of sched.h is inlined into a function that sleeps");
}

/// Renames a callback that only its own file names.
fn rename_callback(root: &Path, boundary: &Boundary) -> String {
    let callbacks = boundary.functions.iter().filter(|f| {
        f.class == Class::Callback
            && matches!(f.fate, Fate::Redirect(_))
            && f.local
            && f.name.ends_with("_timer")
    });
    let function = callbacks.into_iter().next().expect("a timer's function");
    let path = root.join(&function.decl_file);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        text.replace(&format!("{}(", function.name), &format!("novel_{}(", function.name))
            .replace(&format!("= {};", function.name), &format!("= novel_{};", function.name)),
    )
    .unwrap();
    function.name.clone()
}

//! A work dir for a real kernel, made, interrupted and edited. The kernel is found through the environment:
//! `SCHEDSWAP_TEST_SYSROOT` (packages of one release, unpacked) and `SCHEDSWAP_TEST_RELEASE`; its source is
//! the directory or tarball `SCHEDSWAP_TEST_SOURCE`. Skipped without them.

use schedswap_host::progress::Progress;
use schedswap_sched::compile;
use schedswap_sdk::workdir::{Error, InitOptions, Step, Workdir, init};
use schedswap_source::{Search, locate};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Shows the steps in a test's output.
struct Shown;

impl Progress for Shown {
    fn begin(&self, what: &str, _total: Option<u64>) {
        eprint!("{what} … ");
    }
    fn at(&self, _position: u64) {}
    fn end(&self, result: &str) {
        eprintln!("{result}");
    }
}

fn options(work: &Path) -> Option<InitOptions> {
    let variable = |name: &str| std::env::var_os(format!("SCHEDSWAP_TEST_{name}")).map(PathBuf::from);
    let (Some(sysroot), Some(release), Some(source)) =
        (variable("SYSROOT"), variable("RELEASE"), variable("SOURCE"))
    else {
        eprintln!("skipped: SCHEDSWAP_TEST_{{SYSROOT,RELEASE,SOURCE}} are not set");
        return None;
    };
    let search = Search { sysroot: Some(sysroot), ..Search::default() };
    let kernel = locate(release.to_str().unwrap(), &search).unwrap();
    Some(InitOptions {
        kernel,
        toolchain: None,
        source,
        work: work.to_owned(),
        allow_different: false,
        boundary: Default::default(),
    })
}

fn refused(options: &InitOptions) -> Error {
    match init(options, &Shown) {
        Ok(_) => panic!("not refused"),
        Err(error) => error,
    }
}

fn git(work: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(work).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from:?}", path.display());
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn a_work_dir_is_made_resumed_and_built_from() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    let Some(options) = options(&work) else { return };

    let clock = Instant::now();
    let (made, summary) = init(&options, &Shown).unwrap();
    eprintln!("{summary}\ninit took {:?}", clock.elapsed());
    for (step, took) in &summary.done {
        eprintln!("  {:<14} {took:?}", step.name());
    }
    assert_eq!(summary.done.len(), Step::ALL.len());
    assert!(summary.units.iter().all(|row| row.different.is_empty() && row.identical > 100));
    assert!(summary.unplaced.is_empty() && summary.placed.0 > 1000);
    let du = Command::new("du").arg("-sm").arg(&work).output().unwrap();
    eprintln!("{}", String::from_utf8_lossy(&du.stdout));

    // A commit of exactly the pristine tree.
    assert_eq!(git(&work, &["status", "--porcelain"]), "");
    assert_eq!(git(&work, &["rev-list", "--count", "HEAD"]).trim(), "1");
    assert!(work.join("kernel/sched/mod/core.c").is_file());

    // Again: nothing to do. After an interruption: from there on.
    let clock = Instant::now();
    assert_eq!(init(&options, &Shown).unwrap().1.done, []);
    eprintln!("nothing to do took {:?}", clock.elapsed());
    fs::remove_file(work.join(".schedswap/steps/09-addresses")).unwrap();
    assert!(matches!(Workdir::open(&work), Err(Error::Incomplete { step: Step::Addresses, .. })));
    let core = work.join("kernel/sched/mod/core.c");
    edit(&core, "void scheduler_tick(void)\n{", "void scheduler_tick(void)\n{\n\tbarrier();");
    let done: Vec<Step> = init(&options, &Shown).unwrap().1.done.into_iter().map(|(step, _)| step).collect();
    assert_eq!(done, Step::ALL[Step::Addresses as usize - 1..]);
    assert!(git(&work, &["diff"]).contains("+\tbarrier();"), "an edit survives");

    // Only what was edited is compiled, and a mistake is shown in the compiler's words.
    let clock = Instant::now();
    let compiled = made.compile(&Shown).unwrap();
    eprintln!("one unit took {:?}", clock.elapsed());
    let fresh: Vec<&str> = compiled.iter().filter(|c| !c.cached).map(|c| c.label.as_str()).collect();
    assert_eq!(fresh, ["kernel/sched/core.c"]);
    assert!(made.compile(&Shown).unwrap().iter().all(|c| c.cached));
    edit(&core, "\tbarrier();", "\tbarier();");
    let Err(Error::Compile(compile::Error::Rejected { failed })) = made.compile(&Shown) else {
        panic!("a misspelt name was compiled");
    };
    assert_eq!(failed.len(), 1);
    assert!(failed[0].1.contains("kernel/sched/core.c") && failed[0].1.contains("barier"), "{}", failed[0].1);

    other_sources_are_refused(&options, &summary.origins.source_version, dir.path());
}

/// `work` in `dir` is a complete work dir.
fn other_sources_are_refused(options: &InitOptions, version: &str, dir: &Path) {
    let other = dir.join("other");
    let tree = dir.join("work/.schedswap/tree");
    assert!(Command::new("cp").arg("-r").arg(&tree).arg(&other).status().unwrap().success());
    fs::remove_file(other.join("kernel/sched/mod")).unwrap();
    let core = other.join("kernel/sched/core.c");
    // One function that makes all after it move, and one that differs in nothing but a text.
    edit(
        &core,
        "void scheduler_tick(void)\n{",
        "void scheduler_tick(void)\n{\n\t__asm__(\".fill 64, 1, 0x90\");",
    );
    edit(&core, "BUG: scheduling while atomic", "BUG: scheduling while ATOMIC");
    let makefile = |version: &str| {
        let mut parts = version.split(['.', '-']);
        let mut part = || parts.next().unwrap_or("0").to_owned();
        let text = format!("VERSION = {}\nPATCHLEVEL = {}\nSUBLEVEL = {}\n", part(), part(), part());
        fs::write(other.join("Makefile"), text).unwrap();
    };

    // Another version: said before anything is compiled.
    makefile("6.1.1");
    let options = InitOptions { source: other.clone(), work: dir.join("work2"), ..options.clone() };
    let error = refused(&options);
    assert!(matches!(error, Error::WrongSource { .. }) && error.to_string().contains("6.1.1"), "{error}");

    // The right one, changed: the gate names the functions.
    makefile(version);
    let error = refused(&options);
    eprintln!("{error}");
    let Error::Different(refusal) = &error else { panic!("{error}") };
    let names: Vec<&str> = refusal.functions.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(names, ["__schedule_bug", "scheduler_tick"]);

    // Allowed all the same, remembered, and said at every later step.
    let allowed = InitOptions { allow_different: true, ..options };
    let (made, summary) = init(&allowed, &Shown).unwrap();
    assert_eq!(summary.allowed_different, 2);
    assert!(summary.unplaced.len() < 3, "{:?}", summary.unplaced);
    let found = made.addresses().unwrap();
    let image = made.image().unwrap();
    for (name, placed) in found.units.values().flatten() {
        if let Some(symbol) = image.unique_symbol(name) {
            assert_eq!(symbol.addr, placed.addr, "{name}");
        }
    }
    assert!(made.warning().unwrap().starts_with("2 functions"));
    let again = InitOptions { allow_different: false, ..allowed.clone() };
    assert!(init(&again, &Shown).unwrap().0.config().allow_different);

    // Another source under a tree that may have been edited.
    fs::write(&core, "").unwrap();
    assert!(matches!(init(&allowed, &Shown), Err(Error::SourceChanged { .. })));
}

#[test]
fn somebody_elses_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Some(options) = options(dir.path()) else { return };
    fs::write(dir.path().join("thesis.tex"), "").unwrap();
    assert!(matches!(init(&options, &Shown), Err(Error::NotEmpty { .. })));
    assert!(!dir.path().join(".schedswap").exists());
}

//! A work dir for a real kernel, made, interrupted and edited. The kernel is found through the environment:
//! `SCHEDSWAP_TEST_SYSROOT` (packages of one release, unpacked) and `SCHEDSWAP_TEST_RELEASE`; its source is
//! the directory or tarball `SCHEDSWAP_TEST_SOURCE`. Skipped without them.

use schedswap::compile;
use schedswap::progress::Progress;
use schedswap::source::{Search, locate};
use schedswap::workdir::{Error, Options, Step, Workdir, init};
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

fn options(work: &Path) -> Option<Options> {
    let variable = |name: &str| std::env::var_os(format!("SCHEDSWAP_TEST_{name}")).map(PathBuf::from);
    let (Some(sysroot), Some(release), Some(source)) =
        (variable("SYSROOT"), variable("RELEASE"), variable("SOURCE"))
    else {
        eprintln!("skipped: SCHEDSWAP_TEST_{{SYSROOT,RELEASE,SOURCE}} are not set");
        return None;
    };
    let search = Search { sysroot: Some(sysroot), ..Search::default() };
    let kernel = locate(release.to_str().unwrap(), &search).unwrap();
    Some(Options { kernel, source, work: work.to_owned(), allow_different: false })
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
    assert_eq!(done, [Step::Addresses, Step::ModuleBuild, Step::Tree]);
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

    // Another source under an edited tree is refused.
    let other = dir.path().join("other");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("Makefile"), "VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 1\n").unwrap();
    let copy = Command::new("cp").arg("-r").arg(work.join(".schedswap/tree/kernel")).arg(&other).status().unwrap();
    assert!(copy.success());
    fs::remove_file(other.join("kernel/sched/mod")).unwrap();
    edit(&other.join("kernel/sched/core.c"), "void scheduler_tick(void)\n{", "void scheduler_tick(void)\n{\n\n");
    let changed = Options { source: other.clone(), ..options.clone() };
    assert!(matches!(init(&changed, &Shown), Err(Error::SourceChanged { .. })));

    // Of another version: said before anything is compiled.
    let elsewhere = Options { source: other, work: dir.path().join("work2"), ..options.clone() };
    let error = init(&elsewhere, &Shown).err().expect("a wrong version is refused");
    assert!(matches!(error, Error::WrongSource { .. }) && error.to_string().contains("6.1.1"), "{error}");
}

#[test]
fn a_source_that_differs_is_refused_by_function() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    let Some(options) = options(&work) else { return };
    init(&options, &Shown).unwrap();
    let other = dir.path().join("other");
    fs::create_dir_all(&other).unwrap();
    let run = |program: &str, arguments: &[&Path]| {
        assert!(Command::new(program).args(arguments).status().unwrap().success());
    };
    run("cp", &["-r".as_ref(), &work.join(".schedswap/tree/kernel"), &work.join("io_uring"), &other]);
    fs::remove_file(other.join("kernel/sched/mod")).unwrap();
    let core = other.join("kernel/sched/core.c");
    edit(&core, "void scheduler_tick(void)\n{", "void scheduler_tick(void)\n{\n\tbarrier(); __asm__(\"nop\");");
    edit(&core, "\"%s: set_affinity failed: %d\\n\"", "\"%s: set_affinity failed: %d\\n\"");
    fs::write(other.join("Makefile"), "VERSION = 0\nPATCHLEVEL = 0\nSUBLEVEL = 0\n").unwrap();

    // The version is wrong too, so the direct check has to be passed first: the gate speaks next.
    let refused = Options { source: other.clone(), work: dir.path().join("work2"), ..options.clone() };
    assert!(matches!(init(&refused, &Shown), Err(Error::WrongSource { .. })));
    let makefile = fs::read_to_string(work.join(".schedswap/origins.json")).unwrap();
    let version = makefile.split("\"source_version\": \"").nth(1).unwrap().split('"').next().unwrap();
    let mut parts = version.split(['.', '-']);
    let mut part = || parts.next().unwrap().to_owned();
    fs::write(
        other.join("Makefile"),
        format!("VERSION = {}\nPATCHLEVEL = {}\nSUBLEVEL = {}\n", part(), part(), part()),
    )
    .unwrap();
    let error = init(&refused, &Shown).err().expect("the gate is closed");
    eprintln!("{error}");
    let Error::Different(refusal) = &error else { panic!("{error}") };
    let names: Vec<&str> = refusal.functions.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(names, ["scheduler_tick"]);

    let allowed = Options { allow_different: true, ..refused };
    let (made, summary) = init(&allowed, &Shown).unwrap();
    assert_eq!(summary.allowed_different, 1);
    assert!(made.warning().unwrap().starts_with("1 function"));
    // Remembered.
    let again = Options { allow_different: false, ..allowed };
    assert!(init(&again, &Shown).unwrap().0.config().allow_different);
}

#[test]
fn somebody_elses_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Some(options) = options(dir.path()) else { return };
    fs::write(dir.path().join("thesis.tex"), "").unwrap();
    assert!(matches!(init(&options, &Shown), Err(Error::NotEmpty { .. })));
    assert!(!dir.path().join(".schedswap").exists());
}

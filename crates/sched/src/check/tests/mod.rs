//! Every rule on objects that a real compiler made, each with a near miss.

use super::frozen::{Frozen, FrozenCopy, HeldBy};
use super::rules::{self, Facts};
use super::source::{SourceTree, Sources};
use super::{Code, Finding, Severity};
use crate::boundary::{Boundary, BoundaryFunction, Class, Fate, PatchSite, StayReason};
use schedswap_kernel::address::Addr;
use schedswap_kernel::objects::{self, Object};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::Command;

mod escapes;
mod layouts;
mod sealed;

const UNIT: &str = "kernel/sched/a.c";

/// A scheduler in small: `sleeper` and `waiter` stay, `boot` is `__init`, `arch_hook` is overridden,
/// `pick`, `tick` and `inner` are replaced.
const SOURCE: &str = r#"
#define __sched __attribute__((section(".sched.text")))
#define __init __attribute__((section(".init.text"), cold))
#define LIMIT 30

struct task { int nice; int prio; };
extern int clock_now;
void block(void);
void log_text(const char *text);

static int boosted;

static inline __attribute__((always_inline)) int weight(int nice)
{
	return nice * 5 + LIMIT;
}

static inline int __init boot_value(void)
{
	return clock_now + 7;
}

static __attribute__((noinline)) int inner(struct task *task)
{
	static int calls;

	calls++;
	boosted += task->prio;
	return task->nice + calls;
}

int __sched sleeper(struct task *task)
{
	static int once;

	if (!once) {
		once = 1;
		log_text("sleeper: first");
	}
	block();
	return weight(task->nice) + inner(task);
}

static __attribute__((noinline)) void __sched pick_slowly(struct task *task)
{
	block();
	task->prio = clock_now;
}

int __sched waiter(struct task *task)
{
	pick_slowly(task);
	block();
	return task->nice ? task->prio : 3;
}

int __init boot(void)
{
	return boot_value() * 2;
}

__attribute__((weak)) int arch_hook(int a)
{
	return a + 1;
}

int pick(struct task *task)
{
	log_text("picked");
	return inner(task) * 2 + arch_hook(task->prio);
}

void tick(struct task *task)
{
	task->prio = clock_now & 15;
}
"#;

fn compile(source: &str) -> Object {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("a.c"), dir.path().join("a.o"));
    std::fs::write(&input, source).unwrap();
    let status = Command::new("gcc")
        .args(["-O2", "-ffunction-sections", "-fdata-sections", "-fno-pic", "-mcmodel=kernel"])
        // As kernels are: profiling keeps gcc from relying on which registers a callee leaves alone.
        .args(["-pg", "-mfentry", "-fno-ipa-sra", "-fno-asynchronous-unwind-tables"])
        .args(["-fcf-protection=none", "-w", "-c", "-o"])
        .args([&output, &input])
        .status()
        .expect("gcc is needed, as for building any scheduler");
    assert!(status.success(), "does not compile:\n{source}");
    objects::read("a.o", &std::fs::read(&output).unwrap()).unwrap()
}

fn line_of(text: &str) -> u32 {
    let at = SOURCE.lines().position(|line| line.contains(text)).unwrap_or_else(|| panic!("no line {text}"));
    at as u32 + 1
}

fn function(name: &str, text: &str, fate: Fate) -> BoundaryFunction {
    let addr = Addr(0x1000 + u64::from(line_of(text)) * 0x10);
    BoundaryFunction {
        name: name.into(),
        unit: UNIT.into(),
        decl_file: UNIT.into(),
        decl_line: line_of(text),
        addr,
        ranges: Vec::from([addr..addr + 0x10]),
        local: text.starts_with("static"),
        class: Class::Insider,
        class_configured: None,
        fate,
        called_from: vec![],
        stored_in: vec![],
        exported: false,
    }
}

fn boundary() -> Boundary {
    let divert = || Fate::Divert(PatchSite { at: Addr(0), expect: vec![], mask: vec![], after_fentry: true });
    let sleeps = || Fate::Stay(StayReason::Sleeps { via: vec!["block".into()] });
    Boundary {
        functions: vec![
            function("inner", "static __attribute__((noinline)) int inner", divert()),
            function("sleeper", "int __sched sleeper", sleeps()),
            function("pick_slowly", "static __attribute__((noinline)) void __sched pick_slowly", sleeps()),
            function("waiter", "int __sched waiter", sleeps()),
            function("boot", "int __init boot(void)", Fate::Stay(StayReason::Init)),
            function("pick", "int pick(", divert()),
            function("tick", "void tick(", divert()),
        ],
        ..Boundary::default()
    }
}

fn copy(helper: &str, text: &str, holder: &str, held_by: HeldBy) -> FrozenCopy {
    FrozenCopy {
        helper: helper.into(),
        decl_file: UNIT.into(),
        decl_line: line_of(text),
        holder: holder.into(),
        held_by,
    }
}

/// What reading the kernel would say of [`SOURCE`].
fn frozen() -> Frozen {
    let held_by = HeldBy::Outsider { unit: UNIT.into() };
    let mut frozen = Frozen {
        copies: vec![
            copy("weight", "int weight(int nice)", "sleeper", held_by),
            copy("boot_value", "int __init boot_value", "boot", HeldBy::Init),
        ],
        ..Frozen::default()
    };
    let boundary = boundary();
    let addr = |name| boundary.function(UNIT, name).unwrap().addr;
    frozen.staying_callers.insert(addr("inner"), BTreeSet::from(["sleeper".to_owned()]));
    frozen.replaced_callees.insert(addr("sleeper"), BTreeSet::from(["inner".to_owned()]));
    frozen
}

fn check_with(frozen: &Frozen, boundary: &Boundary, edited: &str) -> Vec<Finding> {
    compare(frozen, boundary, SOURCE, edited)
}

fn compare(frozen: &Frozen, boundary: &Boundary, pristine: &str, edited: &str) -> Vec<Finding> {
    let tree = |text: &str| SourceTree::from_texts([("kernel/sched/a.c".to_owned(), text.to_owned())]);
    let (pristine_source, edited_source) = (tree(pristine), tree(edited));
    let facts = Facts {
        frozen,
        entry_sizes: &BTreeMap::new(),
        boundary,
        pristine: &[(UNIT.to_owned(), compile(pristine))],
        edited: &[(UNIT.to_owned(), compile(edited))],
        arities: &HashMap::new(),
        sources: Sources { pristine: &pristine_source, edited: &edited_source },
    };
    let private = rules::private_variables(boundary);
    rules::run(&facts, &rules::builds(&facts, &private).unwrap(), Vec::new())
}

/// The source with each `(from, to)` replaced.
fn edited(edits: &[(&str, &str)]) -> String {
    edits.iter().fold(SOURCE.to_owned(), |source, (from, to)| {
        assert_eq!(source.matches(from).count(), 1, "{from:?} has to be there once");
        source.replace(from, to)
    })
}

/// Codes and symbols that an edit leads to.
fn check(edits: &[(&str, &str)]) -> Vec<(Code, String)> {
    let findings = check_with(&frozen(), &boundary(), &edited(edits));
    findings.into_iter().map(|finding| (finding.code, finding.symbol)).collect()
}

fn one(code: Code, symbol: &str) -> Vec<(Code, String)> {
    vec![(code, symbol.to_owned())]
}

const NONE: &[(Code, String)] = &[];

#[test]
fn an_edit_of_what_is_replaced_is_fine() {
    // A new static in it, a new string, and code before it that moves everything.
    assert_eq!(check(&[("clock_now & 15", "({ static int n; log_text(\"tick\"); n++; }) + 4")]), NONE);
    assert_eq!(
        check(&[("\tboosted += task->prio;", "\tlog_text(\"inner\");\n\tboosted -= task->prio;")]),
        NONE
    );
}

#[test]
fn a_new_function_between_those_that_stay_moves_them_without_changing_them() {
    let new = "int __sched novel(int a)\n{\n\tblock();\n\treturn a + 9;\n}\n\nint __sched waiter(";
    let loud = ("static int boosted;", "static int boosted, more;\nint novel(int a);");
    assert_eq!(check(&[("int __sched waiter(", new), loud, ("& 15", "& novel(3)")]), NONE);
}

#[test]
fn a_far_jump_to_a_function_that_stays_is_the_same_jump() {
    // In .sched.text the assembler itself resolves the call from waiter to pick_slowly.
    let padding =
        "asm(\".pushsection .sched.text, \\\"ax\\\"; .skip 4096; .popsection\");\n\nint __sched waiter(";
    assert_eq!(check(&[("int __sched waiter(", padding), ("& 15", "& 7")]), NONE);
}

#[test]
fn changed_outsider_is_refused_with_reason_and_advice() {
    let source = edited(&[("\tblock();\n\treturn weight", "\tblock();\n\tblock();\n\treturn weight")]);
    let findings = check_with(&frozen(), &boundary(), &source);
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!((finding.code, finding.severity), (Code::ChangedOutsider, Severity::Refused));
    assert_eq!((finding.file.as_str(), finding.line), (UNIT, line_of("int __sched sleeper")));
    assert!(finding.reason.contains("threads sleep inside it (through block)"), "{finding}");
    assert!(finding.advice.contains("inner"), "{finding}");
}

#[test]
fn an_outsider_with_another_string_is_changed() {
    assert_eq!(check(&[("sleeper: first", "sleeper: third")]), one(Code::ChangedOutsider, "sleeper"));
}

#[test]
fn a_removed_outsider_is_changed() {
    let removed = edited(&[("int __sched waiter", "int __sched other_waiter")]);
    let findings = check_with(&frozen(), &boundary(), &removed);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!((findings[0].code, findings[0].symbol.as_str()), (Code::ChangedOutsider, "waiter"));
}

#[test]
fn comments_and_blanks_in_an_outsider_are_no_change() {
    let comment = ("\tblock();\n\treturn weight", "\t/* wait */\n\tblock( );\n\n\treturn weight");
    assert_eq!(check(&[comment, ("& 15", "& 7")]), NONE);
}

#[test]
fn what_ifdef_leaves_out_is_no_change() {
    let left_out =
        ("\tblock();\n\treturn weight", "#ifdef NEVER\n\tx();\n#endif\n\tblock();\n\treturn weight");
    assert_eq!(check(&[left_out, ("& 15", "& 7")]), NONE);
}

#[test]
fn changed_init_is_refused() {
    assert_eq!(check(&[("boot_value() * 2", "boot_value() * 3")]), one(Code::ChangedInit, "boot"));
    assert_eq!(check(&[("clock_now + 7", "clock_now + 8")]), one(Code::ChangedInit, "boot_value"));
}

#[test]
fn init_code_that_merely_uses_something_changed_is_fine() {
    let value = ("static inline int __init boot_value", "static inline int boot_value");
    let pristine_has_no_word = SOURCE.replace(value.0, value.1);
    assert_ne!(pristine_has_no_word, SOURCE);
    // A helper that is not __init itself may change: its copy in boot code has run.
    let mut frozen = frozen();
    frozen.copies = vec![copy("weight", "int weight(int nice)", "boot", HeldBy::Init)];
    let findings =
        check_with(&frozen, &boundary(), &edited(&[("nice * 5", "nice * 5 + 0"), ("& 15", "& 7")]));
    assert_eq!(findings, []);
}

#[test]
fn changed_weak_is_refused() {
    assert_eq!(check(&[("return a + 1;", "return a + 2;")]), one(Code::ChangedWeak, "arch_hook"));
    let mut listed = boundary();
    let stays = Fate::Stay(StayReason::OverriddenWeak);
    listed.functions.push(function("arch_hook", "__attribute__((weak)) int arch_hook", stays));
    let findings = check_with(&frozen(), &listed, &edited(&[("return a + 1;", "return a + 2;")]));
    assert_eq!(findings.iter().map(|f| f.code).collect::<Vec<_>>(), [Code::ChangedWeak]);
}

#[test]
fn a_weak_function_that_is_the_one_that_runs_may_change() {
    let mut boundary = boundary();
    let fate = boundary.function(UNIT, "pick").unwrap().fate.clone();
    boundary.functions.push(function("arch_hook", "__attribute__((weak)) int arch_hook", fate));
    assert_eq!(check_with(&frozen(), &boundary, &edited(&[("return a + 1;", "return a + 2;")])), []);
}

#[test]
fn a_changed_helper_is_refused_under_its_own_name_once() {
    let source = edited(&[("nice * 5", "nice * 6")]);
    let findings = check_with(&frozen(), &boundary(), &source);
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!((finding.code, finding.symbol.as_str()), (Code::FrozenInline, "weight"));
    assert!(finding.reason.ends_with("not replaced: sleeper"), "{finding}");
}

#[test]
fn a_changed_helper_with_a_copy_outside_the_scheduler_is_refused() {
    let mut frozen = frozen();
    let elsewhere = HeldBy::Elsewhere { unit: "kernel/fork.c".into() };
    frozen.copies.push(copy("tick", "void tick(", "copy_process", elsewhere));
    let findings = check_with(&frozen, &boundary(), &edited(&[("& 15", "& 7")]));
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!((finding.code, finding.symbol.as_str()), (Code::FrozenInline, "tick"));
    assert!(finding.reason.contains("copy_process (kernel/fork.c)"), "{finding}");
}

#[test]
fn a_helper_whose_copies_are_all_replaced_may_change() {
    let mut frozen = frozen();
    frozen.copies.retain(|copy| copy.helper != "weight");
    frozen.copies.push(copy("boot_value", "int __init boot_value", "boot", HeldBy::Init));
    assert_eq!(check_with(&frozen, &boundary(), &edited(&[("& 15", "& 7")])), []);
}

#[test]
fn a_helper_that_compiles_to_the_same_may_change() {
    assert_eq!(check(&[("nice * 5 + LIMIT", "LIMIT + 5 * nice"), ("& 15", "& 7")]), NONE);
}

#[test]
fn a_macro_under_an_outsider_is_refused_and_named() {
    let findings = check_with(&frozen(), &boundary(), &edited(&[("LIMIT 30", "LIMIT 31")]));
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!((finding.code, finding.symbol.as_str()), (Code::ChangedUnderOutsider, "sleeper"));
    assert!(finding.reason.contains(&format!("{UNIT}:{}", line_of("#define LIMIT"))), "{finding}");
}

#[test]
fn a_changed_type_under_an_outsider_is_refused() {
    let codes = check(&[("int nice; int prio;", "int prio; int nice;")]);
    assert!(codes.contains(&(Code::ChangedUnderOutsider, "waiter".into())), "{codes:?}");
}

#[test]
fn a_vanished_function_is_refused_while_vmlinux_calls_it() {
    // Renamed everywhere but for the frozen caller in vmlinux; sleeper is edited with it.
    let source = SOURCE.replace("inner", "deeper");
    let findings = check_with(&frozen(), &boundary(), &source);
    let vanished = findings.iter().find(|f| f.code == Code::Vanished).unwrap();
    assert_eq!(vanished.symbol, "inner");
    assert!(vanished.reason.contains("used by sleeper"), "{vanished}");
    assert!(vanished.advice.contains("keep a function inner"), "{vanished}");
}

#[test]
fn every_way_of_reaching_a_vanished_function_counts() {
    type Reach = fn(&mut BoundaryFunction);
    let ways: [(Reach, &str); 4] = [
        (|f| f.called_from = vec!["do_fork".into()], "called from do_fork"),
        (|f| f.stored_in = vec!["some_ops".into()], "stored in some_ops"),
        (|f| f.exported = true, "exported"),
        (|f| f.class = Class::Callback, "stored addresses"),
    ];
    for (reach, words) in ways {
        let mut boundary = boundary();
        reach(boundary.functions.iter_mut().find(|f| f.name == "tick").unwrap());
        let findings = check_with(&frozen(), &boundary, &edited(&[("void tick(", "void tock(")]));
        let [finding] = findings.as_slice() else { panic!("{words}: {findings:?}") };
        assert_eq!((finding.code, finding.symbol.as_str()), (Code::Vanished, "tick"));
        assert!(finding.reason.contains(words), "{finding}");
    }
}

#[test]
fn a_function_that_only_the_module_called_may_vanish() {
    assert_eq!(check(&[("void tick(", "void tock(")]), NONE);
}

#[test]
fn a_vanished_clone_is_named_with_its_suffix() {
    // As if the compiler had made the clone for another set of callers.
    let declared =
        "static int inner(struct task *task) __asm__(\"inner.constprop.0\");\n\nstatic inline int __init";
    let pristine = edited(&[("static inline int __init", declared)]);
    let mut boundary = boundary();
    let inner = boundary.functions.iter_mut().find(|f| f.name == "inner").unwrap();
    inner.name = "inner.constprop.0".into();
    inner.decl_line += 2;
    let other = pristine.replace("inner.constprop.0", "inner.isra.0").replace("& 15", "& 7");
    let findings = compare(&frozen(), &boundary, &pristine, &other);
    // sleeper compiles differently with it.
    let finding = findings.iter().find(|f| f.code == Code::Vanished).unwrap();
    assert_eq!(finding.symbol, "inner.constprop.0");
    assert!(finding.advice.contains("no longer makes this variant of inner"), "{finding}");
}

#[test]
fn nothing_changed_is_a_warning() {
    assert_eq!(check(&[]), one(Code::NothingChanged, ""));
    assert_eq!(
        check(&[("static int boosted;", "/* more */ static int boosted;")]),
        one(Code::NothingChanged, "")
    );
    assert_eq!(Code::NothingChanged.severity(), Severity::Warning);
    // Data counts as well as code.
    let data = ("static int boosted;", "static int boosted;\nint sysctl_novel = 3;");
    assert_eq!(check(&[data]), NONE);
    let source = SOURCE.replace("static int boosted;", "static int boosted;\nint sysctl_novel = 3;");
    assert_ne!(compile(&source).sections.len(), compile(SOURCE).sections.len());
}

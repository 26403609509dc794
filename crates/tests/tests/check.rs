//! Every refusal of `check` on a real kernel, whose functions, variables and structures are chosen by what the
//! boundary and the debug information say of them, so that the tests hold for any release.

use anyhow::{Context, Result, ensure};
use schedswap_host::progress::Silent;
use schedswap_kernel::types::Layouts;
use schedswap_kernel::vmlinux::Image;
use schedswap_sched::boundary::{
    Boundary, BoundaryFunction, BoundaryVariable, Class, Fate, Sharing, StayReason,
};
use schedswap_sched::check::{Code, Finding};
use schedswap_sdk::{Workdir, check};
use schedswap_tests::edit::Tree;
use schedswap_tests::{image, work_dir};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A copy of the shared work dir, pristine, so that others may edit theirs meanwhile.
fn copy_of_work_dir(to: &Path) -> Result<Workdir> {
    let (work, _lock) = work_dir()?;
    let status = Command::new("cp").arg("-a").arg(work).arg(to).status().context("running cp")?;
    ensure!(status.success(), "cannot copy to {}", to.display());
    Ok(Workdir::open(to)?)
}

fn findings(work: &Workdir) -> Vec<Finding> {
    check(work, &[], &Silent).unwrap().findings
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
fn an_unedited_tree_and_edits_that_can_work_are_let_through() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let work = copy_of_work_dir(&dir.path().join("work"))?;
    let (image, boundary) = (image(), work.boundary()?);
    let tree = Tree::at(work.root());

    // Nothing edited: that, and nothing else.
    let codes: Vec<Code> = findings(&work).iter().map(|f| f.code).collect();
    assert_eq!(codes, [Code::NothingChanged]);

    // What is replaced may change, and may bring data, locks, per-CPU data and functions of its own.
    tree.before("core.c", "wake_up_process", NOVELTIES)?;
    tree.at_entry("core.c", "wake_up_process", "novel_count(p->prio); novel_table[p->prio & 1](p->prio);")?;
    // A new feature may come first.
    let features = work.root().join("kernel/sched/features.h");
    let text = fs::read_to_string(&features)?;
    fs::write(&features, text.replacen("SCHED_FEAT(", "SCHED_FEAT(NOVEL, false)\nSCHED_FEAT(", 1))?;
    // A new member may take padding, and a structure that is only ever on a stack may grow.
    fill_padding(work.root(), image, "rq")?;
    tree.replace("fair.c", "struct lb_env {\n", "struct lb_env {\n\tlong novel[2];\n")?;
    // A constant may change, and what does not matter to a callback's caller.
    tree.replace("core.c", "88761,", "88762,")?;
    change_callback(work.root(), &boundary, |head| head.replace("*css)", "*const css)"))?;
    assert_eq!(findings(&work), []);
    Ok(())
}

/// All of it is the module's own and stays in it.
const NOVELTIES: &str = r#"
static int novel_counter = 3;
static DEFINE_RAW_SPINLOCK(novel_lock);
static DEFINE_PER_CPU(int, novel_here);
DEFINE_STATIC_KEY_FALSE(novel_key);

static noinline void novel_one(int prio) { this_cpu_add(novel_here, prio); }
static noinline void novel_two(int prio) { this_cpu_sub(novel_here, prio); }
static void (*const novel_table[])(int prio) = { novel_one, novel_two };

static noinline void novel_count(int prio)
{
	raw_spin_lock(&novel_lock);
	if (static_branch_unlikely(&novel_key))
		novel_counter += prio;
	WARN_ON_ONCE(novel_counter < 0);
	raw_spin_unlock(&novel_lock);
}
"#;

/// Declares a member in the first padding of a structure of `sched.h`.
fn fill_padding(root: &Path, image: &Image, name: &str) -> Result<()> {
    let layout = Layouts::of_kernel(image)?.layout(name).context("no such structure")?;
    let path = root.join(&layout.place.file);
    let text = fs::read_to_string(&path)?;
    let mut lines: Vec<&str> = text.lines().collect();
    for hole in layout.holes.iter().filter(|hole| hole.path.is_empty() && hole.before.is_some()) {
        let before = layout.members.iter().find(|member| Some(&member.path) == hole.after.as_ref());
        let Some(line) = before.map(|member| member.line as usize) else { continue };
        if lines[line - 1].trim_end().ends_with(';') {
            lines.insert(line, "\tchar novel_member;");
            fs::write(&path, lines.join("\n") + "\n")?;
            return Ok(());
        }
    }
    anyhow::bail!("{name} has no padding between members: {:?}", layout.holes)
}

/// Changes the head of the definition of a callback of a control group's files.
fn change_callback(root: &Path, boundary: &Boundary, change: impl Fn(&str) -> String) -> Result<String> {
    let callbacks = boundary.functions.iter().filter(|f| {
        f.class == Class::Callback && matches!(f.fate, Fate::Divert(_)) && f.local && !f.name.contains('.')
    });
    for function in callbacks {
        let path = root.join(&function.decl_file);
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let head = text.lines().find(|line| {
            line.contains(&format!("{}(struct cgroup_subsys_state *css)", function.name))
                && !line.ends_with(';')
        });
        let Some(head) = head else { continue };
        let used = format!("= {},", function.name);
        if text.matches(&used).count() == 1 {
            let text = text.replace(head, &change(head));
            fs::write(&path, text.replace(&used, &format!("= (void *){},", function.name)))?;
            return Ok(function.name.clone());
        }
    }
    anyhow::bail!("no callback fits")
}

#[test]
fn functions_that_a_module_cannot_bring_into_force_are_refused_by_name() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let work = copy_of_work_dir(&dir.path().join("work"))?;
    let (image, boundary) = (image(), work.boundary()?);
    let tree = Tree::at(work.root());

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
        (Code::FrozenInline, edit_frozen_helper(&tree, image, &boundary)),
    ];
    let renamed = rename_callback(work.root(), &boundary);
    // The timer is given the address of the new function.
    expected.push((Code::Escapes, format!("novel_{renamed}")));
    expected.push((Code::Vanished, renamed));
    tree.at_entry("clock.c", "sched_clock", CODE).unwrap();
    expected.push((Code::ChangedWeak, "sched_clock".to_owned()));

    let found = findings(&work);
    for finding in &found {
        eprintln!("{finding}");
        assert!(!finding.reason.is_empty() && !finding.advice.is_empty() && finding.line > 0);
    }
    for wanted in &expected {
        assert!(found.iter().any(|f| (f.code, &f.symbol) == (wanted.0, &wanted.1)), "{wanted:?} is missing");
    }
    assert_eq!(found.len(), expected.len());
    Ok(())
}

/// A variable of vmlinux that the source defines at the top level of a file by a line that begins so.
fn variable(
    root: &Path,
    boundary: &Boundary,
    fits: impl Fn(&BoundaryVariable, &str) -> bool,
) -> Result<(PathBuf, String, String)> {
    for v in boundary.variables.iter().filter(|v| v.in_function.is_none() && v.sharing == Sharing::Shared) {
        let path = root.join(&v.decl_file);
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if let Some(line) = text.lines().find(|line| fits(v, line)) {
            return Ok((path, line.to_owned(), v.name.clone()));
        }
    }
    anyhow::bail!("no variable fits")
}

/// Gives a variable another name in every file.
fn rename(root: &Path, name: &str) -> Result<()> {
    for entry in fs::read_dir(root.join("kernel/sched"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "c" || e == "h") {
            let text = fs::read_to_string(&path)?;
            if text.contains(name) {
                fs::write(&path, text.replace(name, &format!("novel_{name}")))?;
            }
        }
    }
    Ok(())
}

#[test]
fn data_calls_and_addresses_on_which_both_sides_must_agree_are_refused_by_name() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let work = copy_of_work_dir(&dir.path().join("work"))?;
    let boundary = work.boundary()?;
    let (root, tree) = (work.root(), Tree::at(work.root()));
    let mut expected = Vec::new();

    // A default that only the source has.
    let is_tunable = |v: &BoundaryVariable, line: &str| {
        line.contains(&v.name) && line.contains("int sysctl_") && line.ends_with("ULL;")
    };
    let (path, line, name) = variable(root, &boundary, is_tunable)?;
    let text = fs::read_to_string(&path)?;
    fs::write(&path, text.replace(&line, &line.replace("ULL;", "ULL + 7;")))?;
    expected.push((Code::ChangedInitialValue, name));

    // A lock and per-CPU data under other names.
    for (definition, before_name) in [("static DEFINE_MUTEX", "("), ("static DEFINE_PER_CPU", ", ")] {
        let defines = |v: &BoundaryVariable, line: &str| {
            line.starts_with(definition) && line.ends_with(&format!("{before_name}{});", v.name))
        };
        let (_, _, name) = variable(root, &boundary, defines)?;
        rename(root, &name)?;
        expected.push((Code::MovedVariable, name));
    }

    // A callback with one parameter more, and a system call with another.
    let more = |head: &str| head.replace("*css)", "*css, int novel)");
    expected.push((Code::ChangedSignature, change_callback(root, &boundary, more)?));
    tree.replace(
        "core.c",
        "SYSCALL_DEFINE1(nice, int, increment)",
        "SYSCALL_DEFINE1(nice, long, increment)",
    )?;
    expected.push((Code::ChangedSystemCall, "sys_nice".to_owned()));

    // A variant of a function that vmlinux's half of __schedule calls.
    let variant = boundary.functions.iter().find(|f| f.name.starts_with("finish_task_switch."));
    if let Some(variant) = variant {
        let (file, name) = ("core.c", "finish_task_switch");
        tree.replace(
            file,
            "finish_task_switch(struct task_struct *prev)",
            "finish_task_switch(struct task_struct *prev, long novel)",
        )?;
        let path = root.join("kernel/sched").join(file);
        let text = fs::read_to_string(&path)?;
        fs::write(&path, text.replace("finish_task_switch(prev)", "finish_task_switch(prev, jiffies)"))?;
        tree.at_entry(file, name, "asm volatile(\"\" : : \"r\" (novel));")?;
        expected.push((Code::ChangedVariant, variant.name.clone()));
    }

    // A timer that nobody stops.
    tree.before("core.c", "wake_up_process", TIMER)?;
    tree.at_entry(
        "core.c",
        "wake_up_process",
        "if (!timer_pending(&novel_timer)) mod_timer(&novel_timer, jiffies + HZ);",
    )?;
    expected.push((Code::Escapes, "novel_tick".to_owned()));

    let found = findings(&work);
    for finding in &found {
        eprintln!("{finding}");
        ensure!(finding.line > 0 && root.join(&finding.file).is_file(), "{finding} is about no line");
    }
    for wanted in &expected {
        ensure!(found.iter().any(|f| (f.code, &f.symbol) == (wanted.0, &wanted.1)), "{wanted:?} is missing");
    }
    Ok(())
}

const TIMER: &str = r#"
static void novel_tick(struct timer_list *timer) { mod_timer(timer, jiffies + HZ); }
static DEFINE_TIMER(novel_timer, novel_tick);
"#;

#[test]
fn layouts_that_other_code_or_older_memory_knows_are_refused_with_the_free_bytes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let work = copy_of_work_dir(&dir.path().join("work"))?;
    let tree = Tree::at(work.root());
    // Known to no other unit, but there is one in each control group, and a variable.
    tree.replace("cpuacct.c", "struct cpuacct {\n", "struct cpuacct {\n\tlong novel;\n")?;
    // Known to the units that include sched.h, and in every CPU's memory.
    tree.replace("sched.h", "struct cfs_rq {\n", "struct cfs_rq {\n\tlong novel;\n")?;
    let found = findings(&work);
    let layouts: Vec<&Finding> = found.iter().filter(|f| f.code == Code::ChangedLayout).collect();
    for finding in &layouts {
        eprintln!("{finding}");
    }
    let about = |symbol: &str| {
        layouts.iter().find(|f| f.symbol == symbol).with_context(|| format!("nothing about {symbol}"))
    };
    let cpuacct = about("struct cpuacct")?;
    ensure!(cpuacct.reason.contains("root_cpuacct → cpuacct"), "{cpuacct}");
    ensure!(cpuacct.file == "kernel/sched/cpuacct.c", "{cpuacct}");
    let cfs_rq = about("struct cfs_rq")?;
    ensure!(cfs_rq.reason.contains("novel (long int) is new at 0"), "{cfs_rq}");
    ensure!(cfs_rq.advice.contains("fits into its free bytes, which are"), "{cfs_rq}");
    Ok(())
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
            && matches!(f.fate, Fate::Divert(_))
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

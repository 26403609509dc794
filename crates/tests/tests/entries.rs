//! While a scheduler is loaded, who traces a function by vmlinux's name sees every call of it, and sees it once: calls
//! from the module go through vmlinux's entry.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Guest;
use schedswap_sched::boundary::{Boundary, BoundaryFunction, Fate};
use schedswap_sdk::workdir::Workdir;
use schedswap_tests::edit::Tree;
use schedswap_tests::{MODULE, build, guest, image, kernel_module, work_dir};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

/// How many functions at least, and at most.
const FUNCTIONS: std::ops::RangeInclusive<usize> = 30..=48;
/// Work of a fixed size: so often a byte goes there and back, and a program starts.
const ROUNDS: u64 = 1000;
const FORKS: u64 = 40;
const LIMIT: Duration = Duration::from_secs(1800);
/// What is called less often per work says nothing.
const OFTEN: u64 = ROUNDS / 8;

/// A function that the edit calls with one parameter more. A BPF trampoline at vmlinux's entry would lose it, so the module
/// calls its copy directly, and ftrace offers the copy.
const CALLED_OTHERWISE: &str = "update_cfs_group";

fn call_otherwise(tree: &Tree) -> Result<()> {
    let (function, file) = (CALLED_OTHERWISE, "fair.c");
    tree.before(file, function, "static int test_why;\n")?;
    tree.replace_all(
        file,
        &format!("{function}(struct sched_entity *se)"),
        &format!("{function}(struct sched_entity *se, int why)"),
    )?;
    tree.at_entry(file, function, "WRITE_ONCE(test_why, why);")?;
    tree.replace_all(file, &format!("{function}(se);"), &format!("{function}(se, 1);"))?;
    tree.replace_all(file, &format!("{function}(curr);"), &format!("{function}(curr, 2);"))
}

/// Counts, by ftrace, the calls of what a glob of each name meets: the function, its variants, and copies of it.
const GLOBS: &str = r#"
#include <linux/ftrace.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/version.h>
#define MOST 64
static char *names[MOST];
static int count;
module_param_array(names, charp, &count, 0444);
static struct ftrace_ops ops[MOST];
static DEFINE_PER_CPU(unsigned long [MOST], calls);
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
#define ftrace_regs pt_regs
#endif
static void called(unsigned long ip, unsigned long parent, struct ftrace_ops *op, struct ftrace_regs *regs)
{
	this_cpu_inc(calls[op - ops]);
}
static int show(char *buffer, const struct kernel_param *param)
{
	int i, cpu, length = 0;

	for (i = 0; i < count; i++) {
		unsigned long sum = 0;

		for_each_possible_cpu(cpu)
			sum += per_cpu(calls[i], cpu);
		length += scnprintf(buffer + length, PAGE_SIZE - length, "%lu ", sum);
	}
	return length + scnprintf(buffer + length, PAGE_SIZE - length, "\n");
}
static const struct kernel_param_ops counts_ops = { .get = show };
module_param_cb(counts, &counts_ops, NULL, 0444);
static int __init start(void)
{
	int i, err = 0;

	for (i = 0; i < count && !err; i++) {
		char glob[128];
		bool met;

		ops[i].func = called;
		met = !ftrace_set_filter(&ops[i], names[i], strlen(names[i]), 0);
		snprintf(glob, sizeof(glob), "%s.*", names[i]);
		met |= !ftrace_set_filter(&ops[i], glob, strlen(glob), 0);
		err = met ? register_ftrace_function(&ops[i]) : -ENOENT;
	}
	if (!err)
		return 0;
	while (--i > 0)
		unregister_ftrace_function(&ops[i - 1]);
	return err;
}
static void __exit stop(void)
{
	int i;

	for (i = 0; i < count; i++)
		unregister_ftrace_function(&ops[i]);
}
module_init(start);
module_exit(stop);
MODULE_LICENSE("GPL");
"#;

fn base(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Functions that replaced functions call, that can be traced, and whose names are unique, variants included.
fn candidates(boundary: &Boundary) -> Vec<&BoundaryFunction> {
    let is_traced = |f: &&BoundaryFunction| matches!(&f.fate, Fate::Divert(site) if site.after_fentry);
    let replaced: HashSet<_> = boundary.functions.iter().filter(is_traced).map(|f| f.addr).collect();
    let branches =
        image().uses.branches.iter().filter(|branch| replaced.contains(&image().symbol(branch.caller).addr));
    let called: HashSet<_> = branches.map(|branch| branch.callee).collect();
    let mut named: BTreeMap<&str, BTreeSet<_>> = BTreeMap::new();
    for symbol in image().symbols.iter().filter(|s| s.is_function() && !s.name.contains(".cold")) {
        named.entry(base(&symbol.name)).or_default().insert(symbol.addr);
    }
    let wanted = boundary.functions.iter().filter(is_traced).filter(|f| called.contains(&f.addr));
    wanted.filter(|f| named.get(base(&f.name)).is_some_and(|addrs| addrs.len() == 1)).collect()
}

fn work(guest: &Guest) -> Result<()> {
    guest.sh(&format!("guest-load pipe --rounds {ROUNDS}; for i in $(seq {FORKS}); do (:); done"))?;
    Ok(())
}

/// Those of the candidates that the work calls often on the stock scheduler.
fn busy<'a>(guest: &Guest, candidates: &[&'a BoundaryFunction]) -> Result<Vec<&'a BoundaryFunction>> {
    let names: Vec<&str> = candidates.iter().map(|f| f.name.as_str()).collect();
    guest.sh(&format!(
        "cd /sys/kernel/tracing; echo 40000 >buffer_size_kb; for f in {}; do echo $f; done >set_ftrace_filter; \
         echo function >current_tracer",
        names.join(" ")
    ))?;
    work(guest)?;
    let counted = guest
        .sh("cd /sys/kernel/tracing; echo 0 >tracing_on; grep -o ' [^ ]* <-' trace | sort | uniq -c; \
         echo nop >current_tracer; echo >set_ftrace_filter; echo 1 >tracing_on; echo 100 >buffer_size_kb")?;
    let calls = |line: &str| {
        let mut words = line.split_whitespace();
        let number: u64 = words.next()?.parse().ok()?;
        Some((words.next()?.to_owned(), number))
    };
    let calls: BTreeMap<String, u64> = counted.lines().filter_map(calls).collect();
    let is_busy = |f: &&&BoundaryFunction| calls.get(&f.name).is_some_and(|n| *n >= OFTEN);
    Ok(candidates.iter().filter(is_busy).take(*FUNCTIONS.end()).copied().collect())
}

/// Attaches a probe to each function: of kind `p` (when it is called) or `r` (when it returns).
fn attach(guest: &Guest, kind: &str, group: &str, functions: &[&BoundaryFunction]) -> Result<()> {
    let lines: Vec<String> = functions
        .iter()
        .enumerate()
        .map(|(n, f)| format!("echo '{kind}:{group}/{group}_{n} {}' >>kprobe_events", f.name))
        .collect();
    guest
        .sh(&format!("cd /sys/kernel/tracing && {} && echo 1 >events/{group}/enable", lines.join(" && ")))?;
    Ok(())
}

/// What has been counted so far.
struct Counts {
    /// By probe.
    probes: BTreeMap<String, u64>,
    /// By function.
    globs: Vec<u64>,
    /// What the scheduler itself counts.
    switches: u64,
}

fn counts(guest: &Guest) -> Result<Counts> {
    let text = guest
        .sh("cat /sys/module/globs/parameters/counts 2>/dev/null || echo none; grep ctxt /proc/stat; \
         cat /sys/kernel/tracing/kprobe_profile")?;
    let mut lines = text.lines();
    let numbers =
        |line: &str| line.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u64>>();
    let globs = numbers(lines.next().unwrap_or_default());
    let switches =
        numbers(lines.next().unwrap_or_default()).pop().context("no context switches in /proc/stat")?;
    let probe = |line: &str| {
        let numbers = numbers(line);
        Some((line.split_whitespace().next()?.to_owned(), numbers.iter().sum()))
    };
    Ok(Counts { probes: lines.filter_map(probe).collect(), globs, switches })
}

/// What one work adds.
fn counted(guest: &Guest) -> Result<Counts> {
    let before = counts(guest)?;
    work(guest)?;
    let after = counts(guest)?;
    let probes = after.probes.iter();
    let probes = probes.map(|(name, n)| (name.clone(), n - before.probes.get(name).copied().unwrap_or(0)));
    let globs = after.globs.iter().zip(&before.globs).map(|(after, before)| after - before);
    Ok(Counts {
        probes: probes.collect(),
        globs: globs.collect(),
        switches: after.switches - before.switches,
    })
}

/// Whether two counts of the same calls agree: they are not read at one moment, and the tick goes on meanwhile.
fn agree(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= 40 + a.max(b) / 20
}

struct Phase<'a> {
    when: &'static str,
    functions: &'a [&'a BoundaryFunction],
    /// On the stock scheduler, with the probes attached before.
    stock: &'a Counts,
    now: Counts,
}

impl Phase<'_> {
    fn of(&self, counts: &Counts, group: &str, n: usize) -> Result<u64> {
        let probe = format!("{group}_{n}");
        counts.probes.get(&probe).copied().with_context(|| format!("no probe {probe}"))
    }

    /// Everything that is wrong with what was counted.
    fn faults(&self, groups: &[&str]) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        for (n, function) in self.functions.iter().enumerate() {
            let name = &function.name;
            let stock = self.of(self.stock, "before", n)?;
            let mut of_groups = Vec::new();
            for group in groups {
                of_groups.push(self.of(&self.now, group, n)?);
            }
            of_groups.extend(self.now.globs.get(n));
            // The work is the same, but on which CPU a thread wakes is not, so the numbers of calls differ. If the module's
            // calls passed the entry by, nearly nothing would be left. All see the same calls, unless some see them twice.
            let is_lost = of_groups.iter().any(|now| *now < stock / 4);
            if is_lost || !of_groups.iter().all(|now| agree(*now, of_groups[0])) {
                faults.push(format!(
                    "{name}: {stock} calls on the stock scheduler, {of_groups:?} {}",
                    self.when
                ));
            }
            if base(name) == "finish_task_switch" && !agree(of_groups[0], self.now.switches) {
                faults.push(format!(
                    "{name}: {} calls, {} switches {}",
                    of_groups[0], self.now.switches, self.when
                ));
            }
        }
        Ok(faults)
    }
}

impl Phase<'_> {
    /// What is wrong with the function that is called otherwise: a glob, the last one, has to meet its copy.
    fn fault_of_otherwise(&self, is_there: bool) -> Result<Option<String>> {
        if !is_there {
            return Ok(None);
        }
        let (stock, now) = (self.of(self.stock, "otherwise", 0)?, self.of(&self.now, "otherwise", 0)?);
        let seen = *self.now.globs.last().context("no globs")?;
        let is_fine = seen >= stock / 4 && now == 0;
        Ok((!is_fine).then(|| {
            format!("{CALLED_OTHERWISE}: {stock} calls on the stock scheduler, {seen} {}, {now} at vmlinux's entry", self.when)
        }))
    }
}

/// Copies of functions that ftrace offers beside vmlinux's.
fn offered_twice(guest: &Guest, functions: &[&BoundaryFunction]) -> Result<Vec<String>> {
    let listed = guest.sh("grep '\\.ss' /sys/kernel/tracing/available_filter_functions || true")?;
    let copies: BTreeSet<&str> = listed.lines().filter_map(|line| line.split(".ss").next()).collect();
    Ok(functions.iter().filter(|f| copies.contains(f.name.as_str())).map(|f| f.name.clone()).collect())
}

#[test]
fn every_call_is_seen_once_under_vmlinuxs_name() -> Result<()> {
    let module = build("entries", call_otherwise)?;
    let boundary = {
        let (root, _lock) = work_dir()?;
        Workdir::open(&root)?.boundary()?
    };
    let candidates = candidates(&boundary);
    let globs = kernel_module("globs", GLOBS)?;
    let mut copied = Ok(());
    let guest = guest(&module, |config| {
        // Time is counted in instructions: what the tick and the balancer call does not depend on what the host does.
        config.icount = Some(0);
        config.cpus = 2;
        config.time_limit = LIMIT;
        config.command_limit = LIMIT;
        copied = config.initramfs.copy(&globs, "/schedswap/globs.ko").map(|_| ());
    })?;
    copied?;
    work(&guest)?;
    let (otherwise, candidates): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|f| f.name == CALLED_OTHERWISE);
    let functions = busy(&guest, &candidates)?;
    let names: Vec<&str> = functions.iter().map(|f| f.name.as_str()).collect();
    eprintln!("{} candidates; {} functions: {}", candidates.len(), names.len(), names.join(" "));
    ensure!(FUNCTIONS.contains(&names.len()), "{} functions are called often: {names:?}", names.len());

    attach(&guest, "p", "before", &functions)?;
    // Not every kernel has room for a jump there.
    if !otherwise.is_empty() {
        attach(&guest, "p", "otherwise", &otherwise)?;
    }
    let stock = counted(&guest)?;
    guest.sh(&format!("loader install {MODULE}"))?;
    let phase = |when, now| Phase { when, functions: &functions, stock: &stock, now };
    let mut faults = phase("attached before, loaded", counted(&guest)?).faults(&["before"])?;

    let bases: Vec<&str> = names.iter().map(|name| base(name)).chain([CALLED_OTHERWISE]).collect();
    guest.sh(&format!("insmod /schedswap/globs.ko names={}", bases.join(",")))?;
    attach(&guest, "p", "during", &functions)?;
    attach(&guest, "r", "returns", &functions)?;
    let groups = ["before", "during", "returns"];
    let attached = phase("attached while loaded", counted(&guest)?);
    faults.extend(attached.faults(&groups)?);
    faults.extend(attached.fault_of_otherwise(!otherwise.is_empty())?);
    faults.extend(
        offered_twice(&guest, &functions)?.iter().map(|name| format!("{name}: ftrace offers its copy")),
    );

    guest.sh("loader uninstall")?;
    faults.extend(phase("after", counted(&guest)?).faults(&groups)?);
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    guest.shutdown()?;
    Ok(())
}

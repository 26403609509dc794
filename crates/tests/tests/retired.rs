//! Nothing that a scheduler handed out is freed: a string in the topology's levels, the operations of an open file, a
//! node in a list of the kernel's, a timer's function. Each case panicked when unloading a scheduler freed its memory.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Guest;
use schedswap_payload::report::Status;
use schedswap_tests::edit::Tree;
use schedswap_tests::{MODULE, build, build_changed, guest};
use std::fs;

const HANDS_OUT: &str = "/hands-out.ko";
const PROVED: &str = "/proved.ko";
const DOMAINS: &str = "cat /sys/kernel/debug/sched/domains/cpu*/domain*/name";
const OPEN: &str = "/sys/kernel/debug/sched/debug";

/// Hands out addresses of everything that a module can have: of constants, variables and functions.
fn hands_out(tree: &Tree) -> Result<()> {
    // A string in the topology's domains.
    tree.replace(
        "topology.c",
        "\t\t.name\t\t\t= tl->name,\n",
        "\t\t.name\t\t\t= cpu & 1 ? \"ODDCPU\" : \"EVENCPU\",\n",
    )?;
    // The operations of a file that is open, and a function in them.
    tree.replace(
        "debug.c",
        "static void sched_debug_stop(struct seq_file *file, void *data)\n{\n}\n",
        "static noinline __used void sched_debug_stop(struct seq_file *file, void *data)\n{\n}\n\n\
         static void novel_stop(struct seq_file *m, void *d) { sched_debug_stop(m, d); }\n",
    )?;
    tree.replace("debug.c", "\t.stop\t\t= sched_debug_stop,\n", "\t.stop\t\t= novel_stop,\n")?;
    // A message of which the trace buffer keeps the address.
    tree.at_entry("swait.c", "swake_up_locked", "trace_printk(\"novel message\\n\");")?;
    // A node in the list of groups; work that a table of functions queues, again and again.
    tree.before("core.c", "set_user_nice", NODE_AND_WORK)?;
    tree.at_entry("core.c", "set_user_nice", "novel_hand_out();")
}

const NODE_AND_WORK: &str = "
static struct task_group novel_tg;
static struct delayed_work novel_work[2];
static unsigned long novel_n[2];

static void novel_0(struct work_struct *w)
{
	novel_n[0]++;
	schedule_delayed_work(&novel_work[0], HZ / 5);
}

static void novel_1(struct work_struct *w)
{
	novel_n[1] += 2;
	schedule_delayed_work(&novel_work[1], HZ / 5);
}

static const work_func_t novel_table[2] = { novel_0, novel_1 };

/* Which function it is, nothing in the code tells. */
static noinline void novel_arm(int i)
{
	INIT_DELAYED_WORK(&novel_work[i], novel_table[i]);
	schedule_delayed_work(&novel_work[i], HZ / 5);
}

static noinline void novel_hand_out(void)
{
	static bool once;
	int i;

	if (once)
		return;
	once = true;
	/* What goes through the list finds a group without a quota. */
	novel_tg.cfs_rq = root_task_group.cfs_rq;
	novel_tg.se = root_task_group.se;
	novel_tg.cfs_bandwidth.quota = RUNTIME_INF;
	list_add_rcu(&novel_tg.list, &task_groups);
	for (i = 0; i < 2; i++)
		novel_arm(i);
}
";

/// No string, no variable and no function of its own.
fn proved(tree: &Tree) -> Result<()> {
    tree.at_entry("core.c", "idle_cpu", "if (cpu < 0) return 0;")
}

fn plug(guest: &Guest) -> Result<()> {
    let one = |cpu, value| format!("echo {value} >/sys/devices/system/cpu/cpu{cpu}/online");
    guest.sh(&[one(2, 0), one(3, 0), one(2, 1), one(3, 1)].join(" && ")).map(drop)?;
    Ok(())
}

fn status(guest: &Guest) -> Result<Status> {
    let text = guest.sh("loader --json status")?;
    serde_json::from_str(&text).with_context(|| text)
}

/// Neither kind of removal takes a retired module away.
fn stays(guest: &Guest, name: &str) -> Result<()> {
    guest.sh(&format!("grep -q '^{name} ' /proc/modules && [ -d /sys/module/{name} ]"))?;
    for force in ["", "-f "] {
        let rmmod = guest.run(&format!("rmmod {force}{name}"))?;
        ensure!(rmmod.status != 0, "rmmod {force}took away a module that has retired");
    }
    guest.sh(&format!("[ -d /sys/module/{name} ]"))?;
    Ok(())
}

/// The demo on a machine with two NUMA nodes.
fn the_demo_s_strings(guest: &Guest) -> Result<()> {
    guest.sh("echo 1 >/sys/kernel/debug/sched/verbose")?;
    plug(guest)?;
    let own = guest.sh(DOMAINS)?;
    ensure!(own.contains("NUMA"), "there are no nodes: {own}");
    let module = guest.sh(&format!("loader install {MODULE} >&2 && cat /sys/kernel/schedswap/module"))?;
    plug(guest)?;
    guest.sh("loader uninstall")?;
    ensure!(guest.sh(DOMAINS)? == own, "the domains' names are not what they were");
    plug(guest)?;
    ensure!(guest.sh(DOMAINS)? == own);

    let retired = status(guest)?.retired;
    ensure!(retired.len() == 1 && retired[0].module == format!("{module}_r1"), "{retired:?}");
    ensure!(retired[0].bytes > 100_000, "{retired:?}");
    stays(guest, &retired[0].module)?;
    let symbols = guest.sh(&format!("grep -c '\\[{module}_r1\\]' /proc/kallsyms"))?;
    ensure!(symbols.parse::<u32>()? > 100, "kallsyms has {symbols} symbols of it");
    guest.sh("! [ -e /sys/kernel/schedswap ]")?;

    // The same file once more, with fresh data.
    guest.sh(&format!("loader install {MODULE} && [ $(cat /sys/kernel/schedswap/module) = {module} ]"))?;
    guest.sh("loader uninstall")?;
    stays(guest, &format!("{module}_r1"))?;
    stays(guest, &format!("{module}_r2"))
}

#[test]
fn what_was_handed_out_stays_and_the_rest_can_be_freed() -> Result<()> {
    let hands_out = fs::read(build_changed("hands-out", hands_out)?.module())?;
    let proved = fs::read(build_changed("proved", proved)?.module())?;
    let demo = build("demo-numa", |tree| tree.patch("examples/demo/schedswap_test.patch"))?;
    let guest = guest(&demo, |config| {
        config.numa_nodes = 2;
        config.initramfs.bytes(HANDS_OUT, &hands_out, 0o644);
        config.initramfs.bytes(PROVED, &proved, 0o644);
    })?;
    the_demo_s_strings(&guest)?;

    guest.sh(&format!("loader install {HANDS_OUT}"))?;
    plug(&guest)?;
    ensure!(guest.sh(DOMAINS)?.contains("ODDCPU"));
    guest.sh("renice -n 5 -p $$")?;
    // Asking for the memory is refused, by name, and changes nothing.
    let refused = guest.run("loader uninstall --free")?;
    ensure!(refused.status == 6 && refused.stderr.contains("hands out the address of"), "{refused:?}");
    ensure!(status(&guest)?.scheduler.is_some(), "it was unloaded all the same");
    // Opened before, read after.
    let read = guest.sh(&format!(
        "exec 3<{OPEN}; dd bs=1 count=1 <&3 2>/dev/null >&2; loader uninstall >&2 || exit; sleep 1; cat <&3 | wc -l"
    ))?;
    ensure!(read.trim().parse::<u32>()? > 10, "the open file gives {read} lines");
    guest.sh("cd /sys/fs/cgroup && echo +cpu >cgroup.subtree_control && mkdir x && rmdir x && sleep 1")?;
    ensure!(guest.sh(DOMAINS)?.contains("ODDCPU"), "a domain's name is not where it was");
    guest.sh("grep 'novel message' /sys/kernel/tracing/trace")?;
    let kept = status(&guest)?.retired.len();

    // What hands nothing out is freed, and only that.
    let module = guest.sh(&format!("loader install {PROVED} >&2 && cat /sys/kernel/schedswap/module"))?;
    guest.sh("loader uninstall")?;
    ensure!(status(&guest)?.retired.len() == kept + 1);
    guest.sh(&format!("loader install {PROVED} && loader uninstall --free"))?;
    ensure!(status(&guest)?.retired.len() == kept, "{:?}", status(&guest)?.retired);
    guest.sh(&format!("! ls -d /sys/module/{module}*"))?;

    // Too much is refused on the way in.
    let refused = guest.run(&format!("loader --retired-max 1 install {HANDS_OUT}"))?;
    ensure!(refused.status == 3 && refused.stderr.contains("`uninstall --free`"), "{refused:?}");
    guest.sh("sleep 1")?;
    guest.shutdown()?;
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * Is any thread inside code that is about to change?
 *
 * Load: inside one of vmlinux's functions that are diverted. Unload: inside the module's scheduler code. Switch: inside
 * the predecessor's code, or a function of vmlinux that is diverted now and was not before.
 */
#include <linux/delay.h>
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>
#include <linux/sched/task.h>
#include <linux/sched/task_stack.h>
#include <linux/slab.h>
#include <linux/stacktrace.h>
#include <linux/sysfs.h>
#include "runtime.h"
#include "handover.h"
#include "compat.h"

struct walk {
	const struct ss_check *check;
	bool busy;
	unsigned long addr;	/* where, if busy; 0: unknown */
};

/* The function of vmlinux that holds `addr` and is diverted, or NULL. */
static const struct ss_range *diverted_function(unsigned long addr)
{
	unsigned int low = 0, high = ss_range_count;

	if (!high || addr < ss_ranges[0].start || addr >= ss_ranges[high - 1].end)
		return NULL;
	while (high - low > 1) {
		unsigned int mid = low + (high - low) / 2;

		if (ss_ranges[mid].start <= addr)
			low = mid;
		else
			high = mid;
	}
	return addr < ss_ranges[low].end ? &ss_ranges[low] : NULL;
}

/*
 * `addr` is a return address or an interrupted pc. A call that never returns may be the last instruction of its
 * function, so a return address is looked up one byte earlier. For an interrupted pc that only matters at a
 * function's first byte: on load none of it has run and the patched entry is as good as the old one; on unload
 * the range is closed at both ends.
 */
static bool is_affected(const struct ss_check *check, unsigned long addr)
{
	unsigned int i;

	if (check->diverts && diverted_function(addr - 1))
		return true;
	for (i = 0; i < check->text_count; i++)
		if (addr >= check->texts[i].start && addr <= check->texts[i].end)
			return true;
	return false;
}

/* Called by the unwinder for each frame; false ends the walk. */
static bool consume(void *cookie, unsigned long addr)
{
	struct walk *walk = cookie;

	if (!is_affected(walk->check, addr))
		return true;
	walk->busy = true;
	walk->addr = addr;
	return false;
}

/* Code that stands in for a return address, which is then kept elsewhere and not on the stack. */
static bool hides_return_address(unsigned long word)
{
#ifdef CONFIG_FUNCTION_GRAPH_TRACER
	if (word == (unsigned long)&return_to_handler)
		return true;
#endif
#ifdef CONFIG_KRETPROBES
	if (ss_is_kretprobe_trampoline(word))
		return true;
#endif
	return false;
}

/*
 * For a stack the unwinder cannot vouch for: any word that could be an address inside affected code counts. Stale
 * words of earlier calls may count too; that can cause a needless refusal, but never a missing one.
 */
static void scan_words(struct task_struct *p, void *stack, struct walk *walk)
{
	unsigned long sp = ss_arch_saved_sp(p), end = (unsigned long)stack + THREAD_SIZE;

	if (sp < (unsigned long)stack || sp >= end || sp % sizeof(long)) {
		walk->busy = true;
		return;
	}
	for (; sp < end && !walk->busy; sp += sizeof(long)) {
		/* The thread may be running and writing here: one read, then only the copy is used. */
		unsigned long word = ss_arch_plain(READ_ONCE_NOCHECK(*(unsigned long *)sp));

		if (!consume(walk, word))
			return;
		walk->busy = hides_return_address(word);
	}
}

/* Walks the stack of a thread that is not running. The caller holds a reference to it, or the machine is stopped. */
static void walk_stack(struct task_struct *p, struct walk *walk)
{
	void *stack = try_get_task_stack(p);	/* NULL: it has exited and its stack is gone */
	int err;

	if (!stack)
		return;
#ifdef CONFIG_HAVE_RELIABLE_STACKTRACE
	/* Resolves what the graph tracer and kretprobes put in a return address's place. */
	err = arch_stack_walk_reliable(consume, walk, p);
#else
	err = ss_arch_stack_walk(consume, walk, p);
#endif
	if (err && !walk->busy)
		scan_words(p, stack, walk);
	/*
	 * Inside the stop this is never the last reference: it was there when we took ours, and only a running
	 * thread's exit drops that. So nothing is freed with interrupts off.
	 */
	put_task_stack(p);
}

static void note_busy(struct ss_check *check, struct task_struct *p, unsigned long addr)
{
	int i = atomic_inc_return(&check->busy) - 1;

	if (i >= SS_BLOCKERS_MAX)
		return;
	memcpy(check->blockers[i].comm, p->comm, TASK_COMM_LEN);
	check->blockers[i].comm[TASK_COMM_LEN - 1] = '\0';
	check->blockers[i].pid = task_pid_nr(p);
	check->blockers[i].addr = addr;
}

static unsigned long switches(struct task_struct *p)
{
	return READ_ONCE(p->nvcsw) + READ_ONCE(p->nivcsw);
}

/*
 * With the machine running. A thread that runs meanwhile is in the log, so whatever was read off its stack does
 * not count: __schedule bumps the switch count before the tracepoint, on_cpu is set before a thread runs.
 */
static void check_one_outside(struct ss_check *check, struct task_struct *p)
{
	struct walk walk = { .check = check };
	unsigned long before = switches(p);

	smp_rmb();	/* count before on_cpu before the stack, and the reverse below */
	if (p == check->asker || READ_ONCE(p->on_cpu))
		return;
	walk_stack(p, &walk);
	smp_rmb();
	if (walk.busy && !READ_ONCE(p->on_cpu) && switches(p) == before)
		note_busy(check, p, walk.addr);
}

/*
 * Walks all threads' stacks while the log is on. Threads forked after the collection have either never run, and then
 * their stack holds nothing but the way out of fork, or are in the log.
 */
int ss_check_outside(struct ss_check *check, unsigned int *threads)
{
	unsigned int i, count = 0, room = READ_ONCE(nr_threads) * 5 / 4 + 256;
	struct task_struct **tasks, *process, *p;
	bool full = false;

	tasks = kvmalloc_array(room, sizeof(*tasks), GFP_KERNEL);
	if (!tasks)
		return -ENOMEM;
	/* Collect under RCU, which is short; walk without it, so that other work on this CPU is not held up. */
	rcu_read_lock();
	for_each_process_thread(process, p) {
		full = count == room;
		if (full)
			goto collected;
		get_task_struct(p);
		tasks[count++] = p;
	}
collected:
	rcu_read_unlock();
	for (i = 0; i < count; i++) {
		check_one_outside(check, tasks[i]);
		put_task_struct(tasks[i]);
		cond_resched();
	}
	kvfree(tasks);
	*threads = count;
	if (atomic_read(&check->busy))
		return -EBUSY;
	return full ? -EAGAIN : 0;	/* too many forks at once: some threads were not seen */
}

static void check_one_logged(struct task_struct *p, void *data)
{
	check_one_outside(data, p);
}

/*
 * With the machine running, after ss_check_outside: the threads that ran meanwhile, so that fewer are left for the stop. The
 * argument is the same: what runs from now on is logged.
 */
int ss_check_logged(struct ss_check *check)
{
	ss_log_drain(check_one_logged, check);
	return atomic_read(&check->busy) ? -EBUSY : 0;
}

/* Inside the stop the only threads on a CPU are the stoppers, in our own handler. */
static void check_one_stopped(struct task_struct *p, void *data)
{
	struct ss_check *check = data;
	struct walk walk = { .check = check };

	if (p == check->asker || p->on_cpu)
		return;
	walk_stack(p, &walk);
	atomic_inc(&check->checked);
	if (walk.busy)
		note_busy(check, p, walk.addr);
}

/*
 * What may have changed since the walk outside: the threads this CPU logged; those on its queues, since a dying
 * one is in no list of threads any more but may still be preempted; and its idle thread, which is in no list either.
 */
void ss_check_this_cpu(struct ss_check *check)
{
	ss_log_for_this_cpu(check_one_stopped, check);
	ss_for_each_queued(check_one_stopped, check);
	check_one_stopped(this_rq()->idle, check);
}

/*
 * Every thread of the machine, each CPU taking its share. No list changes now: the list of threads only changes
 * with interrupts off, so none was stopped half way.
 */
void ss_check_share_of_all(struct ss_check *check, unsigned int share, unsigned int shares)
{
	struct task_struct *process, *p;
	unsigned int i = 0;

	for_each_process_thread(process, p)
		if (i++ % shares == share)
			check_one_stopped(p, check);
	ss_for_each_queued(check_one_stopped, check);
	check_one_stopped(this_rq()->idle, check);
}

/* The last refusal's blockers, for sysfs. */
static DEFINE_MUTEX(kept_mutex);	/* guards the three below; sleeps, so never taken inside the stop */
static struct ss_blocker kept[SS_BLOCKERS_MAX];
static unsigned int kept_count;
static bool kept_diverts;

static int print_blocker(char *buf, size_t size, const struct ss_blocker *blocker)
{
	const struct ss_range *range = kept_diverts ? diverted_function(blocker->addr - 1) : NULL;

	if (!blocker->addr)
		return scnprintf(buf, size, "%s %d (unreadable stack)\n", blocker->comm, blocker->pid);
	if (range)
		return scnprintf(buf, size, "%s %d %s\n", blocker->comm, blocker->pid, range->name);
	return scnprintf(buf, size, "%s %d %ps\n", blocker->comm, blocker->pid, (void *)blocker->addr);
}

static bool is_kept(pid_t pid)
{
	unsigned int i;

	for (i = 0; i < kept_count; i++)
		if (kept[i].pid == pid)
			return pid;	/* idle threads are all 0 */
	return false;
}

/* Keeps them and tells the kernel log. */
void ss_blockers_keep(struct ss_check *check)
{
	char line[TASK_COMM_LEN + 160];
	unsigned int i, busy = atomic_read(&check->busy);

	mutex_lock(&kept_mutex);
	kept_count = 0;
	kept_diverts = check->diverts;
	for (i = 0; i < min_t(unsigned int, busy, SS_BLOCKERS_MAX); i++)
		if (!is_kept(check->blockers[i].pid))	/* both logged and queued: noted twice */
			kept[kept_count++] = check->blockers[i];
	if (busy <= SS_BLOCKERS_MAX)
		busy = kept_count;
	pr_info(SS_LOG "busy: %u thread%s inside code that is to be replaced, nothing was changed\n",
		busy, busy == 1 ? " is" : "s are");
	for (i = 0; i < kept_count; i++) {
		print_blocker(line, sizeof(line), &kept[i]);
		pr_info(SS_LOG "busy: %s", line);
	}
	mutex_unlock(&kept_mutex);
}

void ss_blockers_clear(void)
{
	mutex_lock(&kept_mutex);
	kept_count = 0;
	mutex_unlock(&kept_mutex);
}

ssize_t ss_blockers_show(char *buf)
{
	ssize_t len = 0;
	unsigned int i;

	mutex_lock(&kept_mutex);
	for (i = 0; i < kept_count; i++)
		len += print_blocker(buf + len, PAGE_SIZE - len, &kept[i]);
	mutex_unlock(&kept_mutex);
	return len;
}

// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * One swap: what is done before the machine is stopped, what each CPU does inside the stop, and what follows.
 * Load and unload are the same operation with the two sides exchanged.
 */
#include <linux/delay.h>
#include <linux/kernel.h>
#include <linux/moduleparam.h>
#include <linux/nmi.h>
#include <linux/slab.h>
#include <linux/stop_machine.h>
#include <linux/sysfs.h>
#include <linux/timekeeping.h>
#include "runtime.h"
#include "handover.h"
#include "hooks.h"
#include "compat.h"

static bool check_all_in_stop;
module_param(check_all_in_stop, bool, 0644);
MODULE_PARM_DESC(check_all_in_stop, "Bench only: walk all threads and check all stacks inside the stop (default: N)");

static bool empty_stop;
module_param(empty_stop, bool, 0644);
MODULE_PARM_DESC(empty_stop, "Bench only: before each swap, measure a stop that does nothing (default: N)");

static bool always_rebuild;
module_param(always_rebuild, bool, 0644);
MODULE_PARM_DESC(always_rebuild, "Bench only: rebuild the queues in each swap, needed or not (default: N)");

static bool check_log;
module_param(check_log, bool, 0644);
MODULE_PARM_DESC(check_log, "Tests only: check all threads in the stop as well, and say if the log missed one (default: N)");

#define ATTEMPTS 4		/* for conditions that may pass by themselves in a moment */
#define PATIENCE_MS 1000	/* for busy threads, while checking costs no stop; after that, the loader retries */
#define PAUSE_MS 10

/* The points at which every CPU waits for all others. */
enum meeting { INSIDE, CHECKED, DEQUEUED, WRITTEN, ENQUEUED, MEETINGS };

/* What a CPU has done when it comes to a meeting; at WRITTEN it is the first CPU that has something to do. */
static const char *const done_before[MEETINGS] = {
	[INSIDE] = "entered the stop",
	[CHECKED] = "checked the stacks",
	[DEQUEUED] = "emptied its queues",
	[WRITTEN] = "exchanged the code",
	[ENQUEUED] = "filled its queues again",
};

/*
 * How long a meeting waits for a CPU. What is done between two meetings takes milliseconds, and on a host that is too
 * busy to run all virtual CPUs, seconds. A CPU that takes longer has died or is in an endless loop.
 */
#define MEETING_LIMIT_S 30
#define QUICK_LOOKS 10000	/* who is there; less than a millisecond, after which a CPU begins to measure time */
#define LOOKS_A_READING 100	/* of the clock, which may be a device that all CPUs share */
#define LONGEST_READING_NS (100 * NSEC_PER_MSEC)
#define CALLED_OFF INT_MIN	/* in place of how many have come; no CPU's coming makes it positive */

/* One stop, shared by all CPUs. */
struct stop {
	enum ss_op op;
	const struct ss_handover *predecessor;	/* NULL: vmlinux's own scheduler */
	struct ss_feature_change features;
	bool check_all;		/* the stack check walks all threads */
	bool rebuild;		/* the queues are emptied by the old code and filled by the new one */
	bool rebuild_all;	/* it walks all threads too */
	int result;		/* 0, or why nothing was changed; written before a meeting, read after it */
	unsigned int left;	/* what the old code would not dequeue */
	struct ss_check check;
	struct ss_check all;	/* check_log: what there was to find */
	atomic_t met[MEETINGS];
	atomic_t requeued;
	u64 met_ns[MEETINGS];	/* by the first CPU, as it leaves the meeting */
};

static DEFINE_PER_CPU(u64, handler_end_ns);
static DEFINE_PER_CPU(unsigned int, meetings_reached);

static bool is_first_cpu(void)
{
	return smp_processor_id() == cpumask_first(cpu_online_mask);
}

/*
 * After the exchange of the code, all CPUs are needed to go back. If an oops has killed a CPU's stopper thread, nothing
 * helps at any time: stop_machine waits for that thread silently and for ever. The taint may be from an older oops of
 * another thread; after such an oops a panic is not worse than what may follow anyway.
 */
static bool is_hopeless(enum meeting meeting)
{
	return meeting >= WRITTEN || test_taint(TAINT_DIE);
}

/* On the one CPU that has called the meeting off: says which CPUs are missing. */
static void report_missing(struct stop *stop, enum meeting meeting)
{
	int cpu, missing = 0;

	for_each_online_cpu(cpu) {
		if (per_cpu(meetings_reached, cpu) > meeting)
			continue;
		pr_emerg(SS_LOG "CPU %d has not %s within %d s\n", cpu, done_before[meeting], MEETING_LIMIT_S);
		missing = cpu;
	}
	/* All CPUs have their interrupts off: without this the machine would hang, and nobody would know why. */
	if (is_hopeless(meeting))
		panic(SS_LOG "CPU %d has not %s, and the others cannot go on without it\n", missing,
		      done_before[meeting]);
	pr_emerg(SS_LOG "gave up, nothing is changed\n");
	stop->result = -ETIMEDOUT;	/* read when the stop is over */
}

/*
 * Adds the time since the last reading of the clock. A virtual machine may have been paused meanwhile, and a clock that
 * nobody services may have wrapped around: neither counts for more than a moment.
 */
static void add_time(u64 *waited_ns, u64 *reading)
{
	u64 now = ktime_get_mono_fast_ns();	/* lockless, and not part of the scheduler */

	if (*reading)
		*waited_ns += min_t(u64, now - *reading, LONGEST_READING_NS);
	*reading = now;
}

/* Have all CPUs come, or has the meeting been called off? */
static bool have_all_come(struct stop *stop, enum meeting meeting)
{
	u64 waited_ns = 0, reading = 0;
	unsigned int looks;
	int come;

	for (looks = 0;; looks++) {
		come = atomic_read_acquire(&stop->met[meeting]);
		if (come < 0)
			return false;
		if (come >= num_online_cpus())	/* no hotplug now: see ss_text_lock */
			return true;
		cpu_relax();
		if (looks < QUICK_LOOKS || looks % LOOKS_A_READING)
			continue;
		/* Like stop_machine's own loop: the one to be reported is the CPU that is missing. */
		touch_nmi_watchdog();
		add_time(&waited_ns, &reading);
		/* Either this succeeds, and then for all CPUs, or another CPU has come. */
		if (waited_ns >= MEETING_LIMIT_S * NSEC_PER_SEC &&
		    atomic_cmpxchg(&stop->met[meeting], come, CALLED_OFF) == come) {
			report_missing(stop, meeting);
			return false;
		}
	}
}

/*
 * Waits for all CPUs. They all run our handler with interrupts off, so none can be late for long. No lock may be
 * held here: SMT siblings can share the rq lock. atomic_inc_return orders what came before, the acquire what
 * follows. False: a CPU did not come, and all leave, also the late one. That is only possible before the code's exchange.
 */
static bool meet(struct stop *stop, enum meeting meeting)
{
	__this_cpu_write(meetings_reached, meeting + 1);
	atomic_inc_return(&stop->met[meeting]);
	if (!have_all_come(stop, meeting)) {
		while (meeting >= WRITTEN)	/* until panic stops this CPU */
			cpu_relax();
		return false;
	}
	if (is_first_cpu())
		stop->met_ns[meeting] = ktime_get_mono_fast_ns();
	return true;
}

static unsigned int share_of_this_cpu(void)
{
	unsigned int share = 0;
	int cpu;

	for_each_online_cpu(cpu) {
		if (cpu == smp_processor_id())
			break;
		share++;
	}
	return share;
}

static void check(struct stop *stop)
{
	if (is_first_cpu()) {
		ss_log_freeze();
		if (ss_sched_ext_loaded())
			stop->result = -EADDRINUSE;
		else if (!ss_features_are_as_carried(&stop->features) || (!stop->check_all && ss_log_overflowed()))
			stop->result = -EAGAIN;
		else if (stop->op != SS_UNLOAD && !ss_extension_suffices(stop->predecessor))
			stop->result = -EAGAIN;
	}
	if (stop->check_all)
		ss_check_share_of_all(&stop->check, share_of_this_cpu(), num_online_cpus());
	else
		ss_check_this_cpu(&stop->check);
	if (check_log)
		ss_check_share_of_all(&stop->all, share_of_this_cpu(), num_online_cpus());
}

/* On one CPU, no thread queued if the queues are rebuilt: the moment from which the other code is the current one. */
static void exchange(struct stop *stop)
{
	if (stop->op == SS_UNLOAD)
		ss_hooks_call(SS_IN_UNLOAD, SCHEDSWAP_UNLOAD);
	if (stop->predecessor)
		stop->predecessor->call_hooks(SS_IN_UNLOAD, SCHEDSWAP_HAND_OVER);
	ss_text_write(stop->op);
	/* This CPU may have fetched the old bytes, and the hooks call functions through the windows. */
	ss_arch_sync_core();
	ss_state_copy(stop->op, stop->predecessor);
	if (stop->op == SS_UNLOAD)
		return;
	ss_extension_take_over(stop->predecessor);
	ss_hooks_call(SS_IN_SWAP, stop->predecessor ? SCHEDSWAP_TAKE_OVER : SCHEDSWAP_LOAD);
}

/* False: the queues are as they were, and nothing is changed. */
static bool empty_queues(struct stop *stop)
{
	unsigned int left = ss_dequeue_this_cpu(stop->rebuild_all);

	if (left) {
		WRITE_ONCE(stop->left, left);
		WRITE_ONCE(stop->result, -EIO);
	}
	if (meet(stop, DEQUEUED))
		return true;
	ss_enqueue_this_cpu();	/* back to where they were */
	return false;
}

/* Runs on every CPU in its stopper thread, interrupts off from before the first CPU starts until the last is done. */
static int swap_in_stop(void *data)
{
	struct stop *stop = data;

	if (!meet(stop, INSIDE))
		goto out;
	check(stop);
	if (!meet(stop, CHECKED) || stop->result || atomic_read(&stop->check.busy))
		goto out;

	ss_order_note(false);
	if (stop->rebuild && !empty_queues(stop))
		goto out;
	if (is_first_cpu() && !stop->result) {
		if (ss_text_is_as_checked(stop->op))
			exchange(stop);
		else	/* a patcher that ignores text_mutex; the next attempt's check names it */
			stop->result = -EAGAIN;
	}
	meet(stop, WRITTEN);
	ss_arch_sync_core();	/* this CPU may have fetched the old bytes */
	if (stop->rebuild)
		atomic_add(ss_enqueue_this_cpu(), &stop->requeued);
	ss_order_note(true);
	__this_cpu_write(handler_end_ns, ktime_get_mono_fast_ns());
	meet(stop, ENQUEUED);	/* stop_machine would wait too, but without a limit */
	return 0;
out:
	__this_cpu_write(handler_end_ns, ktime_get_mono_fast_ns());
	return 0;
}

static int nothing_in_stop(void *unused)
{
	return 0;
}

static u64 measure_empty_stop(void)
{
	u64 start, shortest = U64_MAX;
	int i;

	for (i = 0; i < 5; i++) {
		start = ktime_get_mono_fast_ns();
		stop_machine(nothing_in_stop, NULL, cpu_online_mask);
		shortest = min(shortest, ktime_get_mono_fast_ns() - start);
	}
	return shortest;
}

static void take_times(struct stop *stop, struct ss_timing *timing)
{
	u64 end = 0;
	int cpu;

	for_each_online_cpu(cpu)
		end = max(end, per_cpu(handler_end_ns, cpu));
	timing->handler_ns = end - stop->met_ns[INSIDE];
	timing->stack_check_ns = stop->met_ns[CHECKED] - stop->met_ns[INSIDE];
	timing->rebuilt = stop->rebuild;
	if (!stop->rebuild)
		stop->met_ns[DEQUEUED] = stop->met_ns[CHECKED];
	timing->dequeue_ns = stop->met_ns[DEQUEUED] - stop->met_ns[CHECKED];
	timing->patch_ns = stop->met_ns[WRITTEN] - stop->met_ns[DEQUEUED];
	timing->enqueue_ns = end - stop->met_ns[WRITTEN];
	timing->cpus = num_online_cpus();
	timing->requeued = atomic_read(&stop->requeued);
	timing->checked = atomic_read(&stop->check.checked);
}

/* What is changed now is what a thread is inside of. */
static void report_missed(struct stop *stop)
{
	if (atomic_read(&stop->all.busy) && !atomic_read(&stop->check.busy))
		pr_err(SS_LOG "the log missed %s (%d)\n", stop->all.blockers[0].comm, stop->all.blockers[0].pid);
}

/* All checks that can still refuse before the machine is stopped, then the stop. The text is mapped. */
static int stop_and_swap(struct stop *stop, struct ss_timing *timing)
{
	int err, cpu;

	err = ss_livepatch_lock();
	if (err)
		return err;
	ss_text_lock();		/* also keeps CPUs from coming and going, to the end of take_times */
	err = ss_text_check(stop->op);
	for_each_online_cpu(cpu)
		per_cpu(meetings_reached, cpu) = 0;
	if (!err) {
		timing->stop_ns = ktime_get_mono_fast_ns();
		err = stop_machine_cpuslocked(swap_in_stop, stop, cpu_online_mask);
		timing->stop_ns = ktime_get_mono_fast_ns() - timing->stop_ns;
		take_times(stop, timing);
		report_missed(stop);
	}
	ss_text_unlock();
	ss_livepatch_unlock();
	if (err)
		return err;
	if (stop->result == -EIO)
		pr_err(SS_LOG "gave up: %u entities would not leave their queue\n", stop->left);
	if (stop->result == -EADDRINUSE)
		pr_err(SS_LOG "refused: a sched_ext policy is loaded, unload it first\n");
	return stop->result ?: atomic_read(&stop->check.busy) ? -EBUSY : 0;
}

/*
 * Walks all stacks, and then those of the threads that ran meanwhile, again and again as long as it helps: the fewer are
 * left, the shorter is the stop.
 */
static int walk_outside(struct ss_check *check, unsigned int *threads)
{
	unsigned int before, left = UINT_MAX;
	int err = ss_check_outside(check, threads);

	do {
		before = left;
		left = ss_log_count();
		if (err || left <= num_online_cpus())
			break;
		err = ss_check_logged(check);
	} while (left < before / 2);
	return err;
}

/*
 * In a preemptible kernel, a thread may be preempted inside what is replaced, and leaves it soon after it runs again.
 * So this waits, with the machine running, for a moment without such a thread.
 */
static int check_outside(struct stop *stop, struct ss_timing *timing)
{
	unsigned long end = jiffies + msecs_to_jiffies(PATIENCE_MS);
	const struct ss_check fresh = stop->check;
	u64 start;
	int err;

	for (;;) {
		start = ktime_get_mono_fast_ns();
		err = walk_outside(&stop->check, &timing->threads);
		timing->check_outside_ns = ktime_get_mono_fast_ns() - start;
		if (err != -EBUSY || time_after(jiffies, end))
			return err;
		msleep(PAUSE_MS);
		stop->check = fresh;
		ss_log_restart();
	}
}

static int attempt(struct stop *stop, struct ss_timing *timing)
{
	int err;

	err = stop->op == SS_UNLOAD ? 0 : ss_extension_prepare(stop->predecessor);
	err = err ?: ss_features_carry(&stop->features);
	if (err)
		return err;
	if (stop->check_all) {
		timing->threads = READ_ONCE(nr_threads);
		return stop_and_swap(stop, timing);
	}
	err = ss_log_start();
	if (err)
		return err;
	err = check_outside(stop, timing);
	if (!err)
		err = stop_and_swap(stop, timing);
	timing->logged = ss_log_count();
	ss_log_stop();
	return err;
}

static struct ss_check check_for(enum ss_op op, const struct ss_handover *predecessor)
{
	struct ss_check check = { .diverts = op != SS_UNLOAD, .asker = current };

	if (op == SS_UNLOAD)
		predecessor = &ss_handover;	/* the code that goes out is our own */
	if (predecessor) {
		check.texts = predecessor->texts;
		check.text_count = *predecessor->text_count;
	}
	return check;
}

/* Does code that runs when threads are queued or taken off a queue differ on the two sides? */
static bool needs_rebuild(const struct ss_handover *predecessor)
{
	return ss_rebuilds || always_rebuild || (predecessor && *predecessor->rebuilds);
}

static struct ss_feature_change features_for(enum ss_op op, const struct ss_handover *predecessor)
{
	if (op == SS_UNLOAD)
		return (struct ss_feature_change){ &ss_features_module, &ss_features_vmlinux };
	return (struct ss_feature_change){ predecessor ? predecessor->features : &ss_features_vmlinux,
					   &ss_features_module };
}

/*
 * Swaps, or changes nothing and says why: -EBUSY (a thread is inside what is replaced), -EADDRINUSE (a function is
 * patched by something else), -EAGAIN (the machine's state kept changing), -ETIMEDOUT (a CPU did not come to a meeting),
 * -ENOMEM. Process context, main.c's mutex
 * held, may sleep. The text is prepared.
 */
int ss_swap(enum ss_op op, const struct ss_handover *predecessor)
{
	struct ss_timing timing = { .op = op };
	struct stop *stop;
	unsigned int i;
	int err;
	u64 start;

	stop = kmalloc(sizeof(*stop), GFP_KERNEL);
	if (!stop)
		return -ENOMEM;
	if (empty_stop)
		timing.empty_stop_ns = measure_empty_stop();
	start = ktime_get_mono_fast_ns();
	err = predecessor ? ss_state_match(predecessor) : 0;
	err = err ?: ss_order_begin();
	err = err ?: ss_text_map();
	if (err)
		goto out;
	for (i = 0; i < ATTEMPTS; i++) {
		memset(stop, 0, sizeof(*stop));
		stop->op = op;
		stop->predecessor = predecessor;
		stop->check = check_for(op, predecessor);
		stop->all = stop->check;
		stop->features = features_for(op, predecessor);
		stop->rebuild = needs_rebuild(predecessor);
		stop->rebuild_all = check_all_in_stop;
		/* If the log keeps overflowing, the last attempt takes the slower way that needs none. */
		stop->check_all = check_all_in_stop || i == ATTEMPTS - 1;
		err = attempt(stop, &timing);
		if (err != -EAGAIN)
			break;
	}
	ss_text_unmap();
	timing.total_ns = ktime_get_mono_fast_ns() - start;
	if (err == -EBUSY)
		ss_blockers_keep(&stop->check);
	else
		ss_blockers_clear();
	if (!err) {
		ss_report(&timing, predecessor ? ss_handover_version(predecessor) : NULL);
		ss_order_report();
	}
out:
	ss_order_end();
	ss_state_forget();
	kfree(stop);
	return err;
}

/* Is every window and class word as planned, and may it be written? */
static int check_text(enum ss_op op)
{
	int err = ss_livepatch_lock();

	if (err)
		return err;
	ss_text_lock();
	err = ss_text_check(op);
	ss_text_unlock();
	ss_livepatch_unlock();
	return err;
}

static unsigned int queued_threads(void)
{
	unsigned int queued = 0;
	int cpu;

	for_each_online_cpu(cpu)
		queued += READ_ONCE(cpu_rq(cpu)->nr_running);
	return queued;
}

/*
 * What a swap would find now, as key=value lines, with the machine running all the time. Threads in the way are not an
 * error here: they are counted, and kept for sysfs. Process context, main.c's mutex held, the text prepared.
 */
ssize_t ss_swap_plan(enum ss_op op, const struct ss_handover *predecessor, char *buf)
{
	struct ss_check *check;
	unsigned int threads = 0, logged;
	u64 walk_ns;
	int err;

	if (ss_sched_ext_loaded()) {
		pr_err(SS_LOG "refused: a sched_ext policy is loaded, unload it first\n");
		return -EADDRINUSE;
	}
	err = check_text(op);
	if (err)
		return err;
	check = kmalloc(sizeof(*check), GFP_KERNEL);
	if (!check)
		return -ENOMEM;
	*check = check_for(op, predecessor);
	err = ss_log_start();
	if (err)
		goto out;
	walk_ns = ktime_get_mono_fast_ns();
	err = walk_outside(check, &threads);
	walk_ns = ktime_get_mono_fast_ns() - walk_ns;
	logged = ss_log_count();
	ss_log_stop();
	if (err && err != -EBUSY)
		goto out;
	if (err)
		ss_blockers_keep(check);
	else
		ss_blockers_clear();
	err = sysfs_emit(buf, "threads=%u\nbusy=%d\nlogged=%u\nwalk_ns=%llu\nqueued=%u\ncpus=%u\n", threads,
			 atomic_read(&check->busy), logged, walk_ns, queued_threads(), num_online_cpus());
	err += sysfs_emit_at(buf, err, "functions=%u\nrebuild=%d\n", ss_patch_count, needs_rebuild(predecessor));
out:
	kfree(check);
	return err;
}

// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * Which threads ran since the log was started.
 *
 * A thread's stack only changes while it runs, and whatever ran has been switched away from by the time every CPU
 * is in the stopper thread. So logging `prev` at each sched_switch is enough: a thread that is not in the log has
 * the very stack that was walked outside the stop.
 */
#include <linux/cpu.h>
#include <linux/hash.h>
#include <linux/sched/stat.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/tracepoint.h>
#include <trace/events/sched.h>
#include "runtime.h"
#include "compat.h"

#define TASKS_MAX 16384		/* a CPU; an index into them + 1 fits a u16 */

/* One CPU's log: the threads, and a hash table over them with twice as many slots. Slot 0: empty; else index + 1. */
struct switch_log {
	struct task_struct **tasks;
	u16 *slots;
	unsigned int count;
	bool overflowed;
};

static DEFINE_PER_CPU(struct switch_log, logs);
static unsigned int capacity;	/* of `tasks`; a power of two */
static bool drained_overflowed;	/* a log that has been drained since did */
static bool logging;

/*
 * Runs in __schedule with interrupts off and the rq lock held: no sleeping, no allocation, nothing that wakes.
 * get_task_struct on prev is safe, it is still the running thread.
 */
static void log_switch(SS_SWITCH_PROBE_ARGS)
{
	struct switch_log *log = this_cpu_ptr(&logs);
	u32 slot, mask = 2 * capacity - 1;

	if (!READ_ONCE(logging) || is_idle_task(prev))	/* idle threads are always checked, each by its CPU */
		return;
	for (slot = hash_ptr(prev, 32) & mask; log->slots[slot]; slot = (slot + 1) & mask)
		if (log->tasks[log->slots[slot] - 1] == prev)	/* our reference keeps the pointer unique */
			return;
	if (log->count == capacity) {
		log->overflowed = true;
		return;
	}
	get_task_struct(prev);
	log->tasks[log->count++] = prev;
	log->slots[slot] = log->count;
}

static bool allocate_log(struct switch_log *log)
{
	log->tasks = kvmalloc_array(capacity, sizeof(*log->tasks), GFP_KERNEL);
	log->slots = kvcalloc(2 * capacity, sizeof(*log->slots), GFP_KERNEL);
	return log->tasks && log->slots;
}

static void drop_tasks(struct switch_log *log)
{
	while (log->count)
		put_task_struct(log->tasks[--log->count]);
}

static void clear_log(struct switch_log *log)
{
	drop_tasks(log);
	memset(log->slots, 0, 2 * capacity * sizeof(*log->slots));
	log->overflowed = false;
}

static void free_log(struct switch_log *log)
{
	drop_tasks(log);
	kvfree(log->tasks);
	kvfree(log->slots);
	memset(log, 0, sizeof(*log));
}

static void free_logs(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		free_log(per_cpu_ptr(&logs, cpu));
}

static void nothing(void *unused)
{
}

/*
 * A CPU may be inside __schedule, past the tracepoint, in our probe or walking the old list of probes. All that
 * happens with interrupts off, so once it has taken an interrupt that switch is over.
 */
static void wait_for_switches_under_way(void)
{
	on_each_cpu(nothing, NULL, 1);
}

/* Process context. Once it has returned, every switch is logged. */
int ss_log_start(void)
{
	int cpu, err;

	/* Room for every thread there is and some more: only a burst of forks can overflow it. */
	capacity = min_t(unsigned int, TASKS_MAX, roundup_pow_of_two(READ_ONCE(nr_threads) * 5 / 4 + 64));
	drained_overflowed = false;
	for_each_possible_cpu(cpu) {	/* not only those online: one may come while we log */
		if (!allocate_log(per_cpu_ptr(&logs, cpu))) {
			free_logs();
			return -ENOMEM;
		}
	}
	WRITE_ONCE(logging, true);
	err = register_trace_sched_switch(log_switch, NULL);
	if (err) {
		free_logs();
		return err;
	}
	wait_for_switches_under_way();
	return 0;
}

/* Process context. Forgets what was logged; once it has returned, every switch is logged again. */
void ss_log_restart(void)
{
	int cpu;

	cpus_read_lock();	/* a CPU that goes offline switches once more after it has left the set we wait for */
	WRITE_ONCE(logging, false);
	wait_for_switches_under_way();
	drained_overflowed = false;
	for_each_possible_cpu(cpu)
		clear_log(per_cpu_ptr(&logs, cpu));
	WRITE_ONCE(logging, true);
	wait_for_switches_under_way();
	cpus_read_unlock();
}

/* On the log's own CPU, in an interrupt: no switch is under way there, so none is missed. */
static void exchange_log(void *spare)
{
	swap(*this_cpu_ptr(&logs), *(struct switch_log *)spare);
}

/*
 * Process context. Calls `fn` for each thread that was logged, CPU by CPU, and forgets it just before: if it runs again, it is
 * logged again. Without memory for this it does nothing.
 */
void ss_log_drain(void (*fn)(struct task_struct *p, void *data), void *data)
{
	struct switch_log spare = {};
	unsigned int i;
	int cpu;

	if (!allocate_log(&spare))
		goto out;
	cpus_read_lock();	/* the logs of CPUs that have gone offline stay for the stop */
	for_each_online_cpu(cpu) {
		smp_call_function_single(cpu, exchange_log, &spare, 1);
		drained_overflowed |= spare.overflowed;
		for (i = 0; i < spare.count; i++) {
			fn(spare.tasks[i], data);
			cond_resched();
		}
		clear_log(&spare);
	}
	cpus_read_unlock();
out:
	free_log(&spare);
}

/* Inside the stop: no CPU switches now, and later switches are not to be logged. */
void ss_log_freeze(void)
{
	WRITE_ONCE(logging, false);
}

bool ss_log_overflowed(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		if (per_cpu(logs, cpu).overflowed)
			return true;
	return drained_overflowed;
}

unsigned int ss_log_count(void)
{
	unsigned int count = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		count += per_cpu(logs, cpu).count;
	return count;
}

/* Inside the stop, for each CPU's own log. The first CPU also takes the logs of CPUs that have gone offline since. */
void ss_log_for_this_cpu(void (*fn)(struct task_struct *p, void *data), void *data)
{
	int cpu, this_cpu = smp_processor_id();
	unsigned int i;

	for_each_possible_cpu(cpu) {
		const struct switch_log *log = per_cpu_ptr(&logs, cpu);

		if (cpu != this_cpu && (cpu_online(cpu) || this_cpu != cpumask_first(cpu_online_mask)))
			continue;
		for (i = 0; i < log->count; i++)
			fn(log->tasks[i], data);
	}
}

/* Process context: may sleep, and may free the last reference to a thread that has exited. */
void ss_log_stop(void)
{
	WRITE_ONCE(logging, false);
	unregister_trace_sched_switch(log_switch, NULL);
	tracepoint_synchronize_unregister();	/* a probe that is still running uses the buffers */
	free_logs();
}

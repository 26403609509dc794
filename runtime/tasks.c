// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * Threads as objects with state: how many there are, which, and where they begin and end. Only in modules that declare
 * such a state. entries.h is generated: it says where in a task_struct the slot's number lies, and before which
 * functions of the scheduler the entry points run.
 *
 * A thread that calls one of those functions gets here first. It may sleep here, and then continues in the
 * module's code: so this code is in its own section, in which no thread may be when the module is unloaded.
 */
#include <linux/pid.h>
#include <linux/pid_namespace.h>
#include <linux/sched/stat.h>
#include <linux/sched/task.h>
#include "runtime.h"
#include "extension.h"
#include "compat.h"
#include "entries.h"

#define __ss_entry noinline __used __section(".text.entries")
#define BATCH 128

/* nr_threads does not count threads that are still being created, idle threads, or threads past exit_notify. */
static unsigned int count_tasks(void)
{
	return READ_ONCE(nr_threads) + num_possible_cpus();
}

/* A thread that is found by its pid is not freed before the RCU read section ends. */
static void for_each_task(void (*fn)(struct ss_kind *kind, const void *object), struct ss_kind *kind)
{
	struct task_struct *p;
	struct pid *pid = NULL;
	int i, cpu, next = 1;

	do {
		rcu_read_lock();
		for (i = 0; i < BATCH && (pid = find_ge_pid(next, &init_pid_ns)); i++) {
			next = pid_nr(pid) + 1;
			p = pid_task(pid, PIDTYPE_PID);
			if (p)
				fn(kind, p);
		}
		rcu_read_unlock();
		cond_resched();
	} while (pid);
	for_each_possible_cpu(cpu)
		if (cpu_rq(cpu)->idle)	/* NULL if creating it failed at boot */
			fn(kind, cpu_rq(cpu)->idle);
}

struct ss_kind ss_kind_tasks = {
	.id = SS_KIND_TASK,
	.hole = SS_TASK_HOLE,
	.what = "thread",
	.count = count_tasks,
	.for_each = for_each_task,
};

extern typeof(sched_fork) task_begins __asm__(SS_TASK_BEGINS);
extern typeof(release_user_cpus_ptr) task_ends __asm__(SS_TASK_ENDS);

/* In copy_process, which fails with the error that this returns. */
__ss_entry int ss_entry_task_begins(unsigned long clone_flags, struct task_struct *p)
{
	int err = ss_object_begins(&ss_kind_tasks, p);

	return err ?: task_begins(clone_flags, p);
}

/* In free_task, for every task_struct there ever was, those of failed forks included. */
__ss_entry void ss_entry_task_ends(struct task_struct *p)
{
	ss_object_ends(&ss_kind_tasks, p);
	task_ends(p);
}

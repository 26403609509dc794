// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/* Does any thread still run the module's scheduler code? Asked before its memory is freed, with the old scheduler back. */
#include <linux/delay.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/stop_machine.h>
#include <linux/string.h>
#include "runtime.h"
#include "handover.h"

static void check_all_of_it(struct ss_check *check)
{
	memset(check, 0, sizeof(*check));
	check->texts = ss_handover.texts;
	check->text_count = *ss_handover.text_count;
	check->asker = current;
}

static int check_in_stop(void *check)
{
	ss_log_freeze();
	ss_check_this_cpu(check);
	return 0;
}

/*
 * Process context, may sleep. A thread that slept in the module's code may run there while stacks are walked, and a
 * running thread's stack cannot be walked. So threads that ran meanwhile are looked at again with the machine stopped.
 * 0: no thread is there, nor will be. -EBUSY: one is, and sysfs has its name. -EAGAIN: too much happened meanwhile.
 */
int ss_check_text_is_unused(void)
{
	unsigned int threads;
	struct ss_check *check = kmalloc(sizeof(*check), GFP_KERNEL);
	int err;

	if (!check)
		return -ENOMEM;
	check_all_of_it(check);
	err = ss_log_start();
	if (err)
		goto out;
	err = ss_check_outside(check, &threads);
	if (!err) {
		err = stop_machine(check_in_stop, check, cpu_online_mask);
		err = err ?: ss_log_overflowed() ? -EAGAIN : atomic_read(&check->busy) ? -EBUSY : 0;
	}
	ss_log_stop();
	if (err == -EBUSY)
		ss_blockers_keep(check);
out:
	kfree(check);
	return err;
}

/*
 * Before the module's memory is freed, with the old scheduler back in place. The stop has seen no thread in the
 * module's code, so this finds none unless a new function of it is still run by something its author forgot to
 * stop; then it waits for that to return. May sleep.
 */
void ss_wait_until_text_is_unused(void)
{
	unsigned int threads, rounds = 0;
	struct ss_check *check;
	int err;

	/* RCU callbacks of the module's own may be queued, and a preempted thread may hold a pointer to call. */
	rcu_barrier();
#ifdef CONFIG_TASKS_RCU
	synchronize_rcu_tasks();
#endif
	check = kmalloc(sizeof(*check), GFP_KERNEL | __GFP_NOFAIL);
	do {
		check_all_of_it(check);
		err = ss_check_outside(check, &threads);
		if (!err)
			break;
		if (rounds++ == 100)
			pr_info(SS_LOG "removal waits for %s (%d) to leave the module's code\n",
				check->blockers[0].comm, check->blockers[0].pid);
		msleep(10);
	} while (true);
	kfree(check);
}

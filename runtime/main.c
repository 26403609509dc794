// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * The module's life: it is loaded disabled, swaps the scheduler in when asked (by default at once), and can be
 * removed only while swapped out.
 */
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include "runtime.h"

static bool enable_at_load = true;
module_param_named(enable, enable_at_load, bool, 0444);
MODULE_PARM_DESC(enable, "Swap the scheduler in at once; loading fails if that is refused (default: Y)");

/* Where the stub keeps its frame while the new __schedule runs on this CPU, preemption off. Used by stub.S. */
DEFINE_PER_CPU(unsigned long, ss_frame_sp);

enum state { DISABLED, ENABLING, ENABLED, DISABLING };

static DEFINE_MUTEX(swap_mutex);	/* one swap at a time; held over all of it */
static enum state state;		/* written with swap_mutex held, read without by sysfs */

const char *ss_state_name(void)
{
	static const char *const names[] = { "disabled", "enabling", "enabled", "disabling" };

	return names[READ_ONCE(state)];
}

static int enable(void)
{
	int err;

	/* Keeps rmmod out while vmlinux jumps to us. Fails when removal has begun. */
	if (!try_module_get(THIS_MODULE))
		return -ENODEV;
	err = ss_text_prepare();
	if (err)
		goto put;
	WRITE_ONCE(state, ENABLING);
	err = ss_swap(SS_LOAD);
	WRITE_ONCE(state, err ? DISABLED : ENABLED);
	if (!err)
		return 0;
	ss_text_forget();
put:
	module_put(THIS_MODULE);
	return err;
}

static int disable(void)
{
	int err;

	WRITE_ONCE(state, DISABLING);
	err = ss_swap(SS_UNLOAD);
	WRITE_ONCE(state, err ? ENABLED : DISABLED);
	if (err)
		return err;
	ss_text_forget();
	module_put(THIS_MODULE);	/* restored; module_exit sees to it that the memory may be freed */
	return 0;
}

/* Process context, may sleep. 0 also when it is as asked already. */
int ss_request(bool wanted)
{
	int err = 0;

	if (mutex_lock_interruptible(&swap_mutex))
		return -EINTR;
	if (wanted != (state == ENABLED))
		err = wanted ? enable() : disable();
	mutex_unlock(&swap_mutex);
	return err;
}

static int __init schedswap_init(void)
{
	int err;

	err = ss_check_build_id();	/* first: on another kernel no address in this module is right */
	if (err)
		return err;
	err = ss_check_alone();
	if (err)
		return err;
	err = ss_sysfs_add();
	if (err)
		return err;
	if (enable_at_load)
		err = ss_request(true);
	if (err)
		ss_sysfs_remove();
	return err;
}

/* Only reached while disabled: enabled, the module holds a reference to itself and rmmod says it is in use. */
static void __exit schedswap_exit(void)
{
	ss_sysfs_remove();	/* waits for readers and writers that are in our code */
	ss_wait_until_text_is_unused();
}

module_init(schedswap_init);
module_exit(schedswap_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Replaces the scheduler of the running kernel");

// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * The module's life: it is loaded disabled, and swaps the scheduler in when asked (by default at once). From then on it
 * cannot be removed. Swapped out, it is disabled, or superseded by another scheduler module, and can be swapped in
 * again. In the end it is retired, and stays in memory (retire.c), or it is released and removed.
 */
#include <linux/err.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/timekeeping.h>
#include "runtime.h"
#include "handover.h"
#include "hooks.h"

static bool enable_at_load = true;
module_param_named(enable, enable_at_load, bool, 0444);
MODULE_PARM_DESC(enable, "Swap the scheduler in at once; loading fails if that is refused (default: Y)");

static bool may_replace;
module_param_named(replace, may_replace, bool, 0444);
MODULE_PARM_DESC(replace, "Take over from the scheduler module that is loaded, if one is (default: N, refuse)");

/* Where the stub keeps its frame while the new __schedule runs on this CPU, preemption off. Used by stub.S. */
DEFINE_PER_CPU(unsigned long, ss_frame_sp);

enum state { DISABLED, ENABLING, ENABLED, DISABLING, SUPERSEDED, RETIRED };

static DEFINE_MUTEX(swap_mutex);	/* one swap at a time; held over all of it */
static enum state state;		/* written with swap_mutex held, read without by sysfs */
static time64_t enabled_since;		/* seconds since the epoch */

const char *ss_state_name(void)
{
	static const char *const names[] = { "disabled", "enabling", "enabled", "disabling", "superseded",
					     "retired" };

	return names[READ_ONCE(state)];
}

bool ss_is_enabled(void)
{
	return READ_ONCE(state) == ENABLED;
}

time64_t ss_enabled_since(void)
{
	return READ_ONCE(enabled_since);
}

/* Swaps in, with the author's hooks around it. If it is refused, all of that is undone. */
static int swap_in(struct ss_handover *predecessor, enum schedswap_event event)
{
	int err = ss_hooks_ask(event);

	if (!err && predecessor)
		predecessor->call_hooks(SS_BEFORE_UNLOAD, SCHEDSWAP_HAND_OVER);
	if (!err) {
		err = ss_swap(predecessor ? SS_SWITCH : SS_LOAD, predecessor);
		if (err && predecessor)
			predecessor->call_hooks(SS_AFTER_SWAP, SCHEDSWAP_REFUSED);
	}
	if (!err) {
		ss_extension_complete();
		return 0;
	}
	ss_extension_drop();
	ss_hooks_call(SS_AFTER_UNLOAD, SCHEDSWAP_REFUSED);
	return err;
}

/* From vmlinux's scheduler, or from a predecessor's. */
static int enable(struct ss_handover *predecessor, enum schedswap_event event)
{
	enum state before = state;
	bool was_kept = ss_is_kept();
	int err;

	/* Keeps rmmod out while vmlinux jumps to us, and afterwards, because addresses may have got out. */
	if (!ss_keep())
		return -ENODEV;
	err = ss_text_prepare(predecessor);
	if (err)
		goto refused;
	WRITE_ONCE(state, ENABLING);
	err = swap_in(predecessor, event);
	WRITE_ONCE(state, err ? before : ENABLED);
	if (!err) {
		WRITE_ONCE(enabled_since, ktime_get_real_seconds());
		ss_text_settle();
		return 0;
	}
	ss_text_forget();
refused:
	if (!was_kept && !ss_author_has_code_around_swaps())
		ss_keep_no_longer();
	return err;
}

static int enable_from_whoever_is_in_charge(void)
{
	struct ss_handover *predecessor = NULL;
	enum schedswap_event event;
	int err;

	if (!ss_sysfs_is_in_charge()) {
		predecessor = ss_handover_begin();
		if (IS_ERR(predecessor))
			return PTR_ERR(predecessor);
	}
	event = predecessor ? SCHEDSWAP_TAKE_OVER : SCHEDSWAP_LOAD;
	err = enable(predecessor, event);
	if (predecessor)
		ss_handover_end(predecessor, !err);
	else if (!err && !ss_sysfs_is_in_charge())
		ss_sysfs_take_charge();	/* the module that was in charge when this one was loaded has been removed */
	if (!err)	/* the predecessor is out of the way by now */
		ss_hooks_call(SS_AFTER_SWAP, event);
	return err;
}

static int disable(void)
{
	int err;

	WRITE_ONCE(state, DISABLING);
	ss_hooks_call(SS_BEFORE_UNLOAD, SCHEDSWAP_UNLOAD);
	err = ss_swap(SS_UNLOAD, NULL);
	WRITE_ONCE(state, err ? ENABLED : DISABLED);
	if (err) {
		ss_hooks_call(SS_AFTER_SWAP, SCHEDSWAP_REFUSED);
		return err;
	}
	ss_hooks_call(SS_AFTER_UNLOAD, SCHEDSWAP_UNLOAD);
	ss_extension_drop();
	ss_text_forget();
	return 0;
}

/* Process context, may sleep. Also 0 if the state is already as requested. */
int ss_request(bool wanted)
{
	int err = 0;

	if (mutex_lock_interruptible(&swap_mutex))
		return -EINTR;
	if (state == RETIRED)
		err = -EPERM;
	else if (wanted != (state == ENABLED))
		err = wanted ? enable_from_whoever_is_in_charge() : disable();
	mutex_unlock(&swap_mutex);
	return err;
}

static bool is_out_of_use(void)
{
	return state == DISABLED || state == SUPERSEDED || state == RETIRED;
}

/* Process context, may sleep. The module will not be used again; its memory stays. Also 0 if it has retired. */
int ss_request_retirement(void)
{
	int err = 0;

	if (mutex_lock_interruptible(&swap_mutex))
		return -EINTR;
	if (!is_out_of_use() || !ss_is_kept())
		err = -EBUSY;
	else if (state != RETIRED)
		err = ss_retire();
	if (!err)
		WRITE_ONCE(state, RETIRED);
	mutex_unlock(&swap_mutex);
	return err;
}

/*
 * Process context, may sleep. Lets the module be removed, if the build showed that nobody has an address of its memory,
 * and no thread is in its code. Nothing leads there any more, so that stays true.
 */
int ss_request_release(void)
{
	int err = 0;

	if (mutex_lock_interruptible(&swap_mutex))
		return -EINTR;
	if (!is_out_of_use())
		err = -EBUSY;
	else if (!ss_is_kept())
		err = 0;
	else if (!ss_memory_is_proved())
		err = -EPERM;
	else
		err = ss_check_text_is_unused();
	if (!err)
		ss_keep_no_longer();
	mutex_unlock(&swap_mutex);
	return err;
}

/* Process context, may sleep. What a request would find now; changes nothing. */
ssize_t ss_plan(char *buf)
{
	struct ss_handover *predecessor = NULL;
	ssize_t len;

	if (mutex_lock_interruptible(&swap_mutex))
		return -EINTR;
	len = -EPERM;
	if (state == RETIRED)
		goto unlock;
	if (state == ENABLED) {
		len = ss_swap_plan(SS_UNLOAD, NULL, buf);
		goto unlock;
	}
	if (!ss_sysfs_is_in_charge())
		predecessor = ss_handover_begin();
	len = PTR_ERR_OR_ZERO(predecessor);
	if (len)
		goto unlock;
	len = ss_text_prepare(predecessor);
	if (!len) {
		len = ss_swap_plan(predecessor ? SS_SWITCH : SS_LOAD, predecessor, buf);
		ss_text_forget();
	}
	if (predecessor)
		ss_handover_end(predecessor, false);
unlock:
	mutex_unlock(&swap_mutex);
	return len;
}

/*
 * Called by the module that takes over, with its own mutex held. Hence a trylock: if two modules ever want to take over
 * from each other at the same time, one is told to try again.
 */
int ss_be_taken_over(void)
{
	if (!mutex_trylock(&swap_mutex))
		return -EAGAIN;
	if (state == ENABLED)
		return 0;
	mutex_unlock(&swap_mutex);
	return -ENODEV;
}

/* The caller holds this module. `done`: nothing in vmlinux leads here any more. */
void ss_taken_over(bool done)
{
	if (done) {
		WRITE_ONCE(state, SUPERSEDED);
		ss_hooks_call(SS_AFTER_UNLOAD, SCHEDSWAP_HAND_OVER);
		ss_extension_drop();
		ss_text_forget();
	}
	mutex_unlock(&swap_mutex);
}

static int __init schedswap_init(void)
{
	int err;

	err = ss_check_build_id();	/* first: on another kernel no address in this module is right */
	if (err)
		return err;
	err = ss_sysfs_add(may_replace);
	if (err)
		return err;
	if (enable_at_load)
		err = ss_request(true);
	if (err) {
		ss_sysfs_remove();
		ss_text_release();	/* nothing in vmlinux has led there */
		ss_keep_no_longer();	/* the kernel frees a module whose init fails */
	}
	return err;
}

/* Only reached if the module was never enabled, or is released: else it holds itself, and rmmod says that it is in use. */
static void __exit schedswap_exit(void)
{
	ss_sysfs_remove();	/* waits for readers and writers that are in our code */
	ss_wait_until_text_is_unused();
	ss_text_release();
}

module_init(schedswap_init);
module_exit(schedswap_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Replaces the scheduler of the running kernel");

/* SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause */
/*
 * All that differs between kernels, so that no other file tests for a version. Where a config macro or a macro
 * of the scheduler's own header can tell, that is used; LINUX_VERSION_CODE only where nothing else can.
 */
#ifndef SS_COMPAT_H
#define SS_COMPAT_H

#include <linux/version.h>
/* What sched.h uses and leaves to its includers to include. */
#include <linux/kprobes.h>
#include <linux/mmu_context.h>
#include <linux/sched/cputime.h>
#if defined(CONFIG_X86_64)
#include "arch/x86/text.h"
#elif defined(CONFIG_ARM64)
#include "arch/arm64/text.h"
#else
#error "schedswap: no runtime/arch/ for this architecture"
#endif
#include "sched.h"

#if !defined(CONFIG_SMP) || !defined(CONFIG_TRACEPOINTS) || !defined(CONFIG_THREAD_INFO_IN_TASK)
#error "schedswap needs CONFIG_SMP, CONFIG_TRACEPOINTS and CONFIG_THREAD_INFO_IN_TASK"
#endif

/* sched_switch hands its probes prev_state since 5.18 (fa2c3254d7cf). */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
#define SS_SWITCH_PROBE_ARGS \
	void *data, bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state
#else
#define SS_SWITCH_PROBE_ARGS \
	void *data, bool preempt, struct task_struct *prev, struct task_struct *next
#endif

/* A predicate for what a kretprobe puts in place of a return address has existed since 5.15 (96fed8ac2bb6). */
#ifdef CONFIG_KRETPROBES
static inline bool ss_is_kretprobe_trampoline(unsigned long addr)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 15, 0)
	return is_kretprobe_trampoline(addr);
#else
	return addr == (unsigned long)&kretprobe_trampoline;
#endif
}
#endif

/* A deadline server is an entity in dl.root that is not a task: since 6.8 (63ba8422f876). */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
static inline bool ss_is_dl_server(struct sched_dl_entity *dl_se)
{
	return dl_se->dl_server;
}
#else
static inline bool ss_is_dl_server(struct sched_dl_entity *dl_se)
{
	return false;
}
#endif

/*
 * Each CPU has a server for the fair class since 6.12, the release that brought delayed dequeue (and with it
 * ENQUEUE_DELAYED). From 6.17 on it is stopped lazily, so emptying the queue does not take it out of dl.root:
 * stop it here; the enqueue that fills the fair queue again starts it. Holds the rq lock, clock up to date.
 */
static inline void ss_stop_dl_servers(struct rq *rq)
{
#ifdef ENQUEUE_DELAYED
	if (dl_server_active(&rq->fair_server))
		dl_server_stop(&rq->fair_server);
#if defined(CONFIG_SCHED_CLASS_EXT) && LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
	if (dl_server_active(&rq->ext_server))
		dl_server_stop(&rq->ext_server);
#endif
#endif
}

/*
 * Since 6.12 a group entity that is not yet eligible stays on its parent's tree after its last task has left
 * ("delayed"). Picking dequeues such entities one after another and returns NULL when nothing is left. Until
 * 6.11 an empty group is off the tree at once. Holds the rq lock; all tasks have been dequeued.
 */
static inline void ss_flush_delayed_groups(struct rq *rq)
{
#ifdef ENQUEUE_DELAYED
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
	struct rq_flags rf = {};

	fair_sched_class.pick_task(rq, &rf);
#else
	fair_sched_class.pick_task(rq);
#endif
#endif
}

/* The fair queue's own count of entities: nr_running until 6.13, nr_queued since (736c55a02c47). */
static inline unsigned int ss_cfs_queued(struct rq *rq)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 14, 0)
	return rq->cfs.nr_queued;
#else
	return rq->cfs.nr_running;
#endif
}

/* A sched_ext policy owns tasks whose queues only it can walk. */
static inline bool ss_sched_ext_loaded(void)
{
#ifdef CONFIG_SCHED_CLASS_EXT
	return scx_enabled();
#else
	return false;
#endif
}

#endif

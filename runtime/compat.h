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
 * From 6.12 to 7.2 a group entity that is not yet eligible stays on its parent's tree after its last task has left
 * ("delayed"). Picking dequeues such entities one after another. What is below a group that is throttled by
 * taking it off its parent's tree (to 6.17) is not reached, and stays. Until 6.11 an empty group is off the tree at
 * once. Holds the rq lock; all tasks have been dequeued.
 *
 * When nothing is left, picking returns NULL, but from 7.2 on it first looks for threads to pull from other CPUs
 * (sched_balance_newidle), whose locks are not to be taken here. A wake-up on its way, which only ever means "look
 * again", keeps it from that. Nothing else reads the flag while the machine is stopped.
 */
static inline void ss_flush_delayed_groups(struct rq *rq)
{
#ifdef ENQUEUE_DELAYED
	unsigned int pending = rq->ttwu_pending;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
	struct rq_flags rf = {};

	WRITE_ONCE(rq->ttwu_pending, 1);
	fair_sched_class.pick_task(rq, &rf);
#else
	WRITE_ONCE(rq->ttwu_pending, 1);
	fair_sched_class.pick_task(rq);
#endif
	WRITE_ONCE(rq->ttwu_pending, pending);
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

/*
 * The build defines SS_HAS_<name> by looking into sched.h. With h_curr (7.3) all threads are on one tree, and groups are
 * on none.
 */
static inline struct cfs_rq *ss_tree_of(struct sched_entity *se)
{
#ifdef SS_HAS_h_curr
	return &rq_of(cfs_rq_of(se))->cfs;
#elif defined(CONFIG_FAIR_GROUP_SCHED)
	return se->cfs_rq;	/* cfs_rq_of() is not in sched.h of all kernels */
#else
	return &task_rq(container_of(se, struct task_struct, se))->cfs;
#endif
}

static inline unsigned long ss_fair_weight(const struct sched_entity *se)
{
#ifdef SS_HAS_h_curr
	return se->h_load.weight;
#else
	return se->load.weight;
#endif
}

/*
 * The average of an EEVDF tree, which kernels with zero_vruntime (6.19, and stable kernels before it) can put anywhere
 * while the tree is empty: zero_vruntime + sum / sum of weights.
 */
#ifdef SS_HAS_zero_vruntime
/* How much an entity counts in the average. */
static inline s64 ss_weight_in_sum(const struct cfs_rq *tree, const struct sched_entity *se)
{
#ifdef SS_HAS_sum_weight
	unsigned long weight = ss_fair_weight(se);

#ifdef CONFIG_64BIT
	if (tree->sum_shift)
		weight = max(2UL, weight >> tree->sum_shift);
#endif
	return weight;
#else
	return scale_load_down(ss_fair_weight(se));
#endif
}

static inline s64 ss_sum_weight(const struct cfs_rq *tree)
{
#ifdef SS_HAS_sum_weight
	return tree->sum_weight;
#else
	return tree->avg_load;
#endif
}

/* As avg_vruntime() of a tree that is not empty, whose thread is not running: rounded to the left. */
static inline u64 ss_average(const struct cfs_rq *tree)
{
#ifdef SS_HAS_sum_weight
	s64 sum = tree->sum_w_vruntime;
#else
	s64 sum = tree->avg_vruntime;
#endif
	s64 load = ss_sum_weight(tree);

	if (sum < 0)
		sum -= load - 1;
	return tree->zero_vruntime + div64_s64(sum, load);
}

/* The entity that is enqueued after this one, into a tree of its own, if it is not there yet. */
static inline struct sched_entity *ss_next_on_tree(struct sched_entity *se)
{
#if defined(SS_HAS_h_curr) || !defined(CONFIG_FAIR_GROUP_SCHED)
	return NULL;
#else
#if defined(CONFIG_CFS_BANDWIDTH) && !defined(SS_HAS_throttled_limbo_list)
	if (se->cfs_rq->throttled)	/* enqueueing ends here: what is above leaves and comes back with the quota */
		return NULL;
#endif
	return se->parent;
#endif
}
#endif

/* EEVDF (since 6.6) orders by deadline and takes the earliest that is not ahead of the average. CFS orders by vruntime. */
static inline u64 ss_deadline(const struct sched_entity *se)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	return se->deadline;
#else
	return se->vruntime;
#endif
}

static inline bool ss_is_delayed(const struct sched_entity *se)
{
#ifdef ENQUEUE_DELAYED
	return se->sched_delayed;
#else
	return false;
#endif
}

/*
 * Where the threads of groups are on the CPU's own tree (h_curr), each has a weight: its part of its group's, as far as the
 * group is complete when the thread is enqueued. So they have to be weighed again when all are back, and that moves
 * them. Nothing but a running thread uses vprot, so it can hold where a thread was.
 */
static inline void ss_remember_place(struct task_struct *p)
{
#ifdef SS_HAS_h_curr
	p->se.vprot = p->se.vruntime;
#endif
}

static inline bool ss_is_to_be_weighed_again(const struct task_struct *p)
{
#if defined(SS_HAS_h_curr) && defined(CONFIG_FAIR_GROUP_SCHED)
	return p->se.parent;
#else
	return false;
#endif
}

static inline void ss_recall_place(struct task_struct *p)
{
#ifdef SS_HAS_h_curr
	p->se.vruntime = p->se.vprot;
#endif
}

/* With delayed dequeue, the lag with which a thread began to be delayed: it may not get worse while it waits. */
static inline s64 ss_lag_when_delayed(const struct task_struct *p)
{
#ifdef ENQUEUE_DELAYED
	return p->se.sched_delayed ? p->se.vlag : 0;
#else
	return 0;
#endif
}

static inline void ss_keep_lag_when_delayed(struct task_struct *p, s64 lag)
{
#ifdef ENQUEUE_DELAYED
	if (p->se.sched_delayed)
		p->se.vlag = lag;
#endif
}

/* A group's entity among those of its parent, on one CPU. */
#ifdef CONFIG_FAIR_GROUP_SCHED
static inline struct sched_entity *ss_group_entity(struct task_group *group, int cpu)
{
#ifdef SS_HAS_tg_se
	return tg_se(group, cpu);
#else
	return group->se[cpu];
#endif
}
#endif

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

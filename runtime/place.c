// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * Back to the same place in the fair tree, on kernels with EEVDF.
 *
 * EEVDF keeps a thread's lag while the thread is away, that is its distance from the average of those on the tree, and
 * forgets where it was. That is not enough for the rebuild: each thread's lag is measured against those who have not
 * left yet, it is limited to a slice or two, groups leave without their deadline, and groups that are delayed leave last
 * and do not come back. But dequeueing changes neither vruntime nor, for groups, the deadline. So just before an entity
 * is enqueued, its lag is set to the distance between where it was and the average of those who are back, and
 * place_entity() puts it there, but for the rounding of its division (a few ns). It is the lag that the entity would
 * have if it had just been on that tree.
 */
#include "runtime.h"
#include "compat.h"

#ifdef SS_HAS_zero_vruntime
/*
 * With EEVDF, no lag or slice is worth more than the longest slice (100 ms) and what the threads that are not back yet make
 * of it: a second of service is much. An author's scheduler may use these fields for something else: then they are
 * left alone.
 */
static bool is_plausible(const struct sched_entity *se, s64 virtual)
{
	s64 limit = div64_u64((u64)NSEC_PER_SEC * NICE_0_LOAD, max(ss_fair_weight(se), 1UL));

	return virtual >= -limit && virtual <= limit;
}

#define FARTHEST (1LL << 34)	/* farther than the lightest can be; times the heaviest weight it still fits */

static void aim(struct sched_entity *se, bool relative_deadlines)
{
	struct cfs_rq *tree = ss_tree_of(se);
	s64 load = ss_sum_weight(tree), weight = ss_weight_in_sum(tree, se), slice = se->deadline - se->vruntime;
	s64 distance, lag;

	if (!load) {
		/* The first is placed at the average, and the average of none may be anywhere. */
		tree->zero_vruntime = se->vruntime;
	} else {
		distance = ss_average(tree) - se->vruntime;
		if (distance < -FARTHEST || distance > FARTHEST)
			return;
		/* place_entity() multiplies by (load + weight) / load: its comment says why. */
		lag = distance - div64_s64(distance * weight, load + weight);
		if (!is_plausible(se, lag))
			return;
		se->vlag = lag;
	}
	if (relative_deadlines && !se->rel_deadline && is_plausible(se, slice)) {
		se->deadline = slice;
		se->rel_deadline = 1;
	}
}

/*
 * Before `p`, which is on no queue, is enqueued with RESTORE: for it and for the groups that come back with it. Holds the
 * rq lock, clock up to date.
 */
void ss_aim_at_old_place(struct task_struct *p)
{
	bool relative_deadlines = p->se.rel_deadline;	/* the old code makes them so (feature PLACE_REL_DEADLINE) */
	struct sched_entity *se = &p->se;

	for (; se && !se->on_rq; se = ss_next_on_tree(se))
		aim(se, relative_deadlines);
}
#else
void ss_aim_at_old_place(struct task_struct *p)
{
}
#endif

// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * For tests only (parameter check_order): are the queues after a swap what they were before? Inside the stop, each CPU
 * notes down what is queued before it dequeues, and again after it has enqueued. Nothing runs in between, so a scheduler
 * that was replaced by itself has to leave everything the same. The comparison is in the kernel log after the stop.
 */
#include <linux/moduleparam.h>
#include <linux/vmalloc.h>
#include "runtime.h"
#include "compat.h"

static bool check_order;
module_param(check_order, bool, 0644);
MODULE_PARM_DESC(check_order, "Tests only: compare the queues before and after each swap (default: N)");

#define ENTRIES 4096	/* per CPU; what is queued beyond that is counted as left out */

struct entry {
	const struct sched_entity *se;
	const void *tree;	/* NULL: not fair */
	pid_t pid;		/* 0: a group */
	bool delayed;
	unsigned long weight;
	s64 vruntime, deadline;
	struct entry *other;	/* the same, in the other order */
};

struct order {
	unsigned int count, left_out;
	struct entry entries[ENTRIES];
};

/* Before and after the swap. */
static DEFINE_PER_CPU(struct order *[2], orders);

static struct entry *add_entry(struct order *order, const struct sched_entity *se, pid_t pid)
{
	struct entry *entry;

	if (order->count == ENTRIES) {
		order->left_out++;
		return NULL;
	}
	entry = &order->entries[order->count++];
	*entry = (struct entry){ .se = se, .pid = pid };
	return entry;
}

static void add_fair(struct order *order, struct sched_entity *se, pid_t pid)
{
	struct entry *entry = add_entry(order, se, pid);

	if (!entry)
		return;
	entry->tree = ss_tree_of(se);
	entry->weight = ss_fair_weight(se);
	entry->vruntime = se->vruntime;
	entry->deadline = ss_deadline(se);
	entry->delayed = ss_is_delayed(se);
}

static void add_thread(struct task_struct *p, void *order)
{
	if (p->sched_class == &fair_sched_class)
		add_fair(order, &p->se, p->pid);
	else
		add_entry(order, &p->se, p->pid);
}

/* Inside the stop, on each CPU: threads in the order of their lists, then groups. Only reads, so no lock. */
void ss_order_note(bool after)
{
	struct order *order = __this_cpu_read(orders[after]);

	if (!order)
		return;
	order->count = order->left_out = 0;
	ss_for_each_queued(add_thread, order);
#if defined(CONFIG_FAIR_GROUP_SCHED) && !defined(SS_HAS_h_curr)	/* with h_curr, groups are on no tree */
	{
		struct task_group *group;

		list_for_each_entry(group, &task_groups, list) {
			struct sched_entity *se = ss_group_entity(group, smp_processor_id());

			if (se && se->on_rq)
				add_fair(order, se, 0);
		}
	}
#endif
}

void ss_order_end(void)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		vfree(per_cpu(orders[0], cpu));
		vfree(per_cpu(orders[1], cpu));
		per_cpu(orders[0], cpu) = per_cpu(orders[1], cpu) = NULL;
	}
}

/* Process context, main.c's mutex held, may sleep. ss_order_end follows, also after a failure. */
int ss_order_begin(void)
{
	int cpu;

	if (!check_order)
		return 0;
	for_each_possible_cpu(cpu) {
		per_cpu(orders[0], cpu) = vzalloc(sizeof(struct order));
		per_cpu(orders[1], cpu) = vzalloc(sizeof(struct order));
		if (!per_cpu(orders[0], cpu) || !per_cpu(orders[1], cpu))
			return -ENOMEM;
	}
	return 0;
}

/* What has changed, over all CPUs. */
struct change {
	unsigned int threads, groups, delayed;	/* before; delayed: groups without threads, which leave */
	unsigned int gone, come, moved;		/* no longer there; there now; a thread at another place of its list */
	unsigned int reweighted, left_out;
	unsigned int pairs, inverted;		/* of one tree; whose order by vruntime or by deadline is another */
	s64 vruntime, deadline;			/* how far at most one has moved against another, in virtual ns */
};

static void match(struct order *before, struct order *after, struct change *change)
{
	unsigned int i, j;

	for (i = 0; i < before->count; i++) {
		struct entry *was = &before->entries[i];

		for (j = i; j < i + after->count; j++)	/* mostly at the same place */
			if (after->entries[j % after->count].se == was->se)
				break;
		if (j == i + after->count) {
			change->delayed += !was->pid && was->delayed;
			change->gone += was->pid || !was->delayed;
			continue;
		}
		was->other = &after->entries[j % after->count];
		was->other->other = was;
		change->threads += was->pid != 0;
		change->groups += !was->pid;
		change->moved += was->pid && j != i;
		change->reweighted += was->weight != was->other->weight;
	}
	for (j = 0; j < after->count; j++)
		change->come += !after->entries[j].other;
	change->left_out += before->left_out + after->left_out;
}

/*
 * May two entities of a tree be compared? A group gets another weight whenever the load of its threads on other CPUs is
 * looked at again, and then its lag and deadline, in virtual time, are others as well.
 */
static bool is_comparable(const struct entry *was, const void *tree)
{
	return was->tree == tree && was->other && was->other->weight == was->weight;
}

static bool is_inverted(s64 before, s64 after)
{
	return (before < 0 && after > 0) || (before > 0 && after < 0);
}

/* One against all that are noted before it. A tree whose entities have all moved alike is the same. */
static void compare(const struct order *before, const struct entry *was, struct change *change)
{
	const struct entry *is = was->other, *other;

	for (other = before->entries; other < was; other++) {
		s64 vruntime, deadline, vruntime_now, deadline_now;

		if (!is_comparable(other, was->tree))
			continue;
		vruntime = was->vruntime - other->vruntime;
		deadline = was->deadline - other->deadline;
		vruntime_now = is->vruntime - other->other->vruntime;
		deadline_now = is->deadline - other->other->deadline;
		change->pairs++;
		change->inverted += is_inverted(vruntime, vruntime_now) || is_inverted(deadline, deadline_now);
		change->vruntime = max_t(s64, change->vruntime, abs(vruntime_now - vruntime));
		change->deadline = max_t(s64, change->deadline, abs(deadline_now - deadline));
	}
}

/* After a swap, the machine running. */
void ss_order_report(void)
{
	struct change change = {};
	int cpu;

	if (!per_cpu(orders[0], cpumask_first(cpu_possible_mask)))
		return;
	for_each_online_cpu(cpu) {
		const struct order *before = per_cpu(orders[0], cpu);
		const struct entry *was;

		match(per_cpu(orders[0], cpu), per_cpu(orders[1], cpu), &change);
		for (was = before->entries; was < before->entries + before->count; was++) {
			if (was->tree && is_comparable(was, was->tree))
				compare(before, was, &change);
			cond_resched();
		}
	}
	pr_info(SS_LOG "order: threads=%u groups=%u delayed=%u gone=%u come=%u moved=%u reweighted=%u left_out=%u pairs=%u inverted=%u vruntime_ns=%lld deadline_ns=%lld\n",
		change.threads, change.groups, change.delayed, change.gone, change.come, change.moved, change.reweighted,
		change.left_out, change.pairs, change.inverted, change.vruntime, change.deadline);
}

// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/* Task groups as objects with state, like the threads in tasks.c. */
#include <linux/rculist.h>
#include "runtime.h"
#include "extension.h"
#include "compat.h"
#include "entries.h"

#define __ss_entry noinline __used __section(".text.entries")

/* Callable anywhere: inside the stop the list does not change, elsewhere RCU keeps what is on it. */
static unsigned int count_groups(void)
{
	const struct task_group *tg;
	unsigned int count = 0;

	rcu_read_lock();
	list_for_each_entry_rcu(tg, &task_groups, list)
		count++;
	rcu_read_unlock();
	return count;
}

/* A group is freed a grace period after it has left the list. */
static void for_each_group(void (*fn)(struct ss_kind *kind, const void *object), struct ss_kind *kind)
{
	const struct task_group *tg;

	rcu_read_lock();
	list_for_each_entry_rcu(tg, &task_groups, list)
		fn(kind, tg);
	rcu_read_unlock();
}

struct ss_kind ss_kind_groups = {
	.id = SS_KIND_GROUP,
	.hole = SS_GROUP_HOLE,
	.what = "group",
	.count = count_groups,
	.for_each = for_each_group,
};

extern typeof(alloc_fair_sched_group) group_begins __asm__(SS_GROUP_BEGINS);
extern typeof(free_fair_sched_group) group_ends __asm__(SS_GROUP_ENDS);

/* In sched_create_group, which gives up and frees the group when this returns 0. */
__ss_entry int ss_entry_group_begins(struct task_group *tg, struct task_group *parent)
{
	return !ss_object_begins(&ss_kind_groups, tg) && group_begins(tg, parent);
}

/* In sched_free_group, whether or not the group was ever online. */
__ss_entry void ss_entry_group_ends(struct task_group *tg)
{
	group_ends(tg);
	ss_object_ends(&ss_kind_groups, tg);
}

// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * The scheduler's feature switches. vmlinux and the module have a set each, since the module may know features
 * that vmlinux does not; a swap carries over the state of those that both know.
 */
#include <linux/bits.h>
#include <linux/jump_label.h>
#include <linux/string.h>
#include "runtime.h"
#include "compat.h"

static u64 carried_bits;	/* of the side that is left, as they were when they were carried over */

static const struct ss_feature_set *left_behind(enum ss_op op)
{
	return op == SS_LOAD ? &ss_features_vmlinux : &ss_features_module;
}

static const struct ss_feature_set *taking_over(enum ss_op op)
{
	return op == SS_LOAD ? &ss_features_module : &ss_features_vmlinux;
}

static u64 read_bits(const struct ss_feature_set *set)
{
	return set->bits_size == sizeof(u64) ? READ_ONCE(*(u64 *)set->bits) : READ_ONCE(*(u32 *)set->bits);
}

/* The set is not in use while it is written, so a plain store will do. */
static void write_bit(const struct ss_feature_set *set, unsigned int i, bool on)
{
	u64 bits = (read_bits(set) & ~BIT_ULL(i)) | (on ? BIT_ULL(i) : 0);

	if (set->bits_size == sizeof(u64))
		WRITE_ONCE(*(u64 *)set->bits, bits);
	else
		WRITE_ONCE(*(u32 *)set->bits, bits);
}

static void set_feature(const struct ss_feature_set *set, unsigned int i, bool on)
{
	write_bit(set, i, on);
	if (!set->keys)
		return;
	/* May sleep, and patches the code of the side that is not running. */
	if (on)
		static_key_enable(&set->keys[i]);
	else
		static_key_disable(&set->keys[i]);
}

/* Before the stop. A feature that only one side knows keeps its value there. */
int ss_features_carry(enum ss_op op)
{
	const struct ss_feature_set *from = left_behind(op), *to = taking_over(op);
	unsigned int i, j;

	if (!from->count || !to->count)	/* a kernel without CONFIG_SCHED_DEBUG: they are constants */
		return 0;
	if (from->count > 64 || to->count > 64 || (from->bits_size != 4 && from->bits_size != 8) ||
	    (to->bits_size != 4 && to->bits_size != 8)) {
		pr_err(SS_LOG "refused: feature switches of an unknown shape\n");
		return -EINVAL;
	}
	carried_bits = read_bits(from);
	for (i = 0; i < from->count; i++)
		for (j = 0; j < to->count; j++)
			if (!strcmp(from->names[i], to->names[j]))
				set_feature(to, j, carried_bits & BIT_ULL(i));
	return 0;
}

/* Inside the stop: has nobody switched a feature since? */
bool ss_features_are_as_carried(enum ss_op op)
{
	const struct ss_feature_set *from = left_behind(op);

	return !from->count || !taking_over(op)->count || read_bits(from) == carried_bits;
}

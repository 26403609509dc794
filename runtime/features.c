// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * The scheduler's feature switches. A module whose features are vmlinux's uses vmlinux's switches. Any other has a set of
 * its own, since it knows features that others do not; a swap carries over the state of those that both know.
 */
#include <linux/bits.h>
#include <linux/jump_label.h>
#include <linux/mutex.h>
#include <linux/string.h>
#include "runtime.h"
#include "compat.h"

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
int ss_features_carry(struct ss_feature_change *change)
{
	const struct ss_feature_set *from = change->from, *to = change->to;
	unsigned int i, j;

	if (!from->count || !to->count)	/* a kernel without CONFIG_SCHED_DEBUG: they are constants */
		return 0;
	if (from->count > 64 || to->count > 64 || (from->bits_size != 4 && from->bits_size != 8) ||
	    (to->bits_size != 4 && to->bits_size != 8)) {
		pr_err(SS_LOG "refused: feature switches of an unknown shape\n");
		return -EINVAL;
	}
	change->carried = read_bits(from);
	if (from->bits == to->bits)	/* the module uses vmlinux's own */
		return 0;
	for (i = 0; i < from->count; i++)
		for (j = 0; j < to->count; j++)
			if (!strcmp(from->names[i], to->names[j]))
				set_feature(to, j, change->carried & BIT_ULL(i));
	return 0;
}

/* Inside the stop: are all features as they were when they were carried over? */
bool ss_features_are_as_carried(const struct ss_feature_change *change)
{
	return !change->from->count || !change->to->count || read_bits(change->from) == change->carried;
}

/*
 * After the module's switches were written: vmlinux's follow them, for what runs there still. May sleep. Two writers may
 * come here at once; the last one sees the values of both.
 */
void ss_features_mirror(void)
{
	static DEFINE_MUTEX(mirror_mutex);
	struct ss_feature_change change = { &ss_features_module, &ss_features_vmlinux };

	mutex_lock(&mirror_mutex);
	ss_features_carry(&change);
	mutex_unlock(&mirror_mutex);
}

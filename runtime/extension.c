// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * State beyond the kernel's structures: how it comes and goes with a swap.
 *
 * Memory for all objects is allocated before the stop. Objects that exist at the time get a record on first use, or,
 * with the machine running again, from ss_extension_complete.
 */
#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/printk.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include "runtime.h"
#include "handover.h"
#include "compat.h"

/*
 * How many slots it takes: one for each object there is, and as many again, for objects that threads are creating at
 * that very moment, one each, and that have passed the place where the new code would have given them theirs.
 */
static u32 wanted(u32 objects)
{
	return 2 * objects + SS_SLOTS_RESERVE;
}

/* What the predecessor has of the same kind, in the same place; NULL also if there is no predecessor. */
static struct ss_kind *same_kind(const struct ss_handover *predecessor, const struct ss_kind *kind)
{
	unsigned int i;

	for (i = 0; predecessor && i < *predecessor->extension.kind_count; i++) {
		struct ss_kind *other = predecessor->extension.kinds[i];

		if (other->id == kind->id && other->hole == kind->hole)
			return other;
	}
	return NULL;
}

static bool may_be_kept(const struct ss_state_row *row)
{
	return row->type_hash && (!row->holds_pointers || row->state->calls->keeps_pointers);
}

/* The state of the predecessor whose records this state can take over. */
static struct schedswap_state *same_state(const struct ss_handover *predecessor, const struct ss_state_row *row)
{
	const struct schedswap_state *mine = row->state;
	const struct ss_kind *kind = ss_kind_of(mine);
	unsigned int i;

	if (!predecessor || !may_be_kept(row) || (kind && !same_kind(predecessor, kind)))
		return NULL;
	for (i = 0; i < *predecessor->extension.state_count; i++) {
		const struct ss_state_row *other = &predecessor->extension.states[i];
		const struct schedswap_state *theirs = other->state;

		if (theirs->kind == mine->kind && other->type_hash == row->type_hash && theirs->size == mine->size &&
		    theirs->table.stride == mine->table.stride && theirs->offset == mine->offset &&
		    may_be_kept(other) && !strcmp(theirs->name, mine->name))
			return other->state;
	}
	return NULL;
}

/* Room for a quarter more than there is: between here and the stop the machine goes on. */
static u32 limit_for(const struct ss_handover *predecessor, const struct ss_kind *kind)
{
	const struct ss_kind *from = same_kind(predecessor, kind);
	u32 now = from ? READ_ONCE(from->slots.limit) : kind->count();

	return from ? now + now / 4 + SS_SLOTS_RESERVE : wanted(now + now / 4);
}

/* Refuses if the memory is not available without taking it from other users. */
static int check_memory(const struct ss_handover *predecessor)
{
	size_t bytes, all = 0, available = ss_available_bytes();
	const struct ss_state_row *row;
	struct schedswap_state *state;

	ss_for_each_state(state, row) {
		const struct ss_kind *kind = ss_kind_of(state);

		if (!kind || same_state(predecessor, row))
			continue;
		bytes = ss_table_bytes(&state->table, limit_for(predecessor, kind));
		all += bytes;
		if (all < available)
			continue;
		pr_err(SS_LOG "refused: the state %s, %u bytes for each %s, takes %zu kB for those there are; %zu kB can be had. Make it smaller, or try again when there is more.\n",
		       state->name, state->size, kind->what, bytes >> 10, available >> 10);
		return -ENOMEM;
	}
	return 0;
}

static int prepare_slots(const struct ss_handover *predecessor, struct ss_kind *kind)
{
	const struct ss_state_row *row;
	struct schedswap_state *state;
	u32 limit = limit_for(predecessor, kind);
	int err = 0;

	kind->slots.owners.stride = sizeof(struct ss_owner);
	kind->slots.owners.shift = SS_SHIFT(sizeof(struct ss_owner));
	if (!same_kind(predecessor, kind))
		return ss_slots_grow(kind, limit);
	ss_for_each_state(state, row)	/* the slots themselves are taken over in the stop */
		if (state->kind == kind->id && !same_state(predecessor, row))
			err = err ?: ss_table_grow(&state->table, limit);
	return err;
}

static int prepare_state(const struct ss_handover *predecessor, const struct ss_state_row *row)
{
	struct schedswap_state *state = row->state;
	const struct ss_kind *kind = ss_kind_of(state);
	int cpu;

	if (kind) {
		state->make = ss_record_make;
		state->hole = kind->hole;
		if (!state->last_resort)
			state->last_resort = kvzalloc(state->table.stride, GFP_KERNEL | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
		return state->last_resort ? 0 : -ENOMEM;
	}
	if (state->per_cpu || same_state(predecessor, row))
		return 0;
	state->per_cpu = __alloc_percpu_gfp(state->table.stride, SMP_CACHE_BYTES, GFP_KERNEL | __GFP_NOWARN);
	if (!state->per_cpu)
		return -ENOMEM;
	for_each_possible_cpu(cpu)
		if (state->calls->init)
			state->calls->init(per_cpu_ptr(state->per_cpu, cpu) + state->offset, cpu_rq(cpu));
	return 0;
}

/*
 * Process context, before the stop: allocates memory for all objects there are. On failure, and whenever the swap is
 * not done, ss_extension_drop frees it.
 */
int ss_extension_prepare(const struct ss_handover *predecessor)
{
	const struct ss_state_row *row;
	struct schedswap_state *state;
	unsigned int i;
	int err = check_memory(predecessor);

	ss_for_each_state(state, row)
		err = err ?: prepare_state(predecessor, row);
	for (i = 0; i < ss_kind_count; i++)
		err = err ?: prepare_slots(predecessor, ss_kinds[i]);
	return err;
}

/* Inside the stop: is it still enough? Takes as long as counting takes, which for threads is reading a number. */
bool ss_extension_suffices(const struct ss_handover *predecessor)
{
	const struct ss_state_row *row;
	struct schedswap_state *state;
	unsigned int i;

	for (i = 0; i < ss_kind_count; i++)
		if (!same_kind(predecessor, ss_kinds[i]) &&
		    ss_kinds[i]->slots.free < wanted(ss_kinds[i]->count()) - SS_SLOTS_RESERVE)
			return false;
	ss_for_each_state(state, row) {
		const struct ss_kind *from = ss_kind_of(state) ? same_kind(predecessor, ss_kind_of(state)) : NULL;

		if (from && !same_state(predecessor, row) && state->table.capacity < from->slots.limit)
			return false;
	}
	return true;
}

/* Inside the stop, on one CPU: takes what the predecessor has and this module can use. */
void ss_extension_take_over(const struct ss_handover *predecessor)
{
	const struct ss_state_row *row;
	struct schedswap_state *state, *from;
	unsigned int i;

	if (!predecessor)
		return;
	ss_for_each_state(state, row) {	/* before the slots: same_state compares those for each state */
		from = same_state(predecessor, row);
		if (!from)
			continue;
		swap(state->table, from->table);
		swap(state->per_cpu, from->per_cpu);
	}
	for (i = 0; i < ss_kind_count; i++) {
		struct ss_kind *theirs = same_kind(predecessor, ss_kinds[i]);

		if (theirs)
			swap(ss_kinds[i]->slots, theirs->slots);
	}
}

/* Process context, the swap done: objects that have not used theirs yet get their records too. */
void ss_extension_complete(void)
{
	unsigned int i;

	for (i = 0; i < ss_kind_count; i++)
		ss_kinds[i]->for_each(ss_records_make, ss_kinds[i]);
}

static void drop_records(struct schedswap_state *state)
{
	u32 slot;
	int cpu;

	for (slot = 0; slot < state->table.capacity; slot++) {
		ss_record_empty(state, ss_table_at(&state->table, slot));
		if (!(slot % 1024))
			cond_resched();
	}
	ss_table_free(&state->table);
	kvfree(state->last_resort);
	state->last_resort = NULL;
	if (!state->per_cpu)
		return;
	for_each_possible_cpu(cpu)
		if (state->calls->exit)
			state->calls->exit(per_cpu_ptr(state->per_cpu, cpu) + state->offset);
	free_percpu(state->per_cpu);
	state->per_cpu = NULL;
}

/* Process context, and no thread runs the module's code: frees all that is left. */
void ss_extension_drop(void)
{
	const struct ss_state_row *row;
	struct schedswap_state *state;
	unsigned int i;

	ss_for_each_state(state, row)
		drop_records(state);
	for (i = 0; i < ss_kind_count; i++) {
		struct ss_slots *slots = &ss_kinds[i]->slots;

		ss_table_free(&slots->owners);
		*slots = (struct ss_slots){};
	}
}

ssize_t ss_extension_show(char *buf)
{
	unsigned int i;
	ssize_t len = 0;

	for (i = 0; i < ss_kind_count; i++) {
		const struct ss_slots *slots = &ss_kinds[i]->slots;

		len += sysfs_emit_at(buf, len, "%s used=%u free=%u\n", ss_kinds[i]->what, READ_ONCE(slots->used),
				     READ_ONCE(slots->free));
	}
	return len;
}

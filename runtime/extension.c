// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * State beyond the kernel's structures: who has which record.
 *
 * Each object has a slot, whose number lies in padding of the object, and each state a table with a record for each
 * slot. Slot and record both name the object that they belong to, and only that counts: a number that was inherited by
 * fork, or left there by a scheduler long unloaded, finds a record that says otherwise. So nothing needs to be
 * taken out of the objects when a scheduler goes, no object is touched that might be gone, and the tables are
 * simply freed.
 *
 * Memory for all objects is there before the stop. New objects get theirs as they are made, which may sleep and fail.
 * Those that exist at the time get a record by first use, or, with the machine running again, from
 * ss_extension_complete.
 */
#include <linux/err.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/printk.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include "runtime.h"
#include "handover.h"
#include "compat.h"

/* Slots kept for objects that cannot wait for memory. */
#define RESERVE 64

/*
 * Taken with run queues locked and interrupts off, and a leaf: nothing else is taken inside, for .init and .exit may take
 * nothing. They may ask for other states, so it nests on a CPU.
 */
static DEFINE_RAW_SPINLOCK(slots_lock);
static int slots_cpu = -1;		/* who holds it */
static DEFINE_MUTEX(growing);		/* one at a time grows tables */

static bool lock_slots(unsigned long *flags)
{
	local_irq_save(*flags);
	if (READ_ONCE(slots_cpu) == smp_processor_id())
		return true;
	raw_spin_lock(&slots_lock);
	WRITE_ONCE(slots_cpu, smp_processor_id());
	return false;
}

static void unlock_slots(bool nested, unsigned long flags)
{
	if (!nested) {
		WRITE_ONCE(slots_cpu, -1);
		raw_spin_unlock(&slots_lock);
	}
	local_irq_restore(flags);
}

#define for_each_state(state, row)									\
	for ((row) = ss_states; (row) < ss_states + ss_state_count && ((state) = (row)->state); (row)++)

static struct ss_kind *kind_of(const struct schedswap_state *state)
{
	unsigned int i;

	for (i = 0; i < ss_kind_count; i++)
		if (ss_kinds[i]->id == state->kind)
			return ss_kinds[i];
	return NULL;	/* a run queue: those have no slots */
}

static u32 *hole_of(const struct ss_kind *kind, const void *object)
{
	return (u32 *)(object + kind->hole);
}

static struct ss_owner *owner_of(const struct ss_kind *kind, u32 slot)
{
	return ss_table_at(&kind->slots.owners, slot);
}

/* The object's slot, 0 if it has none yet. */
static u32 slot_of(const struct ss_kind *kind, const void *object)
{
	u32 slot = READ_ONCE(*hole_of(kind, object));

	if (slot >= smp_load_acquire(&kind->slots.owners.capacity))
		return 0;
	return READ_ONCE(owner_of(kind, slot)->object) == object ? slot : 0;
}

/* The four that follow hold the lock. */
static u32 take_slot(struct ss_kind *kind, const void *object)
{
	struct ss_slots *slots = &kind->slots;
	u32 slot = slots->first_free;
	struct ss_owner *owner;

	if (!slot)
		return 0;
	owner = owner_of(kind, slot);
	slots->first_free = owner->next_free;
	slots->free--;
	slots->used++;
	WRITE_ONCE(owner->object, object);
	WRITE_ONCE(*hole_of(kind, object), slot);
	return slot;
}

static void give_slot_back(struct ss_kind *kind, u32 slot)
{
	struct ss_slots *slots = &kind->slots;
	struct ss_owner *owner = owner_of(kind, slot);

	WRITE_ONCE(owner->object, NULL);
	owner->next_free = slots->first_free;
	slots->first_free = slot;
	slots->free++;
	slots->used--;
}

static const void *fill_record(struct schedswap_state *state, u32 slot, const void *object)
{
	void *record = ss_table_at(&state->table, slot);

	if (READ_ONCE(*(const void **)record) == object)
		return record;
	memset(record, 0, state->table.stride);
	if (state->calls->init)
		state->calls->init(record + state->offset, (void *)object);
	/* Whoever finds its owner finds it filled. */
	smp_store_release((const void **)record, object);
	return record;
}

static void empty_record(struct schedswap_state *state, void *record)
{
	if (!*(const void **)record)
		return;
	if (state->calls->exit)
		state->calls->exit(record + state->offset);
	smp_store_release((const void **)record, NULL);
}

/* The slow way of the accessor: wherever the scheduler may be. */
static const void *make_record(struct schedswap_state *state, const void *object)
{
	struct ss_kind *kind = kind_of(state);
	unsigned long flags;
	const void *record;
	bool nested;
	u32 slot;

	nested = lock_slots(&flags);
	slot = slot_of(kind, object) ?: take_slot(kind, object);
	record = slot ? fill_record(state, slot, object) : state->last_resort;
	unlock_slots(nested, flags);
	if (!slot)
		printk_deferred_once(KERN_ERR SS_LOG "no %s state is left for a %s, which shares one with others\n",
				     state->name, kind->what);
	return record;
}

static bool has_all_records(const struct ss_kind *kind, const void *object)
{
	const struct ss_state_row *row;
	struct schedswap_state *state;
	u32 slot = slot_of(kind, object);

	if (!slot)
		return false;
	for_each_state(state, row)
		if (state->kind == kind->id && *(const void **)ss_table_at(&state->table, slot) != object)
			return false;
	return true;
}

static void make_all_records(struct ss_kind *kind, const void *object)
{
	const struct ss_state_row *row;
	struct schedswap_state *state;

	if (has_all_records(kind, object))
		return;
	for_each_state(state, row)
		if (state->kind == kind->id)
			make_record(state, object);
}

/* Process context, `growing` held or nobody there yet: room for `limit` slots, and for a record of each in each state. */
static int grow(struct ss_kind *kind, u32 limit)
{
	struct ss_slots *slots = &kind->slots;
	const struct ss_state_row *row;
	struct schedswap_state *state;
	u32 slot, first = max(slots->limit, 1u), end;	/* 0 is nobody's */
	unsigned long flags;
	bool nested;
	int err;

	if (limit <= slots->limit)
		return 0;
	err = ss_table_grow(&slots->owners, limit);
	end = slots->owners.capacity;
	for_each_state(state, row) {
		if (state->kind != kind->id || err)
			continue;
		err = ss_table_grow(&state->table, limit);
		end = min(end, state->table.capacity);
	}
	if (err)
		return err;
	for (slot = first; slot < end; slot++)
		owner_of(kind, slot)->next_free = slot + 1;
	nested = lock_slots(&flags);
	owner_of(kind, end - 1)->next_free = slots->first_free;
	slots->first_free = first;
	slots->free += end - first;
	slots->limit = end;
	unlock_slots(nested, flags);
	return 0;
}

/* What may be taken: not the last there is, of which others would not survive the lack. */
static size_t available_bytes(void)
{
	long pages = si_mem_available() - (long)(totalram_pages() / 32);

	return (size_t)max(pages, 0L) << PAGE_SHIFT;
}

/* As little more as there can be: a piece of each table. */
static int grow_a_little(struct ss_kind *kind)
{
	u32 limit = kind->slots.limit + 1;
	const struct ss_state_row *row;
	struct schedswap_state *state;
	size_t bytes = 0;

	for_each_state(state, row)
		if (state->kind == kind->id)
			bytes += ss_table_bytes(&state->table, limit);
	return bytes > available_bytes() ? -ENOMEM : grow(kind, limit);
}

static bool make_unless_short(struct ss_kind *kind, const void *object)
{
	unsigned long flags;
	bool nested = lock_slots(&flags), enough = kind->slots.free > RESERVE;

	if (enough)
		make_all_records(kind, object);
	unlock_slots(nested, flags);
	return enough;
}

/* Process context. An object is being made: gives it its records, or -ENOMEM. */
int ss_object_begins(struct ss_kind *kind, const void *object)
{
	int err = 0;

	while (!err && !make_unless_short(kind, object)) {
		mutex_lock(&growing);
		if (READ_ONCE(kind->slots.free) <= RESERVE)
			err = grow_a_little(kind);
		mutex_unlock(&growing);
	}
	return err;
}

/* Anywhere. An object is about to be freed, and nobody looks at it any more. */
void ss_object_ends(struct ss_kind *kind, const void *object)
{
	const struct ss_state_row *row;
	struct schedswap_state *state;
	unsigned long flags;
	bool nested;
	u32 slot = slot_of(kind, object);

	if (!slot)
		return;
	nested = lock_slots(&flags);
	for_each_state(state, row)
		if (state->kind == kind->id)
			empty_record(state, ss_table_at(&state->table, slot));
	give_slot_back(kind, slot);
	unlock_slots(nested, flags);
}

/*
 * How many slots it takes: one for each object there is, and as many again, for those that are being made at that very
 * moment, each by a thread, and have passed the place where the new code would have given them theirs.
 */
static u32 wanted(u32 objects)
{
	return 2 * objects + RESERVE;
}

/* What the predecessor has of the same kind, in the same place; NULL also without predecessor. */
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
	return row->type && (!row->holds_pointers || row->state->calls->keeps_pointers);
}

/* The predecessor's state whose records can serve as this one's. */
static struct schedswap_state *same_state(const struct ss_handover *predecessor, const struct ss_state_row *row)
{
	const struct schedswap_state *mine = row->state;
	const struct ss_kind *kind = kind_of(mine);
	unsigned int i;

	if (!predecessor || !may_be_kept(row) || (kind && !same_kind(predecessor, kind)))
		return NULL;
	for (i = 0; i < *predecessor->extension.state_count; i++) {
		const struct ss_state_row *other = &predecessor->extension.states[i];
		const struct schedswap_state *theirs = other->state;

		if (theirs->kind == mine->kind && other->type == row->type && theirs->size == mine->size &&
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

	return from ? now + now / 4 + RESERVE : wanted(now + now / 4);
}

/* Refuses what could only be had by taking it from others. */
static int check_memory(const struct ss_handover *predecessor)
{
	size_t bytes, all = 0, available = available_bytes();
	const struct ss_state_row *row;
	struct schedswap_state *state;

	for_each_state(state, row) {
		const struct ss_kind *kind = kind_of(state);

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
		return grow(kind, limit);
	for_each_state(state, row)	/* the slots themselves come with the stop */
		if (state->kind == kind->id && !same_state(predecessor, row))
			err = err ?: ss_table_grow(&state->table, limit);
	return err;
}

static int prepare_state(const struct ss_handover *predecessor, const struct ss_state_row *row)
{
	struct schedswap_state *state = row->state;
	const struct ss_kind *kind = kind_of(state);
	int cpu;

	if (kind) {
		state->make = make_record;
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
 * Process context, before the stop: memory for all objects there are. On failure, and whenever the swap is not done,
 * ss_extension_drop takes it back.
 */
int ss_extension_prepare(const struct ss_handover *predecessor)
{
	const struct ss_state_row *row;
	struct schedswap_state *state;
	unsigned int i;
	int err = check_memory(predecessor);

	for_each_state(state, row)
		err = err ?: prepare_state(predecessor, row);
	for (i = 0; i < ss_kind_count; i++)
		err = err ?: prepare_slots(predecessor, ss_kinds[i]);
	return err;
}

/* Inside the stop: is it still enough? Takes as long as counting does, which for threads is reading a number. */
bool ss_extension_suffices(const struct ss_handover *predecessor)
{
	const struct ss_state_row *row;
	struct schedswap_state *state;
	unsigned int i;

	for (i = 0; i < ss_kind_count; i++)
		if (!same_kind(predecessor, ss_kinds[i]) &&
		    ss_kinds[i]->slots.free < wanted(ss_kinds[i]->count()) - RESERVE)
			return false;
	for_each_state(state, row) {
		const struct ss_kind *from = kind_of(state) ? same_kind(predecessor, kind_of(state)) : NULL;

		if (from && !same_state(predecessor, row) && state->table.capacity < from->slots.limit)
			return false;
	}
	return true;
}

/* Inside the stop, on one CPU: what is the predecessor's and can serve here. */
void ss_extension_take_over(const struct ss_handover *predecessor)
{
	const struct ss_state_row *row;
	struct schedswap_state *state, *from;
	unsigned int i;

	if (!predecessor)
		return;
	for_each_state(state, row) {	/* before the slots: that these are the same is asked for each state */
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

static void complete_one(struct ss_kind *kind, const void *object)
{
	make_all_records(kind, object);
}

/* Process context, the swap done: who has not come by yet gets its records too. */
void ss_extension_complete(void)
{
	unsigned int i;

	for (i = 0; i < ss_kind_count; i++)
		ss_kinds[i]->for_each(complete_one, ss_kinds[i]);
}

static void drop_records(struct schedswap_state *state)
{
	u32 slot;
	int cpu;

	for (slot = 0; slot < state->table.capacity; slot++) {
		empty_record(state, ss_table_at(&state->table, slot));
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

/* Process context, and nobody runs the module's code: all that is left of it. */
void ss_extension_drop(void)
{
	const struct ss_state_row *row;
	struct schedswap_state *state;
	unsigned int i;

	for_each_state(state, row)
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

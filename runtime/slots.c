// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * State beyond the kernel's structures: which object has which record.
 *
 * Each object has a slot, whose number lies in padding of the object, and each state has a table with a record for each
 * slot. Slot and record both name the object that they belong to, and only that counts: a number that was inherited by
 * fork, or left there by a scheduler unloaded long ago, leads to a record that names another object or none. So nothing
 * needs to be cleared in the objects when a scheduler is unloaded, no object is touched that may have been freed, and
 * the tables are simply freed.
 *
 * New objects get memory as they are created, which may sleep and fail; for those that exist when the scheduler is
 * loaded, extension.c allocates it.
 */
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/printk.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include "runtime.h"
#include "extension.h"
#include "compat.h"

/*
 * Taken with run queues locked and interrupts off. It is a leaf: nothing else is taken inside, because .init and .exit may
 * not take locks. They may access other states, so it nests on a CPU.
 */
static DEFINE_RAW_SPINLOCK(slots_lock);
static int slots_cpu = -1;		/* the CPU that holds it */
static DEFINE_MUTEX(growing);		/* one thread at a time grows tables */

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

/* NULL for a state of run queues: those have no slots. */
struct ss_kind *ss_kind_of(const struct schedswap_state *state)
{
	unsigned int i;

	for (i = 0; i < ss_kind_count; i++)
		if (ss_kinds[i]->id == state->kind)
			return ss_kinds[i];
	return NULL;
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
	/* A reader that sees the owner sees the record filled. */
	smp_store_release((const void **)record, object);
	return record;
}

/* Its object has been freed, or the whole table is about to be. */
void ss_record_empty(struct schedswap_state *state, void *record)
{
	if (!*(const void **)record)
		return;
	if (state->calls->exit)
		state->calls->exit(record + state->offset);
	smp_store_release((const void **)record, NULL);
}

/* The slow path of the accessor: called from anywhere in the scheduler. */
const void *ss_record_make(struct schedswap_state *state, const void *object)
{
	struct ss_kind *kind = ss_kind_of(state);
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
	ss_for_each_state(state, row)
		if (state->kind == kind->id && *(const void **)ss_table_at(&state->table, slot) != object)
			return false;
	return true;
}

/* Makes the records that the object does not have yet, of all states of its kind. */
void ss_records_make(struct ss_kind *kind, const void *object)
{
	const struct ss_state_row *row;
	struct schedswap_state *state;

	if (has_all_records(kind, object))
		return;
	ss_for_each_state(state, row)
		if (state->kind == kind->id)
			ss_record_make(state, object);
}

/* Process context, `growing` held or no users yet: makes room for `limit` slots, and for a record of each in each state. */
int ss_slots_grow(struct ss_kind *kind, u32 limit)
{
	struct ss_slots *slots = &kind->slots;
	const struct ss_state_row *row;
	struct schedswap_state *state;
	u32 slot, first = max(slots->limit, 1u), end;	/* slot 0 is never used */
	unsigned long flags;
	bool nested;
	int err;

	if (limit <= slots->limit)
		return 0;
	err = ss_table_grow(&slots->owners, limit);
	end = slots->owners.capacity;
	ss_for_each_state(state, row) {
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

/* How much we may take. A part is left, because other code could not do without it. */
size_t ss_available_bytes(void)
{
	long pages = si_mem_available() - (long)(totalram_pages() / 32);

	return (size_t)max(pages, 0L) << PAGE_SHIFT;
}

/* Grows by the least possible: one piece of each table. */
static int grow_a_little(struct ss_kind *kind)
{
	u32 limit = kind->slots.limit + 1;
	const struct ss_state_row *row;
	struct schedswap_state *state;
	size_t bytes = 0;

	ss_for_each_state(state, row)
		if (state->kind == kind->id)
			bytes += ss_table_bytes(&state->table, limit);
	return bytes > ss_available_bytes() ? -ENOMEM : ss_slots_grow(kind, limit);
}

static bool make_unless_short(struct ss_kind *kind, const void *object)
{
	unsigned long flags;
	bool nested = lock_slots(&flags), enough = kind->slots.free > SS_SLOTS_RESERVE;

	if (enough)
		ss_records_make(kind, object);
	unlock_slots(nested, flags);
	return enough;
}

/* Process context. An object is being created: gives it its records, or returns -ENOMEM. */
int ss_object_begins(struct ss_kind *kind, const void *object)
{
	int err = 0;

	while (!err && !make_unless_short(kind, object)) {
		mutex_lock(&growing);
		if (READ_ONCE(kind->slots.free) <= SS_SLOTS_RESERVE)
			err = grow_a_little(kind);
		mutex_unlock(&growing);
	}
	return err;
}

/* Callable anywhere. An object is about to be freed, and nothing looks at it any more. */
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
	ss_for_each_state(state, row)
		if (state->kind == kind->id)
			ss_record_empty(state, ss_table_at(&state->table, slot));
	give_slot_back(kind, slot);
	unlock_slots(nested, flags);
}

/* SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause */
/*
 * State beyond the kernel's structures (include/schedswap/author.h), from the runtime's side. The structs are part of
 * the contract of handover.h.
 */
#ifndef SS_EXTENSION_H
#define SS_EXTENSION_H

#include <linux/types.h>
#include "include/schedswap/author.h"

/*
 * The slots of one kind of object. A slot is an object's number. It is the same in the tables of all states of that kind,
 * and stays with the object from version to version.
 */
struct ss_slots {
	struct ss_table owners;		/* of struct ss_owner */
	u32 limit;			/* slots below it have been given out or are free; all tables reach that far */
	u32 first_free;			/* 0: none */
	u32 free;
	u32 used;
};

struct ss_owner {
	const void *object;		/* NULL: the slot is free */
	u32 next_free;
};

/* A kind of object of which there is a state: threads, groups. */
struct ss_kind {
	u32 id;				/* enum ss_kind_id */
	u32 hole;			/* where in the object its slot's number is */
	const char *what;
	struct ss_slots slots;
	unsigned int (*count)(void);	/* how many there are; callable anywhere, also inside the stop */
	void (*for_each)(void (*fn)(struct ss_kind *kind, const void *object), struct ss_kind *kind);
};

/* What the build says about one state. */
struct ss_state_row {
	struct schedswap_state *state;
	/* of its declaration, names and sizes of members included; 0: not known */
	u64 type_hash;
	u32 holds_pointers;
};

/* What a module has of all this. */
struct ss_extension {
	struct ss_kind *const *kinds;
	const unsigned int *kind_count;
	const struct ss_state_row *states;
	const unsigned int *state_count;
};

/* tables.c */
extern struct ss_kind *const ss_kinds[];
extern const unsigned int ss_kind_count;
extern const struct ss_state_row ss_states[];
extern const unsigned int ss_state_count;

/* table.c */
int ss_table_grow(struct ss_table *table, u32 capacity);
void ss_table_free(struct ss_table *table);
size_t ss_table_bytes(const struct ss_table *table, u32 capacity);

static inline void *ss_table_at(const struct ss_table *table, u32 slot)
{
	return table->pieces[slot >> table->shift] + (size_t)(slot & ((1u << table->shift) - 1)) * table->stride;
}

/* Slots kept for objects that cannot wait for memory. */
#define SS_SLOTS_RESERVE 64

#define ss_for_each_state(state, row)									\
	for ((row) = ss_states; (row) < ss_states + ss_state_count && ((state) = (row)->state); (row)++)

/* slots.c */
struct ss_kind *ss_kind_of(const struct schedswap_state *state);
int ss_slots_grow(struct ss_kind *kind, u32 limit);
size_t ss_available_bytes(void);
const void *ss_record_make(struct schedswap_state *state, const void *object);
void ss_records_make(struct ss_kind *kind, const void *object);
void ss_record_empty(struct schedswap_state *state, void *record);
/* for the entry points of each kind */
int ss_object_begins(struct ss_kind *kind, const void *object);
void ss_object_ends(struct ss_kind *kind, const void *object);

#endif

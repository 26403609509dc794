// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * Tables that grow while they are being read. Pieces stay where they are; the list of pieces is replaced by a longer
 * one, and the shorter one is kept, since a reader may still be looking at it. Together the shorter lists take no more
 * memory than the longest. None of this is the module's own memory: tables are handed to the next version.
 */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include "extension.h"

struct piece_list {
	struct piece_list *outgrown;
	u8 *pieces[];
};

/* __GFP_RETRY_MAYFAIL: fail with -ENOMEM rather than invoke the OOM killer. */
#define GFP_TABLE (GFP_KERNEL | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

static struct piece_list *list_of(const struct ss_table *table)
{
	return container_of(table->pieces, struct piece_list, pieces[0]);
}

static u32 pieces_for(const struct ss_table *table, u32 capacity)
{
	return DIV_ROUND_UP(capacity, 1u << table->shift);
}

static size_t piece_bytes(const struct ss_table *table)
{
	return (size_t)table->stride << table->shift;
}

/* How much it takes to grow to `capacity`. */
size_t ss_table_bytes(const struct ss_table *table, u32 capacity)
{
	if (capacity <= table->capacity)
		return 0;
	return (pieces_for(table, capacity) - pieces_for(table, table->capacity)) * piece_bytes(table);
}

static int make_room(struct ss_table *table, u32 pieces)
{
	u32 room = max(pieces, 2 * table->room);
	struct piece_list *list;

	if (pieces <= table->room)
		return 0;
	list = kvzalloc(struct_size(list, pieces, room), GFP_TABLE);
	if (!list)
		return -ENOMEM;
	if (table->pieces) {
		list->outgrown = list_of(table);
		memcpy(list->pieces, table->pieces, table->room * sizeof(*table->pieces));
	}
	smp_store_release(&table->pieces, list->pieces);
	table->room = room;
	return 0;
}

/* Process context, one caller at a time. -ENOMEM: it may have grown, but by less. */
int ss_table_grow(struct ss_table *table, u32 capacity)
{
	u32 i, pieces = pieces_for(table, capacity);
	int err;

	if (capacity <= table->capacity)
		return 0;
	err = make_room(table, pieces);
	for (i = pieces_for(table, table->capacity); i < pieces && !err; i++) {
		u8 *piece = kvzalloc(piece_bytes(table), GFP_TABLE);

		if (!piece)
			return -ENOMEM;
		table->pieces[i] = piece;
		/* A reader that sees the capacity sees list and piece. */
		smp_store_release(&table->capacity, (i + 1) << table->shift);
		cond_resched();
	}
	return err;
}

/* Nothing reads it any more. */
void ss_table_free(struct ss_table *table)
{
	struct piece_list *list, *outgrown;
	u32 i;

	for (i = 0; i < pieces_for(table, table->capacity); i++) {
		kvfree(table->pieces[i]);
		cond_resched();
	}
	for (list = table->pieces ? list_of(table) : NULL; list; list = outgrown) {
		outgrown = list->outgrown;
		kvfree(list);
	}
	table->pieces = NULL;
	table->capacity = 0;
	table->room = 0;
}

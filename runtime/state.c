// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * Variables that only the modules have: a switch hands over the value of those that both versions declare alike.
 * The build lists only what can be copied, that is, nothing that holds a pointer.
 */
#include <linux/percpu.h>
#include <linux/slab.h>
#include <linux/string.h>
#include "runtime.h"
#include "handover.h"

struct pair {
	const struct ss_variable *from, *to;
};

static struct pair *pairs;
static unsigned int pair_count;

static const struct ss_variable *same_in(const struct ss_handover *predecessor, const struct ss_variable *state)
{
	unsigned int i;

	for (i = 0; i < *predecessor->variable_count; i++) {
		const struct ss_variable *other = &predecessor->variables[i];

		if (other->size == state->size && other->type == state->type &&
		    other->per_cpu == state->per_cpu && !strcmp(other->name, state->name))
			return other;
	}
	return NULL;
}

/* Process context: who goes with whom. */
int ss_state_match(const struct ss_handover *predecessor)
{
	unsigned int i;

	pairs = kvcalloc(ss_variable_count ?: 1, sizeof(*pairs), GFP_KERNEL);
	if (!pairs)
		return -ENOMEM;
	for (i = 0; i < ss_variable_count; i++) {
		pairs[pair_count].to = &ss_variables[i];
		pairs[pair_count].from = same_in(predecessor, &ss_variables[i]);
		if (pairs[pair_count].from)
			pair_count++;
	}
	return 0;
}

/* Inside the stop, on one CPU: nobody runs either module's code. */
void ss_state_copy(void)
{
	unsigned int i;
	int cpu;

	for (i = 0; i < pair_count; i++) {
		const struct pair *pair = &pairs[i];

		if (!pair->to->per_cpu) {
			memcpy(pair->to->addr, pair->from->addr, pair->to->size);
			continue;
		}
		for_each_possible_cpu(cpu)
			memcpy(per_cpu_ptr((void __percpu *)pair->to->addr, cpu),
			       per_cpu_ptr((void __percpu *)pair->from->addr, cpu), pair->to->size);
	}
}

void ss_state_forget(void)
{
	kvfree(pairs);
	pairs = NULL;
	pair_count = 0;
}

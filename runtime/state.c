// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * The values of the module's own variables. A switch hands over those that only modules have, if both versions declare
 * them alike. Those that vmlinux has too start with its value and copy theirs back to it; a switch does both, through
 * vmlinux's variable, so that it does not matter whether the variable is private in the other version.
 * The build lists only what can be copied: nothing that holds a pointer, and nothing that is read-only in vmlinux.
 */
#include <linux/mm.h>
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

		if (!other->vmlinux && other->size == state->size && other->type_hash == state->type_hash &&
		    other->per_cpu == state->per_cpu && !strcmp(other->name, state->name))
			return other;
	}
	return NULL;
}

/* Process context: finds the pairs to copy. */
int ss_state_match(const struct ss_handover *predecessor)
{
	unsigned int i;

	pairs = kvcalloc(ss_variable_count ?: 1, sizeof(*pairs), GFP_KERNEL);
	if (!pairs)
		return -ENOMEM;
	for (i = 0; i < ss_variable_count; i++) {
		if (ss_variables[i].vmlinux)
			continue;
		pairs[pair_count].to = &ss_variables[i];
		pairs[pair_count].from = same_in(predecessor, &ss_variables[i]);
		if (pairs[pair_count].from)
			pair_count++;
	}
	return 0;
}

static void copy(void *to, const void *from, const struct ss_variable *like)
{
	int cpu;

	if (!like->per_cpu) {
		memcpy(to, from, like->size);
		return;
	}
	/* Cast through a number: to gcc, per-CPU data may be in another address space (CONFIG_USE_X86_SEG_SUPPORT). */
	for_each_possible_cpu(cpu)
		memcpy(per_cpu_ptr((void __percpu *)(unsigned long)to, cpu),
		       per_cpu_ptr((const void __percpu *)(unsigned long)from, cpu), like->size);
}

static void take_from_vmlinux(void)
{
	unsigned int i;

	for (i = 0; i < ss_variable_count; i++)
		if (ss_variables[i].vmlinux)
			copy(ss_variables[i].addr, ss_variables[i].vmlinux, &ss_variables[i]);
}

static void give_to_vmlinux(const struct ss_variable *variables, unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count; i++)
		if (variables[i].vmlinux)
			copy(variables[i].vmlinux, variables[i].addr, &variables[i]);
}

/*
 * Inside the stop, on one CPU: no CPU runs scheduler code of either side. The old code has emptied the queues, the
 * new code has not filled them yet.
 */
void ss_state_copy(enum ss_op op, const struct ss_handover *predecessor)
{
	unsigned int i;

	if (op == SS_UNLOAD) {
		give_to_vmlinux(ss_variables, ss_variable_count);
		return;
	}
	if (predecessor)
		give_to_vmlinux(predecessor->variables, *predecessor->variable_count);
	take_from_vmlinux();
	for (i = 0; i < pair_count; i++)
		copy(pairs[i].to->addr, pairs[i].from->addr, pairs[i].to);
}

void ss_state_forget(void)
{
	kvfree(pairs);
	pairs = NULL;
	pair_count = 0;
}

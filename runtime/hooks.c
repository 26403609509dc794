// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/* Calls the hooks that the author of the scheduler has registered around a swap: include/schedswap/author.h. */
#include "runtime.h"
#include "hooks.h"

/* May sleep. The first hook that returns an error refuses the swap. */
int ss_hooks_ask(enum schedswap_event event)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < ss_hook_count && !err; i++) {
		if (ss_hooks[i]->point != SS_BEFORE_SWAP)
			continue;
		err = ss_hooks[i]->ask(event);
		if (err)
			pr_err(SS_LOG "refused: %ps says %d\n", ss_hooks[i]->ask, err);
	}
	if (err > 0 || err < -MAX_ERRNO)
		err = -EINVAL;	/* the thread that asked for the swap gets an errno */
	return err;
}

/* Process context, except for SS_IN_SWAP and SS_IN_UNLOAD: those are called inside the stop. */
void ss_hooks_call(enum ss_hook_point point, enum schedswap_event event)
{
	bool going = point == SS_BEFORE_UNLOAD || point == SS_IN_UNLOAD || point == SS_AFTER_UNLOAD;
	unsigned int i;

	for (i = 0; i < ss_hook_count; i++) {
		const struct ss_hook *hook = ss_hooks[going ? ss_hook_count - 1 - i : i];

		if (hook->point == point)
			hook->call(event);
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * How a module is kept from being removed. A reference alone does not do it: a forced removal (`rmmod -f`,
 * CONFIG_MODULE_FORCE_UNLOAD) ignores references, and would free code that vmlinux jumps to. But delete_module(2) first
 * looks whether another module uses this one (source_list), and then it refuses, forced or not. So a hold is such a
 * use, and a reference too, because that is what rmmod and lsmod look at.
 */
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include "runtime.h"

#ifdef CONFIG_MODULE_UNLOAD
/*
 * Process context, may sleep. Fails if the removal of `module` has begun. Until ss_let_go, `use` is in a list of the
 * kernel. A module may hold itself.
 */
bool ss_hold(struct module *module, struct ss_use *use)
{
	bool held;

	/* delete_module looks at the list and marks the module as going with the mutex held: one of the two is first. */
	mutex_lock(&module_mutex);
	held = try_module_get(module);
	if (held) {
		use->source = THIS_MODULE;
		use->target = module;
		/* Not in our target_list, with which the kernel would free `use` when this module is removed. */
		list_add(&use->source_list, &module->source_list);
	}
	mutex_unlock(&module_mutex);
	return held;
}

/*
 * Process context, may sleep. From now on the module can be removed. Those who call this from the held module itself may
 * still return: module_exit waits for readers and writers of our sysfs files, module_init has not returned yet, and a
 * successor that takes over has a hold of its own.
 */
void ss_let_go(struct ss_use *use)
{
	mutex_lock(&module_mutex);
	list_del(&use->source_list);
	mutex_unlock(&module_mutex);
	module_put(use->target);
}
#else
bool ss_hold(struct module *module, struct ss_use *use)
{
	return true;
}

void ss_let_go(struct ss_use *use)
{
}
#endif

// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * What becomes of a module whose code has run, once its scheduler is out of use. Anything may still have an address of
 * its memory: of a function, a string, a list's node. So the memory stays until the machine boots: the module holds
 * itself, and its text, its unwind tables and its data go on to be what they were.
 *
 * The same file can be loaded again meanwhile. It must not find the old data, which may point to threads that have
 * ended, so it is loaded as another module, and the retired one gives up its name.
 */
#include <linux/kernfs.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/string.h>
#include "runtime.h"
#include "hooks.h"
#include "extension.h"

#define RETIRED_MAX 1000	/* of one name; the loader's bound is far below */

static struct ss_use own_use;
static bool kept_by_itself;	/* own_use is in force. Written with main.c's mutex held, read without by sysfs. */

bool ss_is_kept(void)
{
	return READ_ONCE(kept_by_itself);
}

/* Process context, may sleep. From before anything can lead to the module's code. False: its removal has begun. */
bool ss_keep(void)
{
	if (!kept_by_itself)
		WRITE_ONCE(kept_by_itself, ss_hold(THIS_MODULE, &own_use));
	return kept_by_itself;
}

/* Process context, may sleep. The module may be removed, and its memory be freed. */
void ss_keep_no_longer(void)
{
	if (kept_by_itself)
		ss_let_go(&own_use);
	WRITE_ONCE(kept_by_itself, false);
}

/* A swap was refused. Did code of the author's run on the way? It may have handed out addresses. */
bool ss_author_has_code_around_swaps(void)
{
	return ss_hook_count || ss_state_count;
}

/* Did the build show that no address of the module's memory gets out? */
bool ss_memory_is_proved(void)
{
	return !ss_unproved_count;
}

static bool is_taken(const char *name)
{
	struct kernfs_node *node = kernfs_find_and_get(THIS_MODULE->mkobj.kobj.parent->sd, name);

	kernfs_put(node);	/* NULL is fine */
	return node;
}

/* Only modules that retire have such names, so that the name stays free. */
static int find_name(char *name, size_t size)
{
	int i;

	for (i = 1; i <= RETIRED_MAX; i++) {
		if (snprintf(name, size, "%s_r%d", THIS_MODULE->name, i) >= size)
			return -ENAMETOOLONG;
		if (!is_taken(name))
			return 0;
	}
	return -ENOSPC;
}

/*
 * The name of struct module is what lsmod, rmmod and the kernel's module loader go by. They hold the mutex. Who looks
 * up symbols does not, and finds the old name or the new one: the first byte is written last.
 */
static void extend_name(const char *longer)
{
	char *name = THIS_MODULE->name;
	size_t len = strlen(name);

	mutex_lock(&module_mutex);
	memcpy(name + len + 1, longer + len + 1, strlen(longer) - len);
	smp_wmb();
	WRITE_ONCE(name[len], longer[len]);
	mutex_unlock(&module_mutex);
}

/*
 * Process context, may sleep; main.c's mutex is held, and nothing in vmlinux leads here. Afterwards the name is free.
 * -errno: nothing is changed.
 */
int ss_retire(void)
{
	char name[MODULE_NAME_LEN];
	int err = find_name(name, sizeof(name));

	/* The directory in /sys/module first: as long as the module has its name, no other is loaded under it. */
	err = err ?: kobject_rename(&THIS_MODULE->mkobj.kobj, name);
	if (err)
		return err;
	extend_name(name);
	ss_sysfs_retire(name);
	return 0;
}

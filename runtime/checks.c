// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/* Whether this is the kernel the module was built for, and whether anything else patches its scheduler. */
#include <linux/elf.h>
#include <linux/kernfs.h>
#include <linux/kobject.h>
#include <linux/livepatch.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#if __has_include(<linux/hex.h>)	/* bin2hex; in linux/kernel.h before */
#include <linux/hex.h>
#endif
#include "runtime.h"

#ifndef NT_GNU_BUILD_ID		/* private to lib/buildid.c in older kernels */
#define NT_GNU_BUILD_ID 3
#endif

static char own_id[2 * SS_BUILD_ID_MAX + 1];

const char *ss_own_build_id(void)
{
	bin2hex(own_id, ss_build_id, min_t(unsigned int, ss_build_id_len, SS_BUILD_ID_MAX));
	return own_id;
}

/*
 * The notes of the running kernel, as /sys/kernel/notes gives them; the caller frees. Only exported functions are
 * called here: on a kernel that is not ours every address bound at build time would be wrong.
 */
static void *read_notes(size_t *size)
{
	struct kernfs_node *node = kernfs_find_and_get(kernel_kobj->sd, "notes");
	const struct bin_attribute *attr;
	void *notes = NULL;

	if (!node)
		return NULL;
	attr = node->priv;	/* sysfs keeps a file's attribute there; vmlinux's is never freed */
	*size = attr->size;
	if (*size && *size <= SZ_1M)
		notes = kmalloc(*size, GFP_KERNEL);
	if (notes && attr->private)	/* kernels that read it with sysfs_bin_attr_simple_read */
		memcpy(notes, attr->private, *size);
	else if (notes && attr->read(NULL, kernel_kobj, (struct bin_attribute *)attr, notes, 0, *size) != *size) {
		kfree(notes);
		notes = NULL;
	}
	kernfs_put(node);
	return notes;
}

/* The build-id among `notes`: type 3 of the name GNU. Other vendors' notes may come first. */
static const u8 *find_build_id(const void *notes, size_t size, unsigned int *len)
{
	const struct elf64_note *note = notes;
	const void *end = notes + size;

	while ((const void *)(note + 1) <= end) {
		const char *name = (const char *)(note + 1);
		size_t room = end - (const void *)name;

		if (note->n_namesz > room || note->n_descsz > room ||
		    ALIGN(note->n_namesz, 4) + ALIGN(note->n_descsz, 4) > room)
			return NULL;
		if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 && !memcmp(name, "GNU", 4)) {
			*len = note->n_descsz;
			return (const u8 *)name + ALIGN(note->n_namesz, 4);
		}
		note = (const void *)name + ALIGN(note->n_namesz, 4) + ALIGN(note->n_descsz, 4);
	}
	return NULL;
}

/* Is the running kernel, to the last build, the one whose addresses are in this module? Names both if not. */
int ss_check_build_id(void)
{
	unsigned int len = 0;
	size_t size = 0;
	void *notes = read_notes(&size);
	const u8 *id = notes ? find_build_id(notes, size, &len) : NULL;
	int err = 0;

	if (!id || len != ss_build_id_len || memcmp(id, ss_build_id, len)) {
		pr_err(SS_LOG "refused: built for the kernel with build id %s, this one has %*phN\n",
		       ss_own_build_id(), id ? (int)min(len, 64u) : 0, id);
		err = -EINVAL;
	}
	kfree(notes);
	return err;
}

#ifdef CONFIG_LIVEPATCH
/* kernel/livepatch/core.h, which no headers package has */
extern struct mutex klp_mutex;
extern struct list_head klp_patches;

static const struct ss_patch *patch_of_function(unsigned long func)
{
	unsigned int i;

	for (i = 0; i < ss_patch_count; i++)
		if (ss_patches[i].func == func)
			return &ss_patches[i];
	return NULL;
}

static int refuse_livepatched(const struct klp_patch *patch, const struct klp_object *object)
{
	const struct klp_func *func;

	list_for_each_entry(func, &object->func_list, node) {
		if (!patch_of_function((unsigned long)func->old_func))
			continue;
		pr_err(SS_LOG "refused: %s is held by livepatch %s. Disable it and try again.\n",
		       func->old_name, patch->mod->name);
		return -EADDRINUSE;
	}
	return 0;
}

/*
 * A livepatch diverts at the function's very entry, before our jump, so that ours would never run. Refuses if
 * there is one on our functions; otherwise none can be added until ss_livepatch_unlock. May sleep. Taken before
 * the locks of text.c: livepatch takes those inside its own.
 */
int ss_livepatch_lock(void)
{
	const struct klp_object *object;
	const struct klp_patch *patch;
	int err = 0;

	mutex_lock(&klp_mutex);
	list_for_each_entry(patch, &klp_patches, list)
		list_for_each_entry(object, &patch->obj_list, node)
			err = err ?: refuse_livepatched(patch, object);
	if (err)
		mutex_unlock(&klp_mutex);
	return err;
}

void ss_livepatch_unlock(void)
{
	mutex_unlock(&klp_mutex);
}
#else
int ss_livepatch_lock(void)
{
	return 0;
}

void ss_livepatch_unlock(void)
{
}
#endif

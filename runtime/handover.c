// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * From one scheduler module to the next, without vmlinux's own in between: how the module in charge is found, and what
 * this one offers when it is in charge itself.
 */
#include <linux/err.h>
#include <linux/kernfs.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include "runtime.h"
#include "handover.h"
#include "hooks.h"

/* fs/kernfs/kernfs-internal.h, which no headers package has */
struct kernfs_node *kernfs_get_active(struct kernfs_node *kn);
void kernfs_put_active(struct kernfs_node *kn);

static ssize_t abi_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", SS_HANDOVER_ABI);
}

struct ss_handover ss_handover = {
	.attribute = { .attr = { .name = "handover", .mode = 0400 }, .show = abi_show },
	.magic = SS_HANDOVER_MAGIC,
	.abi = SS_HANDOVER_ABI,
	.module = THIS_MODULE,
	.version = ss_version,
	.rebuilds = &ss_rebuilds,
	.be_taken_over = ss_be_taken_over,
	.taken_over = ss_taken_over,
	.call_hooks = ss_hooks_call,
	.texts = ss_texts,
	.text_count = &ss_text_count,
	.features = &ss_features_module,
	.variables = ss_variables,
	.variable_count = &ss_variable_count,
	.extension = {
		.kinds = ss_kinds,
		.kind_count = &ss_kind_count,
		.states = ss_states,
		.state_count = &ss_state_count,
	},
};

static struct ss_use use_of_predecessor;	/* main.c's mutex is held: one at a time */

/* The handover of the module whose file this is; that module is held until ss_handover_end. */
static struct ss_handover *handover_of(struct kernfs_node *file)
{
	struct ss_handover *found = ERR_PTR(-ENODEV);

	/* While the file is held, its directory cannot be removed, and so neither can the module. */
	if (!kernfs_get_active(file))
		return found;
	/* sysfs keeps a file's attribute there. */
	found = container_of((struct attribute *)file->priv, struct ss_handover, attribute.attr);
	if (found->magic != SS_HANDOVER_MAGIC || found->abi != SS_HANDOVER_ABI) {
		pr_err(SS_LOG "refused: the scheduler that runs was built by another version of schedswap and cannot be taken over from, remove it first\n");
		found = ERR_PTR(-EPROTO);
	} else if (!ss_hold(found->module, &use_of_predecessor)) {
		found = ERR_PTR(-ENODEV);
	}
	kernfs_put_active(file);
	return found;
}

static struct kernfs_node *file_of_the_one_in_charge(void)
{
	struct kernfs_node *directory = kernfs_find_and_get(kernel_kobj->sd, "schedswap"), *file;

	if (!directory)
		return NULL;
	file = kernfs_find_and_get(directory, ss_handover.attribute.attr.name);
	kernfs_put(directory);
	return file ?: ERR_PTR(-EEXIST);	/* a directory that is not ours */
}

/* Process context. Keeps the module in charge as it is until ss_handover_end. NULL: there is none; or an ERR_PTR. */
struct ss_handover *ss_handover_begin(void)
{
	struct kernfs_node *file = file_of_the_one_in_charge();
	struct ss_handover *predecessor;
	int err;

	if (IS_ERR_OR_NULL(file))
		return ERR_CAST(file);
	predecessor = handover_of(file);
	kernfs_put(file);
	if (IS_ERR(predecessor))
		return predecessor;
	err = predecessor->be_taken_over();
	if (!err)
		return predecessor;
	if (err == -ENODEV)
		pr_err(SS_LOG "refused: %s is loaded but not enabled, uninstall it first\n", predecessor->version);
	ss_let_go(&use_of_predecessor);
	return ERR_PTR(err);
}

void ss_handover_end(struct ss_handover *predecessor, bool done)
{
	if (done) {
		ss_sysfs_leave(predecessor->directory, predecessor->module->name);
		ss_sysfs_take_charge();
	}
	predecessor->taken_over(done);
	ss_let_go(&use_of_predecessor);
}

const char *ss_handover_version(const struct ss_handover *predecessor)
{
	return predecessor->version;
}

// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/* /sys/kernel/schedswap: what is loaded, and the switch. */
#include <linux/delay.h>
#include <linux/kernfs.h>
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include "runtime.h"
#include "handover.h"

static struct kobject *directory;

static ssize_t enable_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n", ss_is_enabled());
}

/* The writer is the thread that asks for the swap; it gets the attempt's errno. */
static ssize_t enable_store(struct kobject *kobj, struct kobj_attribute *attr, const char *buf, size_t count)
{
	bool wanted;
	int err = kstrtobool(buf, &wanted);

	if (!err)
		err = ss_request(wanted);
	return err ?: count;
}

static ssize_t state_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n", ss_state_name());
}

static ssize_t version_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n", ss_version);
}

/* What /sys/module, rmmod and the kernel log call it. */
static ssize_t module_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n", THIS_MODULE->name);
}

static ssize_t since_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return ss_is_enabled() ? sysfs_emit(buf, "%lld\n", ss_enabled_since()) : 0;
}

/* Reading it looks at every stack and window now, with the machine running. */
static ssize_t plan_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return ss_plan(buf);
}

static ssize_t build_id_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n", ss_own_build_id());
}

static ssize_t functions_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", ss_patch_count);
}

static ssize_t blocker_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return ss_blockers_show(buf);
}

static ssize_t timing_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return ss_timing_show(buf);
}

/* For each kind of object that the scheduler keeps state for: how many have it. */
static ssize_t extension_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return ss_extension_show(buf);
}

/* Whether the module holds itself, because it was enabled. */
static ssize_t kept_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n", ss_is_kept());
}

/* Why the module's memory must not be freed: what the build found, a line each; nothing if it may be. */
static ssize_t unproved_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	unsigned int i;
	ssize_t len = 0;

	for (i = 0; i < ss_unproved_count; i++)
		len += sysfs_emit_at(buf, len, "%s\n", ss_unproved[i]);
	return len;
}

/* Both take a 1, like the files of devices that are removed by writing. */
static ssize_t ask_once(const char *buf, size_t count, int (*ask)(void))
{
	bool wanted;
	int err = kstrtobool(buf, &wanted);

	if (!err)
		err = wanted ? ask() : -EINVAL;
	return err ?: count;
}

static ssize_t retire_store(struct kobject *kobj, struct kobj_attribute *attr, const char *buf, size_t count)
{
	return ask_once(buf, count, ss_request_retirement);
}

static ssize_t release_store(struct kobject *kobj, struct kobj_attribute *attr, const char *buf, size_t count)
{
	return ask_once(buf, count, ss_request_release);
}

static struct kobj_attribute enable_attr = __ATTR_RW(enable);
static struct kobj_attribute state_attr = __ATTR_RO(state);
static struct kobj_attribute version_attr = __ATTR_RO(version);
static struct kobj_attribute module_attr = __ATTR_RO(module);
static struct kobj_attribute since_attr = __ATTR_RO(since);
static struct kobj_attribute plan_attr = __ATTR_RO_MODE(plan, 0400);
static struct kobj_attribute build_id_attr = __ATTR_RO(build_id);
static struct kobj_attribute functions_attr = __ATTR_RO(functions);
static struct kobj_attribute blocker_attr = __ATTR_RO(blocker);
static struct kobj_attribute timing_attr = __ATTR_RO(timing);
static struct kobj_attribute extension_attr = __ATTR_RO(extension);
static struct kobj_attribute kept_attr = __ATTR_RO(kept);
static struct kobj_attribute unproved_attr = __ATTR_RO(unproved);
static struct kobj_attribute retire_attr = __ATTR_WO(retire);
static struct kobj_attribute release_attr = __ATTR_WO(release);

static struct attribute *attributes[] = {
	&enable_attr.attr, &state_attr.attr, &version_attr.attr, &module_attr.attr, &since_attr.attr,
	&build_id_attr.attr, &functions_attr.attr, &blocker_attr.attr, &timing_attr.attr, &plan_attr.attr,
	&extension_attr.attr, &kept_attr.attr, &unproved_attr.attr, &retire_attr.attr, &release_attr.attr,
	&ss_handover.attribute.attr, NULL,
};

static const struct attribute_group group = { .attrs = attributes };

/*
 * vmlinux/<function>,<sympos>: one file for each function that is replaced, under the name that livepatch would give
 * it, for other tools to see. It says whether the function is replaced now.
 */
static struct kobj_attribute *replaced;
static struct attribute **replaced_list;

#define REPLACED "vmlinux"

static void forget_replaced(void)
{
	unsigned int i;

	for (i = 0; replaced && i < ss_patch_count; i++)
		kfree(replaced[i].attr.name);
	kvfree(replaced);
	kvfree(replaced_list);
	replaced = NULL;
	replaced_list = NULL;
}

/* On failure, forget_replaced frees what there is. */
static int add_replaced(void)
{
	struct attribute_group group = { .name = REPLACED };
	unsigned int i;

	replaced = kvcalloc(ss_patch_count, sizeof(*replaced), GFP_KERNEL);
	replaced_list = kvcalloc(ss_patch_count + 1, sizeof(*replaced_list), GFP_KERNEL);
	if (!replaced || !replaced_list)
		return -ENOMEM;
	for (i = 0; i < ss_patch_count; i++) {
		sysfs_attr_init(&replaced[i].attr);
		replaced[i].attr.name = kasprintf(GFP_KERNEL, "%s,%u", ss_patches[i].name, ss_patches[i].sympos);
		if (!replaced[i].attr.name)
			return -ENOMEM;
		replaced[i].attr.mode = 0444;
		replaced[i].show = enable_show;
		replaced_list[i] = &replaced[i].attr;
	}
	group.attrs = replaced_list;
	return sysfs_create_group(directory, &group);	/* does not keep the group, only the attributes */
}

static bool name_is_taken(const char *name)
{
	struct kernfs_node *node = kernfs_find_and_get(kernel_kobj->sd, name);

	kernfs_put(node);	/* NULL is fine */
	return node;
}

/*
 * /sys/kernel/schedswap is the directory of the module in charge. The directory of a module that is loaded beside it,
 * to take over, has that module's name in it.
 */
int ss_sysfs_add(bool beside_another)
{
	char name[sizeof("schedswap-") + MODULE_NAME_LEN] = "schedswap";
	int err;

	/* Checked first: sysfs warns in the kernel log about a name that exists. */
	if (name_is_taken(name)) {
		if (!beside_another) {
			pr_err(SS_LOG "refused: a scheduler is already loaded (/sys/kernel/schedswap exists), remove it first\n");
			return -EEXIST;
		}
		snprintf(name, sizeof(name), "schedswap-%s", THIS_MODULE->name);
	}
	directory = kobject_create_and_add(name, kernel_kobj);
	if (!directory)
		return -ENOMEM;
	err = add_replaced();
	if (!err) {
		ss_handover.directory = directory;
		err = sysfs_create_group(directory, &group);
		if (!err)
			return 0;
	}
	ss_sysfs_remove();
	return err;
}

void ss_sysfs_remove(void)
{
	kobject_put(directory);	/* the last reference: removes the files and waits for threads that are in one */
	forget_replaced();
}

bool ss_sysfs_is_in_charge(void)
{
	return !strcmp(kobject_name(directory), "schedswap");
}

/* The swap is done. It cannot be refused any more just because there is no memory for a name. */
static void rename(struct kobject *which, const char *name)
{
	int err = 0, tries;

	for (tries = 0; tries < 100; tries++) {
		err = kobject_rename(which, name);
		if (err != -ENOMEM)
			break;
		msleep(100);
	}
	if (err)
		pr_warn(SS_LOG "/sys/kernel/%s cannot be renamed to %s: error %d\n", kobject_name(which), name, err);
}

void ss_sysfs_take_charge(void)
{
	rename(directory, "schedswap");
}

/* `left`: the directory of the module that was in charge. */
void ss_sysfs_leave(struct kobject *left, const char *module)
{
	char name[sizeof("schedswap-") + MODULE_NAME_LEN];

	snprintf(name, sizeof(name), "schedswap-%s", module);
	rename(left, name);
}

/* What the module replaced is of no interest any more, and takes more memory than the module. */
void ss_sysfs_retire(const char *module)
{
	const struct attribute_group group = { .name = REPLACED, .attrs = replaced_list };

	sysfs_remove_group(directory, &group);	/* waits for readers */
	forget_replaced();
	ss_sysfs_leave(directory, module);
}

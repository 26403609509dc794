// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/* /sys/kernel/schedswap: what is loaded, and the switch. */
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/sysfs.h>
#include "runtime.h"

static struct kobject *directory;

static ssize_t enable_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n", !strcmp(ss_state_name(), "enabled"));
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

static struct kobj_attribute enable_attr = __ATTR_RW(enable);
static struct kobj_attribute state_attr = __ATTR_RO(state);
static struct kobj_attribute version_attr = __ATTR_RO(version);
static struct kobj_attribute build_id_attr = __ATTR_RO(build_id);
static struct kobj_attribute functions_attr = __ATTR_RO(functions);
static struct kobj_attribute blocker_attr = __ATTR_RO(blocker);
static struct kobj_attribute timing_attr = __ATTR_RO(timing);

static struct attribute *attributes[] = {
	&enable_attr.attr, &state_attr.attr, &version_attr.attr, &build_id_attr.attr,
	&functions_attr.attr, &blocker_attr.attr, &timing_attr.attr, NULL,
};

static const struct attribute_group group = { .attrs = attributes };

int ss_sysfs_add(void)
{
	int err;

	directory = kobject_create_and_add("schedswap", kernel_kobj);
	if (!directory)
		return -ENOMEM;
	err = sysfs_create_group(directory, &group);
	if (err)
		kobject_put(directory);
	return err;
}

void ss_sysfs_remove(void)
{
	kobject_put(directory);	/* the last reference: removes the files and waits for whoever is in one */
}

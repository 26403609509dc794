/* SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause */
/*
 * What the scheduler module in charge offers to the one that takes over from it. Both are built for the same kernel
 * by the same compiler, but perhaps by different versions of schedswap: if you change a struct of this file, or one
 * of schedswap.h, extension.h and author.h that it points to, or how the SDK computes a type_hash
 * (crates/kernel/src/types/shape.rs), increment SS_HANDOVER_ABI.
 */
#ifndef SS_HANDOVER_H
#define SS_HANDOVER_H

#include <linux/kobject.h>
#include <linux/module.h>
#include "schedswap.h"
#include "extension.h"

#define SS_HANDOVER_MAGIC 0x7363686564737761ULL	/* "schedswa" */
#define SS_HANDOVER_ABI 4

/* One run of bytes of vmlinux. */
struct ss_write {
	unsigned long addr;
	u8 *alias;			/* the same bytes, writable; valid between ss_text_map and ss_text_unmap */
	const char *name;		/* function or class */
	u8 len;
	u8 is_text;
	u8 old[SS_WINDOW_MAX];		/* vmlinux's own: what is there when no module is loaded */
	u8 was[SS_WINDOW_MAX];		/* what was there before this module: vmlinux's own or the predecessor's */
	u8 new[SS_WINDOW_MAX];
};

struct ss_writes {
	const struct ss_write *list;
	unsigned int count;
};

struct ss_handover {
	struct kobj_attribute attribute;	/* of the sysfs file by which it is found; shows `abi` */
	u64 magic;
	u32 abi;
	struct module *module;
	const char *version;
	const u8 *rebuilds;		/* swapping it out rebuilds the queues */
	struct kobject *directory;
	/* Process context. 0: nothing of the module changes until `taken_over`; -errno: it cannot be taken over. */
	int (*be_taken_over)(void);
	void (*taken_over)(bool done);
	/* Calls its author's hooks on the way out. */
	void (*call_hooks)(enum ss_hook_point point, enum schedswap_event event);
	/* Valid between be_taken_over and taken_over. */
	struct ss_writes writes;
	const struct ss_text *texts;
	const unsigned int *text_count;
	const struct ss_feature_set *features;
	const struct ss_variable *variables;
	const unsigned int *variable_count;
	struct ss_extension extension;
};

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause */
/*
 * The tables that the build writes (tables.c) and the runtime reads. This is their only definition: the build names
 * the members that it fills in, and fails if one is missing, unknown to it or of another width (tables/rows.rs).
 *
 * Every vmlinux address in them is a relocation against the exported anchor, so that KASLR costs nothing
 * and the file stays static.
 */
#ifndef SCHEDSWAP_H
#define SCHEDSWAP_H

#include <linux/types.h>

#define SS_WINDOW_MAX 16	/* bytes of a patch window, at most */
#define SS_BUILD_ID_MAX 64

/* One place in vmlinux's text that is diverted. */
struct ss_patch {
	unsigned long site;	/* first byte written */
	unsigned long target;	/* where it shall jump: a function of the module, or the stub */
	unsigned long func;	/* entry of vmlinux's function */
	const char *name;	/* its symbol name */
	u8 len;			/* bytes written (5 on x86-64) */
	u8 after_fentry;
	u8 expect[SS_WINDOW_MAX];	/* what vmlinux's file holds there */
	u8 mask[SS_WINDOW_MAX];		/* 0xff: must match; 0: boot code may have rewritten it */
	u16 sympos;			/* which of vmlinux's symbols of that name, counted from 1 in kallsyms' order */
};

/* Code of the module that no thread may be inside of when it goes: the scheduler's, and what stands before it. */
struct ss_text {
	unsigned long start;
	unsigned long end;	/* a return address may be this one */
};

/* Code of vmlinux that no thread may be inside of when it is diverted. Sorted by start, disjoint. */
struct ss_range {
	unsigned long start;
	unsigned long end;	/* exclusive */
	const char *name;	/* function it belongs to */
};

/* A sched_class object: vmlinux's, and the module's build of the same. */
struct ss_class {
	void *vmlinux;
	const void *module;
	unsigned long size;
	const char *name;
};

struct static_key;

/* The scheduler's feature switches, one set in vmlinux and one in the module; count 0: the kernel has none. */
struct ss_feature_set {
	void *bits;			/* sysctl_sched_features */
	const char *const *names;	/* sched_feat_names */
	struct static_key *keys;	/* sched_feat_keys; NULL without jump labels */
	unsigned int count;		/* names and keys */
	unsigned int bits_size;		/* bytes of *bits */
};

/*
 * A variable of the module's own whose value goes along. One that only modules have: to the next version, if that
 * declares the same. One that vmlinux has too: from there at load, and back at unload.
 */
struct ss_variable {
	void *addr;			/* per_cpu: offset as of a DEFINE_PER_CPU symbol */
	const char *name;		/* unit, function if any, and variable */
	unsigned long size;
	u64 type_hash;			/* of its declaration, names and sizes of members included */
	void *vmlinux;			/* the same variable there, of the same type; NULL: only modules have it */
	u8 per_cpu;
};

extern const struct ss_feature_set ss_features_vmlinux, ss_features_module;
extern const struct ss_patch ss_patches[];
extern const unsigned int ss_patch_count;
/*
 * vmlinux's functions that are diverted, cold parts too. __schedule is left out: it is only ever entered with
 * preemption off, so the one place where a thread can be inside it is the springboard, which stays in use.
 */
extern const struct ss_range ss_ranges[];
extern const unsigned int ss_range_count;
extern const struct ss_class ss_classes[];
extern const unsigned int ss_class_count;
extern const struct ss_variable ss_variables[];
extern const unsigned int ss_variable_count;
extern const u8 ss_build_id[SS_BUILD_ID_MAX];
extern const unsigned int ss_build_id_len;
extern const char ss_version[];			/* shown in sysfs: name and release of this scheduler */
extern const u8 ss_rebuilds;			/* each swap takes all threads off their queues and puts them back */
extern const struct ss_text ss_texts[];
extern const unsigned int ss_text_count;
/* Why the module's memory must not be freed once its code has run, in words; none if the build proved that it may be. */
extern const char *const ss_unproved[];
extern const unsigned int ss_unproved_count;

#endif

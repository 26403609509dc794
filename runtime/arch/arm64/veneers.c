// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * Veneers: for each diverted function a few instructions near the kernel's text that go on to the module, since its
 * entry has room for a `b` only. They are made once, and stay as long as the module does: somebody may be in one.
 */
#include <linux/mm.h>
#include <linux/printk.h>
#include <linux/set_memory.h>
#include <linux/vmalloc.h>
#include <asm/sections.h>
#include "runtime.h"
#include "compat.h"

/* x16 and x17 are anybody's at a function's entry: linkers use them for the same ("AAPCS64", 6.1.1). */
struct veneer {
	__le32 load;		/* ldr	x16, .+8 */
	__le32 branch;		/* br	x16: with it, a landing pad for calls does */
	unsigned long target;
};

static struct veneer *veneers;

/* Where every `b` of the kernel's text reaches. */
static struct veneer *allocate(unsigned long size)
{
	unsigned long above = PAGE_ALIGN((unsigned long)_end), below = (unsigned long)_stext & PAGE_MASK;
	unsigned long reach = SZ_128M - PAGE_ALIGN(size) - PAGE_SIZE;
	unsigned long text = (unsigned long)_etext - (unsigned long)_stext;
	void *found;

	/* vmalloc may use guard pages on either side; both ends of the text must be in reach. */
	found = __vmalloc_node_range(size, PAGE_SIZE, above, below + reach, GFP_KERNEL, PAGE_KERNEL, 0,
				     NUMA_NO_NODE, __builtin_return_address(0));
	if (!found && text < reach)
		found = __vmalloc_node_range(size, PAGE_SIZE, max(below + text - reach, (unsigned long)VMALLOC_START),
					     below, GFP_KERNEL, PAGE_KERNEL, 0, NUMA_NO_NODE,
					     __builtin_return_address(0));
	return found;
}

/* Process context. Harmless if they are there. */
int ss_veneers_make(void)
{
	unsigned long size = PAGE_ALIGN(ss_patch_count * sizeof(*veneers));
	struct veneer *made;
	unsigned int i;
	int err;

	if (veneers || !ss_patch_count)
		return 0;
	made = allocate(size);
	if (!made) {
		pr_err(SS_LOG "refused: no memory within reach of the kernel's text for %u veneers\n", ss_patch_count);
		return -ENOMEM;
	}
	for (i = 0; i < ss_patch_count; i++) {
		made[i].load = cpu_to_le32(0x58000050);
		made[i].branch = cpu_to_le32(0xd61f0200);
		made[i].target = ss_patches[i].target;
	}
	/* As for a module's text: never writable and executable at once. */
	err = set_memory_ro((unsigned long)made, size / PAGE_SIZE);
	err = err ?: set_memory_x((unsigned long)made, size / PAGE_SIZE);
	if (err) {
		vfree(made);
		return err;
	}
	flush_icache_range((unsigned long)made, (unsigned long)made + size);
	veneers = made;
	return 0;
}

unsigned long ss_veneer(unsigned int patch)
{
	return (unsigned long)&veneers[patch];
}

/* When no thread can be in one: nothing leads there, and all have been scheduled since. */
void ss_veneers_free(void)
{
	unsigned long size = PAGE_ALIGN(ss_patch_count * sizeof(*veneers));

	if (!veneers)
		return;
	set_memory_nx((unsigned long)veneers, size / PAGE_SIZE);
	set_memory_rw((unsigned long)veneers, size / PAGE_SIZE);
	vfree(veneers);
	veneers = NULL;
}

// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * Veneers: for each diverted function a few instructions near the kernel's text that go on to the module, since its
 * entry has room for a `b` only. They are made once, and stay as long as the module does: a thread may be in one.
 *
 * A thread that was preempted in a veneer is about to be in the module. So the stack check treats veneers as code of
 * the module.
 */
#include <linux/mm.h>
#include <linux/printk.h>
#include <linux/set_memory.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <asm/sections.h>
#include "runtime.h"
#include "handover.h"
#include "compat.h"

/* x16 and x17 may be overwritten at a function's entry: linkers' veneers use them too ("AAPCS64", 6.1.1). */
struct veneer {
	__le32 load;		/* ldr	x16, .+8 */
	__le32 branch;		/* br	x16: may land on a landing pad for calls */
	unsigned long target;
};

static struct veneer *veneers;
static struct ss_text *texts;	/* the module's own, and the veneers */
static unsigned int text_count;

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

/* Its pages will be used for something else, through the kernel's linear mapping too. */
static void release(struct veneer *made, unsigned long size)
{
	/* Pages whose protection cannot be restored are not freed. */
	if (!set_memory_nx((unsigned long)made, size / PAGE_SIZE) &&
	    !set_memory_rw((unsigned long)made, size / PAGE_SIZE))
		vfree(made);
}

/* Process context. Does nothing if they exist already. */
int ss_veneers_make(void)
{
	unsigned long size = PAGE_ALIGN(ss_patch_count * sizeof(*veneers));
	struct veneer *made;
	unsigned int i;
	int err;

	if (veneers || !ss_patch_count)
		return 0;
	texts = kmalloc_array(ss_text_count + 1, sizeof(*texts), GFP_KERNEL);
	if (!texts)
		return -ENOMEM;
	made = allocate(size);
	if (!made) {
		pr_err(SS_LOG "refused: no memory within reach of the kernel's text for %u veneers\n", ss_patch_count);
		err = -ENOMEM;
		goto forget;
	}
	for (i = 0; i < ss_patch_count; i++) {
		made[i].load = cpu_to_le32(0x58000050);
		made[i].branch = cpu_to_le32(0xd61f0200);
		made[i].target = ss_patches[i].target;
	}
	/* As for a module's text: never writable and executable at once. */
	err = set_memory_ro((unsigned long)made, size / PAGE_SIZE);
	err = err ?: set_memory_x((unsigned long)made, size / PAGE_SIZE);
	if (err)
		goto release;
	flush_icache_range((unsigned long)made, (unsigned long)made + size);
	memcpy(texts, ss_texts, ss_text_count * sizeof(*texts));
	texts[ss_text_count] = (struct ss_text){ (unsigned long)made, (unsigned long)(made + ss_patch_count) };
	text_count = ss_text_count + 1;
	ss_handover.texts = texts;
	ss_handover.text_count = &text_count;
	veneers = made;
	return 0;
release:
	release(made, size);
forget:
	kfree(texts);
	texts = NULL;
	return err;
}

unsigned long ss_veneer(unsigned int patch)
{
	return (unsigned long)&veneers[patch];
}

/* When no thread can be in one: nothing leads there, and the stack check has found no thread. */
void ss_veneers_free(void)
{
	if (!veneers)
		return;
	ss_handover.texts = ss_texts;
	ss_handover.text_count = &ss_text_count;
	kfree(texts);
	texts = NULL;
	release(veneers, PAGE_ALIGN(ss_patch_count * sizeof(*veneers)));
	veneers = NULL;
}

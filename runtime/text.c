// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * The bytes of vmlinux that a swap changes: the windows in its text and the words of its sched_class objects.
 *
 * They are written through a second mapping of the same physical pages. The kernel's own mapping of text and
 * read-only data stays read-only all the time, so no write protection is ever lifted.
 */
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/memory.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/vmalloc.h>
#include "runtime.h"
#include "handover.h"
#include "compat.h"

static struct ss_write *writes;
static unsigned int write_count;
static void *alias_base;

static const u8 *bytes_before(const struct ss_write *w, enum ss_op op)
{
	return op == SS_UNLOAD ? w->new : w->was;
}

static const u8 *bytes_after(const struct ss_write *w, enum ss_op op)
{
	return op == SS_UNLOAD ? w->old : w->new;
}

#ifdef CONFIG_KPROBES
/*
 * kprobes.c's own mutex: registration reads the probed instruction and arms the probe in two steps. A probe that
 * read before our write and arms after it would later resume in the middle of our jump.
 */
extern struct mutex kprobe_mutex;

static bool has_kprobe(unsigned long from, unsigned long to)
{
	bool found = false;
	unsigned long addr;

	preempt_disable();	/* get_kprobe walks an RCU list and asks for this */
	for (addr = from; addr < to && !found; addr++)
		found = get_kprobe((void *)addr);
	preempt_enable();
	return found;
}
#else
static bool has_kprobe(unsigned long from, unsigned long to)
{
	return false;
}
#endif

static bool has_ftrace(unsigned long from, unsigned long to)
{
#ifdef CONFIG_DYNAMIC_FTRACE
	unsigned long addr;

	for (addr = from; addr < to; addr++)
		if (ftrace_location(addr) == addr)
			return true;
#endif
	return false;
}

/* Refuses, naming function and holder. `want` is what the window should hold. */
static int refuse(const struct ss_write *w, const u8 *want)
{
	/* An optimised kprobe writes a jump of its own that reaches up to 4 bytes past its address. */
	const char *holder = has_kprobe(w->addr - 4, w->addr + w->len) ? "a kprobe" :
			     has_ftrace(w->addr, w->addr + w->len) ? "livepatch or ftrace" : "another patcher";

	pr_err(SS_LOG "refused: %s is held by %s at %pS: found %*ph, expected %*ph. Remove it and try again.\n",
	       w->name, holder, (void *)w->addr, w->len, (void *)w->addr, w->len, want);
	return -EADDRINUSE;
}

/* What a predecessor wrote at these bytes, or NULL. `count` is 0 if there is no predecessor. */
static const struct ss_write *held_at(const struct ss_writes *held, unsigned long addr, unsigned int len)
{
	unsigned int i;

	for (i = 0; i < held->count; i++)
		if (held->list[i].addr < addr + len && addr < held->list[i].addr + held->list[i].len)
			return &held->list[i];
	return NULL;
}

/* Fills one window's write from its table row; bytes that boot code may have rewritten are taken as found. */
static int plan_window(struct ss_write *w, unsigned int index, const struct ss_writes *held)
{
	const struct ss_patch *patch = &ss_patches[index];
	const struct ss_write *theirs = held_at(held, patch->site, patch->len);
	unsigned int i;
	int err;

	if (!patch->len || patch->len > SS_WINDOW_MAX)
		return -EINVAL;
	if (theirs && (theirs->addr != patch->site || theirs->len != patch->len)) {
		pr_err(SS_LOG "refused: the scheduler that runs diverts %s at another place. Remove it first.\n",
		       patch->name);
		return -EINVAL;
	}
	w->addr = patch->site;
	w->name = patch->name;
	w->len = patch->len;
	w->is_text = true;
	/* Another CPU may be poking here; ss_text_check compares again with text_mutex held. */
	memcpy(w->was, (void *)patch->site, patch->len);
	memcpy(w->old, theirs ? theirs->old : w->was, patch->len);
	if (theirs && memcmp(w->was, theirs->new, patch->len))
		return refuse(w, theirs->new);
	for (i = 0; i < patch->len; i++)
		if ((w->old[i] ^ patch->expect[i]) & patch->mask[i])
			return refuse(w, patch->expect);
	if (has_kprobe(w->addr, w->addr + w->len))	/* registered but not armed: bytes still intact */
		return refuse(w, w->was);
	err = ss_arch_make_jump(w->new, w->len, patch->site, ss_veneer(index));
	if (err)
		pr_err(SS_LOG "refused: no jump from %s reaches the module\n", patch->name);
	return err;
}

/*
 * Counts the words in which the module's build of a class differs from vmlinux's own; writes them down if asked.
 * Members that vmlinux has too are bound to vmlinux's address and so are equal: only new functions differ.
 */
static unsigned int plan_class(struct ss_write *w, const struct ss_class *class, const struct ss_writes *held)
{
	const unsigned long *mine = class->module, *now = class->vmlinux;
	unsigned int i, count = 0;

	for (i = 0; i < class->size / sizeof(*mine); i++) {
		const struct ss_write *theirs = held_at(held, (unsigned long)&now[i], sizeof(*mine));

		if (!memcmp(&mine[i], theirs ? (void *)theirs->old : (void *)&now[i], sizeof(*mine)))
			continue;
		if (w) {
			w[count].addr = (unsigned long)&now[i];
			w[count].name = class->name;
			w[count].len = sizeof(*mine);
			memcpy(w[count].old, theirs ? (void *)theirs->old : (void *)&now[i], sizeof(*mine));
			memcpy(w[count].was, theirs ? (void *)theirs->new : (void *)&now[i], sizeof(*mine));
			memcpy(w[count].new, &mine[i], sizeof(*mine));
		}
		count++;
	}
	return count;
}

/* What the predecessor wrote and this module does not write becomes vmlinux's own again. */
static void plan_to_give_back(const struct ss_writes *held)
{
	const struct ss_writes ours = { writes, write_count };
	unsigned int i;

	for (i = 0; i < held->count; i++) {
		struct ss_write *w = &writes[write_count];

		if (held_at(&ours, held->list[i].addr, held->list[i].len))
			continue;
		*w = held->list[i];
		w->alias = NULL;
		memcpy(w->was, held->list[i].new, sizeof(w->was));
		memcpy(w->new, held->list[i].old, sizeof(w->new));
		write_count++;
	}
}

/* Can each place be written so that there is no moment in which a jump leads nowhere? Names the first that cannot. */
static int check_stores(void)
{
	unsigned int i;

	for (i = 0; i < write_count; i++) {
		const char *why = ss_arch_cannot_write(writes[i].addr, writes[i].len);

		if (!why)
			continue;
		pr_err(SS_LOG "refused: %s cannot be written in one store at %pS: %s\n",
		       writes[i].name, (void *)writes[i].addr, why);
		return -EOPNOTSUPP;
	}
	return 0;
}

/* Plans the load or the switch: what is written where, and what it replaces. Changes nothing. */
int ss_text_prepare(const struct ss_handover *predecessor)
{
	const struct ss_writes none = {}, *held = predecessor ? &predecessor->writes : &none;
	unsigned int i, total = ss_patch_count + held->count;
	int err = ss_veneers_make();

	if (err)
		return err;
	for (i = 0; i < ss_class_count; i++)
		total += plan_class(NULL, &ss_classes[i], held);
	writes = kvcalloc(total ?: 1, sizeof(*writes), GFP_KERNEL);
	if (!writes)
		return -ENOMEM;
	write_count = 0;
	for (i = 0; i < ss_patch_count && !err; i++)
		err = plan_window(&writes[write_count++], i, held);
	for (i = 0; i < ss_class_count && !err; i++)
		write_count += plan_class(&writes[write_count], &ss_classes[i], held);
	if (!err) {
		plan_to_give_back(held);
		err = check_stores();
	}
	if (err)
		ss_text_forget();
	return err;
}

/* After a switch: forgets what was only given back to vmlinux. The rest is offered to a successor. */
void ss_text_settle(void)
{
	unsigned int i, kept = 0;

	for (i = 0; i < write_count; i++)
		if (memcmp(writes[i].old, writes[i].new, writes[i].len))
			writes[kept++] = writes[i];
	write_count = kept;
	ss_handover.writes = (struct ss_writes){ writes, write_count };
}

void ss_text_forget(void)
{
	kvfree(writes);
	writes = NULL;
	write_count = 0;
	ss_handover.writes = (struct ss_writes){};
}

/* The module is being removed, and no thread is in its code. */
void ss_text_release(void)
{
	ss_veneers_free();
}

static int compare_pages(const void *a, const void *b)
{
	unsigned long x = *(const unsigned long *)a, y = *(const unsigned long *)b;

	return x < y ? -1 : x > y;
}

static unsigned int index_of_page(const unsigned long *pages, unsigned int count, unsigned long page)
{
	unsigned int low = 0, high = count;

	while (high - low > 1) {
		unsigned int mid = low + (high - low) / 2;

		if (pages[mid] <= page)
			low = mid;
		else
			high = mid;
	}
	return low;
}

/*
 * Maps every page that is written to, writable and not executable, one after another. The pages are sorted, so a
 * run of bytes that crosses into the next page is contiguous in the alias too.
 */
int ss_text_map(void)
{
	unsigned int i, count = 0, unique = 0;
	unsigned long *addresses = NULL;
	struct page **pages = NULL;
	int err = -ENOMEM;

	if (!write_count)
		return 0;
	addresses = kvmalloc_array(2 * write_count, sizeof(*addresses), GFP_KERNEL);
	pages = kvmalloc_array(2 * write_count, sizeof(*pages), GFP_KERNEL);
	if (!addresses || !pages)
		goto out;
	for (i = 0; i < write_count; i++) {
		addresses[count++] = writes[i].addr & PAGE_MASK;
		addresses[count++] = (writes[i].addr + writes[i].len - 1) & PAGE_MASK;
	}
	sort(addresses, count, sizeof(*addresses), compare_pages, NULL);
	for (i = 0; i < count; i++)
		if (!unique || addresses[unique - 1] != addresses[i])
			addresses[unique++] = addresses[i];
	for (i = 0; i < unique; i++)	/* addresses of the kernel image: __pa_symbol, not __pa */
		pages[i] = pfn_to_page(__phys_to_pfn(__pa_symbol(addresses[i])));
	alias_base = vmap(pages, unique, VM_MAP, PAGE_KERNEL);
	if (!alias_base)
		goto out;
	for (i = 0; i < write_count; i++)
		writes[i].alias = alias_base + offset_in_page(writes[i].addr) + PAGE_SIZE *
			(unsigned long)index_of_page(addresses, unique, writes[i].addr & PAGE_MASK);
	err = 0;
out:
	kvfree(addresses);
	kvfree(pages);
	return err;
}

void ss_text_unmap(void)
{
	vunmap(alias_base);	/* may sleep; NULL is fine */
	alias_base = NULL;
}

/*
 * Until ss_text_unlock nothing else arms a kprobe, toggles a jump label or patches in any other way, so no half-done
 * int3 is in the text. kprobes.c takes the three in this order; stop_machine needs the middle one.
 */
void ss_text_lock(void)
{
#ifdef CONFIG_KPROBES
	mutex_lock(&kprobe_mutex);
#endif
	cpus_read_lock();
	mutex_lock(&text_mutex);
}

void ss_text_unlock(void)
{
	mutex_unlock(&text_mutex);
	cpus_read_unlock();
#ifdef CONFIG_KPROBES
	mutex_unlock(&kprobe_mutex);
#endif
}

/* With the text locked: is every place as planned and free of probes? Names the first that is not. */
int ss_text_check(enum ss_op op)
{
	unsigned int i;

	for (i = 0; i < write_count; i++) {
		const struct ss_write *w = &writes[i];

		if (memcmp((void *)w->addr, bytes_before(w, op), w->len) ||
		    (w->is_text && has_kprobe(w->addr, w->addr + w->len)))
			return refuse(w, bytes_before(w, op));
	}
	return 0;
}

/* Inside the stop: the same once more, against patchers that take no lock. */
bool ss_text_is_as_checked(enum ss_op op)
{
	unsigned int i;

	for (i = 0; i < write_count; i++)
		if (memcmp((void *)writes[i].addr, bytes_before(&writes[i], op), writes[i].len))
			return false;
	return true;
}

/*
 * Inside the stop, on one CPU, while all others wait in our handler with interrupts off: nothing executes the
 * windows or calls through a class now, except what an NMI runs. Each place is written by one store, so an NMI finds
 * the old code or the new.
 */
void ss_text_write(enum ss_op op)
{
	unsigned int i;

	for (i = 0; i < write_count; i++) {
		ss_arch_write(writes[i].alias, bytes_after(&writes[i], op), writes[i].len);
		if (writes[i].is_text)
			ss_arch_text_written(writes[i].addr, writes[i].len);
	}
}

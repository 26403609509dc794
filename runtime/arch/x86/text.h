/* SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause */
/* What x86-64 needs to divert a function, and to find a sleeping thread's stack. */
#ifndef SS_ARCH_X86_TEXT_H
#define SS_ARCH_X86_TEXT_H

#include <linux/errno.h>
#include <linux/limits.h>
#include <linux/string.h>
#include <linux/sched.h>
#include <asm/cpufeature.h>
#include <asm/sync_core.h>
#include "schedswap.h"

/* asm/tlb.h, which the scheduler's header includes, uses it. Kernels from 5.8 on hid it from modules. */
void flush_tlb_mm_range(struct mm_struct *mm, unsigned long start, unsigned long end, unsigned int stride_shift,
			bool freed_tables);

#define SS_JUMP_LEN 5		/* jmp rel32 */

/* A jmp reaches wherever modules lie: no veneers are needed. */
static inline int ss_veneers_make(void)
{
	return 0;
}

static inline unsigned long ss_veneer(unsigned int patch)
{
	return ss_patches[patch].target;
}

static inline void ss_veneers_free(void)
{
}

/* Writes `len` bytes that jump from `site` to `target`; what is left of the window is int3, never reached. */
static inline int ss_arch_make_jump(u8 *out, u8 len, unsigned long site, unsigned long target)
{
	long distance = (long)(target - (site + SS_JUMP_LEN));

	if (len < SS_JUMP_LEN || distance < S32_MIN || distance > S32_MAX)
		return -ERANGE;
	memset(out, 0xcc, len);
	out[0] = 0xe9;
	out[1] = distance;
	out[2] = distance >> 8;
	out[3] = distance >> 16;
	out[4] = distance >> 24;
	return 0;
}

static inline bool ss_is_in_one_word(unsigned long addr, u8 len, unsigned int word)
{
	return addr / word == (addr + len - 1) / word;
}

/* Why ss_arch_write cannot write these bytes, or NULL. */
static inline const char *ss_arch_cannot_write(unsigned long addr, u8 len)
{
	if (ss_is_in_one_word(addr, len, sizeof(u64)))
		return NULL;
	if (!ss_is_in_one_word(addr, len, 2 * sizeof(u64)))
		return "the bytes cross a 16-byte boundary";
	return boot_cpu_has(X86_FEATURE_CX16) ? NULL : "the CPU has no cmpxchg16b";
}

/* `word` is aligned to its size. If it is no longer `old`, that is read again. */
static inline bool ss_compare_and_exchange(u64 word[2], u64 old[2], const u64 new[2])
{
	bool done;

	asm volatile("lock cmpxchg16b %[word]"
		     : "=@ccz" (done), [word] "+m" (*(u64 (*)[2])word), "+a" (old[0]), "+d" (old[1])
		     : "b" (new[0]), "c" (new[1])
		     : "memory");
	return done;
}

/*
 * One store, because an NMI on another CPU may run these bytes now: in two stores there would be a moment in which
 * the jump leads nowhere. The rest of the word stays as it is; nothing else writes there (see ss_text_lock).
 */
static inline void ss_arch_write(u8 *alias, const u8 *bytes, u8 len)
{
	unsigned long at = (unsigned long)alias;
	u64 old[2], new[2], *word;

	if (ss_is_in_one_word(at, len, sizeof(u64))) {
		word = (u64 *)(at & -sizeof(u64));
		new[0] = READ_ONCE(*word);
		memcpy((u8 *)new + at % sizeof(u64), bytes, len);
		WRITE_ONCE(*word, new[0]);
		return;
	}
	word = (u64 *)(at & -sizeof(old));
	memcpy(old, word, sizeof(old));
	do {
		memcpy(new, old, sizeof(new));
		memcpy((u8 *)new + at % sizeof(new), bytes, len);
	} while (!ss_compare_and_exchange(word, old, new));
}

/* x86 keeps instruction caches coherent by physical address: the write needs no cache maintenance. */
static inline void ss_arch_text_written(unsigned long addr, unsigned long len)
{
}

/*
 * Cross-modifying code (Intel SDM 3A 9.1.3): a CPU that may have fetched the old bytes executes a serialising
 * instruction after the write and before it runs the code again.
 */
static inline void ss_arch_sync_core(void)
{
	sync_core();
}

/* Stack pointer that __switch_to_asm saved. Only meaningful while `p` is not running. */
static inline unsigned long ss_arch_saved_sp(struct task_struct *p)
{
	return READ_ONCE(p->thread.sp);
}

/* A return address as it is on a stack. */
static inline unsigned long ss_arch_plain(unsigned long addr)
{
	return addr;
}

#endif

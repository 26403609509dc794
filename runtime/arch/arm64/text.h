/* SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause */
/* What arm64 needs to divert a function, and to find a sleeping thread's stack. */
#ifndef SS_ARCH_ARM64_TEXT_H
#define SS_ARCH_ARM64_TEXT_H

#include <linux/errno.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/string.h>
#include <asm/barrier.h>
#include <asm/cacheflush.h>
#include <asm/pointer_auth.h>

#define SS_JUMP_LEN 4		/* b */

/*
 * A `b` reaches 128 MB, and modules lie up to 2 GB from the kernel. So each function is diverted through a veneer
 * near the kernel's text; veneers.c makes them.
 */
int ss_veneers_make(void);
unsigned long ss_veneer(unsigned int patch);
void ss_veneers_free(void);

/* Writes the instruction that jumps from `site` to `target`. */
static inline int ss_arch_make_jump(u8 *out, u8 len, unsigned long site, unsigned long target)
{
	long distance = (long)(target - site);
	u32 jump = 0x14000000 | ((distance >> 2) & 0x03ffffff);

	if (len != SS_JUMP_LEN || distance % 4 || distance < -(long)SZ_128M || distance >= (long)SZ_128M)
		return -ERANGE;
	jump = cpu_to_le32(jump);	/* instructions are little-endian whatever data is */
	memcpy(out, &jump, SS_JUMP_LEN);
	return 0;
}

/* Why ss_arch_write cannot write these bytes, or NULL. */
static inline const char *ss_arch_cannot_write(unsigned long addr, u8 len)
{
	if (len != sizeof(u32) && len != sizeof(u64))
		return "the bytes are neither an instruction nor a pointer";
	return addr % len ? "the bytes are not aligned" : NULL;
}

/* One store of an instruction or a pointer: what runs meanwhile finds the old one or the new one. */
static inline void ss_arch_write(u8 *alias, const u8 *bytes, u8 len)
{
	u64 pointer;
	u32 instruction;

	if (len == sizeof(pointer)) {
		memcpy(&pointer, bytes, sizeof(pointer));
		WRITE_ONCE(*(u64 *)alias, pointer);
	} else {
		memcpy(&instruction, bytes, sizeof(instruction));
		WRITE_ONCE(*(u32 *)alias, instruction);
	}
}

/*
 * Cleans what was written through another mapping of the same page to the point where instruction caches see it,
 * and invalidates those, for all CPUs ("Arm Architecture Reference Manual", B2.7.4).
 */
static inline void ss_arch_text_written(unsigned long addr, unsigned long len)
{
	caches_clean_inval_pou(addr, addr + len);
}

/* A CPU may have fetched the old instruction already. */
static inline void ss_arch_sync_core(void)
{
	isb();
}

/* Stack pointer that cpu_switch_to saved. Only meaningful while `p` is not running. */
static inline unsigned long ss_arch_saved_sp(struct task_struct *p)
{
	return READ_ONCE(p->thread.cpu_context.sp);
}

/* A return address as it is on a stack, without its signature. */
static inline unsigned long ss_arch_plain(unsigned long addr)
{
#if defined(ptrauth_strip_kernel_insn_pac)	/* from 6.5 on, asm/compiler.h */
	return ptrauth_strip_kernel_insn_pac(addr);
#elif defined(CONFIG_ARM64_PTR_AUTH_KERNEL)
	return ptrauth_strip_insn_pac(addr);
#else
	return addr;
#endif
}

/* walk.c: calls `consume` with each return address of a thread that is not running; -EINVAL if it cannot see all. */
int ss_arch_stack_walk(bool (*consume)(void *cookie, unsigned long addr), void *cookie, struct task_struct *p);

#endif

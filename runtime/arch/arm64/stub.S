/* SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause */
/*
 * The way into the new __schedule and, when it switches, out of it through vmlinux.
 *
 * Every sleeping thread's stack leads to the springboard: the `bl __switch_to` in vmlinux's __schedule. What
 * runs when the thread wakes is vmlinux's own code after that call, and it expects vmlinux's own frame. So this
 * stub builds that frame, calls the new __schedule (`__schedule.ss`, whose frame may have any size) below it, and
 * when that one switches, abandons the frames below and branches to the springboard. A sleeping thread then
 * holds nothing of the module.
 *
 *   CFA     the caller's stack pointer
 *           slots of callee-saved registers, canary, frame record (x29, x30), as vmlinux's __schedule has them
 *           (frame sp: the stack pointer at the springboard)
 *   ------  callee-saved registers that vmlinux's tail leaves alone (none on kernels seen so far)
 *           frames of __schedule.ss and what it calls
 *
 * springboard.h describes that frame; it is generated from vmlinux's code:
 *   SS_SPRINGBOARD	the springboard, as an offset from an exported symbol
 *   SS_SIGNED		1 if the return address is signed, the CFA being the modifier
 *   SS_FRAME_SIZE	bytes between the CFA and the frame sp
 *   SS_FRAME_RECORD	where the frame record is, from the frame sp
 *   SS_EACH_SLOT(op)	op(register, offset from the frame sp), except for the frame record
 *   SS_EACH_KEPT(op)	op(register), for each register that the tail leaves alone
 *   SS_EACH_KEPT_BACK(op) the same in reverse order
 *   SS_KEPT_SIZE	bytes these take
 *   SS_EACH_CONSTANT(op)	op(register, number), for each register in which the tail always finds the same number
 *   SS_GUARD, SS_CANARY	where the running thread has its guard, and the offset from the frame sp of its copy;
 *			undefined for a kernel without stack protector
 */
#include <linux/linkage.h>

#include "springboard.h"

/* The stack pointer is a multiple of 16. */
#define KEPT_SIZE	((SS_KEPT_SIZE + 15) / 16 * 16)

#define STORE(reg, at)	str reg, [sp, at];
#define LOAD(reg, at)	ldr reg, [sp, at];
#define PUSH(reg)	str reg, [x9], 8;
#define POP(reg)	ldr reg, [x9], 8;
#define SET(reg, number)	mov reg, number;

	.text

/*
 * vmlinux's __schedule branches here from its entry, so the stack and all registers are as its caller left
 * them, except x16 and x17, which veneers use. Preemption is off. All argument registers must reach
 * __schedule.ss; x9 is free.
 */
SYM_START(ss_schedule_stub, SYM_L_GLOBAL, SYM_A_ALIGN)
#if SS_SIGNED
	hint	25			/* paciasp: the tail authenticates */
#endif
	sub	sp, sp, SS_FRAME_SIZE
	stp	x29, x30, [sp, SS_FRAME_RECORD]
	add	x29, sp, SS_FRAME_RECORD
	SS_EACH_SLOT(STORE)
#ifdef SS_GUARD
	mrs	x9, sp_el0
	ldr	x9, [x9, SS_GUARD]
	str	x9, [sp, SS_CANARY]
#endif
#if SS_KEPT_SIZE
	sub	sp, sp, KEPT_SIZE
	mov	x9, sp
	SS_EACH_KEPT(PUSH)
#endif
	mov	x9, 0			/* no guard in a register */

	bl	__schedule.ss

	/* It returned: there was no thread to switch to. Undo the frame. */
#if SS_KEPT_SIZE
	mov	x9, sp
	SS_EACH_KEPT(POP)
	add	sp, sp, KEPT_SIZE
#endif
	SS_EACH_SLOT(LOAD)
	ldp	x29, x30, [sp, SS_FRAME_RECORD]
	add	sp, sp, SS_FRAME_SIZE
#if SS_SIGNED
	hint	29			/* autiasp */
#endif
	ret

	/*
	 * `bl __switch_to` in __schedule.ss leads here: x0 is the previous thread, x1 the next one. Of
	 * __schedule.ss's own registers only x29 is still needed: its frame record leads to the stub's,
	 * as the kernel is built with frame pointers. The stack pointer moves last, because anything may
	 * overwrite what is below it.
	 */
SYM_INNER_LABEL(ss_switch_to, SYM_L_GLOBAL)
	ldr	x29, [x29]
#if SS_KEPT_SIZE
	sub	x9, x29, SS_FRAME_RECORD + KEPT_SIZE
	SS_EACH_KEPT(POP)
#endif
	sub	sp, x29, SS_FRAME_RECORD
	SS_EACH_CONSTANT(SET)
	b	SS_SPRINGBOARD
SYM_FUNC_END(ss_schedule_stub)

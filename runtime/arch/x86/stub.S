/* SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause */
/*
 * The way into the new __schedule and, when it switches, out of it through vmlinux.
 *
 * Every sleeping thread's stack ends at the springboard: the `call __switch_to_asm` in vmlinux's
 * __schedule. What runs when the thread wakes is vmlinux's own code after that call, and it expects
 * vmlinux's own frame. So this stub builds that frame, calls the new __schedule (`__schedule.ss`, whose frame
 * may have any size) below it, and when that one switches, abandons the frames below and jumps to the
 * springboard. A sleeping thread then holds nothing of the module.
 *
 *   CFA-8   return address into __schedule's caller          \
 *           slots of callee-saved registers, canary          | as vmlinux's __schedule has it
 *           (frame sp: rsp at the springboard)               /
 *           callee-saved registers that vmlinux's tail leaves alone, so that it returns to the caller
 *           what they hold at the springboard (none on kernels seen so far)
 *   ------  ss_frame_sp, kept for this CPU
 *           return address into this stub, frame of __schedule.ss, return address into __schedule.ss
 *
 * springboard.h describes that frame; it is generated from vmlinux's code:
 *   SS_SPRINGBOARD	the springboard, as an offset from an exported symbol
 *   SS_BASE_RBP	1 if rbp is the frame base there (rbp = CFA-16, the caller's rbp saved where it points)
 *   SS_FRAME_SIZE	bytes between the return address and the frame sp
 *   SS_EACH_SLOT(op)	op(register, offset from the frame sp); with SS_BASE_RBP, not rbp
 *   SS_EACH_KEPT(op)	op(register), for each register that the tail leaves alone
 *   SS_EACH_KEPT_BACK(op) the same in reverse order
 *   SS_KEPT_SIZE	bytes these take
 *   SS_EACH_CONSTANT(op)	op(register, number), for each register in which the tail always finds the same number
 *   SS_GUARD, SS_CANARY	the kernel's guard as an operand, and the offset from the frame sp of its copy;
 *			undefined for a kernel without stack protector
 */
#include <linux/linkage.h>
#include <asm/asm.h>
#include <asm/nospec-branch.h>
#include <asm/percpu.h>
#include <asm/unwind_hints.h>

#include "springboard.h"

#define STORE(reg, at)	movq %reg, at(%rsp);
#define LOAD(reg, at)	movq at(%rsp), %reg;
#define PUSH(reg)	pushq %reg;
#define POP(reg)	popq %reg;
#define SET(reg, number) movq $number, %reg;

	.text

/*
 * vmlinux's __schedule jumps here from its entry, so the stack and all registers are as its caller left them.
 * Preemption is off. All argument registers must reach __schedule.ss; rax is free. No endbr: only direct
 * jumps lead here.
 */
SYM_START(ss_schedule_stub, SYM_L_GLOBAL, SYM_A_ALIGN)
#if SS_BASE_RBP
	pushq	%rbp
	movq	%rsp, %rbp
	subq	$(SS_FRAME_SIZE - 8), %rsp
#else
	subq	$(SS_FRAME_SIZE), %rsp
#endif
	SS_EACH_SLOT(STORE)
#ifdef SS_GUARD
	movq	SS_GUARD, %rax
	movq	%rax, SS_CANARY(%rsp)
	xorl	%eax, %eax
#endif
	SS_EACH_KEPT(PUSH)
	/*
	 * Preemption stays off until the switch, so no other thread enters here on this CPU before
	 * ss_switch_to reads this back.
	 */
	movq	%rsp, PER_CPU_VAR(ss_frame_sp)

	UNWIND_HINT_SAVE
	call	__schedule.ss

	/* It returned: there was no thread to switch to. Undo the frame. */
	SS_EACH_KEPT_BACK(POP)
	SS_EACH_SLOT(LOAD)
#if SS_BASE_RBP
	leave
#else
	addq	$(SS_FRAME_SIZE), %rsp
#endif
	RET

	/*
	 * `call __switch_to_asm` in __schedule.ss leads here: rdi is the previous thread, rsi the next one.
	 * __schedule.ss's own registers are not needed any more.
	 *
	 * How an unwinder (an NMI's) sees each instruction: until rsp is loaded, or rbp with a frame base,
	 * this is a function just called by __schedule.ss, whose frame it finds by its own registers.
	 * From that very instruction on it is the stub at its call: that needs a hint, and the hint's SAVE
	 * must be in the same function, hence an inner label. Call depth tracking may patch the call to go
	 * to the padding before the label.
	 */
#ifdef CONFIG_CALL_PADDING
	UNWIND_HINT_FUNC
	.skip	16, 0x90
#endif
SYM_INNER_LABEL(ss_switch_to, SYM_L_GLOBAL)
	UNWIND_HINT_FUNC
	movq	PER_CPU_VAR(ss_frame_sp), %rax
#if SS_BASE_RBP
	leaq	(SS_KEPT_SIZE + SS_FRAME_SIZE - 8)(%rax), %rbp
	UNWIND_HINT_RESTORE
	movq	%rax, %rsp
#else
	movq	%rax, %rsp
	UNWIND_HINT_RESTORE
	nop		/* carries the hint */
#endif
	SS_EACH_KEPT_BACK(POP)
	SS_EACH_CONSTANT(SET)
SYM_FUNC_END(ss_schedule_stub)

/*
 * Continues from above. It has its own symbol, which is not a function, because objtool takes a jump out
 * of a function for a sibling call, which must not leave a frame on the stack; this one must.
 */
SYM_CODE_START_LOCAL_NOALIGN(ss_springboard)
	jmp	SS_SPRINGBOARD
SYM_CODE_END(ss_springboard)

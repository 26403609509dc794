// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * Walks the stack of a thread that is not running, by its frame records.
 *
 * The kernel's own unwinder does not say whether it reached the end, so the records are followed here: each holds the
 * next one's address and a return address, signed or not. The last one of each thread is empty
 * (arch/arm64/kernel/entry.S, copy_thread()).
 */
#include <linux/errno.h>
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/sched.h>
#include <linux/sched/task_stack.h>
#include <asm/ptrace.h>
#include <asm/traps.h>
#include "runtime.h"
#include "compat.h"

/*
 * From 6.13 on an empty record may also be an exception's, and what it interrupted is in the registers after it.
 * Kernels from 6.17 on walk stacks reliably themselves, and this file is not used.
 */
#if defined(FRAME_META_TYPE_PT_REGS) && !defined(CONFIG_HAVE_RELIABLE_STACKTRACE)
#error "schedswap: this kernel's exceptions leave frame records that are not understood yet"
#endif

struct record {
	unsigned long next, lr;
};

/* Code that stands in for a return address, which is kept elsewhere. */
static bool is_trampoline(unsigned long addr)
{
#ifdef CONFIG_FUNCTION_GRAPH_TRACER
	if (addr == (unsigned long)&return_to_handler)
		return true;
#endif
#ifdef CONFIG_KRETPROBES
	if (ss_is_kretprobe_trampoline(addr))
		return true;
#endif
	return false;
}

static bool is_record(const void *stack, unsigned long at, unsigned long after)
{
	unsigned long end = (unsigned long)stack + THREAD_SIZE - sizeof(struct record);

	return at > after && at >= (unsigned long)stack && at <= end && at % sizeof(long) == 0;
}

/* The caller holds the stack. The thread is not running; if it is, the caller ignores the result. */
int ss_arch_stack_walk(bool (*consume)(void *cookie, unsigned long addr), void *cookie, struct task_struct *p)
{
	unsigned long at = READ_ONCE(p->thread.cpu_context.fp), pc = ss_arch_plain(READ_ONCE(p->thread.cpu_context.pc));
	const void *stack = task_stack_page(p);
	unsigned long before = 0;

	for (;;) {
		const struct record *record = (void *)at;
		unsigned long next, lr;

		if (!consume(cookie, pc))
			return 0;
		if (is_trampoline(pc) || !is_record(stack, at, before))
			return -EINVAL;
		next = READ_ONCE_NOCHECK(record->next);
		lr = READ_ONCE_NOCHECK(record->lr);
		if (!next && !lr)
			return 0;
		/*
		 * Entry code has put this record into the registers that it saved. It may have interrupted a function that
		 * has no record of its own: then that function's caller is in the link register only.
		 */
		if (in_entry_text(pc)) {
			const struct pt_regs *regs = container_of((void *)at, struct pt_regs, stackframe);

			if (!is_record(stack, (unsigned long)regs, 0))
				return -EINVAL;
			if (!consume(cookie, ss_arch_plain(READ_ONCE_NOCHECK(regs->regs[30]))))
				return 0;
		}
		before = at;
		at = next;
		pc = ss_arch_plain(lr);
	}
}

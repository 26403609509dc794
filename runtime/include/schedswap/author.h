/* SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause */
/*
 * What the author of a scheduler may declare to the runtime in the same module: state of threads, groups and run
 * queues beyond the kernel's structures, and functions to be called around a swap.
 *
 * Include it after "sched.h". Only builds that go into a module find it.
 */
#ifndef SCHEDSWAP_AUTHOR_H
#define SCHEDSWAP_AUTHOR_H

#include <linux/compiler.h>
#include <linux/kernel.h>
#include <linux/log2.h>
#include <linux/percpu.h>
#include <linux/types.h>

/*
 * State
 *
 *	struct my_task { u64 ran_ns; unsigned int hops; };
 *	SCHEDSWAP_TASK_STATE(struct my_task, my_task);
 *
 * defines `struct my_task *my_task(struct task_struct *p)`. It returns the thread's own record: zeroed at first, the same
 * for as long as the thread exists and the scheduler runs, never NULL, in constant time. It may be called wherever the
 * scheduler may look at `p`, but not from an NMI, and not after free_task has begun on it.
 *
 *	SCHEDSWAP_GROUP_STATE(type, name)	the same for a struct task_group
 *	SCHEDSWAP_RQ_STATE(type, name)		the same for a struct rq; at most 32 kB
 *
 * To use it in other files too, declare it in a header they share (SCHEDSWAP_DECLARE_TASK_STATE(type, name), …) as well.
 *
 * These options may follow the name, separated by commas:
 *
 *	.init = fn	void fn(type *state, struct task_struct *p): called once for each record, before any code sees it.
 *			Called inside fork, or on first use of a thread that existed before: so with interrupts off and
 *			perhaps with run queues locked. It must not take locks, sleep or allocate, and it must access this
 *			record only through `state`. In fork, `p` is still a copy
 *			of its parent and `current` is that parent. For run queues: before the stop, may sleep.
 *	.exit = fn	void fn(type *state): called once for each record, when the object is freed, or the scheduler
 *			has been unloaded, or a version that does not keep the record has taken over. The object may be
 *			freed already. Interrupts may be off; kfree() is fine. No locks, no sleeping.
 *	.keeps_pointers = true
 *			The next version may take the records over although they hold pointers. The author promises that
 *			no pointer leads to a function or variable of the module itself, only to other records, to
 *			allocated memory, or into vmlinux.
 *
 * When the next version takes over and declares a state of the same name and type, the records stay as they are. If
 * anything of the type differs, or if it holds pointers and one of the two does not say .keeps_pointers, the next
 * version starts with new ones.
 *
 * There must be memory for all objects before the swap: otherwise it is refused with -ENOMEM, and nothing has changed.
 */

enum ss_kind_id { SS_KIND_TASK = 1, SS_KIND_GROUP, SS_KIND_RQ };

/*
 * Records, or other data with one entry per slot, in pieces that never move. Slot 0 is never used. Modules built by
 * other versions of schedswap know both this struct and the next: see runtime/handover.h.
 */
struct ss_table {
	u8 **pieces;
	u32 capacity;		/* slots there is memory for; written last, so that a reader of it finds the pieces */
	u32 stride;		/* bytes of a record */
	u32 shift;		/* a piece has 1 << shift records */
	u32 room;		/* how many pieces `pieces` can list */
};

/* For one type of object; the functions really take pointers to that type and to the author's. */
struct ss_state_calls {
	void (*init)(void *state, void *object);
	void (*exit)(void *state);
	bool keeps_pointers;
};

/* One state. The build reads `kind` where the compiler put it: first. */
struct schedswap_state {
	u32 kind;
	u32 hole;		/* where in the object the number of its slot is */
	struct ss_table table;
	const void *(*make)(struct schedswap_state *state, const void *object);	/* when the fast path finds no record */
	void __percpu *per_cpu;
	void *last_resort;
	const char *name;
	const struct ss_state_calls *calls;
	u32 size;		/* of the author's type */
	u32 offset;		/* of the author's type in a record */
};

/* Large enough for the allocator to hand out whole pages: pieces are page-aligned. */
#define SS_PIECE_BYTES 16384
#define SS_SHIFT(stride) ((stride) >= SS_PIECE_BYTES ? 0 : ilog2(SS_PIECE_BYTES / (stride)))

/*
 * The hole is padding: a fork copies the parent's number into it, and a scheduler that has been unloaded may have left
 * one. So a number means nothing until the record says that it belongs to this object. Records stay where they are
 * for as long as this code runs, so reading one is always safe.
 */
static __always_inline const void *ss_record_of(struct schedswap_state *state, const void *object, u32 stride)
{
	u32 slot = READ_ONCE(*(const u32 *)(object + state->hole));

	if (likely(slot < smp_load_acquire(&state->table.capacity))) {
		u32 shift = SS_SHIFT(stride);
		const void *record = READ_ONCE(state->table.pieces)[slot >> shift] +
				     (size_t)(slot & ((1u << shift) - 1)) * stride;

		if (likely(smp_load_acquire((const void *const *)record) == object))
			return record;
	}
	return state->make(state, object);
}

#define SS_DECLARE_STATE(type, label, object_type)						\
	struct label##__record {								\
		const void *owner;								\
		type state;									\
	};											\
	extern struct schedswap_state label##__state;						\
	static inline __maybe_unused type *label(object_type *object)				\
	{											\
		const struct label##__record *record =						\
			ss_record_of(&label##__state, object, sizeof(struct label##__record));	\
												\
		return (type *)&record->state;							\
	}

#define SCHEDSWAP_DECLARE_TASK_STATE(type, label)  SS_DECLARE_STATE(type, label, struct task_struct)
#define SCHEDSWAP_DECLARE_GROUP_STATE(type, label) SS_DECLARE_STATE(type, label, struct task_group)

#define SCHEDSWAP_DECLARE_RQ_STATE(type, label)							\
	struct label##__record {								\
		type state;									\
	};											\
	extern struct schedswap_state label##__state;						\
	static inline __maybe_unused type *label(struct rq *rq)					\
	{											\
		struct label##__record __percpu *records = label##__state.per_cpu;		\
												\
		return &per_cpu_ptr(records, cpu_of(rq))->state;				\
	}

#define SS_DEFINE_STATE(id, type, label, object_type, ...)					\
	static const struct {									\
		void (*init)(type *state, object_type *object);					\
		void (*exit)(type *state);							\
		bool keeps_pointers;								\
	} label##__calls = { __VA_ARGS__ };							\
	static_assert(__alignof__(struct label##__record) <= PAGE_SIZE);			\
	struct schedswap_state label##__state __used __section(".schedswap.state") = {		\
		.kind = id,									\
		.name = #label,									\
		.calls = (const struct ss_state_calls *)&label##__calls,			\
		.size = sizeof(type),								\
		.offset = offsetof(struct label##__record, state),				\
		.table = {									\
			.stride = sizeof(struct label##__record),				\
			.shift = SS_SHIFT(sizeof(struct label##__record)),			\
		},										\
	}

#define SCHEDSWAP_TASK_STATE(type, label, ...)							\
	SCHEDSWAP_DECLARE_TASK_STATE(type, label)						\
	SCHEDSWAP_DEFINE_TASK_STATE(type, label, __VA_ARGS__)
#define SCHEDSWAP_GROUP_STATE(type, label, ...)							\
	SCHEDSWAP_DECLARE_GROUP_STATE(type, label)						\
	SCHEDSWAP_DEFINE_GROUP_STATE(type, label, __VA_ARGS__)
#define SCHEDSWAP_RQ_STATE(type, label, ...)							\
	SCHEDSWAP_DECLARE_RQ_STATE(type, label)							\
	SCHEDSWAP_DEFINE_RQ_STATE(type, label, __VA_ARGS__)

/* For a state that a header has declared already. */
#define SCHEDSWAP_DEFINE_TASK_STATE(type, label, ...)						\
	SS_DEFINE_STATE(SS_KIND_TASK, type, label, struct task_struct, __VA_ARGS__)
#define SCHEDSWAP_DEFINE_GROUP_STATE(type, label, ...)						\
	SS_DEFINE_STATE(SS_KIND_GROUP, type, label, struct task_group, __VA_ARGS__)
#define SCHEDSWAP_DEFINE_RQ_STATE(type, label, ...)						\
	static_assert(sizeof(struct label##__record) <= PCPU_MIN_UNIT_SIZE);			\
	SS_DEFINE_STATE(SS_KIND_RQ, type, label, struct rq, __VA_ARGS__)

/*
 * Hooks
 *
 *	static int ready(enum schedswap_event event) { … return 0; }
 *	SCHEDSWAP_BEFORE_SWAP(ready);
 *
 *	when			what is allowed
 *	BEFORE_SWAP		Machine running, on the previous scheduler. May sleep and allocate. Returns int: non-zero refuses
 *				the swap with that error.
 *	IN_SWAP			Inside the stop: interrupts off, all other CPUs waiting, no thread on any run queue, this
 *				code about to become the current one. (Up to 6.17, a group without threads may still be
 *				queued below one whose quota is used up.) Memory may be read and written. No locks (the
 *				holder may be stopped), no sleeping, no allocation, no wake-ups; printk_deferred() only.
 *				The whole machine waits for it to return.
 *	AFTER_SWAP		Machine running, on this scheduler. May sleep and allocate. The place to start timers.
 *	BEFORE_UNLOAD		Machine running, on this scheduler, which runs until the stop: make sure that nothing is armed
 *				again, stop timers, flush work. May sleep and allocate.
 *	IN_UNLOAD		Inside the stop, as IN_SWAP; this code has just ceased to be the current one.
 *	AFTER_UNLOAD		Machine running, on the next scheduler. May sleep. The states still exist. This is the last time
 *				the module's code runs: once it has returned, nothing may lead into the module.
 *
 * `event` says which swap it is. If the swap is refused after its BEFORE_ hooks have been called (because of a busy
 * thread, say: the loader tries again), their counterparts are called with SCHEDSWAP_REFUSED: AFTER_UNLOAD if
 * BEFORE_SWAP was called, AFTER_SWAP if BEFORE_UNLOAD was called.
 *
 * Several hooks at one point are called in the order in which they appear in the scheduler's units, and in reverse order
 * at the three unload points.
 */

enum schedswap_event {
	SCHEDSWAP_LOAD,		/* in: the kernel's own scheduler has run until now */
	SCHEDSWAP_TAKE_OVER,	/* in: another module's has run until now */
	SCHEDSWAP_UNLOAD,	/* out: the kernel's own runs next */
	SCHEDSWAP_HAND_OVER,	/* out: another module's runs next */
	SCHEDSWAP_REFUSED,	/* nothing was swapped */
};

enum ss_hook_point {
	SS_BEFORE_SWAP, SS_IN_SWAP, SS_AFTER_SWAP, SS_BEFORE_UNLOAD, SS_IN_UNLOAD, SS_AFTER_UNLOAD,
};

struct ss_hook {
	u32 point;
	int (*ask)(enum schedswap_event event);		/* SS_BEFORE_SWAP */
	void (*call)(enum schedswap_event event);	/* all others */
};

#define SS_HOOK(at, point_name, member, fn)							\
	static const struct ss_hook ss_##point_name##__##fn __used __section(".schedswap.hooks") = { \
		.point = at,									\
		.member = fn,									\
	}

#define SCHEDSWAP_BEFORE_SWAP(fn)	SS_HOOK(SS_BEFORE_SWAP, before_swap, ask, fn)
#define SCHEDSWAP_IN_SWAP(fn)		SS_HOOK(SS_IN_SWAP, in_swap, call, fn)
#define SCHEDSWAP_AFTER_SWAP(fn)	SS_HOOK(SS_AFTER_SWAP, after_swap, call, fn)
#define SCHEDSWAP_BEFORE_UNLOAD(fn)	SS_HOOK(SS_BEFORE_UNLOAD, before_unload, call, fn)
#define SCHEDSWAP_IN_UNLOAD(fn)		SS_HOOK(SS_IN_UNLOAD, in_unload, call, fn)
#define SCHEDSWAP_AFTER_UNLOAD(fn)	SS_HOOK(SS_AFTER_UNLOAD, after_unload, call, fn)

#endif
